"""Candidates that fill the bins of a map elsewhere than the reference."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import uproot
from scipy.stats import norm
from toy_generator import ToyGenerator, location, make_card

from pidgan.efficiency.columns import write_efficiency_columns
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.filling import CENTRES, centres_of, offsets_of, slopes_of
from pidgan.efficiency.map_averages import REFERENCE
from pidgan.efficiency.systematics import run_systematics
from pidgan.errors import PidganWarning
from pidgan.files.tables import write_trees

CUT = "DLLk > 1"
BINS = {"P": (3e3, 2e4, 4e4, 7e4, 1e5), "ETA": (1.5, 5.0)}


def kinematics(n: int, seed: int, *, moved: float = 0.0) -> np.ndarray:
    """Momenta that are uniform, or denser at the upper end of each bin; and ETA."""
    rng = np.random.default_rng(seed)
    p, eta = rng.uniform(3e3, 1e5, 4 * n), rng.uniform(1.5, 5, 4 * n)
    place = np.searchsorted(BINS["P"], p) - 1
    low, high = np.array(BINS["P"])[place], np.array(BINS["P"])[place + 1]
    kept = rng.random(4 * n) * (1 + abs(moved)) < 1 + moved * (
        2 * (p - low) / (high - low) - 1
    )
    return np.stack([p, eta], axis=1)[kept][:n]


@pytest.fixture(scope="module")
def known() -> EfficiencyMap:
    x = kinematics(40_000, 1)
    y = location(x) + np.random.default_rng(2).standard_normal((len(x), 2))
    rows = pd.DataFrame(
        {"P": x[:, 0], "ETA": x[:, 1], "DLLk": y[:, 0], "DLLp": y[:, 1]}
    )
    return run_systematics(
        ToyGenerator(card=make_card()),
        rows.assign(weight=1.0),
        cuts=CUT,
        binning=BINS,
        progress=False,
    )


def without_centres(known: EfficiencyMap) -> EfficiencyMap:
    """Return the map as an older version would have written it."""
    reference = {n: v for n, v in known.metadata[REFERENCE].items() if n != CENTRES}
    return replace(known, metadata={**known.metadata, REFERENCE: reference})


def columns(
    known: EfficiencyMap, x: np.ndarray, folder: Path, **options: Any
) -> dict[str, Any]:
    number = len(list(folder.iterdir()))
    source, output = folder / f"in{number}.root", folder / f"out{number}.root"
    write_trees(source, {"T": {"K_P": x[:, 0], "K_ETA": x[:, 1]}})
    with pytest.warns(PidganWarning, match="NOT PROVEN"):
        write_efficiency_columns({"K": known}, source, output, trust=True, **options)
    with uproot.open(output) as file:
        found: dict[str, Any] = file["T"].arrays(library="np")
    return found


def test_the_filling_is_what_other_places_in_bins_change(
    known: EfficiencyMap, tmp_path: Path
) -> None:
    for moved in (0.0, 0.8, -0.8):
        x = kinematics(40_000, 3, moved=moved)
        found = columns(known, x, tmp_path, eigenvariations=True)
        truth = norm.sf(1 - location(x)[:, 0]).mean()
        value = found["PIDCalibEff"].mean()
        filling = found["PIDCalibEff_filling"].mean() - value
        spread = 4 * 0.5 / np.sqrt(40_000)
        assert truth - value == pytest.approx(filling, abs=0.3 * abs(filling) + spread)
        if moved:
            assert abs(filling) > 0.01
        else:
            assert abs(filling) < 0.002


def test_the_filling_is_a_variation_beside_the_error_of_a_bin(
    known: EfficiencyMap, tmp_path: Path
) -> None:
    x = kinematics(500, 4)
    found = columns(known, x, tmp_path, eigenvariations=True, replicas=300)
    value, error = found["PIDCalibEff"], found["PIDCalibErr"]
    shifts = [
        v - value
        for n, v in found.items()
        if n.startswith("PIDCalibEff_") and "replica" not in n
    ]
    filling = found["PIDCalibEff_filling"] - value
    variance = error**2 + filling**2
    np.testing.assert_allclose(np.sum(np.square(shifts), axis=0), variance, rtol=1e-3)
    drawn = np.array([v for n, v in found.items() if "replica" in n])
    assert np.median(drawn.std(axis=0) / found["PIDCalibErr"]) == pytest.approx(
        1, abs=0.1
    )
    by_hand = slopes_of(known, 0)
    place = known.place({"P": x[:, 0], "ETA": x[:, 1]})
    offsets = offsets_of(known, {"P": x[:, 0], "ETA": x[:, 1]}, place)
    np.testing.assert_allclose(
        found["PIDCalibEff_filling"] - value,
        (by_hand[:, place] * offsets).sum(axis=0),
        atol=1e-6,
    )


def test_a_map_of_an_older_version_gives_what_it_gave(
    known: EfficiencyMap, tmp_path: Path
) -> None:
    old, x = without_centres(known), kinematics(500, 4)
    found = columns(old, x, tmp_path, eigenvariations=True, replicas=2)
    new = columns(known, x, tmp_path, eigenvariations=True, replicas=2)
    assert set(new) - set(found) == {"PIDCalibEff_filling"}
    variance = old.covariance[0] + sum(
        np.outer(v[0], v[0]) for v in old.variations.values()
    )
    place = old.place({"P": x[:, 0], "ETA": x[:, 1]})
    expected = np.sqrt(np.diag(variance))[place]
    np.testing.assert_allclose(found["PIDCalibErr"], expected, rtol=1e-12)
    for name in ("PIDCalibEff", "PIDCalibErr", "PIDCalibEff_calibration_1"):
        np.testing.assert_array_equal(found[name], new[name])


def test_centres_are_means_inside_their_bins() -> None:
    rng = np.random.default_rng(1)
    charge, p = rng.choice([-1.0, 1.0], 1000), rng.uniform(0, 1, 1000)
    edges = {"charge": (-1.0, 0.0, 1.0), "P": (0.0, 0.9, 1.0, 2.0)}
    found = centres_of({"charge": charge, "P": p}, np.full(1000, 0.3), edges)
    assert found["charge"][:2] == [-1.0, -1.0]
    assert found["charge"][3:5] == [1.0, 1.0]
    assert found["P"][2] == found["P"][5] == 1.5  # no row
    weights = rng.choice([1.0, -1.0], 1000)
    low, high = np.array(edges["P"])[:-1], np.array(edges["P"])[1:]
    signed = np.array(centres_of({"P": p}, weights, {"P": edges["P"]})["P"])
    assert ((signed >= low) & (signed <= high)).all()
