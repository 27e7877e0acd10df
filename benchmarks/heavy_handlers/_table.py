"""100 MiB of small objects: whoever touches their counts copies their pages."""

from __future__ import annotations

TABLE = {number: [str(number), (number, float(number))] for number in range(330_000)}
