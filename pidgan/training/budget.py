"""Durations as people write them."""

import math
import re

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def parse_duration(text: str | float) -> float:
    """Return the seconds of a duration: "90", "90s", "10m" or "1.5h".

    Raises:
        ValueError: not a positive duration.

    Example:
        >>> parse_duration("10m")
        600.0
    """
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([smh]?)", str(text).strip())
    seconds = 0.0
    if match is not None:
        seconds = float(match[1]) * _SECONDS[match[2]]
    if not 0 < seconds < math.inf:
        raise ValueError(f"{text!r} is no duration; write '90s', '10m' or '1.5h'")
    return seconds
