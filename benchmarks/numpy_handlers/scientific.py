"""A handler whose import is as big as many are."""

from __future__ import annotations

import numpy

from supervisor import handler


@handler("mean")
def mean(count: int) -> float:
    return float(numpy.arange(count).mean())
