"""Classifiers of `c2st`, fixed so that its figure means the same in every report.

Showers have thousands of columns, most of them empty. What takes time there is left
out where it cannot change a score: columns in which no tree can split, and the
interpolation of values at the end of a distribution.
"""

from typing import Any

import numpy as np
from scipy.special import ndtri

from pidgan.arrays import FloatArray

TREES: dict[str, Any] = {
    "max_iter": 100,
    "learning_rate": 0.1,
    "max_leaf_nodes": 31,
    "max_bins": 255,
}
LEAF_ROWS = 20  # fewest rows of a leaf
# Columns beyond which trees have fewer bins: the cells of showers. It takes a third of
# the time, and moved an AUC of 0.545 by half of its error.
MANY_COLUMNS, FEW_BINS = 500, 63
EQUAL_WEIGHTS = 0.01  # relative range below which weights count as equal
NETWORK_UNITS, NETWORK_EPOCHS, NETWORK_ROWS_PER_BATCH = (64, 64), 12, 512
QUANTILES = 256
# Of scikit-learn's QuantileTransformer: distance to the ends that counts as the end,
# and the rows beyond which it draws some.
_END, _MOST_ROWS = 1e-7, 10_000


def score_trees(
    x: FloatArray, label: Any, w: FloatArray, test: FloatArray, *, seed: int
) -> FloatArray:
    """Return scores (m,) of test rows from boosted trees."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    settings = TREES | {"min_samples_leaf": LEAF_ROWS, "random_state": seed}
    if x.shape[1] > MANY_COLUMNS:
        settings["max_bins"] = min(settings["max_bins"], FEW_BINS)
    model = HistGradientBoostingClassifier(**settings)
    # With weights scikit-learn looks for the quantiles of each column one by one, which
    # takes ten times as long as all the rest. A common prior moves no AUC.
    equal = np.ptp(w) < EQUAL_WEIGHTS * np.mean(w)
    some = splitting_columns(x)
    model.fit(x[:, some], label, sample_weight=None if equal else w)
    return np.asarray(model.decision_function(test[:, some]))


def splitting_columns(x: FloatArray) -> Any:
    """Return the columns (d,) of rows (n, d) in which a tree can split.

    Where all but a few rows have one value, one side of each cut has fewer rows than a
    leaf may have.
    """
    usual = np.median(x, axis=0)
    some = np.count_nonzero(x != usual, axis=0) >= LEAF_ROWS
    return some if some.any() else np.arange(x.shape[1]) == 0


def score_network(
    x: FloatArray, label: Any, w: FloatArray, test: FloatArray, *, seed: int
) -> FloatArray:
    """Return scores (m,) of a neural network on quantile-transformed features."""
    from sklearn.neural_network import MLPClassifier

    quantiles, references = fit_quantiles(x, seed)
    train, judged = (normal_scores(v, quantiles, references) for v in (x, test))
    rng = np.random.default_rng(seed)
    model = MLPClassifier(NETWORK_UNITS, random_state=seed)
    batches = max(1, len(train) // NETWORK_ROWS_PER_BATCH)
    for _ in range(NETWORK_EPOCHS):
        for rows in np.array_split(rng.permutation(len(train)), batches):
            model.partial_fit(
                train[rows], label[rows], classes=[0, 1], sample_weight=w[rows]
            )
    return np.asarray(model.predict_proba(judged)[:, 1])


def fit_quantiles(x: FloatArray, seed: int) -> tuple[FloatArray, FloatArray]:
    """Return quantiles (k, d) of columns and their probabilities (k,)."""
    from sklearn.preprocessing import QuantileTransformer

    n = min(QUANTILES, len(x))
    references = np.linspace(0, 1, n)
    if len(x) > _MOST_ROWS:
        transform = QuantileTransformer(n_quantiles=n, random_state=seed).fit(x)
        return np.asarray(transform.quantiles_), references
    found = np.percentile(x, references * 100, axis=0)
    return np.maximum.accumulate(found), references


def normal_scores(
    x: FloatArray, quantiles: FloatArray, references: FloatArray
) -> FloatArray:
    """Return columns (n, d) as normal numbers, as scikit-learn's transform does."""
    u = np.empty(x.shape)
    for i, column in enumerate(x.T):
        q = quantiles[:, i]
        low, high = column - _END < q[0], column + _END > q[-1]
        u[high, i], u[low, i] = 1.0, 0.0
        inside = ~(low | high)
        v = column[inside]
        # Both ways: in between where quantiles repeat.
        up = np.interp(v, q, references)
        down = np.interp(-v, -q[::-1], -references[::-1])
        u[inside, i] = 0.5 * (up - down)
    end = _END - np.spacing(1)
    return np.asarray(np.clip(ndtri(u), ndtri(end), ndtri(1 - end)))
