"""Targets on a grid stay there, in their range and in order; atoms are few."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from formula_arms import assert_equal_on_every_arm

from pidgan.bundle import formulas as f
from pidgan.errors import TrainingError
from pidgan.training.patterns import pick_pattern
from pidgan.training.targets.grid_fits import Stated
from pidgan.training.targets.track_fits import fit_columns, fit_tracks
from pidgan.training.targets.tracks import TargetTransform

N = 20_000
RNG = np.random.default_rng(1)
PADS = RNG.poisson(45, N)
FOUND = RNG.binomial(PADS, 0.8)
USED = RNG.binomial(FOUND, 0.7)
CONTINUOUS = RNG.normal(size=N)
ENERGY = RNG.exponential(50, N)
LOST = RNG.random(N) < 0.05


def columns(*values: Any) -> np.ndarray:
    return np.stack(values, axis=1).astype(np.float32)


def clusters() -> np.ndarray:
    """Crossed rows, mostly all 159, clusters among these, and a mean on steps."""
    rows = np.minimum(159, np.round(159 - RNG.gamma(1.6, 9, N) * (RNG.random(N) > 0.2)))
    found = RNG.binomial(rows.clip(20).astype(int), 0.9)
    mean = np.round(60 * (1 + RNG.normal(size=N) * 0.55 / np.sqrt(found)) / 0.04) * 0.04
    return columns(rows.clip(20), found, np.where(RNG.random(N) < 0.003, 0, mean))


# Targets, their sentinels, the orders that must be found, and the most patterns.
Kind = tuple[np.ndarray, list[tuple[float, ...]], set[tuple[int, int]], int]
KINDS: dict[str, Kind] = {
    "clusters": (clusters(), [(), (), (0,)], {(1, 0)}, 6),
    "yes and no": (columns(RNG.random(N) < 0.3, CONTINUOUS), [], set(), 2),
    "few counts": (columns(RNG.integers(0, 6, N), CONTINUOUS), [], set(), 6),
    "three values": (columns(RNG.choice([-1, 0, 1], N), PADS), [], set(), 3),
    "halves": (columns(RNG.poisson(8, N) + 0.5, CONTINUOUS), [], set(), 1),
    "sentinels": (
        columns(
            np.where(LOST, -999, RNG.integers(-30, 30, N)),
            np.where(LOST, -999.9, RNG.poisson(20, N) * 0.04),
        ),
        [(-999,), (-999.9,)],
        set(),
        2,
    ),
    "sentinels that are not declared": (
        columns(np.where(LOST, -999.9, PADS * 0.04), PADS),
        [],
        set(),
        2,
    ),
    "decades": (columns(np.rint(np.exp(RNG.uniform(0, 12, N)))), [], set(), 1),
    "a chain": (
        columns(USED, CONTINUOUS, PADS, FOUND),
        [],
        {(0, 2), (0, 3), (3, 2)},
        1,
    ),
    "strictly below": (columns(PADS, FOUND - 1), [], {(1, 0)}, 1),
    "a copy": (columns(PADS, PADS - 3, FOUND), [], {(2, 0)}, 1),
    "steps of two and four": (
        columns(2 * PADS, FOUND, 4 * (FOUND // 4)),
        [],
        {(2, 1)},
        1,
    ),
    "a chain with sentinels": (
        columns(
            np.where(LOST, -1, PADS),
            np.where(LOST | (RNG.random(N) < 0.1), -1, FOUND),
            USED,
        ),
        [(-1,), (-1,), ()],
        {(1, 0), (2, 0), (2, 1)},
        4,
    ),
    "a spike in the order": (
        columns(PADS, np.where(RNG.random(N) < 0.1, 0, FOUND)),
        [],
        {(1, 0)},
        2,
    ),
    "nearly equal": (columns(PADS, PADS - RNG.geometric(0.6, N) + 1), [], {(1, 0)}, 9),
    "no track, no count": (
        columns(np.where(LOST, -1, PADS), np.where(LOST, -1, FOUND)),
        [],
        {(1, 0)},
        2,
    ),
    "spikes": (
        columns(np.where(LOST, 64, np.where(RNG.random(N) < 0.1, 30, PADS))),
        [],
        set(),
        3,
    ),
}


def fitted(kind: str) -> tuple[np.ndarray, TargetTransform]:
    y, sentinels, _, _ = KINDS[kind]
    return y, fit_tracks(y, np.ones(len(y)), sentinels=sentinels)


def some_noise(n: int, d: int) -> np.ndarray:
    noise = 2 * np.random.default_rng(2).normal(size=(n, d))
    return np.ascontiguousarray(noise, dtype=np.float32)


def assert_kept(made: np.ndarray, y: np.ndarray, kind: str) -> None:
    """Check that made targets lie on the grids, in the ranges and orders of real y."""
    _, sentinels, orders, _ = KINDS[kind]
    declared = [value for values in sentinels for value in values]
    absent = np.array([-999.9, *declared], dtype=np.float32)
    measured = ~np.isin(made, absent)
    for j in range(y.shape[1]):
        values = np.unique(y[:, j])
        if len(values) < N / 3:  # a grid
            real = values[~np.isin(values, absent)]
            mine = made[measured[:, j], j]
            assert mine.min() >= real[0]
            assert mine.max() <= real[-1]
            step = round(float(np.diff(real.astype(np.float64)).min()), 4)
            k = mine.astype(np.float64) / step
            k -= real[0].astype(np.float64) / step
            assert np.abs(k - np.rint(k)).max() < 1e-3
    for i, j in orders:
        both = measured[:, i] & measured[:, j]
        gap = (y[:, j] - y[:, i])[~np.isin(y[:, [i, j]], absent).any(axis=1)].min()
        assert (made[both, j] - made[both, i]).min() >= min(gap, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_targets_on_a_grid_come_back(kind: str) -> None:
    y, transform = fitted(kind)
    pattern, z = transform.forward(y, seed=4)
    fits = pattern >= 0
    assert fits.mean() > 0.998
    codes = np.eye(transform.n_patterns, dtype=np.float32)[pattern]
    back = transform.inverse(z, codes if transform.n_patterns > 1 else None)
    assert transform.grids is not None
    for j, on_grid in enumerate(transform.grids.on_grid):
        same = np.abs(back - y)[fits, j] <= 3e-7 * np.abs(y[fits, j])
        # Knots are in single precision: of five decades, some places are off by one.
        assert not on_grid or same.mean() > (0.99 if kind == "decades" else 0.9999)


@pytest.mark.parametrize("kind", KINDS)
def test_structure_of_grids(kind: str) -> None:
    y, transform = fitted(kind)
    _, _, orders, most = KINDS[kind]
    layer = transform.grids
    assert layer is not None
    assert transform.n_patterns <= most
    assert {(int(i), int(j)) for i, j in layer.orders[:, :2]} == orders
    assert len(layer.equal) == (kind == "a copy")
    assert np.isfinite(transform.knots).all()
    again = TargetTransform.from_arrays(transform.to_arrays())
    np.testing.assert_array_equal(again.forward(y)[1], transform.forward(y)[1])


@pytest.mark.parametrize("kind", KINDS)
def test_made_targets_keep_grid_range_and_order(kind: str) -> None:
    y, transform = fitted(kind)
    d, n_patterns = y.shape[1], transform.n_patterns
    pattern = np.random.default_rng(5).integers(0, n_patterns, N)
    codes = np.eye(n_patterns, dtype=np.float32)[pattern] if n_patterns > 1 else None
    made = transform.inverse(some_noise(N, d) * transform.free[pattern], codes)
    assert_kept(made, y, kind)


def formula_of(transform: TargetTransform) -> Callable[[Any, Any], Any]:
    def formula(x: Any, z: Any) -> Any:
        codes = None
        if transform.n_patterns > 1:
            codes = pick_pattern(x, f.columns(z, 0, 1))
        return transform.inverse(z, codes)

    return formula


@pytest.mark.parametrize("kind", KINDS)
def test_grids_are_the_same_everywhere(kind: str, tmp_path: Path) -> None:
    y, transform = fitted(kind)
    rng = np.random.default_rng(6)
    x = rng.normal(size=(200, max(2, transform.n_patterns))).astype(np.float32)
    z = some_noise(200, y.shape[1])
    made = assert_equal_on_every_arm(formula_of(transform), x, z, path=tmp_path)
    assert_kept(made, y, kind)


def test_continuous_targets_know_no_grid() -> None:
    y = columns(CONTINUOUS, ENERGY, np.where(LOST, -999, CONTINUOUS))
    transform = fit_tracks(y, np.ones(N), sentinels=[(), (), (-999,)])
    assert transform.grids is None
    assert not any(name.startswith("grid_") for name in transform.to_arrays())


def test_published_recipes_stay_on_the_grid_too() -> None:
    y = KINDS["a chain"][0]
    transform = fit_columns(y, np.ones(N))
    assert transform.n_patterns == 1
    assert_kept(transform.inverse(some_noise(N, 4), None), y, "a chain")


def test_a_grid_is_spread_by_a_seed() -> None:
    y, transform = fitted("halves")
    first, again, other = (transform.forward(y, seed=s)[1][:, 0] for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.99
    # Uniform in each cell: the mean of a cell is its middle.
    assert np.abs(first - other).mean() > 0.05


def test_signed_weights_change_the_quantiles_and_not_the_structure() -> None:
    y, sentinels, _, _ = KINDS["clusters"]
    weights = np.where(RNG.random(N) < 0.3, -0.5, 1.0)
    signed = fit_tracks(y, weights, sentinels=sentinels)
    plain = fit_tracks(y, np.ones(N), sentinels=sentinels)
    np.testing.assert_array_equal(signed.patterns, plain.patterns)
    np.testing.assert_array_equal(signed.atoms, plain.atoms)


@pytest.mark.parametrize("sentinel", [False, True])
def test_continuous_targets_keep_a_stated_order(sentinel: bool, tmp_path: Path) -> None:
    part = ENERGY * RNG.beta(2, 5, N)
    part = np.where(RNG.random(N) < 0.1, 0, part)
    y = columns(ENERGY, np.where(LOST, -999.9, part) if sentinel else part)
    stated = Stated(at_most=[(1, 0)])
    given = [(), (-999.9,)] if sentinel else []
    transform = fit_tracks(y, np.ones(N), sentinels=given, stated=stated)
    x = np.random.default_rng(7).normal(size=(200, transform.n_patterns))
    made = assert_equal_on_every_arm(
        formula_of(transform), x.astype(np.float32), some_noise(200, 2), path=tmp_path
    )
    assert (made[:, 1] <= made[:, 0]).all()
    assert (made[:, 1] == 0).any()
    assert (made[:, 1] == np.float32(-999.9)).any() == sentinel


def test_an_order_needs_two_grids_or_none() -> None:
    y = columns(PADS, 0.1 * CONTINUOUS)
    with pytest.raises(
        TrainingError, match="target number 1 is at most target number 0"
    ):
        fit_tracks(y, np.ones(N), stated=Stated(at_most=[(1, 0)]))


def test_rows_off_a_grid_make_a_target_continuous() -> None:
    steps = np.round(RNG.normal(60, 2, N) / 0.1) * 0.1
    y = columns(np.where(RNG.random(N) < 1e-3, RNG.normal(60, 2, N), steps))
    transform = fit_tracks(y, np.ones(N))
    assert transform.grids is None
    assert transform.n_patterns == 1  # though each of 100 values is frequent


def test_a_grid_of_too_many_steps_is_refused() -> None:
    with pytest.raises(TrainingError, match="single precision tells 4194304 apart"):
        fit_tracks(columns(1e6 * PADS), np.ones(N), stated=Stated(steps=[1.0]))


def test_the_upper_target_of_an_order_is_no_difference() -> None:
    assert fitted("a chain")[1].base.tolist() == [3, -1, -1, 2]
    assert fitted("no track, no count")[1].exact_values()[1].tolist() == [-1]


def test_independent_counts_that_never_cross_have_no_order() -> None:
    y = columns(RNG.poisson(10, N), 1000 + RNG.poisson(10, N))
    transform = fit_tracks(y, np.ones(N))
    assert transform.grids is not None
    assert len(transform.grids.orders) == 0
    assert transform.base.tolist() == [-1, -1]


def test_shares_of_a_grid_are_those_of_the_data() -> None:
    """Normal coordinates, which a perfect network makes, give the counts back."""
    y, transform = fitted("clusters")
    pattern, _ = transform.forward(y)
    z = np.random.default_rng(8).normal(size=(N, 3)) * transform.free[pattern]
    codes = np.eye(transform.n_patterns, dtype=np.float32)[pattern]
    made = transform.inverse(z.astype(np.float32), codes)
    for j, edges in enumerate((np.arange(100, 161), np.arange(80, 160))):
        real, mine = (np.histogram(v[:, j], edges)[0] for v in (y, made))
        pull = (mine - real) / np.sqrt(mine + real + 1)
        assert np.sqrt(np.mean(pull**2)) < 1.6
