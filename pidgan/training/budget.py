"""Durations as people write them, and trainings that keep to one."""

import math
import re
import time
import warnings
from collections.abc import Callable

from pidgan.bundle.card import FEW_STEPS
from pidgan.errors import PidganWarning
from pidgan.training.pace import Pace

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
TIMED_SECONDS = 1.5
# The clock is looked at so often, and the pace changes where the end would be off by
# more than this share of the budget.
CHECKS = 20
TOLERANCE = 0.05


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


def length(
    budget: str | float | None, steps: int | str | None
) -> tuple[float | None, Pace | None]:
    """Return the seconds of a budget, or the pace of a number of steps."""
    if budget is not None and steps is not None:
        raise ValueError("give a budget or a number of steps, not both")
    seconds = None if budget is None else parse_duration(budget)
    return seconds, None if steps is None else Pace.parse(steps)


class Budget:
    """The wall-clock time of a training, which has `spent` some of it before.

    Everything counts, compilation too. `clock` returns seconds.
    """

    def __init__(
        self,
        seconds: float,
        *,
        spent: float = 0.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.seconds, self.clock = seconds, clock
        self._began = clock() - spent
        self._looked, self._expected = clock(), 0.0

    def after(self, other: "Budget") -> "Budget":
        """Return another budget, of which the time of this one is spent too."""
        spent = other.spent + self.spent
        return Budget(other.seconds, spent=spent, clock=self.clock)

    @property
    def spent(self) -> float:
        """Seconds since the training began, without interruptions."""
        return self.clock() - self._began

    @property
    def left(self) -> float:
        """Seconds that are left, 0 if there are none."""
        return max(0.0, self.seconds - self.spent)

    def time(self, run: Callable[..., object]) -> float:
        """Return the seconds of a step, without the time to compile it.

        `run` is a function as `Descents.compile` returns it.
        """
        run(0, 1, 0, 1, 0, 1)
        n = 1
        while True:
            start = self.clock()
            run(0, n, 0, n, 0, n)
            seconds = (self.clock() - start) / n
            if seconds * n >= TIMED_SECONDS / 2:
                return seconds
            n = min(4 * n, math.ceil(TIMED_SECONDS / max(seconds, 1e-9)))

    def pace(self, cost: float, *, overhead: float, least: int) -> int:
        """Return the number of steps that fit, at a cost in seconds for each of them.

        `overhead` is the time of all that does not depend on this number, which is not
        below the least one.
        """
        spent, left = self.spent, self.left - overhead
        steps = max(least, int(left / cost))
        if steps < FEW_STEPS:
            warnings.warn(
                f"the budget of {self.seconds:.0f} s leaves {steps} steps after "
                f"preparing and compiling, which took {spent:.0f} s: the generator "
                "will be poor; give a longer budget",
                PidganWarning,
                stacklevel=5,
            )
        return steps

    def look(self) -> None:
        """Begin to compare expected with true times."""
        self._looked, self._expected = self.clock(), 0.0

    def expect(self, seconds: float) -> bool:
        """Take in the time that some steps should have taken; return if a look is due.

        These are seconds as they were timed.
        """
        self._expected += seconds
        return self.clock() - self._looked >= self.seconds / CHECKS

    def correct(self, pace: int, *, left: float, least: int) -> int:
        """Return the pace at which the budget will be kept, often that of before.

        `left` is the time, as it was timed, of the steps that are left at the pace of
        before. No pace is below the least one.
        """
        slower = 1.0
        if self._expected:
            slower = (self.clock() - self._looked) / self._expected
        self.look()
        needed = left * slower
        if abs(self.spent + needed - self.seconds) <= TOLERANCE * self.seconds:
            return pace
        return max(least, int(pace * self.left / needed)) if needed > 0 else pace
