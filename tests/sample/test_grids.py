"""Grids are found where values have a step, and nowhere else."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pidgan.errors import SampleError
from pidgan.sample.building import build_dataset
from pidgan.sample.definition import Sample
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


def counted(path: Path, **target: Any) -> tuple[Sample, Path]:
    """Return a definition with two targets, and a file with some rows of it."""
    frame = pd.DataFrame(
        {"P": RNG.uniform(1e3, 1e5, 500), "nRows": RNG.poisson(45, 500)}
    )
    frame["nClusters"] = RNG.binomial(frame["nRows"], 0.9).astype(np.float32)
    frame.loc[7, "nClusters"] = -1
    targets = [
        {"name": "nRows", "range": (0, 100), "integer": True},
        {"name": "nClusters", "range": (0, 200), "sentinels": [-1], **target},
    ]
    content: dict[str, Any] = {"schema": 1, "name": "counts", "title": "Counts"}
    content |= {"detector": "toy", "species": "K+", "source": "none"}
    content |= {"unweighted": True, "conditions": [{"name": "P", "range": (1e3, 1e5)}]}
    frame.to_parquet(path / "counts.parquet")
    return Sample.model_validate(
        content | {"targets": targets}
    ), path / "counts.parquet"


@pytest.mark.parametrize(
    ("target", "row", "message"),
    [
        (
            {"integer": True},
            30.5,
            "nClusters is not on its grid in 1 of 499 rows, 30.5",
        ),
        (
            {"step": 0.25},
            30.3,
            r"30.3 in the first one; expected multiples of step = 0.25",
        ),
        ({"at_most": "nRows"}, 150, "nClusters is above nRows in 1 of 499 rows, 150"),
    ],
)
def test_data_that_break_what_is_stated_are_refused(
    target: dict[str, Any], row: float, message: str, tmp_path: Path
) -> None:
    sample, file = counted(tmp_path, **target)
    assert len(build_dataset(sample, file)) == 500
    frame = pd.read_parquet(file)
    frame.loc[3, "nClusters"] = row
    frame.to_parquet(file)
    with pytest.raises(SampleError, match=message):
        build_dataset(sample, file)


def test_what_is_stated_is_part_of_the_dataset(tmp_path: Path) -> None:
    sample, file = counted(tmp_path, step=1, at_most="nRows")
    assert sample.orders == ((1, 0),)
    assert [v.grid_step for v in sample.targets] == [1, 1]
    assert Sample.model_validate_json(sample.model_dump_json(by_alias=True)) == sample
    plain, _ = counted(tmp_path)
    stated = build_dataset(sample, file).info["hash"]
    assert stated != build_dataset(plain, file).info["hash"]
