"""Efficiency maps and their propagation, on toys whose truth is a formula."""

import dataclasses
import json
import math
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from toy_generator import ToyGenerator, location, make_card, make_sample
from toy_map import combine_rows, make_map

from pidgan.application.conditions import Conditions
from pidgan.bundle.bundle import open_bundle
from pidgan.bundle.card import CardVariable, sample_targets
from pidgan.efficiency import pid_efficiency as pid_efficiency_module
from pidgan.efficiency.binning import bin_index
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.pid_efficiency import PidEfficiencies
from pidgan.efficiency.systematics import generated_in_bins, run_systematics
from pidgan.errors import CutError, MapError, NtupleError, PidganWarning
from pidgan.files.tables import Source, read_columns, write_trees
from pidgan.sample.cuts import parse_cut
from pidgan.sample.loading import load_binning

# The columns are drawn here: nothing proves that a bundle made them.
pid_efficiency = partial(pid_efficiency_module.pid_efficiency, trust=True)

CUTS = ("DLLk > 1", "DLLk > 2", "DLLk > 4")
THRESHOLDS = (1.0, 2.0, 4.0)
BINNING = {
    "P": (3e3, 9.3e3, 15.6e3, 19e3, 24.4e3, 29.8e3, 35.2e3, 46e3, 60e3, 1e5),
    "ETA": (1.5, 2.4, 3.2, 4.1, 5.0),
}
GENERATOR = ToyGenerator(card=make_card())


def draw_conditions(rng: np.random.Generator, n: int, *, analysis: bool) -> np.ndarray:
    """Conditions of a calibration sample, or the other ones of an analysis."""
    shape, mean, eta = (2.5, 14e3, 3.0) if analysis else (2.0, 9e3, 3.4)
    p = 3e3 + rng.gamma(shape, mean, 2 * n)
    x = np.stack([p, rng.normal(eta, 0.65, 2 * n)], axis=1)
    inside = (x[:, 0] < 1e5) & (x[:, 1] > 1.5) & (x[:, 1] < 5)
    return x[inside][:n]


class Truth:
    """Real targets: those of the generator, moved by a smooth random function."""

    def __init__(self, seed: int, *, size: float) -> None:
        rng = np.random.default_rng(seed)
        self.a, self.b, self.c = size * rng.normal(0, (1, 1, 0.5))
        self.k, self.phase = rng.uniform(0.5, 2.5), rng.uniform(0, 2 * math.pi)

    def mean(self, x: np.ndarray) -> np.ndarray:
        u, v = np.log(x[:, 0] / 2e4), x[:, 1] - 3.2
        wave = self.a * np.sin(self.k * u + self.phase)
        mean: np.ndarray = location(x)[:, 0] + wave + self.b * v + self.c * u * v
        return mean

    def efficiency(self, x: np.ndarray) -> np.ndarray:
        return np.array([norm.sf(t - self.mean(x)).mean() for t in THRESHOLDS])


def reference_frame(
    rng: np.random.Generator, n: int, truth: Truth, *, background: float = 0
) -> pd.DataFrame:
    """Calibration rows, and background that the weights subtract."""
    x = draw_conditions(rng, n, analysis=False)
    mean = truth.mean(x)
    w = np.ones(len(x))
    if background:
        more = draw_conditions(rng, int(background * n), analysis=False)
        x = np.concatenate([x, more])
        mean = np.concatenate([mean, location(more)[:, 0] - 4])
        w = np.concatenate([w, np.resize([-1.0, 1.0], len(more))])
    y = mean + rng.standard_normal(len(x))
    other = location(x)[:, 1] + rng.standard_normal(len(x))
    columns = {"P": x[:, 0], "ETA": x[:, 1], "DLLk": y, "DLLp": other, "weight": w}
    return pd.DataFrame(columns)


@pytest.fixture(scope="module")
def toy_map() -> EfficiencyMap:
    frame = reference_frame(
        np.random.default_rng(1), 16_000, Truth(3, size=0.15), background=0.05
    )
    with pytest.warns(PidganWarning, match="bins in ETA are too coarse"):
        return run_systematics(GENERATOR, frame, cuts=[*CUTS, "DLLp>1 & DLLk>0"])


def pseudo_experiment(seed: int, *, background: float) -> PidEfficiencies:
    rng = np.random.default_rng(seed)
    frame = reference_frame(rng, 4000, Truth(seed, size=0.15), background=background)
    found = run_systematics(
        GENERATOR, frame, cuts=CUTS, binning=BINNING, seed=seed, repeats=4
    )
    x = draw_conditions(rng, 4000, analysis=True)
    y = GENERATOR.generate(x, rng.standard_normal((len(x), 3)))
    return combine_rows(
        found,
        range(3),
        place=bin_index({"P": x[:, 0], "ETA": x[:, 1]}, BINNING),
        passed=np.array([y[:, 0] > t for t in THRESHOLDS]),
        weights=np.ones(len(x)),
    )


@pytest.mark.filterwarnings("ignore:cut .* fewer than 20")
@pytest.mark.parametrize("background", [0.0, 0.2])
def test_quoted_uncertainty_covers_the_truth(background: float) -> None:
    population = draw_conditions(np.random.default_rng(0), 50_000, analysis=True)
    pulls = np.empty((40, 3))
    for seed in range(len(pulls)):
        truth = Truth(seed, size=0.15).efficiency(population)
        found = pseudo_experiment(seed, background=background)
        values = np.array([(one.value, one.total) for one in found])
        pulls[seed] = (values[:, 0] - truth) / values[:, 1]
    assert 0.62 < (np.abs(pulls) < 1).mean() < 0.88
    assert (np.abs(pulls) < 2).mean() > 0.9
    assert (np.abs(pulls) < 3).mean() > 0.98


def mean_uncertainty(
    generator: ToyGenerator, n: int, *, correction: bool = True
) -> tuple[float, float]:
    """Systematic uncertainty of an analysis, and its correction, from n rows."""
    rng = np.random.default_rng(n)
    frame = reference_frame(rng, n, Truth(1, size=0.0), background=0.2)
    found = run_systematics(generator, frame, cuts="DLLk > 2", binning=BINNING)
    x = draw_conditions(rng, 20_000, analysis=True)
    y = generator.generate(x, rng.standard_normal((len(x), 3)))
    (result,) = combine_rows(
        found,
        [0],
        place=bin_index({"P": x[:, 0], "ETA": x[:, 1]}, BINNING),
        passed=y[np.newaxis, :, 0] > 2,
        weights=np.ones(len(x)),
        correction=correction,
    )
    return math.sqrt(result.total**2 - result.stat**2), result.correction


def test_uncertainty_of_a_perfect_generator_vanishes() -> None:
    few, middle, many = (
        mean_uncertainty(GENERATOR, n)[0] for n in (1000, 8000, 64_000)
    )
    assert middle < 0.6 * few
    assert many < 0.6 * middle
    assert many < 0.004


def test_uncertainty_does_not_fall_below_an_injected_bias() -> None:
    wrong = ToyGenerator(card=make_card(), offset=0.2)
    x = draw_conditions(np.random.default_rng(0), 100_000, analysis=True)
    mean = location(x)[:, 0]
    bias = float((norm.sf(2 - mean - 0.2) - norm.sf(2 - mean)).mean())
    for n in (4000, 64_000):
        error, _ = mean_uncertainty(wrong, n)
        total, correction = mean_uncertainty(wrong, n, correction=False)
        assert correction == pytest.approx(-bias, abs=2.5 * error)
        assert total > bias - 2 * error


def test_correction_brings_the_map_closer_to_the_truth(toy_map: EfficiencyMap) -> None:
    truth = Truth(3, size=0.15)
    x = draw_conditions(np.random.default_rng(2), 20_000, analysis=False)
    place = bin_index({"P": x[:, 0], "ETA": x[:, 1]}, toy_map.binning)
    f = np.bincount(place, minlength=len(toy_map.n_eff)) / len(x)
    for i in range(3):
        corrected = toy_map.nominal[i] @ f - truth.efficiency(x)[i]
        generated = toy_map.generated[i] @ f - truth.efficiency(x)[i]
        error = np.sqrt(f @ toy_map.covariance[i] @ f)
        assert abs(corrected) < 3 * error
        assert abs(corrected) < abs(generated) + error


def test_perfect_generator_has_no_significant_discrepancy() -> None:
    frame = reference_frame(np.random.default_rng(4), 4000, Truth(1, size=0.0))
    found = run_systematics(GENERATOR, frame, cuts=CUTS)
    pulls = found.discrepancy / np.sqrt(np.einsum("cbb->cb", found.covariance))
    assert np.abs(pulls).max() < 3
    assert (found.error[:, found.n_eff > 100] < 0.05).all()


def test_default_binning_reaches_the_trained_range() -> None:
    binning = {"P": (2e3, 1e4, 5e4), "ETA": (2.0, 3.0)}
    card = make_card(sample=make_sample(binning=binning))
    frame = reference_frame(np.random.default_rng(1), 500, Truth(1, size=0))
    found = run_systematics(ToyGenerator(card=card), frame, cuts="DLLk > 2")
    assert found.binning == {"P": (3e3, 1e4, 5e4, 1e5), "ETA": (1.5, 2.0, 3.0, 5.0)}
    assert np.isfinite(found.nominal).all()


def test_bins_of_a_map_are_edges_numbers_or_names() -> None:
    frame = reference_frame(np.random.default_rng(1), 2000, Truth(1, size=0))
    whole = {"P": (3e3, 1e5), "ETA": (1.5, 5.0)}
    named = run_systematics(
        GENERATOR, frame, cuts="DLLk > 2", binning={"P": "hadrons", "ETA": "muons"}
    )
    # The ends of a binning that ships are those of the trained range.
    assert named.binning["P"][1:-1] == load_binning("hadrons")["P"][1:-1]
    assert named.binning["ETA"][1:-1] == load_binning("muons")["ETA"][1:-1]
    counted = run_systematics(
        GENERATOR, frame, cuts=["DLLk > 2"], binning={"P": 3, "ETA": 2}
    )
    assert counted.n_eff.shape == (6,)
    assert counted.n_eff.min() > 200
    for found in (named, counted):
        assert {k: (v[0], v[-1]) for k, v in found.binning.items()} == whole
    third = CardVariable(name="nTracks", unit="1", range=(0, 500), patterns=())
    base = make_card()
    card = base.model_copy(update={"conditions": (*base.conditions, third)})
    frame["nTracks"] = np.random.default_rng(2).uniform(0, 500, len(frame))
    found = run_systematics(
        ToyGenerator(card=card), frame, cuts="DLLk > 2", binning="hadrons", repeats=1
    )
    assert found.binning["nTracks"] == load_binning("hadrons")["nTracks"]
    with pytest.raises(MapError, match="binning in 'nTracks', which is not a column"):
        run_systematics(GENERATOR, frame, cuts="DLLk > 2", binning="hadrons")


@pytest.mark.filterwarnings("ignore:.*too coarse")
def test_same_input_gives_the_same_map(toy_map: EfficiencyMap) -> None:
    frame = reference_frame(
        np.random.default_rng(1), 16_000, Truth(3, size=0.15), background=0.05
    )
    again = run_systematics(GENERATOR, frame, cuts=[*CUTS, "DLLp>1 & DLLk>0"])
    np.testing.assert_array_equal(again.nominal, toy_map.nominal)
    np.testing.assert_array_equal(again.covariance, toy_map.covariance)
    assert again.metadata == toy_map.metadata


def test_propagated_covariance_is_that_of_the_joint_matrix(
    toy_map: EfficiencyMap,
) -> None:
    n_cuts, n_bins = toy_map.nominal.shape
    joint = np.block(
        [[toy_map.joint_covariance(i, j) for j in range(n_cuts)] for i in range(n_cuts)]
    )
    np.testing.assert_allclose(joint, joint.T, atol=1e-12)
    assert np.linalg.eigvalsh(joint).min() > -1e-12
    f = np.random.default_rng(1).dirichlet(np.ones(n_bins))
    spread = np.kron(np.eye(n_cuts), f)
    np.testing.assert_allclose(toy_map.propagate(f), spread @ joint @ spread.T)


def test_cuts_are_recognised_in_any_spelling(toy_map: EfficiencyMap) -> None:
    assert toy_map.cut_index("DLLp > 1 && (DLLk>0)") == 3
    with pytest.raises(MapError, match=r"no cut 'DLLk > 3'; closest: 'DLLk > "):
        toy_map.cut_index("DLLk > 3")
    with pytest.raises(CutError, match="unknown variable 'PIDx'"):
        toy_map.cut_index("PIDx > 3")


def test_repeated_cuts_are_kept_once() -> None:
    frame = reference_frame(np.random.default_rng(1), 500, Truth(1, size=0))
    found = run_systematics(GENERATOR, frame, cuts=["DLLk>2", "DLLk > 2"])
    assert found.cuts == ("DLLk>2",)


def test_rare_outcome_is_flagged() -> None:
    frame = reference_frame(np.random.default_rng(1), 500, Truth(1, size=0))
    with pytest.warns(PidganWarning, match=r"'DLLk > 7': the reference has fewer than"):
        found = run_systematics(GENERATOR, frame, cuts=["DLLk > 2", "DLLk > 7"])
    assert found.flagged == ("DLLk > 7",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drop": "DLLk"}, "the reference has no column 'DLLk'"),
        ({"weight": -1.0}, "has a sum of weights of -200"),
        ({"P": np.nan}, "200 of 200 rows of the reference are not finite"),
        ({"P": 10.0}, "no bin has a positive sum of weights"),
    ],
)
def test_bad_reference(change: dict[str, Any], message: str) -> None:
    frame = reference_frame(np.random.default_rng(1), 200, Truth(1, size=0))
    if "drop" in change:
        frame = frame.drop(columns=change["drop"])
    else:
        frame = frame.assign(**change)
    with pytest.raises(MapError, match=message):
        run_systematics(GENERATOR, frame, cuts="DLLk > 0")


def test_bad_requests_of_a_map() -> None:
    frame = reference_frame(np.random.default_rng(1), 200, Truth(1, size=0))
    with pytest.raises(MapError, match="has no reference file beside it"):
        run_systematics(GENERATOR, cuts="DLLk > 0")
    with pytest.raises(MapError, match="binning in 'PP', which is not a column"):
        run_systematics(GENERATOR, frame, cuts="DLLk > 0", binning={"PP": (0, 1)})
    with pytest.raises(CutError, match="unknown variable 'DLLq'; closest"):
        run_systematics(GENERATOR, frame, cuts="DLLq > 0")
    with pytest.raises(MapError, match="no cut given"):
        run_systematics(GENERATOR, frame, cuts=[])


# Files of a map


def test_map_survives_its_file(toy_map: EfficiencyMap, tmp_path: Path) -> None:
    files = toy_map.save(tmp_path / "map.json")
    assert [file.name for file in files] == ["map.json", "map.npz", "map.root"]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    read = EfficiencyMap.open(files[0])
    assert (read.cuts, read.binning) == (toy_map.cuts, toy_map.binning)
    assert read.metadata == toy_map.metadata
    for name in ("nominal", "covariance", "operator", "raw_covariance", "error"):
        np.testing.assert_array_equal(getattr(read, name), getattr(toy_map, name))


def test_correctionlib_reads_the_map(toy_map: EfficiencyMap, tmp_path: Path) -> None:
    correctionlib = pytest.importorskip("correctionlib")
    from correctionlib.schemav2 import CorrectionSet

    file, *_ = toy_map.save(tmp_path / "map.json")
    CorrectionSet.model_validate_json(file.read_text())
    corrections = correctionlib.CorrectionSet.from_file(str(file))
    assert set(corrections) == set(toy_map.cuts)
    frame = toy_map.frame()
    frame = frame[frame["cut"] == "DLLk > 2"]
    p = (frame["P_low"] + frame["P_high"]).to_numpy() / 2
    eta = (frame["ETA_low"] + frame["ETA_high"]).to_numpy() / 2
    correction = corrections["DLLk > 2"]
    nominal = correction.evaluate("nominal", p, eta)
    np.testing.assert_allclose(nominal, frame["nominal"], rtol=1e-8)
    names = [item["key"] for item in _variations(file, "DLLk > 2")]
    variance = sum(
        (correction.evaluate(name, p, eta) - nominal) ** 2
        for name in names
        if name.endswith("_up")
    )
    np.testing.assert_allclose(np.sqrt(variance), frame["error"], rtol=1e-5)
    with pytest.raises((IndexError, RuntimeError)):
        correction.evaluate("nominal", 1e6, 3.0)
    with pytest.raises((IndexError, RuntimeError)):
        correction.evaluate("unknown", 1e4, 3.0)


def _variations(file: Path, cut: str) -> list[dict[str, Any]]:
    corrections = json.loads(file.read_text())["corrections"]
    (one,) = [item for item in corrections if item["name"] == cut]
    content: list[dict[str, Any]] = one["data"]["content"]
    return content


def test_root_histograms_hold_the_map(toy_map: EfficiencyMap, tmp_path: Path) -> None:
    import uproot

    toy_map.save(tmp_path / "map.json")
    with uproot.open(tmp_path / "map.root") as file:
        histogram = file["nominal_2"]
        assert histogram.classname.startswith("TH2")
        assert histogram.title == "DLLk > 2"
        np.testing.assert_allclose(
            histogram.values(), toy_map.nominal[1].reshape(toy_map.shape)
        )
        np.testing.assert_allclose(
            histogram.errors(), toy_map.error[1].reshape(toy_map.shape)
        )


def test_map_is_never_overwritten_or_half_written(
    toy_map: EfficiencyMap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "map.json"
    with pytest.raises(MapError, match=r"expected a name that ends in \.json"):
        toy_map.save(tmp_path / "map.txt")
    path.with_suffix(".npz").write_bytes(b"mine")
    with pytest.raises(NtupleError, match=r"map\.npz exists"):
        toy_map.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["map.npz"]

    def fail(*arguments: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(EfficiencyMap, "_write_arrays", fail)
    with pytest.raises((NtupleError, OSError), match="disk full"):
        toy_map.save(path, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["map.npz"]
    assert path.with_suffix(".npz").read_bytes() == b"mine"
    monkeypatch.undo()
    toy_map.save(path, overwrite=True)
    EfficiencyMap.open(path)


def test_damaged_maps(toy_map: EfficiencyMap, tmp_path: Path) -> None:
    path, arrays, histograms = toy_map.save(tmp_path / "map.json")
    text, data = path.read_text(), arrays.read_bytes()

    def refused(message: str) -> None:
        with pytest.raises(MapError, match=message) as info:
            EfficiencyMap.open(path)
        assert "\n" not in str(info.value)

    path.write_text(text[:-100])
    refused("is not valid JSON")
    path.write_text('{"description": null}')
    refused("not an efficiency map of pidgan")
    path.write_text(text.replace(r"{\"schema_version\": 2", r"{\"schema_version\": 5"))
    refused("schema version 5, this package reads up to 3")
    for old, new in (
        (r"{\"schema_version\": 2", r"{\"schema_version\": 1"),
        (r"\"cuts\": [", r"\"cuts\": [\"DLLk > 9\", "),
        (r"\"DLLk > 1\", \"DLLk > 2\"", r"\"DLLk > 2\", \"DLLk > 1\""),
        (r"\"P\": [", r"\"P\": [1.0, "),
        (r"\"variations\": [", r"\"variations\": [\"more\", "),
        (r"\"species\": \"K+\"", r"\"species\": \"pi+\""),
        ('"content": [0.', '"content": [1.'),
    ):
        assert old in text, old
        path.write_text(text.replace(old, new, 1))
        refused("changed after it was written")
    path.write_text(text)
    arrays.write_bytes(data[:-10])
    refused("map.npz is damaged or belongs to another file")
    arrays.unlink()
    refused("map.npz is missing")
    arrays.write_bytes(data)
    histograms.write_bytes(b"root")
    refused("map.root is damaged or belongs to another file")
    histograms.unlink()
    # It repeats what the others hold; and spaces are no change.
    path.write_text(json.dumps(json.loads(text), indent=2))
    assert EfficiencyMap.open(path).cuts == toy_map.cuts
    with pytest.raises(MapError, match=r"no such efficiency map; closest: 'map.json'"):
        EfficiencyMap.open(tmp_path / "maps.json")


# Analysis ntuples


@pytest.fixture
def ntuple(tmp_path: Path) -> Path:
    return write_analysis(tmp_path / "analysis.root")


def write_analysis(path: Path, **changes: Any) -> Path:
    """2000 tracks with generated columns; every tenth is a pion."""
    rng = np.random.default_rng(8)
    x = draw_conditions(rng, 2000, analysis=True).astype(np.float32)
    y = sample_targets(GENERATOR, x, seed=1, track="Kplus")
    branches: dict[str, Any] = {
        "Kplus_P": x[:, 0],
        "Kplus_ETA": x[:, 1],
        "Kplus_DLLk": y[:, 0],
        "Kplus_DLLp": y[:, 1],
        "Kplus_TRUEID": np.where(np.arange(len(x)) % 10, 321, -211),
        "sw": rng.choice([1.0, 1.5, -0.5], len(x)),
    }
    branches |= changes
    kept = {name: values for name, values in branches.items() if values is not None}
    write_trees(path, {"DecayTree": kept})
    return path


def test_a_collection_of_tracks_has_the_efficiency_of_its_rows(
    toy_map: EfficiencyMap, ntuple: Path, tmp_path: Path
) -> None:
    import uproot

    with uproot.open(ntuple) as file:
        rows = file["DecayTree"].arrays(library="np")
    counts = np.random.default_rng(1).multinomial(2000, np.full(900, 1 / 900))
    nested = {
        name: ak.unflatten(values, counts)
        for name, values in rows.items()
        if name.startswith("Kplus_")
    }
    nested["event_weight"] = np.linspace(0.5, 1.5, 900)
    write_trees(tmp_path / "nested.root", {"DecayTree": nested})
    flat = write_analysis(
        tmp_path / "flat.root",
        sw=np.repeat(nested["event_weight"], counts),
        entry=np.repeat(np.arange(900), counts),
    )
    options: dict[str, Any] = {"cuts": CUTS}
    options["species_from"] = "TRUEID"
    expected = pid_efficiency(
        {"Kplus": toy_map}, flat, weights="sw", key=["entry"], **options
    )
    found = pid_efficiency(
        {"Kplus": toy_map},
        tmp_path / "nested.root",
        weights="event_weight",
        chunk=100,
        **options,
    )
    for one, other in zip(expected, found, strict=True):
        assert one.n_rows == other.n_rows
        assert one.value == pytest.approx(other.value, rel=1e-12)
        assert one.total == pytest.approx(other.total, rel=1e-12)


def test_a_scale_moves_rows_to_the_bins_of_what_was_generated(
    toy_map: EfficiencyMap, ntuple: Path, tmp_path: Path
) -> None:
    p = read_columns(Source(str(ntuple), "DecayTree"), ["Kplus_P"])["Kplus_P"]
    scaled = write_analysis(tmp_path / "half.root", Kplus_P=p.to_numpy() / 2)
    options: dict[str, Any] = {"cuts": CUTS}
    (expected, *_) = pid_efficiency({"Kplus": toy_map}, ntuple, **options)
    (found, *_) = pid_efficiency(
        {"Kplus": toy_map}, scaled, conditions=Conditions(scales={"P": 2.0}), **options
    )
    with pytest.warns(PidganWarning, match="lie outside the efficiency map"):
        (without, *_) = pid_efficiency({"Kplus": toy_map}, scaled, **options)
    assert found.value == expected.value
    assert found.correction != without.correction


def test_efficiency_is_what_its_formulas_say(
    toy_map: EfficiencyMap, ntuple: Path
) -> None:
    import uproot

    (one,) = pid_efficiency({"Kplus": toy_map}, ntuple, cuts="DLLk > 2")
    with uproot.open(ntuple) as file:
        rows = file["DecayTree"].arrays(library="pd")
    place = bin_index({"P": rows["Kplus_P"], "ETA": rows["Kplus_ETA"]}, toy_map.binning)
    f = np.bincount(place, minlength=len(toy_map.n_eff)) / len(rows)
    v = (rows["Kplus_DLLk"] > 2) + toy_map.discrepancy[1][place]
    assert one.generated == pytest.approx((rows["Kplus_DLLk"] > 2).mean())
    assert one.correction == pytest.approx(toy_map.discrepancy[1] @ f)
    assert one.value == pytest.approx(v.mean())
    assert one.stat == pytest.approx(v.std(ddof=0) / np.sqrt(len(v)))
    calibration = np.sqrt(f @ toy_map.covariance[1] @ f)
    assert one.syst["calibration"] == pytest.approx(calibration)
    binning = abs(f @ toy_map.variations["binning"][1])
    assert one.syst["binning"] == pytest.approx(binning)
    assert set(one.syst) == {"calibration", "binning", "transfer"}
    quadrature = one.stat**2 + sum(part**2 for part in one.syst.values())
    assert one.total == pytest.approx(np.sqrt(quadrature))
    assert (one.n_rows, one.n_eff, one.n_invalid) == (len(rows), len(rows), 0)


def test_chunks_and_files_do_not_matter(
    toy_map: EfficiencyMap, ntuple: Path, tmp_path: Path
) -> None:
    map_file, *_ = toy_map.save(tmp_path / "map.json")
    options: dict[str, Any] = {"cuts": CUTS, "weights": "sw"}
    whole = pid_efficiency({"Kplus": toy_map}, ntuple, **options)
    parts = pid_efficiency({"Kplus": map_file}, str(ntuple), chunk=77, **options)
    assert parts.results == whole.results
    np.testing.assert_array_equal(parts.covariance, whole.covariance)
    assert whole[0].n_eff < whole[0].n_rows
    copy = ntuple.with_name("copy.root")
    copy.write_bytes(ntuple.read_bytes())
    twice = pid_efficiency({"Kplus": toy_map}, [ntuple, copy], **options)
    assert twice[1].value == pytest.approx(whole[1].value)
    assert twice[1].stat == pytest.approx(whole[1].stat / np.sqrt(2))


def test_covariance_between_cuts(toy_map: EfficiencyMap, ntuple: Path) -> None:
    found = pid_efficiency({"Kplus": toy_map}, ntuple, cuts=CUTS)
    totals = np.array([one.total for one in found])
    np.testing.assert_allclose(np.sqrt(np.diag(found.covariance)), totals)
    assert np.linalg.eigvalsh(found.covariance).min() > 0
    correlation = found.covariance[0, 1] / (totals[0] * totals[1])
    assert 0 < correlation < 1


def test_only_the_species_of_the_map(toy_map: EfficiencyMap, ntuple: Path) -> None:
    options: dict[str, Any] = {"cuts": "DLLk > 2"}
    (one,) = pid_efficiency(
        {"Kplus": toy_map}, ntuple, species_from="TRUEID", **options
    )
    assert one.n_rows == 1800
    with pytest.raises(NtupleError, match="Kplus_TRUEIDD"):
        pid_efficiency({"Kplus": toy_map}, ntuple, species_from="TRUEIDD", **options)


def test_without_correction_the_difference_is_an_uncertainty(
    toy_map: EfficiencyMap, ntuple: Path
) -> None:
    options: dict[str, Any] = {"cuts": "DLLk > 2"}
    (one,) = pid_efficiency({"Kplus": toy_map}, ntuple, **options)
    (bare,) = pid_efficiency({"Kplus": toy_map}, ntuple, correction=False, **options)
    assert bare.value == one.generated
    assert bare.syst["uncorrected"] == pytest.approx(abs(one.correction))
    assert bare.total > one.total


def test_rows_without_targets_are_left_out(
    toy_map: EfficiencyMap, tmp_path: Path
) -> None:
    status = np.zeros(2000, dtype=np.int8)
    # Also those that were not selected: what they hold was not generated.
    status[:30], status[30:40], status[40:50], status[50:60] = 4, 2, 16, 1
    path = write_analysis(tmp_path / "a.root", Kplus_pidgan_status=status)
    with pytest.warns(PidganWarning, match="50 of 2000 rows have no generated targets"):
        (one,) = pid_efficiency({"Kplus": toy_map}, path, cuts="DLLk > 2")
    assert (one.n_rows, one.n_invalid) == (1950, 50)
    missing = np.full(2000, np.nan, dtype=np.float32)
    path = write_analysis(tmp_path / "b.root", Kplus_DLLk=missing)
    with pytest.raises(MapError, match=r"no usable row for Kplus \(2000 without"):
        pid_efficiency({"Kplus": toy_map}, path, cuts="DLLk > 2")


def test_rows_outside_the_map(toy_map: EfficiencyMap, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    eta, weights = rng.uniform(1.5, 5, 2000), rng.choice([1.2, -0.4], 2000)
    eta[:200] = 5.5
    path = write_analysis(tmp_path / "a.root", Kplus_ETA=eta, own=weights)
    options: dict[str, Any] = {"cuts": "DLLk > 2"}
    with pytest.warns(
        PidganWarning,
        match=r"200 of 2000 rows lie outside the efficiency map .*: ETA not in 1.5 to 5"
        r": 200 rows, 10.00 % of the weight; they keep their generated outcome",
    ):
        (one,) = found = pid_efficiency({"Kplus": toy_map}, path, **options)
    by_condition = json.loads(found.to_json())["outside"]["Kplus"]
    assert [own["rows"] for own in by_condition.values()] == [0, 200]
    assert "Kplus outside its map, with the generated outcome: ETA not" in found.text()
    with pytest.warns(PidganWarning, match="outside the efficiency map"):
        weighted = pid_efficiency(
            {"Kplus": toy_map}, path, weights="own", chunk=77, **options
        )
    own = weighted.outside["Kplus"]["ETA"]
    assert own.rows == 200
    assert own.weights == pytest.approx(weights[:200].sum())
    assert own.share == pytest.approx(weights[:200].sum() / weights.sum())
    assert one.outside_fraction == pytest.approx(0.1)
    assert 0.05 < one.syst["outside"] / one.outside_fraction < 0.578
    message = r"outside the efficiency map \(P 3000 to .*: ETA not in .*: 200 rows"
    with pytest.raises(MapError, match=message):
        pid_efficiency({"Kplus": toy_map}, path, outside="refuse", **options)


def test_branches_and_units(toy_map: EfficiencyMap, tmp_path: Path) -> None:
    options: dict[str, Any] = {"cuts": "DLLk > 2"}
    (plain,) = pid_efficiency(
        {"Kplus": toy_map}, write_analysis(tmp_path / "a.root"), **options
    )
    import uproot

    with uproot.open(tmp_path / "a.root") as file:
        p = file["DecayTree/Kplus_P"].array(library="np")
    path = write_analysis(tmp_path / "b.root", Kplus_P=None, momentum=p / 1000)
    conditions = Conditions(branches={"P": "momentum"}, units={"P": "GeV"})
    (mapped,) = pid_efficiency(
        {"Kplus": toy_map}, path, conditions=conditions, **options
    )
    assert mapped.value == pytest.approx(plain.value)
    with pytest.raises(NtupleError, match="no branch for condition P of Kplus"):
        pid_efficiency({"Kplus": toy_map}, path, **options)
    with pytest.raises(NtupleError, match="looks like GeV"):
        pid_efficiency(
            {"Kplus": toy_map},
            path,
            conditions=Conditions(branches={"P": "momentum"}),
            **options,
        )
    with pytest.raises(NtupleError, match="no such condition"):
        pid_efficiency(
            {"Kplus": toy_map},
            path,
            conditions=Conditions(branches={"Q": "momentum"}),
            **options,
        )


def test_momentum_components_are_enough(toy_map: EfficiencyMap, tmp_path: Path) -> None:
    options: dict[str, Any] = {"cuts": "DLLk > 2"}
    (plain,) = pid_efficiency(
        {"Kplus": toy_map}, write_analysis(tmp_path / "a.root"), **options
    )
    import uproot

    with uproot.open(tmp_path / "a.root") as file:
        rows = file["DecayTree"].arrays(["Kplus_P", "Kplus_ETA"], library="np")
    p, eta = rows["Kplus_P"].astype(float), rows["Kplus_ETA"].astype(float)
    parts = {
        "Kplus_PX": p / np.cosh(eta),
        "Kplus_PY": 0 * p,
        "Kplus_PZ": p * np.tanh(eta),
    }
    path = write_analysis(tmp_path / "b.root", Kplus_P=None, Kplus_ETA=None, **parts)
    (derived,) = pid_efficiency({"Kplus": toy_map}, path, **options)
    assert derived.value == pytest.approx(plain.value, abs=1e-3)


def test_unknown_columns(toy_map: EfficiencyMap, ntuple: Path) -> None:
    options: dict[str, Any] = {"cuts": "DLLk > 2"}
    with pytest.raises(NtupleError, match="Kplus_DLLk_new"):
        pid_efficiency({"Kplus": toy_map}, ntuple, suffix="_new", **options)
    with pytest.raises(NtupleError, match="weightt"):
        pid_efficiency({"Kplus": toy_map}, ntuple, weights="weightt", **options)
    with pytest.raises(MapError, match="no cut 'DLLk > 3'"):
        pid_efficiency({"Kplus": toy_map}, ntuple, cuts="DLLk > 3")


def combined(toy_map: EfficiencyMap, **changes: Any) -> PidEfficiencies:
    n = 50
    values: dict[str, Any] = {
        "place": np.zeros(n, dtype=int),
        "passed": np.ones((1, n), dtype=bool),
        "weights": np.ones(n),
    }
    return combine_rows(toy_map, [0], **(values | changes))


def test_rows_that_all_pass_still_have_a_statistical_uncertainty(
    toy_map: EfficiencyMap,
) -> None:
    (one,) = combined(toy_map)
    assert 0.005 < one.stat < 0.02


def test_weights_that_cancel_are_refused(toy_map: EfficiencyMap) -> None:
    with pytest.raises(MapError, match="50 rows with a sum of weights of 0"):
        combined(toy_map, weights=np.tile([1.0, -1.0], 25))
    with pytest.raises(ValueError, match="outside is 'keep'"):
        combined(toy_map, outside="keep")


def test_same_kinematics_need_no_transfer(toy_map: EfficiencyMap) -> None:
    """The transfer is small where a bin is filled like the reference."""
    rng = np.random.default_rng(6)
    for analysis, largest in ((False, 0.003), (True, 0.02)):
        x = draw_conditions(rng, 20_000, analysis=analysis)
        y = GENERATOR.generate(x, rng.standard_normal((len(x), 3)))
        (one,) = combined(
            toy_map,
            place=bin_index({"P": x[:, 0], "ETA": x[:, 1]}, toy_map.binning),
            passed=(y[:, 0] > 1)[np.newaxis],
            weights=np.ones(len(x)),
        )
        assert one.syst["transfer"] < largest


def test_results_as_text_and_json(toy_map: EfficiencyMap, ntuple: Path) -> None:
    found = pid_efficiency({"Kplus": toy_map}, ntuple, cuts=CUTS)
    content = json.loads(found.to_json())
    assert [row["cut"] for row in content["results"]] == list(CUTS)
    assert content["results"][1]["total"] == found[1].total
    assert np.array(content["covariance"]).shape == (3, 3)
    lines = found.text().splitlines()
    assert lines[0].startswith("DLLk > 1   (")
    assert lines[0].endswith(" syst) %")
    assert "calibration" in lines[4]
    assert lines[6].startswith("DLLk > 2")
    assert "2000 rows" in lines[-2]


def test_conditions_that_are_integers_fill_empty_bins() -> None:
    counts = CardVariable(
        name="ETA", unit="1", range=(0, 10), integer=True, patterns=("nTracks",)
    )
    base = make_card()
    sample = make_sample(binning={"P": (3e3, 1e5)})
    card = base.model_copy(
        update={"conditions": (base.conditions[0], counts), "sample": sample}
    )
    frame = reference_frame(np.random.default_rng(1), 500, Truth(1, size=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = run_systematics(
            ToyGenerator(card=card),
            frame,
            cuts="DLLk > 2",
            binning={"P": (3e3, 5e4, 1e5), "ETA": (0, 5, 10)},
        )
    assert found.n_eff.reshape(2, 2)[:, 1].max() == 0
    assert np.isfinite(found.nominal).all()


@pytest.mark.parametrize(
    ("binning", "expected"),
    [
        ({"P": (3e3, 5e4, 1e5)}, {-1.0, 1.0}),
        ({"P": (3e3, 5e4, 1e5), "ETA": (-2, 0, 2)}, {-1.0, 1.0}),
        ({"P": (3e3, 5e4, 1e5), "ETA": (0, 2)}, {1.0}),
    ],
)
def test_conditions_that_are_categories_fill_empty_bins(
    binning: dict[str, Any], expected: set[float]
) -> None:
    charge = CardVariable(name="ETA", unit="1", range=(-1, 1), categories=(-1.0, 1.0))
    base = make_card()
    card = base.model_copy(update={"conditions": (base.conditions[0], charge)})
    edges = {name: tuple(map(float, own)) for name, own in binning.items()}
    seen = []

    class Spy(ToyGenerator):
        def generate(self, conditions: np.ndarray, noise: np.ndarray) -> np.ndarray:
            seen.append(np.unique(conditions[:, 1]))
            return super().generate(conditions, noise)

    places = np.arange(math.prod(len(own) - 1 for own in edges.values()))
    cuts = [parse_cut("DLLk > 2")]
    generated_in_bins(Spy(card=card), places, edges, cuts, 1)
    assert set(np.concatenate(seen).tolist()) == expected
    if "ETA" in binning:
        assert all(len(values) == 1 for values in seen)


def test_variations_are_shifts_of_the_corrected_efficiency() -> None:
    rng = np.random.default_rng(11)
    frame = reference_frame(rng, 20_000, Truth(2, size=0.2), background=0.4)
    # Another mass fit that calls a tenth of the rows that pass background.
    lost = (frame["DLLk"] > 2) & (rng.random(len(frame)) < 0.1)
    frame["weight_signal"] = np.where(lost, 0.0, frame["weight"])
    far = ToyGenerator(card=make_card(), offset=0.3)
    settings: dict[str, Any] = {"cuts": "DLLk > 2", "binning": BINNING}
    found = run_systematics(
        GENERATOR, frame, scales={"P": 1.1}, others=[far, GENERATOR], **settings
    )
    names = ["binning", "sweights_signal", "scale_P", "training_1", "training_2"]
    assert list(found.variations) == names

    use = found.n_eff > 200
    e, weight = found.nominal[0, use], found.n_eff[use]

    def mean(name: str) -> float:
        return float(np.average(found.variations[name][0, use], weights=weight))

    # e -> 0.9 e / (1 - 0.1 e)
    change = np.average(0.9 * e / (1 - 0.1 * e) - e, weights=weight)
    assert mean("sweights_signal") == pytest.approx(change, rel=0.15)
    # The mean of DLLk is 4 - 5e-5 P + ..., the conditions are those of the reference.
    x = frame[["P", "ETA"]].to_numpy()
    w = frame["weight"].to_numpy()
    scaled = np.stack([np.minimum(1.1 * x[:, 0], 1e5), x[:, 1]], axis=1)
    exact = norm.sf(2 - location(scaled)[:, 0]) - norm.sf(2 - location(x)[:, 0])
    assert mean("scale_P") == pytest.approx((exact @ w) / w.sum(), rel=0.1)
    # The correction takes out what is wrong with the other generator.
    assert abs(mean("training_1")) < 0.004
    assert not found.variations["training_2"].any()

    bare = run_systematics(GENERATOR, frame, variations=(), **settings)
    assert bare.variations == {}
    np.testing.assert_array_equal(bare.discrepancy, found.discrepancy)


def test_up_is_up_whatever_the_order_of_bins(tmp_path: Path) -> None:
    known = make_map()
    order = np.array([2, 0, 1])  # of an eigenvector, LAPACK leaves the sign open
    rows = np.ix_([0, 1], order, order)
    turned = dataclasses.replace(
        known,
        generated=known.generated[:, order],
        discrepancy=known.discrepancy[:, order],
        covariance=known.covariance[rows],
    )

    def shifts(found: EfficiencyMap, name: str) -> np.ndarray:
        path, *_ = found.save(tmp_path / "map.json", overwrite=True)
        first, *_ = json.loads(path.read_text())["corrections"]
        (up,) = (v for v in first["data"]["content"] if v["key"] == name)
        return np.asarray(up["value"]["content"]) - found.nominal[0]

    for name in ("calibration_1_up", "calibration_2_up", "calibration_3_up"):
        expected = shifts(known, name)[order]
        np.testing.assert_allclose(shifts(turned, name), expected, atol=1e-8)
        assert expected.sum() > 0


def test_unknown_variations_are_named() -> None:
    frame = reference_frame(np.random.default_rng(1), 500, Truth(1, size=0))
    with pytest.raises(MapError, match=r"unknown variation 'bining'.*binning"):
        run_systematics(GENERATOR, frame, variations=["bining"])
    with pytest.raises(MapError, match=r"scale of 'ETAA'.*ETA"):
        run_systematics(GENERATOR, frame, scales={"ETAA": 1.1})
    with pytest.raises(MapError, match="scale of 'P' is -1"):
        run_systematics(GENERATOR, frame, scales={"P": -1.0})
    other = ToyGenerator(card=make_card(species="pi+"))
    with pytest.raises(MapError, match=r"has species pi\+.*expected species K\+"):
        run_systematics(GENERATOR, frame, others=[other])


def test_edges_of_a_map_are_finite() -> None:
    bundle = open_bundle(Path(__file__).parents[1] / "golden" / "kaon.onnx")
    with pytest.raises(MapError, match="binning in 'P' has edges that are not finite"):
        run_systematics(bundle, cuts="RichDLLk > 0", binning={"P": [1.0, np.inf]})
