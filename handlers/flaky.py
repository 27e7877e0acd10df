"""A handler that fails at first, to demonstrate retries of a step."""

from __future__ import annotations

from supervisor import Context, handler


class Unlucky(Exception):
    """The class name is the error type, which the retry policy of a step can match (`error_equals`)."""


@handler("flaky", timeout="1m")
def flaky(context: Context, succeed_on: int = 3) -> dict[str, int]:
    """Fail before the attempt `succeed_on`, then succeed."""
    if context.attempt < succeed_on:
        context.log.warning("attempt %d fails, attempt %d will succeed", context.attempt, succeed_on)
        raise Unlucky(f"attempt {context.attempt} of {succeed_on}")
    return {"attempt": context.attempt}
