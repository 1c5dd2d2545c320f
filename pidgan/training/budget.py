"""Durations as people write them, and the number of steps that fit in one."""

import math
import re
import time
import warnings
from collections.abc import Callable

from pidgan.errors import PidganWarning

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
TIMED_STEPS = 20
TIMED_SECONDS = 1.5
# A budget that leaves fewer steps than these is worth a warning.
FEW_STEPS = 100


def parse_duration(text: str | float) -> float:
    """Return the seconds of a duration: "90", "90s", "10m" or "1.5h".

    Raises:
        ValueError: The text is not a positive duration.

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


def time_step(run: Callable[..., object]) -> float:
    """Return the seconds that a step takes, without the time to compile it."""

    def each(steps: int) -> float:
        start = time.perf_counter()
        run(0, steps, 0, steps, steps)
        return (time.perf_counter() - start) / steps

    each(TIMED_STEPS)  # traces and compiles
    return each(max(1, int(TIMED_SECONDS / each(TIMED_STEPS))))


def steps_within(budget: float, *, began: float, cost: float) -> int:
    """Return the number of steps that fit in a budget in seconds; warn if it is small.

    The training `began` at a time of `time.perf_counter`; a step has the `cost`.
    """
    left = budget - (time.perf_counter() - began)
    steps = max(1, int(left / cost))
    if steps < FEW_STEPS:
        warnings.warn(
            f"the budget of {budget:.0f} s leaves {steps} steps after compiling, which "
            f"took {budget - left:.0f} s: the generator will be poor; give a longer "
            "budget",
            PidganWarning,
            stacklevel=4,
        )
    return steps
