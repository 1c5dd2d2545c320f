"""Durations as people write them, and trainings that keep to one."""

import math
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from pidgan.bundle.card import FEW_STEPS
from pidgan.errors import PidganWarning
from pidgan.training.pace import Pace

DEFAULT_BUDGET, START_BUDGET = 600.0, 120.0
"""Seconds of a training without and with a start, if nothing else is said."""

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
TIMED_SECONDS = 1.5
# The clock is looked at so often, and the pace changes where the end would be off by
# more than this share of the budget.
CHECKS = 20
TOLERANCE = 0.05


@dataclass(frozen=True)
class Duration:
    """A time of the clock on the wall, or of the processor.

    The time of the processor is that of all threads of this process together. Other
    processes do not use it up.
    """

    seconds: float
    cpu: bool = False

    @classmethod
    def parse(cls, text: str | float) -> "Duration":
        """Return a duration: "90", "90s", "10m", "1.5h" or "10m cpu".

        Raises:
            ValueError: The text is not a positive duration.

        Example:
            >>> Duration.parse("10m cpu")
            Duration(seconds=600.0, cpu=True)
        """
        pattern = r"(\d+\.?\d*|\.\d+)\s*([smh]?)(\s+cpu)?"
        match = re.fullmatch(pattern, str(text).strip())
        seconds = 0.0
        if match is not None:
            seconds = float(match[1]) * _SECONDS[match[2]]
        if match is None or not 0 < seconds < math.inf:
            raise ValueError(
                f"{text!r} is no duration; write '90s', '10m' or '1.5h', or '10m cpu' "
                "for the time of the processor"
            )
        return cls(seconds, cpu=match[3] is not None)

    @property
    def stored(self) -> str | float:
        """What `parse` reads and JSON knows: seconds, or a text."""
        return f"{self.seconds!r}s cpu" if self.cpu else self.seconds

    @property
    def clock(self) -> Callable[[], float]:
        """The clock that is meant, in seconds."""
        return time.process_time if self.cpu else time.perf_counter

    def part(self, share: float) -> "Duration":
        """Return a share of the time."""
        return Duration(self.seconds * share, cpu=self.cpu)

    def text(self) -> str:
        """Return the time as words: "90 s", "90 s of the processor"."""
        return f"{self.seconds:g} s" + " of the processor" * self.cpu


def default_budget(start: object) -> Duration:
    """Return the budget of a training that is given none."""
    return Duration(DEFAULT_BUDGET if start is None else START_BUDGET)


def length(
    budget: str | float | None, steps: int | str | None
) -> tuple[Duration | None, Pace | None]:
    """Return the time of a budget, or the pace of a number of steps."""
    if budget is not None and steps is not None:
        raise ValueError("give a budget or a number of steps, not both")
    time_given = None if budget is None else Duration.parse(budget)
    return time_given, None if steps is None else Pace.parse(steps)


class Budget:
    """The time of a training, which has `spent` some of it before.

    Everything counts, compilation too. `clock` returns seconds, by default those of the
    duration. A training does not have more than `most` steps, if there is time left.
    """

    most: float = math.inf

    def __init__(
        self,
        duration: Duration,
        *,
        spent: float = 0.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.duration, self.seconds = duration, duration.seconds
        self.clock = clock or duration.clock
        self._began = self.clock() - spent
        self._starts = (time.perf_counter(), time.process_time())
        self._looked, self._expected = self.clock(), 0.0

    def after(self, other: "Budget") -> "Budget":
        """Return another budget, of which the time of this one is spent too."""
        if self.duration.cpu == other.duration.cpu:
            spent, clock = other.spent + self.spent, self.clock
        else:
            here = self._here[other.duration.cpu]
            spent, clock = other.spent + here, other.duration.clock
        found = Budget(other.duration, spent=spent, clock=clock)
        found.most = self.most
        return found

    @property
    def wait(self) -> float:
        """Seconds on the wall after which the budget will be used up."""
        wall, cpu = self._here
        return self.left * (wall / cpu if self.duration.cpu and cpu > 0 else 1.0)

    @property
    def _here(self) -> tuple[float, float]:
        """Seconds on the wall and of the processor since this budget was made."""
        now = (time.perf_counter(), time.process_time())
        return now[0] - self._starts[0], now[1] - self._starts[1]

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
        steps = int(min(max(least, int(left / cost)), self.most))
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
        found = max(least, int(pace * self.left / needed)) if needed > 0 else pace
        return int(min(found, self.most))
