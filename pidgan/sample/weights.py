"""Weights of either sign: their effective number, and positive ones of equal density.

sWeights are negative for a part of the rows. Sums of them are estimates, but a
logarithm, a likelihood or the training of a classifier needs `positive_weights`.
"""

import warnings
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from pidgan.arrays import BoolArray, FloatArray
from pidgan.errors import DatasetError, PidganWarning
from pidgan.files.mapped import row_blocks
from pidgan.sample.balance import balance

#: Effective size below which nothing can be measured, and below which that is doubtful.
MIN_SIZE, FEW = 2.0, 10.0
#: Rows from which a small effective size is a matter of the weights.
MANY_ROWS = 50
#: Weights whose squares, and sums of them, are well within double precision.
_LARGEST, _SMALLEST = 1e140, 1e-140
#: Rows whose weights are summed at once.
_BLOCK_ROWS = 4_000_000


def n_eff(weights: ArrayLike) -> float:
    """Return the effective number of rows (sum w)^2 / sum w^2, or 0 if all w vanish."""
    w = np.asarray(weights, dtype=np.float64)
    return float(n_eff_of_sums(np.sum(w), np.sum(w * w)))


def n_eff_of_sums(sum_w: ArrayLike, sum_w2: ArrayLike) -> FloatArray:
    """Return (sum w)^2 / sum w^2 of sums (...), or 0 where all weights vanish."""
    total = np.asarray(sum_w, dtype=np.float64)
    squares = np.asarray(sum_w2, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(squares > 0, total**2 / squares, 0.0)


@dataclass(frozen=True, kw_only=True)
class WeightSums:
    """Sums of weights (n,), taken block by block where there are many.

    Attributes:
        rows: Number of weights.
        infinite: Number of those that are not finite.
        total: Sum of w.
        squares: Sum of w^2.
        most: Largest |w|.
        row: The row that has it.
    """

    rows: int
    infinite: int
    total: float
    squares: float
    most: float
    row: int

    @classmethod
    def of(cls, weights: FloatArray) -> "WeightSums":
        """Return the sums of weights (n,)."""
        infinite, total, squares, most, row = 0, 0.0, 0.0, -1.0, 0
        for place, w in row_blocks(weights, _BLOCK_ROWS):
            infinite += int(np.count_nonzero(~np.isfinite(w)))
            with np.errstate(all="ignore"):
                total += float(np.sum(w))
                squares += float(np.sum(w * w))
            size = np.abs(w)
            largest = int(np.argmax(size)) if len(w) else 0
            if len(w) and not size[largest] <= most:
                most, row = float(size[largest]), place.start + largest
        return cls(
            rows=len(weights),
            infinite=infinite,
            total=total,
            squares=squares,
            most=max(most, 0.0),
            row=row,
        )

    @property
    def n_eff(self) -> float:
        """Effective number of rows."""
        return float(n_eff_of_sums(self.total, self.squares))


def check_weights(
    weights: FloatArray, where: str, *, sums: WeightSums | None = None
) -> None:
    """Refuse weights (n,) that say nothing, and warn if they say little.

    A DatasetError says that weights are not finite or so large or small that their
    squares are none, or that one row carries the sample, whose effective size then is
    below two. A size below ten warns. `where` names the rows in messages; `sums` are
    those of the weights, where they are known.
    """
    found = sums or WeightSums.of(np.asarray(weights, dtype=np.float64))
    if found.infinite:
        raise DatasetError(
            f"{where}: {found.infinite} of {found.rows} weights are not finite"
        )
    if found.most and not _SMALLEST < found.most < _LARGEST:
        raise DatasetError(
            f"{where}: the largest weight is {found.most:.3g}, expected between "
            f"{_SMALLEST:g} and {_LARGEST:g}; the square of such a number is beyond "
            "double precision"
        )
    size = found.n_eff
    if found.rows < MANY_ROWS or not found.total > 0 or size >= FEW:
        return
    row = found.row
    share = float(weights[row] ** 2 / found.squares)
    account = (
        f"{where}: {found.rows} rows have an effective size (sum w)^2 / sum w^2 of "
        f"{size:.6g}; row {row} with weight {weights[row]:.6g} holds {share:.1%} of "
        "sum w^2"
    )
    if size < MIN_SIZE and share > 0.5:
        raise DatasetError(f"{account}; expected at least {MIN_SIZE:g}")
    warnings.warn(account, PidganWarning, stacklevel=3)


def positive_weights(features: ArrayLike, weights: ArrayLike, seed: int) -> FloatArray:
    """Return E[w | features], a weight >= 0 with the same density as sWeights.

    Source: Borisyak and Kazeev, J. Instrum. 14 (2019) P08020 (arXiv:1905.11719). The
    mean sWeight at a point is the share of signal there: it describes the signal as
    sWeights do and is not negative. Clipped sWeights would describe something else.
    The regression (boosted trees, squared error, stopped early) is cross-fitted in two
    halves, so that the weight of a row never enters its own prediction. Trees that stop
    early leave the background a part of the weight of the signal; a monotonic
    recalibration to the mean of w at each prediction (isotonic, learnt on the other
    half) takes it back. Values below zero, which no share can have, are set to zero.
    What the trees miss in single features is corrected at last, see
    `pidgan.sample.balance`. The sum of the given weights (n,), of any sign, is
    restored; they are returned as they are if none is negative. `features` (n, d) are
    the conditions and targets that the classifier will see.
    """
    from sklearn.isotonic import IsotonicRegression

    x, w = checked_rows(features, weights, "weights")
    if np.all(w >= 0):
        return w
    total = w.sum()
    result = np.empty_like(w)
    half = halves(len(w), seed)
    scale = np.mean(np.abs(w))
    for part in (half, ~half):
        model = _trees(len(w), seed)
        with one_thread():
            model.fit(x[~part], w[~part] / scale)
            result[part] = model.predict(x[part])
    raw = result.copy()
    for part in (half, ~half):
        calibration = IsotonicRegression(out_of_bounds="clip")
        calibration.fit(raw[~part], w[~part])
        result[part] = calibration.predict(raw[part])
    result = np.maximum(result, 0.0)
    if result.sum() <= 0:
        raise DatasetError("the regressed weights vanish: no signal in these rows")
    result *= total / result.sum()
    with one_thread():
        return balance(x, w, result, size=n_eff(w))


class WeightRegression:
    """E[w | features], learnt from some rows, for other ones (`positive_weights`).

    Trees are learnt from one half of the rows, their recalibration from the other.
    """

    def __init__(self, features: ArrayLike, weights: ArrayLike, seed: int) -> None:
        from sklearn.isotonic import IsotonicRegression

        x, w = checked_rows(features, weights, "weights")
        half, self._scale = halves(len(w), seed), float(np.mean(np.abs(w)))
        self._model = _trees(len(w), seed)
        self._calibration = IsotonicRegression(out_of_bounds="clip")
        with one_thread():
            self._model.fit(x[half], w[half] / self._scale)
            raw = self._model.predict(x[~half])
        self._calibration.fit(raw, w[~half])

    def of(self, features: ArrayLike, weights: ArrayLike) -> FloatArray:
        """Return positive weights (n,) of rows, with the sum of their own weights."""
        x, w = checked_rows(features, weights, "weights")
        if np.all(w >= 0):
            return w
        with one_thread():
            found = self._calibration.predict(self._model.predict(x))
            found = np.maximum(found, 0.0)
            if found.sum() <= 0:
                raise DatasetError("the regressed weights vanish: no signal here")
            found *= w.sum() / found.sum()
            return balance(x, w, found, size=n_eff(w))


def _trees(rows: int, seed: int) -> Any:
    """Return the regression of weights, not fitted."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        max_iter=200,
        learning_rate=0.05,
        max_leaf_nodes=15,
        min_samples_leaf=min(100, max(2, rows // 20)),
        early_stopping=True,
        validation_fraction=0.2,
        random_state=seed,
    )


def with_differences(conditions: ArrayLike, targets: ArrayLike) -> FloatArray:
    """Return conditions, targets and all pairwise differences of targets as features.

    Trees cut on one feature at a time. They would miss ties (two targets exactly
    equal) if the difference were not a feature.

    Conditions (n, c) and targets (n, t) give features (n, c + t + t (t - 1) / 2).
    """
    x = np.asarray(conditions, dtype=np.float64)
    y = np.asarray(targets, dtype=np.float64)
    first, second = np.triu_indices(y.shape[1], k=1)
    return np.concatenate([x, y, y[:, first] - y[:, second]], axis=1)


def one_thread() -> AbstractContextManager[Any]:
    """Keep scikit-learn to one thread.

    Its OpenMP threads wait by spinning: on a busy machine, two of them are several
    times slower than one.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    return cast(AbstractContextManager[Any], threadpool_limits(limits=1))


def halves(n: int, seed: int) -> BoolArray:
    """Return a random half of n rows, as a mask."""
    mask = np.zeros(n, dtype=np.bool_)
    mask[np.random.default_rng(seed).permutation(n)[: n // 2]] = True
    return mask


def checked_rows(
    sample: ArrayLike, weights: ArrayLike | None, name: str
) -> tuple[FloatArray, FloatArray]:
    """Return a sample as (n, d) and weights as (n,), checked to be usable."""
    x = np.asarray(sample, dtype=np.float64)
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2:
        raise ValueError(f"sample of shape {x.shape}, expected (n, d) or (n,)")
    if len(x) == 0:
        raise DatasetError("a sample of no rows has no distance to another")
    if not np.isfinite(x).all():
        raise DatasetError("a sample with NaN or inf has no distance to another")
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (len(x),):
        raise ValueError(f"{name} of shape {w.shape}, expected ({len(x)},)")
    positive_sum(w, name)
    return x, w


def positive_sum(w: FloatArray, name: str) -> float:
    """Return the sum of weights, which must be positive."""
    total = float(np.sum(w))
    if not total > 0:
        raise DatasetError(f"{name} sum to {total:.6g}, expected a positive sum")
    return total
