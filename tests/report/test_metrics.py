"""Distances of weighted samples: laws, then toys with a known answer."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from pidgan.errors import DatasetError
from pidgan.report.metrics import (
    c2st,
    energy_distance,
    ks_error,
    ks_scale,
    separation_power,
    wasserstein,
    weighted_auc,
    weighted_ks,
)
from pidgan.sample.weights import n_eff, positive_weights, with_differences

DISTANCES: list[Callable[..., float]] = [weighted_ks, wasserstein, energy_distance]


def sample(n: int, seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Values with ties and weights of both signs."""
    rng = np.random.default_rng(seed)
    values = rng.normal(shift, 1.0, n)
    values[: n // 5] = 0.0
    return values, rng.normal(0.8, 1.0, n)


@pytest.mark.parametrize("distance", DISTANCES)
def test_distance_to_itself_is_zero(distance: Callable[..., float]) -> None:
    values, weights = sample(300, 1)
    assert distance(values, values, weights, weights) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("distance", DISTANCES)
def test_distance_is_symmetric(distance: Callable[..., float]) -> None:
    a, wa = sample(300, 1)
    b, wb = sample(200, 2, shift=0.3)
    assert distance(a, b, wa, wb) == pytest.approx(distance(b, a, wb, wa))


@pytest.mark.parametrize("distance", DISTANCES)
def test_scale_of_weights_cancels(distance: Callable[..., float]) -> None:
    a, wa = sample(300, 1)
    b, wb = sample(200, 2, shift=0.3)
    assert distance(a, b, 5 * wa, wb / 3) == pytest.approx(distance(a, b, wa, wb))


@pytest.mark.parametrize("distance", DISTANCES)
def test_distance_grows_with_the_shift(distance: Callable[..., float]) -> None:
    a, _ = sample(2000, 1)
    found = [distance(a, sample(2000, 2, shift=s)[0]) for s in (0.0, 0.5, 1.5)]
    assert found[0] < found[1] < found[2]


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(
    ("a", "weights", "match"),
    [
        ([1.0, 2.0], [-1.0, -1.0], "sum to -2"),
        ([1.0, 2.0], [1.0, -1.0], "sum to 0"),
        ([], None, "no rows"),
        ([1.0, np.nan], None, "NaN"),
    ],
)
def test_unusable_samples(
    distance: Callable[..., float], a: list[float], weights: object, match: str
) -> None:
    with pytest.raises(DatasetError, match=match):
        distance(a, [1.0, 2.0], weights)


def test_unit_weights_match_scipy() -> None:
    a, _ = sample(300, 1)
    b, _ = sample(200, 2, shift=0.3)
    assert weighted_ks(a, b) == pytest.approx(stats.ks_2samp(a, b).statistic)
    assert wasserstein(a, b) == pytest.approx(stats.wasserstein_distance(a, b))
    assert energy_distance(a, b) == pytest.approx(
        stats.energy_distance(a, b) ** 2 / np.std(np.concatenate([a, b]))
    )


def test_integer_weights_are_repeated_rows() -> None:
    a, b = np.array([1.0, 2.0, 4.0]), np.array([2.0, 3.0])
    repeated = np.repeat(a, [3, 1, 2])
    for distance in (weighted_ks, wasserstein):
        assert distance(a, b, [3.0, 1.0, 2.0]) == pytest.approx(distance(repeated, b))


def test_negative_weights_subtract_rows() -> None:
    a, b = np.array([1.0, 2.0, 4.0]), np.array([2.0, 3.0])
    padded, weights = np.append(a, [9.0, 9.0]), [1.0, 1.0, 1.0, 1.0, -1.0]
    for distance in (weighted_ks, wasserstein):
        assert distance(padded, b, weights) == pytest.approx(distance(a, b))


def test_ks_scale_is_the_mean_at_equal_distributions() -> None:
    rng = np.random.default_rng(1)
    found = [
        weighted_ks(rng.normal(size=400), rng.normal(size=600)) for _ in range(200)
    ]
    assert np.mean(found) == pytest.approx(ks_scale(400, 600), rel=0.06)


def test_ks_error_is_the_scatter() -> None:
    rng = np.random.default_rng(1)
    found, errors = [], []
    for _ in range(200):
        a, b = rng.normal(size=300), rng.normal(1.0, 1.0, 300)
        w = rng.choice([1.5, 0.5], 300)
        found.append(weighted_ks(a, b, w))
        errors.append(ks_error(a, b, w))
    assert np.std(found) == pytest.approx(np.mean(errors), rel=0.2)


def test_n_eff() -> None:
    assert n_eff(np.full(7, 0.3)) == pytest.approx(7)
    assert n_eff([1.0, -1.0, 2.0]) == pytest.approx(4 / 6)
    assert n_eff(np.zeros(3)) == 0


def test_separation_power_has_its_ends() -> None:
    assert separation_power([1, 2, 3], [2, 4, 6]) == 0
    assert separation_power([1, 0, 0], [0, 4, 6]) == pytest.approx(1)


def test_auc_matches_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(1)
    s0, s1 = rng.normal(size=300).round(1), rng.normal(0.4, 1, 200).round(1)
    w0, w1 = rng.random(300), rng.random(200)
    auc, error = weighted_auc(s0, s1, w0, w1)
    label = np.repeat([0, 1], [300, 200])
    expected = roc_auc_score(label, np.append(s0, s1), sample_weight=np.append(w0, w1))
    assert auc == pytest.approx(expected)
    assert 0.01 < error < 0.05


def test_positive_weights_find_the_signal_share() -> None:
    # Share of signal rises with x; sWeight-like weights scatter around it.
    rng = np.random.default_rng(1)
    x = rng.random((4000, 2))
    weights = np.where(rng.random(4000) < x[:, 0], 1.5, -0.5)
    found = positive_weights(x, weights, 1)
    assert np.all(found >= 0)
    assert found.sum() == pytest.approx(weights.sum())
    truth = 2 * x[:, 0] - 0.5
    inside = truth > 0.2
    assert np.std(found[inside] - truth[inside]) < 0.2


def test_positive_weights_leave_positive_ones() -> None:
    weights = np.array([0.5, 1.0, 0.0])
    np.testing.assert_array_equal(positive_weights(np.eye(3), weights, 1), weights)


def test_differences_are_features() -> None:
    features = with_differences([[7.0]], [[1.0, 2.0, 4.0]])
    assert features.tolist() == [[7, 1, 2, 4, -1, -3, -2]]


def test_c2st_of_the_same_distribution_is_a_half() -> None:
    rng = np.random.default_rng(1)
    outcome = c2st(rng.normal(size=(600, 2)), rng.normal(size=(600, 2)))
    assert abs(outcome.auc - 0.5) < 4 * outcome.error
    assert outcome.n_eff == pytest.approx(600)


def test_c2st_finds_a_shift_and_a_tie() -> None:
    rng = np.random.default_rng(1)
    shifted = c2st(rng.normal(size=(400, 2)), rng.normal(2, 1, (400, 2)))
    assert shifted.auc > 0.9
    # The marginals agree; only the exact tie of the two targets gives it away.
    y = rng.normal(size=(400, 2))
    tied = np.column_stack([y[:, 0], y[:, 0]])
    nearly = tied + rng.normal(0, 1e-3, tied.shape)
    x = np.zeros((400, 0))
    outcome = c2st(with_differences(x, tied), with_differences(x, nearly))
    assert outcome.auc > 0.9


def test_c2st_with_weights_of_both_signs() -> None:
    # Background (a quarter, shifted) is subtracted by its weights in both samples, of
    # which the generated one has only signal.
    rng = np.random.default_rng(2)
    mass = rng.random(3000) < 0.25
    values = np.where(mass, rng.normal(1.5, 1, 3000), rng.normal(0, 1, 3000))
    in_window = np.where(mass, rng.random(3000) < 0.4, True)
    weights = np.where(in_window, 1.0, -2 / 3)
    outcome = c2st(values, rng.normal(0, 1, 2000), weights)
    unweighted = c2st(values, rng.normal(0, 1, 2000))
    assert abs(outcome.auc - 0.5) < 4 * outcome.error
    assert unweighted.auc > 0.55


def test_c2st_pairs_stay_together() -> None:
    # Same conditions in both samples and targets that do not depend on them: apart,
    # a classifier that remembers conditions would be wrong on every partner.
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 3))
    real, generated = (np.column_stack([x, rng.normal(size=400)]) for _ in range(2))
    outcome = c2st(real, generated, paired=True)
    assert abs(outcome.auc_trees - 0.5) < 4 * outcome.error


def test_c2st_refuses_few_rows() -> None:
    with pytest.raises(DatasetError, match="199 real and 300 generated rows"):
        c2st(np.zeros((199, 1)), np.zeros((300, 1)))
