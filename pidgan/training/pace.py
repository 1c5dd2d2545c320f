"""Where in its schedule a training is at each step, also if its pace changes.

A training of N steps has the pace N: a step is 1 / N of the schedule, which learning
rates and phases follow. A budget changes the pace on the way where the machine becomes
slower or faster. The text of a pace, such as "1043,521:548", says that the training
began at a pace of 1043, and has had one of 548 since step 521: these were 548 / 1043 of
the steps that had been left. It repeats the training.
"""

import bisect
import dataclasses
import re

from pidgan.bounds import MOST_COUNT


@dataclasses.dataclass(frozen=True)
class Place:
    """Steps as a training of constant pace would count them."""

    start: int  # step at which that training would have begun
    pace: int

    def step_at(self, share: float) -> int:
        """Return the step at which a share of the schedule is done."""
        return round(share * self.pace) + self.start

    def share_at(self, step: int) -> float:
        """Return the share of the schedule that is done at a step."""
        return (step - self.start) / self.pace

    def next_of(self, parts: int, step: int) -> int:
        """Return the first step after one that ends one of so many equal parts."""
        done = (step - self.start) * parts // self.pace
        return -(-(done + 1) * self.pace // parts) + self.start


@dataclasses.dataclass(frozen=True)
class Pace:
    """The pace from a step on, for each change; the first one is at step 0."""

    changes: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, text: str | int) -> "Pace":
        """Return the pace of a number of steps, or of the text on a card.

        Raises:
            ValueError: The text is none of both.

        Example:
            >>> Pace.parse("1043,521:548").steps
            796
        """
        numbers = [int(n) for n in re.findall(r"\d+", str(text))]
        starts, paces = [0, *numbers[1::2]], numbers[::2]
        is_text = re.fullmatch(r"\d+(,\d+:\d+)*", str(text)) is not None
        if (
            not is_text
            or not 1 <= min(paces) <= max(*paces, *starts) <= MOST_COUNT
            or starts != sorted(set(starts))
        ):
            raise ValueError(
                f"steps is {text!r}, expected a number from 1 to {MOST_COUNT}, or the "
                "plan of a card, such as '1043,521:548'"
            )
        return cls(tuple(zip(starts, paces, strict=True)))

    @property
    def text(self) -> str:
        """What `parse` reads."""
        first, *others = self.changes
        return ",".join([str(first[1]), *(f"{step}:{pace}" for step, pace in others)])

    @property
    def first(self) -> int:
        """The pace at the beginning."""
        return self.changes[0][1]

    @property
    def steps(self) -> int:
        """Number of steps in which the whole schedule is done."""
        return self._places[-1].step_at(1.0)

    def at(self, step: int) -> Place:
        """Return the place from which the next step is done."""
        return self._places[self._index(step)]

    def until_change(self, step: int) -> int:
        """Return the number of steps before the next change; many without any."""
        later = self.changes[self._index(step) + 1 :]
        return later[0][0] - step if later else MOST_COUNT

    def changed(self, step: int, pace: int) -> "Pace":
        """Return the pace with a change at a step, in place of one at that step."""
        before = tuple(change for change in self.changes if change[0] < step)
        return Pace((*before, (step if before else 0, pace)))

    def check(self, share: float) -> None:
        """Raise a ValueError if the pace changes when such a share is done already."""
        step, _ = self.changes[-1]
        if self.at(step).share_at(step) >= share:
            raise ValueError(
                f"steps is {self.text!r}, but no step is left at step {step}"
            )

    def _index(self, step: int) -> int:
        starts = [start for start, _ in self.changes]
        return max(0, bisect.bisect_right(starts, step) - 1)

    @property
    def _places(self) -> list[Place]:
        places: list[Place] = []
        for step, pace in self.changes:
            share = places[-1].share_at(step) if places else 0.0
            places.append(Place(step - round(share * pace), pace))
        return places
