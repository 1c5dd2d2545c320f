"""The variation that compares sWeights with signal counted by mass fits."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from toy_generator import ToyGenerator, make_card, make_sample

import pidgan
from pidgan.efficiency.counted import NAME, add_counted, counted_difference
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.real_vs_generated import ComparedRows, compare_rows
from pidgan.errors import MapError, PidganWarning
from pidgan.sample.cuts import parse_cut
from pidgan.sample.sweights import compute_sweights
from pidgan.sample.variables import DISCRIMINANT

MASS = {"branch": "m", "range": (1800.0, 1900.0), "signal": "gauss"}
SAMPLE = make_sample(unweighted=False, discriminant=MASS)
GENERATOR = ToyGenerator(card=make_card(sample=SAMPLE))
CUT = "DLLk > 2"
EDGES = {"P": (3e3, 2e4, 4e4, 1e5)}


def draw(seed: int, n: int = 12_000, *, slope: float = 0.0) -> pd.DataFrame:
    """Reference rows with background, whose response may depend on its mass."""
    rng = np.random.default_rng(seed)
    is_signal = rng.random(n) < 0.7
    u = rng.random(n)
    u[is_signal] = np.clip(0.5 + 0.07 * rng.normal(size=is_signal.sum()), 0, 1)
    x = np.stack([rng.uniform(3e3, 1e5, n), rng.uniform(1.5, 5, n)], axis=1)
    y = GENERATOR.generate(x, rng.standard_normal((n, 3)))
    rows = np.flatnonzero(~is_signal)
    passes = rng.random(len(rows)) < 0.3 + slope * (u[rows] - 0.5) ** 2
    y[rows, 0] = np.where(passes, 3.0, 1.0)
    mass = 1800 + 100 * u
    assert SAMPLE.discriminant is not None
    return pd.DataFrame(
        {
            "P": x[:, 0],
            "ETA": x[:, 1],
            "DLLk": y[:, 0],
            "DLLp": y[:, 1],
            "weight": compute_sweights(mass, SAMPLE.discriminant).weights,
            DISCRIMINANT: mass,
            "signal": is_signal,
        }
    )


def compare(frame: pd.DataFrame) -> ComparedRows:
    names = [*GENERATOR.card.target_names, *GENERATOR.card.condition_names]
    return compare_rows(GENERATOR, frame, [parse_cut(CUT, names=names)], repeats=1)


def test_the_difference_is_the_error_of_the_sweights() -> None:
    found, expected = [], []
    for seed in range(8):
        frame = draw(seed, slope=2.0)
        passes, w = frame["DLLk"] > 2, frame["weight"]
        truth = passes[frame["signal"]].mean()
        expected.append(truth - (w * passes).sum() / w.sum())
        difference, account = counted_difference(
            compare(frame), EDGES, SAMPLE.discriminant
        )
        assert account["failed"] == {}
        counts = np.histogram(frame["P"], EDGES["P"], weights=w)[0]
        found.append(difference[0] @ counts / counts.sum())
    assert abs(np.mean(expected)) > 0.01
    error = np.std(np.subtract(found, expected)) / np.sqrt(len(found))
    assert abs(np.mean(found) - np.mean(expected)) < 3 * error + 0.003


def test_it_is_small_where_the_assumption_holds() -> None:
    frame = draw(11)
    difference, _ = counted_difference(compare(frame), EDGES, SAMPLE.discriminant)
    made = pidgan.run_systematics(GENERATOR, frame, cuts=CUT, binning=EDGES)
    assert np.abs(difference).max() < 2 * np.sqrt(made.covariance[0]).diagonal().max()


def test_it_is_there_by_default_where_the_reference_has_the_discriminant() -> None:
    frame = draw(1)
    settings: dict[str, Any] = {"cuts": CUT, "binning": EDGES, "repeats": 1}
    found = pidgan.run_systematics(GENERATOR, frame, **settings)
    assert list(found.variations) == ["binning", NAME]
    assert found.metadata[NAME]["bins"] == 2
    less = pidgan.run_systematics(
        GENERATOR, frame.drop(columns=DISCRIMINANT), **settings
    )
    assert list(less.variations) == ["binning"]
    np.testing.assert_array_equal(less.nominal, found.nominal)
    none = pidgan.run_systematics(GENERATOR, frame, variations=[], **settings)
    assert not none.variations


def test_what_is_asked_for_and_impossible_is_an_error() -> None:
    frame = draw(2)
    settings: dict[str, Any] = {"cuts": CUT, "binning": EDGES, "repeats": 1}
    with pytest.raises(MapError, match="prepare the dataset again"):
        pidgan.run_systematics(
            GENERATOR, frame.drop(columns=DISCRIMINANT), variations=[NAME], **settings
        )
    no_peak = frame.assign(
        **{DISCRIMINANT: 1800 + 100 * np.random.default_rng(1).random(len(frame))}
    )
    with pytest.raises(MapError, match=r"variation 'fit_and_count': .*no signal"):
        pidgan.run_systematics(GENERATOR, no_peak, variations=[NAME], **settings)
    with pytest.warns(PidganWarning, match="it is left out"):
        found = pidgan.run_systematics(GENERATOR, no_peak, **settings)
    assert NAME not in found.variations
    assert "no signal" in found.metadata[NAME]["left_out"]


def test_a_fit_that_fails_is_announced() -> None:
    frame = draw(3)
    rows = compare(frame)
    cell = rows.columns["P"] > 4e4
    mass = np.where(cell, np.nan, rows.discriminant)
    rows = ComparedRows(**{**vars(rows), "discriminant": mass})
    with pytest.warns(PidganWarning, match=r"1 of 2 mass fits of 'DLLk > 2' fail"):
        difference, account = counted_difference(rows, EDGES, SAMPLE.discriminant)
    assert len(account["failed"][CUT]) == 1
    assert np.isfinite(difference).all()


def test_the_account_is_stored(tmp_path: Path) -> None:
    frame = draw(4)
    found = pidgan.run_systematics(GENERATOR, frame, cuts=CUT, binning=EDGES, repeats=1)
    opened = EfficiencyMap.open(found.save(tmp_path / "map.json")[0])
    assert opened.metadata[NAME] == found.metadata[NAME]
    np.testing.assert_array_equal(opened.variations[NAME], found.variations[NAME])
    with pytest.raises(MapError, match="needs the discriminant"):
        add_counted(opened, compare(frame), None, is_asked=True)
