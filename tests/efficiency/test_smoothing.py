import numpy as np
import pytest

from pidgan.efficiency.real_vs_generated import ComparedRows, RealVsGenerated
from pidgan.efficiency.smoothing import (
    MIN_N_EFF,
    _objective,
    _terms,
    difference_scale,
    is_measured,
    raw_covariance,
    raw_difference,
    regularise_variances,
    smooth_difference,
)


def compare(
    n: int,
    *,
    seed: int = 1,
    weighted: bool = False,
    n_bins: int = 4,
    shift: float = 0.05,
):
    rng = np.random.default_rng(seed)
    index = rng.integers(-1, n_bins, n)
    u = rng.random(n)
    real = np.array([u < 0.7, u < 0.3])
    generated = rng.binomial(8, [[0.7 - shift], [0.3]], (2, n))
    weights = np.where(rng.random(n) < 0.9, 1.0, -1.0) if weighted else np.ones(n)
    return record(index, weights, real, generated=generated, repeats=8, n_bins=n_bins)


def record(
    index: np.ndarray,
    weights: np.ndarray,
    real: np.ndarray,
    *,
    generated: np.ndarray,
    repeats: int,
    n_bins: int,
) -> RealVsGenerated:
    rows = ComparedRows(
        species="K+",
        cuts=tuple(f"y > {i}" for i in range(len(real))),
        columns={"bin": index},
        weights=weights,
        real=real,
        generated=generated,
        repeats=repeats,
    )
    return rows.in_bins({"bin": tuple(range(n_bins + 1))}).measured(MIN_N_EFF)


def test_raw_difference_is_that_of_the_sums() -> None:
    raw = record(
        np.array([0, 0, 0, 1, -1]),
        np.array([1.0, 2.0, -1.0, 1.0, 5.0]),
        np.array([[True, False, True, True, True]]),
        generated=np.array([[2, 4, 0, 4, 0]]),
        repeats=4,
        n_bins=3,
    )
    # (1 (1 - 1/2) + 2 (0 - 1) - 1 (1 - 0)) / 2; n_eff = 4 / 6 is too small.
    assert raw.n_eff == pytest.approx([4 / 6, 1, 0])
    assert is_measured(raw).tolist() == [False, True, False]
    assert raw_difference(raw.real, raw.generated)[0, 1] == 0
    assert np.isnan(raw_difference(raw.real, raw.generated)[0, [0, 2]]).all()


@pytest.mark.parametrize("weighted", [False, True])
def test_variance_is_the_spread_of_repetitions(weighted: bool) -> None:
    found = [compare(2000, seed=s, weighted=weighted) for s in range(300)]
    d = np.array([raw_difference(raw.real, raw.generated) for raw in found])
    variance = np.array(
        [regularise_variances(raw, raw.generated.efficiency) for raw in found]
    )
    ratio = d.var(axis=0) / variance.mean(axis=0)
    np.testing.assert_allclose(ratio, 1, atol=0.3)
    assert ratio.mean() == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(d.mean(axis=(0, 2)), [0.05, 0.0], atol=0.004)
    covariance = np.mean(
        [raw_covariance(r, v)[0, 1] for r, v in zip(found, variance, strict=True)]
    )
    seen = np.mean([np.cov(d[:, 0, b], d[:, 1, b])[0, 1] for b in range(4)])
    assert covariance == pytest.approx(seen, rel=0.15)


def test_subtracted_background_counts_most_where_the_efficiency_saturates() -> None:
    rng = np.random.default_rng(3)
    n, n_bins = 6000, 30
    index = rng.integers(0, n_bins, n)
    efficiency = np.linspace(0.5, 0.999, n_bins)[index]
    d, variance = [], []
    for _ in range(200):
        background = rng.random(n) < 0.3
        passes = rng.random(n) < np.where(background, 0.05, efficiency)
        # As sWeights: both signs among the background, whose sum is zero.
        w = np.where(background, rng.choice([-1.0, 1.0], n), 1.0)
        made = rng.binomial(8, efficiency)[np.newaxis]
        raw = record(
            index, w, passes[np.newaxis], generated=made, repeats=8, n_bins=n_bins
        )
        d.append(raw_difference(raw.real, raw.generated)[0])
        expected = np.linspace(0.5, 0.999, n_bins)[np.newaxis]
        variance.append(regularise_variances(raw, expected)[0])
    pull = np.array(d) / np.sqrt(variance)
    spread = (pull**2).mean(axis=0)
    assert spread[:10].mean() == pytest.approx(1, abs=0.15)
    assert spread[-10:].mean() == pytest.approx(1, abs=0.15)


def test_bin_where_everything_passes_has_a_variance() -> None:
    raw = record(
        np.zeros(50, dtype=int),
        np.ones(50),
        np.ones((1, 50), dtype=bool),
        generated=np.full((1, 50), 8),
        repeats=8,
        n_bins=1,
    )
    (variance,) = regularise_variances(raw, raw.real.efficiency)[0]
    assert raw.moments[0, 0, 0] == 0
    assert np.sqrt(variance) == pytest.approx(0.5 / 50, rel=0.6)


def test_covariance_of_cuts_is_positive() -> None:
    raw = compare(500, weighted=True)
    matrix = raw_covariance(raw, regularise_variances(raw, raw.generated.efficiency))
    for b in range(4):
        assert np.linalg.eigvalsh(matrix[:, :, b]).min() > 0


def test_gradient_of_the_likelihood() -> None:
    rng = np.random.default_rng(2)
    terms = _terms((4, 3, 1))
    assert terms.shape == (5, 12, 12)
    raw, noise = rng.normal(0, 0.03, 12), np.full(12, 1e-4)
    at, step = rng.normal(-3, 0.5, 5), 1e-5
    _, gradient = _objective(at, terms, raw, noise)
    for i, unit in enumerate(np.eye(5) * step):
        high = _objective(at + unit, terms, raw, noise)[0]
        low = _objective(at - unit, terms, raw, noise)[0]
        assert gradient[i] == pytest.approx((high - low) / (2 * step), abs=1e-3)


def smooth(d: np.ndarray, sigma: float, shape: tuple[int, ...]):
    variance = np.full(len(d), sigma**2)
    return smooth_difference(d, variance, shape=shape, scale=np.ones(len(d)))


def test_precise_bins_are_left_alone() -> None:
    d = np.random.default_rng(3).normal(0, 0.05, 20)
    result = smooth(d, 1e-4, (5, 4))
    np.testing.assert_allclose(result.mean, d, atol=1e-3)
    np.testing.assert_allclose(np.sqrt(np.diag(result.covariance)), 1e-4, rtol=0.05)


def test_noise_is_averaged() -> None:
    d = 0.02 + np.random.default_rng(4).normal(0, 0.05, 60)
    result = smooth(d, 0.05, (10, 6))
    assert np.sqrt(np.mean((result.mean - 0.02) ** 2)) < 0.025
    assert np.sqrt(np.diag(result.covariance)).max() < 0.04


def test_empty_bins_borrow_with_a_larger_error() -> None:
    d = np.repeat(np.linspace(-0.1, 0.1, 8), 3)
    d[[4, 23]] = np.nan
    result = smooth(d, 0.01, (8, 3))
    error = np.sqrt(np.diag(result.covariance))
    assert result.mean[4] == pytest.approx(d[3], abs=0.04)
    assert error[23] > error[4] > 1.2 * error[5]
    assert (result.operator[:, [4, 23]] == 0).all()


def test_posterior_is_linear_and_positive() -> None:
    d = np.random.default_rng(5).normal(0, 0.05, 24)
    d[7] = np.nan
    result = smooth(d, 0.03, (6, 4))
    np.testing.assert_allclose(result.operator @ np.nan_to_num(d), result.mean)
    assert np.linalg.eigvalsh(result.covariance).min() > -1e-12
    own = result.operator @ result.operator.T * 0.03**2
    assert np.linalg.eigvalsh(result.covariance - own).min() > -1e-12


def test_one_bin() -> None:
    result = smooth(np.array([0.05]), 0.001, (1,))
    assert result.mean[0] == pytest.approx(0.05, rel=0.02)


def test_scale_is_largest_at_one_half() -> None:
    scale = difference_scale(np.array([-0.1, 0.5, 0.9, 1.0]))
    np.testing.assert_allclose(scale, [0.01, 1, 0.36, 0.01])
