"""The self-test of a bundle: stored targets that its generator must give again."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pidgan.bundle.card import Card
from pidgan.errors import BundleError

TOLERANCE = 1e-4  # largest difference of a target y, in units of max(1, |y|)

EXCUSED = 0.01
"""Share of rows, rounded up, that may differ more. Rounding on another type of CPU can
carry a row at the edge of a discrete choice across it."""

FEW = 32  # number of rows below which no row may differ more


@dataclass(frozen=True, kw_only=True)
class SelfTest:
    """Rows of conditions, noise and the targets that they must give, float32."""

    conditions: npt.NDArray[np.float32]
    noise: npt.NDArray[np.float32]
    targets: npt.NDArray[np.float32]

    @property
    def excused(self) -> int:
        """Number of rows that may differ by more than `TOLERANCE`."""
        rows = len(self.targets)
        return math.ceil(EXCUSED * rows) if rows >= FEW else 0

    def check(
        self, got: npt.NDArray[np.float32], names: tuple[str, ...], where: str
    ) -> None:
        """Raise a BundleError if targets differ in too many rows."""
        scale = np.maximum(1.0, np.abs(self.targets))
        # The comparison is this way round because NaN is never <=.
        wrong = ~(np.abs(got - self.targets) <= TOLERANCE * scale)
        n_wrong = int(wrong.any(axis=1).sum())
        if n_wrong > self.excused:
            row, column = (int(i) for i in np.argwhere(wrong)[0])
            raise BundleError(
                f"{where}: self-test failed in {n_wrong} of {len(got)} rows; row "
                f"{row}, {names[column]}: got {got[row, column]:.6g}, expected "
                f"{self.targets[row, column]:.6g}"
            )


def read_self_test(card: Card, where: str) -> SelfTest:
    """Return the self-test of a card, or raise a BundleError if it is damaged."""
    test = card.self_test
    if test is None:
        raise BundleError(f"{where}: the card has no self-test, expected one")
    widths = {
        "conditions": len(card.conditions),
        "noise": card.n_noise,
        "targets": len(card.targets),
    }
    try:
        parts = {n: checked(test[n], n, width) for n, width in widths.items()}
        x, z, y = (len(part) for part in parts.values())
        if not 0 < x == z == y:
            raise ValueError(f"{x}, {z} and {y} rows")
        if not all(np.isfinite(values).all() for values in parts.values()):
            raise ValueError("not every number is finite")
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{where}: the self-test is damaged ({error})") from error
    return SelfTest(**parts)


def checked(values: npt.ArrayLike, name: str, width: int) -> npt.NDArray[np.float32]:
    """Return rows (n, width) as float32, or raise a ValueError for another shape."""
    array = np.asarray(values, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != width:
        raise ValueError(f"{name} has shape {array.shape}, expected (n, {width})")
    return array
