"""Two-sample tests by classifiers: can a classifier tell generated from real rows?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pidgan.arrays import BoolArray, FloatArray
from pidgan.errors import DatasetError
from pidgan.report.metrics import pick_rows
from pidgan.sample.weights import (
    checked_rows,
    halves,
    n_eff,
    one_thread,
    positive_weights,
)

# Classifiers of `c2st`, fixed so that its figure means the same in every report.
TREES = {"max_iter": 100, "learning_rate": 0.1, "max_leaf_nodes": 31}
EQUAL_WEIGHTS = 0.01  # relative range below which weights count as equal
NETWORK_UNITS = (64, 64)
NETWORK_EPOCHS = 12
NETWORK_ROWS_PER_BATCH = 512

C2ST_MIN_ROWS = 200  # of each sample; the AUC of fewer says nothing


@dataclass(frozen=True, kw_only=True)
class C2ST:
    """Outcome of a classifier two-sample test.

    Attributes:
        auc: Larger AUC of the two classifiers.
        error: Standard error of the larger AUC (DeLong, weighted).
        auc_trees: AUC of the gradient-boosted trees.
        auc_network: AUC of the neural network.
        n_real: Number of real rows that were used.
        n_generated: Number of generated rows that were used.
        n_eff: Harmonic mean of the two effective numbers of rows.
    """

    auc: float
    error: float
    auc_trees: float
    auc_network: float
    n_real: int
    n_generated: int
    n_eff: float


def c2st(
    real: ArrayLike,
    generated: ArrayLike,
    weights_real: ArrayLike | None = None,
    weights_generated: ArrayLike | None = None,
    *,
    seed: int = 1,
    max_rows: int = 50_000,
    paired: bool = False,
) -> C2ST:
    """Return the classifier two-sample test: can a classifier tell real from generated?

    Two classifiers with fixed settings, boosted trees and a neural network, are trained
    on one half of the rows and applied to the other, and the reverse, so that every row
    is judged once. The larger AUC is quoted. Equal distributions give 0.5, up to the
    error. Source: Lopez-Paz and Oquab, arXiv:1610.06545.

    Where weights have both signs, the classifiers are trained with `positive_weights`,
    found from the rows they are trained on, and the AUC is evaluated with the given
    weights. The AUC is linear in the weights of each sample, so that equal
    distributions give 0.5 on average, however good the positive weights are.

    Args:
        real: (n, d) Features of real rows, such as those of `with_differences`.
        generated: (m, d) Features of generated rows.
        weights_real: (n,) Weights of any sign with a positive sum; None means 1.
        weights_generated: (m,) Weights of the generated rows.
        seed: Seed of the choice of rows, the halves and the classifiers.
        max_rows: Largest number of rows of each sample, chosen at random.
        paired: Whether row i of both samples has the same conditions. Both are then
            kept in the same half; in different halves, conditions that a classifier
            remembers would pull the AUC below 0.5.

    Returns:
        The outcome, with its error and the sizes of the samples.

    Raises:
        ValueError: The numbers of features, or of paired rows, differ.
        DatasetError: A sample has fewer than `C2ST_MIN_ROWS` rows.
    """
    x0, w0 = checked_rows(real, weights_real, "weights_real")
    x1, w1 = checked_rows(generated, weights_generated, "weights_generated")
    if x0.shape[1] != x1.shape[1]:
        raise ValueError(f"{x0.shape[1]} real features, {x1.shape[1]} generated")
    if paired and len(x0) != len(x1):
        raise ValueError(f"paired, but {len(x0)} real and {len(x1)} generated rows")
    picks = [pick_rows(len(x0), max_rows, seed), pick_rows(len(x1), max_rows, seed + 1)]
    if paired:
        picks[1] = picks[0]
    x0, w0, x1, w1 = x0[picks[0]], w0[picks[0]], x1[picks[1]], w1[picks[1]]
    if min(len(x0), len(x1)) < C2ST_MIN_ROWS:
        raise DatasetError(
            f"{len(x0)} real and {len(x1)} generated rows are too few for a C2ST; "
            f"expected {C2ST_MIN_ROWS} each"
        )
    parts = (halves(len(x0), seed), halves(len(x1), seed if paired else seed + 1))
    with one_thread():
        outcome = [
            _cross_fitted_auc(score, (x0, x1), (w0, w1), parts, seed=seed)
            for score in (_score_trees, _score_network)
        ]
    auc, error = max(outcome)
    return C2ST(
        auc=auc,
        error=error,
        auc_trees=outcome[0][0],
        auc_network=outcome[1][0],
        n_real=len(x0),
        n_generated=len(x1),
        n_eff=2 / (1 / n_eff(w0) + 1 / n_eff(w1)),
    )


def weighted_auc(
    scores0: ArrayLike,
    scores1: ArrayLike,
    weights0: ArrayLike | None = None,
    weights1: ArrayLike | None = None,
) -> tuple[float, float]:
    """Return the area under the ROC curve and its standard error.

    AUC = sum w0 w1 [s0 < s1] / (sum w0 sum w1), where ties count half. The error is
    that of DeLong et al., Biometrics 44 (1988) 837, with sums weighted by w^2.

    Args:
        scores0, scores1: (n,) and (m,) Scores of the two samples; larger scores of the
            second one give a larger AUC.
        weights0, weights1: (n,) and (m,) Weights with a positive sum; None means 1.

    Returns:
        The area and its error.

    Example:
        >>> weighted_auc([0.0, 1.0], [1.0, 2.0])[0]
        0.875
    """
    s0, w0 = checked_rows(scores0, weights0, "weights0")
    s1, w1 = checked_rows(scores1, weights1, "weights1")
    _, place = np.unique(np.concatenate([s0[:, 0], s1[:, 0]]), return_inverse=True)
    at0, at1 = place[: len(s0)], place[len(s0) :]
    above = np.bincount(at1, w1, place.max() + 1) / w1.sum()
    below = np.bincount(at0, w0, place.max() + 1) / w0.sum()
    share_above = (1 - np.cumsum(above) + 0.5 * above)[at0]
    share_below = (np.cumsum(below) - 0.5 * below)[at1]
    auc = float(np.sum(w0 * share_above) / w0.sum())
    variance = np.sum((w0 * (share_above - auc)) ** 2) / w0.sum() ** 2
    variance += np.sum((w1 * (share_below - auc)) ** 2) / w1.sum() ** 2
    return auc, float(np.sqrt(variance))


def _cross_fitted_auc(
    score: Callable[..., FloatArray],
    samples: tuple[FloatArray, FloatArray],
    weights: tuple[FloatArray, FloatArray],
    halves: tuple[BoolArray, BoolArray],
    *,
    seed: int,
) -> tuple[float, float]:
    """Mean AUC of two halves, each scored by a classifier of the other."""
    aucs, errors = [], []
    for parts in (halves, (~halves[0], ~halves[1])):
        train = [x[~part] for x, part in zip(samples, parts, strict=True)]
        signed = [w[~part] for w, part in zip(weights, parts, strict=True)]
        positive = [
            positive_weights(x, w, seed) for x, w in zip(train, signed, strict=True)
        ]
        # Each sample weighs the same, so that their sizes carry no information.
        w = np.concatenate([w / w.sum() for w in positive])
        test = [x[part] for x, part in zip(samples, parts, strict=True)]
        label = np.repeat([0, 1], [len(x) for x in train])
        scores = score(
            np.concatenate(train),
            label,
            w * (len(w) / 2),
            np.concatenate(test),
            seed=seed,
        )
        auc, error = weighted_auc(
            scores[: len(test[0])],
            scores[len(test[0]) :],
            *(w[part] for w, part in zip(weights, parts, strict=True)),
        )
        aucs.append(auc)
        errors.append(error)
    return float(np.mean(aucs)), float(np.hypot(errors[0], errors[1]) / 2)


def _score_trees(
    x: FloatArray, label: Any, w: FloatArray, test: FloatArray, *, seed: int
) -> FloatArray:
    """Scores of boosted trees."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(**TREES, random_state=seed)
    # With weights scikit-learn looks for the quantiles of each column one by one, which
    # takes ten times as long as all the rest. A common prior moves no AUC.
    equal = np.ptp(w) < EQUAL_WEIGHTS * np.mean(w)
    model.fit(x, label, sample_weight=None if equal else w)
    return np.asarray(model.decision_function(test))


def _score_network(
    x: FloatArray, label: Any, w: FloatArray, test: FloatArray, *, seed: int
) -> FloatArray:
    """Scores of a neural network on quantile-transformed features."""
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import QuantileTransformer

    transform = QuantileTransformer(
        n_quantiles=min(256, len(x)), output_distribution="normal", random_state=seed
    )
    train = transform.fit_transform(x)
    rng = np.random.default_rng(seed)
    model = MLPClassifier(NETWORK_UNITS, random_state=seed)
    batches = max(1, len(train) // NETWORK_ROWS_PER_BATCH)
    for _ in range(NETWORK_EPOCHS):
        for rows in np.array_split(rng.permutation(len(train)), batches):
            model.partial_fit(
                train[rows], label[rows], classes=[0, 1], sample_weight=w[rows]
            )
    return np.asarray(model.predict_proba(transform.transform(test))[:, 1])
