"""Rows at and beyond the edges of bins, discrete conditions, and merged bins."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import Run
from toy_generator import ToyGenerator, location, make_card, make_sample

from pidgan.bundle.card import CardVariable
from pidgan.efficiency.binning import (
    LEAST_BINS,
    MIN_BIN_ROWS,
    bin_index,
    count_bins,
    count_outside,
    default_binning,
    merge_bins,
    warn_of_outside,
)
from pidgan.efficiency.real_vs_generated import ComparedRows, closure_table
from pidgan.efficiency.systematics import map_from_rows, run_systematics
from pidgan.efficiency.table import efficiency_table
from pidgan.errors import PidganWarning
from pidgan.sample.dataset import Dataset

GENERATOR = ToyGenerator(card=make_card())


def reference(seed: int = 1, n: int = 2000) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = np.stack([rng.uniform(3e3, 1e5, n), rng.uniform(1.5, 5, n)], axis=1)
    y = location(x) + rng.standard_normal((n, 2))
    names = ("P", "ETA", "DLLk", "DLLp")
    columns = dict(zip(names, np.column_stack([x, y]).T, strict=True))
    return pd.DataFrame(columns).assign(weight=1.0)


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("edges", [(-1, 1), (-2, 0, 2), (-1, 0, 1), (-1, 1, 3)])
def test_both_charges_have_a_bin(kind: Any, edges: tuple[float, ...]) -> None:
    charge = np.array([-1, 1, 1, -1, 1], dtype=kind)
    index = bin_index({"charge": charge}, {"charge": edges})
    assert (index >= 0).all()
    if len(edges) > 2:
        np.testing.assert_array_equal(index, charge > 0)


def test_bins_are_those_of_numpy_and_of_an_axis_without_overflow() -> None:
    import hist

    edges = (0.0, 10.0, 40.0, 100.0)
    values = np.array([*edges, -0.1, 100.1, 55.0, np.nextafter(100.0, 0)])
    found = bin_index({"P": values}, {"P": edges})
    counts, _ = np.histogram(values, edges)
    np.testing.assert_array_equal(np.bincount(found[found >= 0]), counts)
    axis = hist.axis.Variable(edges, underflow=False, overflow=False)
    expected = np.where(found < 0, -1, np.array(axis.index(values)))
    np.testing.assert_array_equal(found, expected)


def test_every_row_is_in_a_bin_or_counted() -> None:
    rng = np.random.default_rng(1)
    columns = {"P": rng.integers(0, 8, 500), "q": rng.normal(0, 2, 500)}
    columns["q"][:9] = np.nan
    edges = {"P": (0, 3, 7), "q": (-2.0, 0.0, 2.0)}
    index = bin_index(columns, edges)
    outside = count_outside(columns, edges)
    assert outside == {"P": 0, "q": np.count_nonzero(~(np.abs(columns["q"]) <= 2))}
    assert np.count_nonzero(index < 0) == outside["q"]
    message = rf"{outside['q']} of 500 rows \(.*%\) lie outside .*: q -2 to 2: "
    with pytest.warns(PidganWarning, match=message):
        warn_of_outside(columns, edges, index)
    with pytest.warns(PidganWarning, match=message):
        table = efficiency_table({**columns, "y": columns["P"]}, "y > 3", binning=edges)
    assert table.rows_outside == outside["q"]
    assert (table.frame()["rows_outside"] == outside["q"]).all()
    assert table.n_rows.sum() + table.rows_outside == 500


def test_reference_rows_outside_the_bins_are_announced() -> None:
    frame = reference()
    n = np.count_nonzero(frame["P"] > 5e4)
    binning = {"P": (3e3, 1e4, 5e4)}
    message = rf"{n} of 2000 rows .* left out: P 3000 to 50000: {n}"
    for function in (closure_table, run_systematics):
        with pytest.warns(PidganWarning, match=message):
            function(GENERATOR, frame, cuts="DLLk > 1", binning=binning, repeats=1)


def test_a_category_has_a_bin_of_its_own_in_a_map() -> None:
    base = make_card(sample=make_sample(binning={}))
    charge = CardVariable(
        name="charge", unit="1", range=(-1, 1), categories=(1, -1), patterns=()
    )
    card = base.model_copy(update={"conditions": (*base.conditions, charge)})
    frame = reference().assign(charge=np.resize([-1.0, 1.0, 1.0], 2000))
    edges = default_binning(card, frame)
    assert edges["charge"] == (-1, 0, 1)
    found = run_systematics(ToyGenerator(card=card), frame, cuts="DLLk > 1", repeats=1)
    by_charge = found.n_eff.reshape(found.shape).sum(axis=(0, 1))
    np.testing.assert_allclose(by_charge, [667, 1333])
    assert found.metadata["reference"]["rows_outside"] == 0


def test_table_says_how_many_rows_it_leaves_out(
    kaon_dataset: Dataset, run: Run, tmp_path: Path
) -> None:
    path = kaon_dataset.save(tmp_path / "kaon")
    words = ("table", path, "--cut", "RichDLLk > 0", "--binning", "P=2e4,3e4")
    frame = pd.concat([kaon_dataset.frame(p) for p in ("train", "validation", "test")])
    outside = np.count_nonzero((frame["P"] < 2e4) | (frame["P"] > 3e4))
    found = run(*words)
    assert f"outside the bins, left out: {outside}" in found.out
    assert f"left out: P 20000 to 30000: {outside}" in found.err
    (row,) = json.loads(run(*words, "--json").out)
    assert row["rows_outside"] == outside
    assert row["n_rows"] == len(frame) - outside


# Merged bins


def merged_rows(shift: float) -> ComparedRows:
    """Rows whose real minus generated efficiency is the shift times 2 sqrt(g (1 - g)),
    as the model has it, with g close to 1 in every other bin."""
    rng = np.random.default_rng(1)
    place = np.repeat(np.arange(6), 40_000)
    g = np.array([0.9996, 0.8, 0.7, 0.9996, 0.9, 0.9996])
    scale = np.maximum(2 * np.sqrt(g * (1 - g)), 0.1)
    real = rng.random(len(place)) < (g + shift * scale)[place]
    made = rng.binomial(8, g[place])
    return ComparedRows(
        species="K+",
        cuts=("y > 0",),
        columns={"P": place + 0.5},
        weights=np.ones(len(place)),
        real=real[np.newaxis],
        generated=made[np.newaxis],
        repeats=8,
    )


def test_merging_bins_shifts_each_part_by_its_own_scale() -> None:
    """A difference that follows the model is no binning error, even beside a bin where
    it is eight times as large."""
    rows = merged_rows(-0.05)
    found = map_from_rows(
        rows,
        edges={"P": tuple(map(float, range(7)))},
        empty_bins=lambda bins: np.zeros((1, len(bins))),
        metadata={},
    )
    shift, error = found.variations["binning"][0], np.sqrt(np.diag(found.covariance[0]))
    assert found.generated[0, [0, 3, 5]].min() > 0.999
    assert found.discrepancy[0, 1] == pytest.approx(-0.04, abs=0.006)
    # Unscaled, these would be 0.018.
    assert np.abs(shift[[0, 3, 5]]).max() < 0.003
    assert np.all(np.abs(shift) < 4 * error + 0.001)
    # What a merged bin has in all is what its parts have.
    both = found.discrepancy[0] + shift
    sums = (rows.real[0] - rows.generated[0] / 8).reshape(3, -1).mean(axis=1)
    np.testing.assert_allclose(both.reshape(3, 2).mean(axis=1), sums, atol=0.002)


def test_binning_error_still_shows_what_merging_hides() -> None:
    """Differences of opposite signs in the two parts of a merged bin."""
    rows = merged_rows(0.0)
    rng = np.random.default_rng(2)
    place = np.floor(rows.columns["P"]).astype(int)
    g = np.array([0.5, 0.5, 0.7, 0.7, 0.6, 0.6])
    step = np.array([0.1, -0.1, 0.1, -0.1, 0.1, -0.1])
    changed = {
        "real": (rng.random(len(place)) < (g + step)[place])[np.newaxis],
        "generated": rng.binomial(8, g[place])[np.newaxis],
    }
    found = map_from_rows(
        ComparedRows(**{**vars(rows), **changed}),
        edges={"P": tuple(map(float, range(7)))},
        empty_bins=lambda bins: np.zeros((1, len(bins))),
        metadata={},
    )
    np.testing.assert_allclose(found.variations["binning"][0], -step, atol=0.02)


def test_a_small_reference_has_fewer_bins_than_its_sample() -> None:
    edges = {"P": tuple(range(17)), "ETA": tuple(range(10)), "q": (-1, 0, 1)}
    for size in (1e5, 2000.0, 900.0, 100.0, 0.0):
        found = merge_bins(edges, size, keep={"q"})
        assert found["q"] == (-1.0, 0.0, 1.0)
        for name, own in found.items():
            assert (own[0], own[-1]) == (edges[name][0], edges[name][-1])
            assert set(own) <= set(edges[name])
        enough = size >= MIN_BIN_ROWS * count_bins(found)
        assert enough or max(len(found["P"]), len(found["ETA"])) <= LEAST_BINS + 1
    assert count_bins(merge_bins(edges, 2880.0)) == 288
    assert count_bins(merge_bins(edges, 2879.0)) < 288
