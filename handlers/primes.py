"""Prime numbers in plain Python: a long loop that reports progress, and a short function without a context."""

from __future__ import annotations

import math
from typing import Annotated

from msgspec import Meta

from supervisor import Context, PermanentError, handler

_STEP = 10_000


@handler("count-primes", timeout="1h", idempotent=True)
def count_primes(context: Context, below: Annotated[int, Meta(ge=0)]) -> dict[str, int]:
    """Count the primes below a number by trial division; slow on purpose, and can be stopped at any time."""
    count = 0
    for start in context.track(range(0, below, _STEP)):
        count += sum(_is_prime(number) for number in range(start, min(start + _STEP, below)))
    return {"below": below, "primes": count}


@handler("factorize", timeout="10m", idempotent=True)
def factorize(number: int) -> list[int]:
    """Return the prime factors of a number, the smallest first."""
    if number < 1:
        # PermanentError: a retry cannot succeed with an invalid number.
        raise PermanentError(f"{number} has no prime factors: it must be at least 1")
    factors = []
    divisor = 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    return [*factors, number] if number > 1 else factors


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))
