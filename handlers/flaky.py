"""A handler that fails at first: to see the retries of a step at work."""

from __future__ import annotations

from supervisor import Context, handler


class Unlucky(Exception):
    """Its name is the error type that the retry policy of a step can match (`error_equals`)."""


@handler("flaky", timeout="1m")
def flaky(context: Context, succeed_on: int = 3) -> dict[str, int]:
    """Fail until the given attempt, then succeed."""
    if context.attempt < succeed_on:
        context.log.warning("attempt %d fails, attempt %d will succeed", context.attempt, succeed_on)
        raise Unlucky(f"attempt {context.attempt} of {succeed_on}")
    return {"attempt": context.attempt}
