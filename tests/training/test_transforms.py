"""Transforms: what goes forward comes back, and discrete structure is exact."""

from typing import Any

import numpy as np
import pytest

from pidgan.errors import DatasetError
from pidgan.simulation import simulate_calibration
from pidgan.training.conditions import ConditionTransform, fit_conditions
from pidgan.training.targets.track_fits import fit_tracks
from pidgan.training.targets.tracks import TargetTransform

DLLS = ("k", "p", "mu", "e", "bt")
SENTINELS = [(-999.0, -1000.0)] * len(DLLS)


@pytest.fixture(scope="module")
def dlls() -> np.ndarray:
    trees = simulate_calibration("dstar_k", 30_000, seed=5)
    columns = [
        np.concatenate([tree[f"probe_Brunel_RichDLL{h}"] for tree in trees.values()])
        for h in DLLS
    ]
    return np.stack(columns, axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def transform(dlls: np.ndarray) -> TargetTransform:
    return fit_tracks(dlls, np.ones(len(dlls)), sentinels=SENTINELS)


def back_from(transform: TargetTransform, pattern: Any, y: Any) -> Any:
    codes = np.eye(transform.n_patterns, dtype=np.float32)[pattern]
    return transform.inverse(y, codes)


def test_ties_and_sentinels_are_found(transform: TargetTransform) -> None:
    # Kaons and protons share the value "below threshold" below their thresholds.
    assert transform.base.tolist() == [4, 4, -1, -1, -1]
    assert transform.n_patterns >= 4
    assert -999.0 in transform.atoms
    assert transform.depth == 1


def test_targets_come_back(dlls: np.ndarray, transform: TargetTransform) -> None:
    pattern, z = transform.forward(dlls)
    back = back_from(transform, pattern, z)
    fits = pattern >= 0
    assert fits.mean() > 0.999
    assert np.abs(back - dlls)[fits].max() < 1e-3
    for i in range(len(DLLS)):
        for j in range(i):
            tied = (dlls[:, i] == dlls[:, j]) & fits
            np.testing.assert_array_equal(back[tied, i], back[tied, j])
    sentinel = (dlls == -999) & fits[:, None]
    np.testing.assert_array_equal(back[sentinel], -999)


def test_coordinates_are_uncorrelated(
    dlls: np.ndarray, transform: TargetTransform
) -> None:
    pattern, y = transform.forward(dlls)
    common = [k for k in range(transform.n_patterns) if (pattern == k).sum() > 1000]
    assert len(common) >= 3
    for k in common:
        free = transform.patterns[k] == 1
        rows = y[pattern == k]
        assert (rows[:, ~free] == 0).all()
        covariance = np.cov(rows[:, free], rowvar=False)
        np.testing.assert_allclose(covariance, np.eye(free.sum()), atol=0.02)


def test_signed_weights_give_weighted_quantiles() -> None:
    rng = np.random.default_rng(1)
    signal, background = rng.normal(0, 1, 40_000), rng.normal(3, 1, 20_000)
    values = np.concatenate([signal, background, background])[:, None]
    # The background cancels: half of its copies count -1.
    weights = np.repeat([1.0, 1.0, -1.0], [40_000, 20_000, 20_000])
    transform = fit_tracks(values, weights)
    _, z = transform.forward(rng.normal(0, 1, (20_000, 1)))
    assert abs(z.mean()) < 0.03
    assert abs(z.std() - 1) < 0.03


def test_continuous_targets_have_one_pattern() -> None:
    values = np.random.default_rng(2).normal(size=(1000, 2))
    transform = fit_tracks(values, np.ones(1000))
    assert transform.n_patterns == 1
    assert transform.base.tolist() == [-1, -1]


def test_values_piled_up_at_both_ends_are_atoms() -> None:
    rng = np.random.default_rng(3)
    values = np.clip(rng.normal(0.5, 0.5, (5000, 1)), 0, 1)
    transform = fit_tracks(values, np.ones(5000))
    assert transform.n_patterns == 3
    pattern, z = transform.forward(values)
    back = back_from(transform, pattern, z)
    assert (back == 0).mean() == (values == 0).mean()
    assert (back == 1).mean() == (values == 1).mean()


def test_a_rare_sentinel_stays_an_atom() -> None:
    values = np.random.default_rng(4).normal(size=(5000, 1)).astype(np.float32)
    values[:3] = -999
    transform = fit_tracks(values, np.ones(5000), sentinels=[(-999.0,)])
    pattern, z = transform.forward(values)
    assert (back_from(transform, pattern, z) == -999).sum() == 3
    assert transform.knots.min() > -10


def test_chains_of_ties_are_undone() -> None:
    rng = np.random.default_rng(5)
    y = rng.normal(size=(4000, 3)).astype(np.float32)
    y[:1500, 1] = y[:1500, 0]
    y[1000:3000, 2] = y[1000:3000, 1]
    transform = fit_tracks(y, np.ones(4000))
    pattern, z = transform.forward(y)
    back = back_from(transform, pattern, z)
    np.testing.assert_array_equal(back[:1500, 1], back[:1500, 0])
    np.testing.assert_array_equal(back[1000:3000, 2], back[1000:3000, 1])


def test_transforms_are_stored_and_rebuilt(
    dlls: np.ndarray, transform: TargetTransform
) -> None:
    rebuilt = TargetTransform.from_arrays(transform.to_arrays())
    for (_, z), (_, again) in zip(
        [transform.forward(dlls)], [rebuilt.forward(dlls)], strict=True
    ):
        np.testing.assert_array_equal(z, again)


def test_conditions_come_back() -> None:
    rng = np.random.default_rng(6)
    x = np.stack([rng.uniform(3e3, 2e5, 100), rng.uniform(2, 5, 100)], axis=1)
    transform = fit_conditions(x, ["log", "linear"])
    scaled = transform.forward(x)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(transform.inverse(scaled), x, rtol=1e-5)
    rebuilt = ConditionTransform.from_arrays(transform.to_arrays())
    np.testing.assert_array_equal(rebuilt.forward(x), scaled)


def test_bad_conditions_are_named() -> None:
    with pytest.raises(DatasetError, match=r"number \[1\] are constant"):
        fit_conditions(np.array([[1.0, 2.0], [3.0, 2.0]]), ["linear", "linear"])
    with pytest.raises(DatasetError, match="values <= 0"):
        fit_conditions(np.array([[0.0], [3.0]]), ["log"])


def test_a_target_with_ties_is_divided_and_stays_in_its_interval() -> None:
    rng = np.random.default_rng(8)
    y = rng.normal(size=(40_000, 2)).astype(np.float32)
    y[:10_000, 1] = y[:10_000, 0]
    transform = fit_tracks(y, np.ones(len(y)))
    assert transform.base.tolist() == [-1, 0]
    assert transform.n_patterns == 8
    pattern, z = transform.forward(y)
    for k in range(8):
        rows = y[pattern == k, 0]
        assert transform.low[k, 0] <= rows.min() < rows.max() < transform.high[k, 0]
        assert abs(z[pattern == k, 0].mean()) < 0.05
        far = np.array([[-10, 0], [10, 0]], dtype=np.float32)
        made = back_from(transform, np.full(2, k), far)[:, 0]
        assert transform.low[k, 0] <= made[0] < made[1] < transform.high[k, 0]
    again, _ = transform.forward(back_from(transform, pattern, z))
    np.testing.assert_array_equal(again, pattern)


def test_a_rare_combination_of_atoms_is_a_pattern() -> None:
    rng = np.random.default_rng(7)
    values = rng.normal(size=(100_000, 2)).astype(np.float32)
    values[:2000] = 0
    values[2000:2020, 0] = 0
    transform = fit_tracks(values, np.ones(len(values)))
    assert transform.patterns.tolist() == [[1, 1], [0, 1], [0, 0]]
    pattern, _ = transform.forward(values)
    assert np.bincount(pattern).tolist() == [97_980, 20, 2000]
