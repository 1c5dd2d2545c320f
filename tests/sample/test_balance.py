"""Balanced weights are not negative, and have the sums of the sWeights in bins."""

import numpy as np
import pytest

from pidgan.sample import weights
from pidgan.sample.balance import EDGES, LEAST, MOST, balance
from pidgan.sample.weights import n_eff, positive_weights

N = 40_000


def _rows(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signal y ~ N(0, 1) and as much background y ~ N(1, 1), and a condition."""
    rng = np.random.default_rng(seed)
    is_signal = rng.random(N) < 0.5
    x = rng.normal(size=(N, 2))
    x[:, 1] += ~is_signal
    return x, is_signal + rng.choice([-0.6, 0.6], N), is_signal


def _pass_rates(y: np.ndarray, w: np.ndarray) -> np.ndarray:
    return np.array([w[y > cut].sum() for cut in (-1, 0, 1)]) / w.sum()


def test_the_sum_stays_and_no_weight_is_negative() -> None:
    x, w, _ = _rows(1)
    g = np.abs(np.random.default_rng(2).normal(size=N))
    found = balance(x, w, g, size=n_eff(w))
    assert found.sum() == pytest.approx(g.sum())
    assert np.all(found >= 0)
    ratio = found / g
    assert ratio.max() / ratio.min() <= MOST / LEAST * (1 + 1e-9)


def test_background_that_a_regression_left_is_taken_out() -> None:
    """Weights that know nothing, g = 1, pass as signal and background together."""
    x, w, is_signal = _rows(3)
    truth = _pass_rates(x[:, 1], is_signal)
    before = _pass_rates(x[:, 1], np.ones(N)) - truth
    after = _pass_rates(x[:, 1], balance(x, w, np.ones(N), size=1e9)) - truth
    assert np.all(np.abs(before) > 0.05)
    assert np.all(np.abs(after) < 0.01)


def test_bins_have_the_sums_of_the_weights() -> None:
    """Without a ridge; the ratio is bounded, so deviations are small ones."""
    x, w, is_signal = _rows(4)
    g = np.where(is_signal, 1.0, 0.1) * (1 + 0.2 * x[:, 0].clip(-2, 2))
    found = balance(x, w, g, size=1e12) * (w.sum() / g.sum())
    edges = np.quantile(x[:, 0], EDGES)
    place = np.searchsorted(edges, x[:, 0], side="right")
    for k in range(len(EDGES) + 1):
        assert found[place == k].sum() == pytest.approx(w[place == k].sum(), rel=1e-3)


def test_an_atom_has_a_bin_of_its_own() -> None:
    x, w, is_signal = _rows(5)
    x[is_signal, 0], x[~is_signal, 0] = (
        np.where(np.random.default_rng(6).random(n) < share, 0.0, 1e-6)
        for n, share in ((is_signal.sum(), 0.6), ((~is_signal).sum(), 0.2))
    )
    found = balance(x[:, :1], w, np.ones(N), size=1e12)
    assert found[x[:, 0] == 0].sum() / found.sum() == pytest.approx(0.6, abs=0.02)


def test_few_rows_change_little() -> None:
    x, w, _ = _rows(7)
    few = slice(200)
    g = np.ones(200)
    found = balance(x[few], w[few], g, size=n_eff(w[few]))
    assert np.abs(found - 1).max() < 0.15


def test_regressed_weights_are_balanced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pass rates of the signal are closer to the truth than without."""
    samples = [_rows(seed) for seed in range(8, 12)]

    def deviation() -> float:
        rates = [_pass_rates(x[:, 1], positive_weights(x, w, 1)) for x, w, _ in samples]
        truth = [_pass_rates(x[:, 1], is_signal) for x, _, is_signal in samples]
        return float(np.sqrt(np.mean(np.square(np.subtract(rates, truth)))))

    after = deviation()
    monkeypatch.setattr(weights, "balance", lambda x, w, g, *, size: g)
    assert after < 0.8 * deviation()
