"""Rows of a training that is larger than memory: a window that moves over all of them.

The window holds `SLABS` slabs of `SLAB_ROWS` rows on the device, from which steps draw
as from the rows of a small training. A slab is made of blocks of `BLOCK_ROWS`
consecutive rows of the dataset. Blocks come in a random order, in which each comes once
before any comes again. After `DRAWS` draws for each of its rows a slab has gone through
the window, and the oldest one is replaced by the next, which another thread has read
meanwhile.

Slab k is a function of (seed, k), and the window one of the step alone: a training
that is continued draws the same rows.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.arrays import FloatArray, IntArray
from pidgan.files.mapped import read_rows
from pidgan.sample.dataset import PARTS, Dataset, Part
from pidgan.sample.sampling import count_rows
from pidgan.training.backend import tf

SLABS, SLAB_ROWS, BLOCK_ROWS = 4, 262_144, 4096
"""A window of a million rows, in which blocks of 256 places of a dataset are mixed."""

DRAWS = 4
"""Draws of a row before it leaves the window; fewer would wait for the next slab."""

MEMORY_ROWS = 2_000_000
"""Rows of a training part up to which all are on the device from the first step on."""

WHOLE_ROWS = 3_400_000
"""Rows of a dataset up to which trainings that know no window take all of them."""

FITTED_ROWS = 1_000_000
"""Random rows to which transforms and the regression of weights are fitted."""

VALIDATION_ROWS = 200_000
"""Random rows of the validation part that are on the device."""

HELD_OUT_ROWS = 1_000_000
"""Random rows of the test part that stay beside the model, and go into its bundle."""

# Streams of the order of blocks.
_ORDER = 29
# More blocks are read than the mean share of the training part asks for.
_MARGIN = 1.05

Made = tuple[dict[str, FloatArray], IntArray | None]
"""Arrays of the rows of a slab, and the rows as often as they are to be drawn."""

Make = Callable[[Part, int], dict[str, FloatArray]]
"""Function of a part and a seed that returns arrays of its rows for the device."""


class Feed:
    """The window of a training, and the thread that reads ahead.

    Args:
        dataset: Dataset whose training part is drawn from.
        make: Function that makes arrays for the device.
        often: Function of the conditions "x" that returns rows as often as they are to
            be drawn, None if all alike.
        seed: Seed of the order of blocks.
    """

    def __init__(
        self,
        dataset: Dataset,
        make: Make,
        often: Callable[[FloatArray], IntArray] | None,
        *,
        seed: int,
    ) -> None:
        self._dataset, self._make, self._often = dataset, make, often
        self._seed = seed
        self._blocks = -(-len(dataset) // BLOCK_ROWS)
        share = count_rows(dataset, "train") / len(dataset)
        self._taken = int(np.ceil(_MARGIN * SLAB_ROWS / (BLOCK_ROWS * share)))
        self._pool = ThreadPoolExecutor(1)
        self._ahead: dict[int, Future[Made]] = {}
        self._slabs: list[int] = []
        self.arrays: dict[str, Any] = {}
        self.draws: Any = None
        self.turn_to(0)  # so that arrays are there for the steps that are timed

    def follow(self, step: int, batch_size: int) -> None:
        """Move the window to where it is at a step."""
        self.turn_to(step // _steps(batch_size))

    def end_of(self, step: int, batch_size: int) -> int:
        """Return the step at which the window moves next."""
        return (step // _steps(batch_size) + 1) * _steps(batch_size)

    def turn_to(self, turn: int) -> None:
        """Bring the slabs of a turn to the device, and begin to read the next one."""
        wanted = list(range(turn, turn + SLABS))
        for slab in wanted:
            if slab not in self._slabs:
                self._put(slab, *self._slab(slab))
        self._slabs = wanted
        self._ahead = {k: v for k, v in self._ahead.items() if k > wanted[-1]}
        following = wanted[-1] + 1
        if following not in self._ahead:
            self._ahead[following] = self._pool.submit(self._read, following)

    def _slab(self, slab: int) -> Made:
        ahead = self._ahead.pop(slab, None)
        return self._read(slab) if ahead is None else ahead.result()

    def _put(
        self, slab: int, arrays: dict[str, FloatArray], draws: IntArray | None
    ) -> None:
        """Put a slab in the place of an older one."""
        place = slab % SLABS
        for name, values in arrays.items():
            self._assign(name, place, values, SLAB_ROWS)
        if draws is not None:
            self._assign("", place, draws + place * SLAB_ROWS, len(draws))

    def _assign(
        self, name: str, place: int, values: npt.NDArray[Any], size: int
    ) -> None:
        known = self.arrays.get(name) if name else self.draws
        if known is None:
            whole = np.concatenate([values] * SLABS)
            known = tf.Variable(whole, trainable=False)
            if name:
                self.arrays[name] = known
            else:
                self.draws = known
        known[place * size : (place + 1) * size].assign(values)

    def _read(self, slab: int) -> Made:
        """Return the rows of a slab, exactly `SLAB_ROWS` of them."""
        parts = [self._block(k) for k in self._numbers(slab)]
        fields = ("conditions", "targets", "weights")
        found = {n: np.concatenate([part[n] for part in parts]) for n in fields}
        none = np.zeros((len(found["weights"]), 0))
        arrays = self._make(Part(**found, alternatives=none), self._seed + slab)
        # Where too few rows came, the first ones come again.
        rows = np.resize(np.arange(len(arrays["w"])), SLAB_ROWS)
        arrays = {name: values[rows] for name, values in arrays.items()}
        return arrays, None if self._often is None else self._often(arrays["x"])

    def _numbers(self, slab: int) -> list[int]:
        """Return the blocks of a slab, in an order that goes through all blocks."""
        first, found = slab * self._taken, list[int]()
        while len(found) < self._taken:
            epoch, start = divmod(first + len(found), self._blocks)
            rng = np.random.default_rng([self._seed, _ORDER, epoch])
            order = rng.permutation(self._blocks)
            found += order[start : start + self._taken - len(found)].tolist()
        return found

    def _block(self, number: int) -> dict[str, Any]:
        place = slice(number * BLOCK_ROWS, (number + 1) * BLOCK_ROWS)
        dataset = self._dataset
        kept = read_rows(dataset.split, place) == PARTS.index("train")
        return {
            name: read_rows(getattr(dataset, name), place)[kept]
            for name in ("conditions", "targets", "weights")
        }


def _steps(batch_size: int) -> int:
    """Return the number of steps after which the window moves by a slab."""
    return max(1, DRAWS * SLAB_ROWS // batch_size)
