"""Grids are found where values have a step, and nowhere else."""

import numpy as np
import pytest

from pidgan.sample.grids import Grid, find_grid, standing_out, stated_grid

RNG = np.random.default_rng(1)
N = 20_000
GRIDS = {
    "counts": (RNG.poisson(20, N), 1, 0),
    "yes and no": (RNG.integers(0, 2, N), 1, 0),
    "halves": (RNG.poisson(5, N) + 0.5, 1, 0.5),
    "odd numbers": (2 * RNG.poisson(9, N) + 1, 2, 1),
    "negative": (RNG.integers(-30, -10, N), 1, 0),
    "hundredths": (np.round(RNG.normal(60, 10, N) / 0.04) * 0.04, 0.04, 0),
    "single precision": (RNG.integers(-3000, 5000, N) * np.float32(0.04), 0.04, 0),
    "small": (RNG.integers(0, 1000, N) * 1e-5, 1e-5, 0),
    "an offset": (RNG.integers(0, 1000, N) * 0.04 + 0.013, 0.04, 0.013),
    "a calibrated count": (RNG.integers(2000, 50_000, N) * 0.0137, 0.0137, 0),
    "thirds": (RNG.integers(2000, 5000, N) / 3, 1 / 3, 0),
    "few rows": (np.round(RNG.normal(60, 10, 60) / 0.04) * 0.04, 0.04, 0),
    "five decades": (np.rint(np.exp(RNG.uniform(0, 12, N))), 1, 0),
    "five decades of steps": (np.rint(np.exp(RNG.uniform(0, 12, N))) * 0.04, 0.04, 0),
    "beside a far value": (
        np.where(RNG.random(N) < 0.1, -999.9, RNG.poisson(20, N) * 0.5),
        0.5,
        0,
    ),
}
NO_GRIDS = {
    "normal": RNG.normal(size=N),
    "few normal": RNG.normal(size=12),
    "one range of exponents": RNG.uniform(64, 128, N),
    "steep": RNG.exponential(1, N),
    "a probability": RNG.beta(0.3, 0.3, N),
    "some rows off the grid": np.where(
        RNG.random(N) < 1e-3, RNG.normal(size=N), RNG.poisson(20, N)
    ),
    "some halves": RNG.poisson(20, N) + 0.5 * (RNG.random(N) < 1e-3),
    "half precision": RNG.normal(60, 10, N).astype(np.float16),
    "ten bits": np.ldexp(
        np.round(np.frexp(x := RNG.exponential(20, N))[0] * 1024) / 1024,
        np.frexp(x)[1],
    ),
    "one value": np.full(N, 3.0),
}


@pytest.mark.parametrize("kind", GRIDS)
def test_a_grid_is_found(kind: str) -> None:
    values, step, offset = GRIDS[kind]
    grid = find_grid(values)
    assert grid is not None
    assert grid.step == pytest.approx(step, rel=1e-12)
    assert grid.offset == pytest.approx(offset, abs=1e-12)
    near = values[values > -999]
    k = grid.index(near.astype(np.float32))
    assert (k == np.rint((near - offset) / step)).all()
    back = grid.values(k).astype(np.float32)
    np.testing.assert_allclose(back, near.astype(np.float32), rtol=2e-7)


@pytest.mark.parametrize("kind", NO_GRIDS)
def test_continuous_values_have_no_grid(kind: str) -> None:
    assert find_grid(NO_GRIDS[kind]) is None


def test_sentinels_do_not_count() -> None:
    values = np.where(RNG.random(N) < 0.001, -999.9, RNG.poisson(20, N))
    assert find_grid(values) is None  # rare, and thus a value off the grid
    assert find_grid(values, sentinels=[-999.9]) == Grid(step=1, offset=0)


def test_a_stated_step_takes_the_offset_of_the_values() -> None:
    assert stated_grid(np.array([0.5, 1.5, 7.5]), 1.0).offset == pytest.approx(0.5)
    assert stated_grid(np.array([1.0, 2.0, 2.5]), 1.0) == Grid(step=1.0, offset=0.0)
    assert np.isnan(
        Grid(step=1.0, offset=0.0).index(np.array([2.5, 3.0]))
    ).tolist() == [
        True,
        False,
    ]


def test_values_stand_out_from_their_neighbours_only() -> None:
    least = 2e-3 * N
    counts = RNG.poisson(30, N).astype(float)
    assert standing_out(counts, least=least).tolist() == []
    counts[:600], counts[1000:2500], counts[3000:3400] = 64, 30, 0
    assert standing_out(counts, least=least).tolist() == [0, 30, 64]


@pytest.mark.parametrize(
    "values",
    [
        RNG.geometric(0.3, N),
        RNG.poisson(2, N),
        RNG.normal(100, 1.5, N).round(),
        np.where((k := RNG.poisson(30, N)) % 2, k + (RNG.random(N) < 0.4), k),
        RNG.uniform(0, 50, N).round(),
        np.rint(np.exp(RNG.uniform(0, 12, N))),
    ],
    ids=["steep", "few", "a narrow peak", "odd and even", "flat", "five decades"],
)
def test_smooth_counts_have_nothing_that_stands_out(values: np.ndarray) -> None:
    assert standing_out(values.astype(float), least=2e-3 * N).tolist() == []


def test_no_weight_and_no_row_order_matters() -> None:
    values = GRIDS["hundredths"][0]
    assert find_grid(values) == find_grid(RNG.permutation(values))
