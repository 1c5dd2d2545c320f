"""Real and generated efficiencies of the same rows: values, covariance, bad input."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from toy_generator import ToyGenerator, location, make_card, make_sample

from pidgan.bundle.reference import parse_cuts
from pidgan.efficiency.real_vs_generated import (
    ComparedRows,
    closure_table,
    compare_rows,
)
from pidgan.efficiency.table import efficiency_table
from pidgan.errors import CutError, MapError, PidganWarning

GENERATOR = ToyGenerator(card=make_card())
CUTS = ["DLLk > 2", "DLLk > 1 & DLLp < 3"]


def reference(n: int, seed: int, *, shift: float = 0.0) -> pd.DataFrame:
    """Rows that the generator describes, or that are moved against it."""
    rng = np.random.default_rng(seed)
    x = np.stack([rng.uniform(3e3, 1e5, n), rng.uniform(1.5, 5, n)], axis=1)
    z = rng.standard_normal((n, 3))
    y = GENERATOR.generate(x, z) + shift
    w = rng.choice([1.0, 1.0, 1.0, -0.5], n)
    columns = {"P": x[:, 0], "ETA": x[:, 1], "DLLk": y[:, 0], "DLLp": y[:, 1]}
    return pd.DataFrame(columns).assign(weight=w)


def test_real_part_is_the_efficiency_table() -> None:
    frame = reference(4000, 1)
    found = closure_table(GENERATOR, frame, cuts=CUTS, binning={"P": 4})
    weights = frame["weight"].to_numpy()
    expected = efficiency_table(frame, CUTS, binning={"P": 4}, weights=weights)
    np.testing.assert_allclose(found.real.efficiency, expected.efficiency)
    np.testing.assert_allclose(found.real.upper, expected.upper)
    assert found.units == ("MeV",)
    assert found.covariance.shape == (4, 4, 4)
    frame = found.frame()
    assert len(frame) == 8
    np.testing.assert_allclose(
        frame["difference"], frame["generated_efficiency"] - frame["real_efficiency"]
    )


def test_the_record_agrees_with_itself() -> None:
    frame = reference(3000, 2)
    parsed = parse_cuts(GENERATOR.card, CUTS)
    rows = compare_rows(GENERATOR, frame, parsed, repeats=4)
    edges = {"P": (3e3, 2e4, 1e5), "ETA": (1.5, 3.0, 5.0)}
    found = rows.in_bins(edges, variance="pidcalib")
    real, generated = np.split(np.arange(4), 2)
    np.testing.assert_allclose(found.covariance[real, real], found.real.variance)
    np.testing.assert_allclose(
        found.covariance[generated, generated], found.generated.variance
    )
    np.testing.assert_allclose(
        found.difference, found.generated.efficiency - found.real.efficiency
    )
    # What real and generated share cancels in the difference.
    shared = 2 * found.covariance[real, generated]
    variance = found.real.variance + found.generated.variance - shared
    np.testing.assert_allclose(found.difference_error, np.sqrt(variance))
    figures = found.figures(1)
    assert figures["edges"] == {name: list(e) for name, e in edges.items()}
    np.testing.assert_allclose(figures["pull"], found.pull[1])


def test_outcomes_of_one_draw_are_shares_of_zero_or_one() -> None:
    rng = np.random.default_rng(1)
    real, generated = rng.random((2, 2, 500)) < 0.7
    rows = ComparedRows(
        species="K+",
        cuts=("y > 0", "y > 1"),
        columns={"x": rng.random(500)},
        weights=rng.choice([1.2, -0.3], 500, p=[0.9, 0.1]),
        real=real,
        generated=generated.astype(np.int64),
        repeats=1,
        units={"x": "MeV"},
    )
    edges = {"x": (0.0, 0.4, 1.0)}
    found = rows.in_bins(edges)
    again = replace(rows, generated=3 * rows.generated, repeats=3).in_bins(edges)
    for table, expected in zip(
        rows.tables(edges), (found.real, found.generated), strict=True
    ):
        np.testing.assert_array_equal(table.efficiency, expected.efficiency)
    np.testing.assert_array_equal(found.difference, again.difference)
    np.testing.assert_allclose(found.generated.upper, again.generated.upper)
    np.testing.assert_allclose(found.covariance, again.covariance)
    assert found.units == ("MeV",)


def test_bins_with_few_rows_are_not_measured() -> None:
    frame = reference(900, 1)
    frame.loc[frame["P"] > 5e4, "weight"] = -0.1
    edges = {"P": (3e3, 3.5e3, 5e4, 1e5)}
    rows = compare_rows(GENERATOR, frame, parse_cuts(GENERATOR.card, CUTS))
    found = rows.in_bins(edges)
    assert np.isfinite(found.real.efficiency[0]).tolist() == [True, True, False]
    # The last bin has rows, but no positive sum of their weights.
    assert found.n_eff[2] > 100
    kept = found.measured()
    for values in (kept.real.upper, kept.difference, kept.difference_error, kept.pull):
        assert np.isfinite(values[1]).tolist() == [False, True, False]
    np.testing.assert_array_equal(kept.n_eff, found.n_eff)
    np.testing.assert_array_equal(kept.difference[:, 1], found.difference[:, 1])


def test_errors_of_the_difference_are_those_of_its_scatter() -> None:
    pulls, independent = [], []
    for seed in range(60):
        found = closure_table(
            GENERATOR,
            reference(1500, seed),
            cuts=CUTS,
            binning={"P": (3e3, 5e4, 1e5)},
            seed=seed,
            repeats=4,
        )
        pulls.append(found.difference / found.difference_error)
        apart = found.real.variance + found.generated.variance
        independent.append(found.difference / np.sqrt(apart))
    assert np.abs(np.mean(pulls)) < 0.25
    assert 0.88 < np.std(pulls) < 1.12
    # Real and generated of the same rows are nearer than independent ones.
    assert np.std(independent) < 0.95 * np.std(pulls)


def test_an_injected_difference_is_found() -> None:
    found = closure_table(
        GENERATOR, reference(20_000, 3, shift=-0.5), cuts="DLLk > 2", binning={"ETA": 2}
    )
    assert np.all(found.difference > 5 * found.difference_error)


def test_defaults_come_from_the_sample() -> None:
    # One bin has an efficiency of more than 1, by its weights.
    with pytest.warns(PidganWarning, match=r"1 of 6 efficiencies .* outside \[0, 1\]"):
        found = closure_table(GENERATOR, reference(2000, 1), repeats=2)
    frame = found.frame()
    beyond = (frame["real_efficiency"] > 1) | (frame["generated_efficiency"] > 1)
    np.testing.assert_array_equal(frame["unphysical"], beyond)
    assert beyond.sum() >= 1
    assert found.real.cuts == ("DLLk > 0",)
    assert list(found.real.binning) == ["P", "ETA"]
    assert found.species == "K+"


def test_error_stays_where_all_rows_agree() -> None:
    frame = reference(300, 1)
    frame["DLLk"] = location(frame[["P", "ETA"]].to_numpy())[:, 0]
    with pytest.warns(PidganWarning, match="all of the rows pass"):
        found = closure_table(GENERATOR, frame, cuts="DLLk > -40", binning={})
    assert found.difference[0] == 0
    assert 0 < found.difference_error[0] < 0.02


def test_bad_bins_are_flagged() -> None:
    frame = reference(900, 1)
    frame.loc[frame["P"] > 5e4, "weight"] = -0.1
    with pytest.warns(PidganWarning, match="2 of 3 bins: 1 empty, 1 with sum"):
        found = closure_table(
            GENERATOR, frame, cuts="DLLk > 2", binning={"P": (0, 3e3, 5e4, 1e5)}
        )
    assert found.real.status.tolist() == [1, 0, 2]
    assert np.isfinite(found.difference_error[0]).tolist() == [False, True, False]


def test_bad_input() -> None:
    frame = reference(100, 1)
    with pytest.raises(MapError, match="no column 'weight'"):
        closure_table(GENERATOR, frame.drop(columns="weight"))
    with pytest.raises(CutError, match="closest: 'DLLk'"):
        closure_table(GENERATOR, frame, cuts="DLLkk > 0")
    bare = ToyGenerator(card=make_card(sample=make_sample(cuts=())))
    with pytest.raises(MapError, match="no cut given"):
        closure_table(bare, frame)
    with pytest.raises(MapError, match="no reference file"):
        closure_table(GENERATOR)
