"""What fits read: eigenvariations, replicas, workspaces, tables and matrices."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import uproot
from toy_generator import ToyGenerator, make_card
from toy_map import make_map

from pidgan.application.apply import apply
from pidgan.application.generators import generator_hash
from pidgan.efficiency.columns import write_efficiency_columns
from pidgan.efficiency.fit_inputs import fit_workspace, write_fit_workspace
from pidgan.efficiency.misid_matrix import misid_matrix
from pidgan.efficiency.pid_efficiency import PidEfficiencies, pid_efficiency
from pidgan.efficiency.systematics import run_systematics
from pidgan.efficiency.sysvar_table import sysvar_table, write_sysvar_table
from pidgan.errors import MapError
from pidgan.files.tables import write_trees

CUTS = ("DLLk > 0", "DLLk > 2")
pytestmark = pytest.mark.filterwarnings("ignore:.*lie outside .0, 1.")

BINS = {"mass": np.linspace(0, 1, 9)}
KAON, PION = (ToyGenerator(card=make_card(species=s)) for s in ("K+", "pi+"))


def reference(generator: ToyGenerator, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = 3000
    x = pd.DataFrame({"P": rng.uniform(3.1e3, 9.9e4, n), "ETA": rng.uniform(2, 4.9, n)})
    noise = rng.standard_normal((n, generator.card.n_noise)).astype(np.float32)
    columns = list(generator.card.condition_names)
    targets = generator.generate(x[columns].to_numpy(np.float32), noise)
    names = generator.card.target_names
    return x.assign(**dict(zip(names, targets.T + 0.2, strict=True)), weight=1.0)


@pytest.fixture(scope="module")
def maps() -> dict[str, Any]:
    """Maps of a kaon and of a pion; the generator is wrong."""
    found = {}
    for track, generator in (("K", KAON), ("pi", PION)):
        found[track] = run_systematics(
            generator,
            reference(generator, 3),
            cuts=list(CUTS),
            binning={"P": 6, "ETA": 3},
            progress=False,
        )
    return found


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(1)
    n = 2000
    columns: dict[str, Any] = {"mass": rng.beta(2, 3, n), "w": rng.normal(1, 0.3, n)}
    for track in ("K", "pi"):
        columns[f"{track}_P"] = rng.uniform(3.1e3, 9.9e4, n)
        columns[f"{track}_ETA"] = rng.uniform(2, 4.9, n)
    folder = tmp_path_factory.mktemp("fits")
    write_trees(folder / "in.root", {"T": columns})
    apply({"K": KAON, "pi": PION}, folder / "in.root", folder / "out.root")
    return folder / "out.root"


@pytest.fixture(scope="module")
def found(maps: dict[str, Any], applied: Path) -> PidEfficiencies:
    cuts = [f"K_{cut} & pi_{cut}" for cut in CUTS]
    return pid_efficiency(
        maps, applied, cuts=cuts, binning=BINS, weights="w", progress=False
    )


def read(path: Path, names: Any) -> Any:
    with uproot.open(path) as file:
        return file["T"].arrays(names, library="np")


def of_kind(path: Path, start: str) -> Any:
    with uproot.open(path) as file:
        names = [n for n in file["T"].keys() if n.startswith(start)]  # noqa: SIM118
        # The filling of bins is no uncertainty of the maps.
        names = [name for name in names if "filling" not in name]
    found = read(path, names)
    return np.array([found[name] for name in names]).astype(np.float64), names


def test_eigenvariations_have_the_covariance_of_the_maps(
    maps: dict[str, Any], applied: Path, tmp_path: Path
) -> None:
    """Row by row, and for the mean: squares of the shifts add up."""
    cut = f"K_{CUTS[0]} & pi_{CUTS[0]}"
    out = tmp_path / "eff.root"
    write_efficiency_columns(maps, applied, out, cuts=cut, eigenvariations=True)
    assert read(out, ["PIDCalibEff_filling"])["PIDCalibEff_filling"].dtype == np.float32
    nominal = read(out, ["PIDCalibEff", "PIDCalibErr"])
    varied, names = of_kind(out, "PIDCalibEff_")
    assert "PIDCalibEff_K_calibration_1" in names
    assert "PIDCalibEff_pi_calibration_rest" in names
    assert "PIDCalibEff_K_binning" in names
    shifts = varied - nominal["PIDCalibEff"]
    error = np.sqrt((shifts**2).sum(axis=0))
    assert np.allclose(error, nominal["PIDCalibErr"], rtol=1e-3)
    result = pid_efficiency(maps, applied, cuts=cut, progress=False)[0]
    parts = {n: v for n, v in result.syst.items() if n in ("calibration", "binning")}
    mean = np.sqrt((shifts.mean(axis=1) ** 2).sum())
    assert mean == pytest.approx(np.hypot(*parts.values()), rel=0.1)
    # The first ones carry 99 % of the variance.
    few = sum("calibration" in name for name in names)
    assert few < 36


def test_selections_share_their_eigenvariations(
    maps: dict[str, Any], applied: Path, tmp_path: Path
) -> None:
    only = {"K": maps["K"]}
    out = tmp_path / "eff.root"
    write_efficiency_columns(only, applied, out, cuts=CUTS, eigenvariations=True)
    places = maps["K"].place(
        {n: read(applied, [f"K_{n}"])[f"K_{n}"] for n in ("P", "ETA")}
    )
    names = ("DLLk_gt_0_PIDCalibEff", "DLLk_gt_2_PIDCalibEff")
    nominal = read(out, list(names))
    both = [of_kind(out, f"{n}_calibration")[0] - nominal[n] for n in names]
    joint = (both[0] * both[1]).sum(axis=0)
    expected = maps["K"].joint_covariance(0, 1)[places, places]
    assert np.allclose(joint, expected, rtol=0.1, atol=0.02 * expected.max())


def test_replicas_vary_by_the_uncertainty(
    maps: dict[str, Any], applied: Path, tmp_path: Path
) -> None:
    cut = f"K_{CUTS[0]} & pi_{CUTS[0]}"
    runs = (("a", 150, 4, 10**6), ("b", 3, 4, 700), ("c", 3, 5, 700))
    for name, n, seed, chunk in runs:
        write_efficiency_columns(
            maps,
            applied,
            tmp_path / f"{name}.root",
            cuts=cut,
            replicas=n,
            seed=seed,
            chunk=chunk,
        )
    drawn, names = of_kind(tmp_path / "a.root", "PIDCalibEff_replica_")
    assert len(names) == 150
    first = drawn[:3]
    assert np.array_equal(first, of_kind(tmp_path / "b.root", names[0][:-1])[0])
    assert not np.array_equal(first, of_kind(tmp_path / "c.root", names[0][:-1])[0])
    nominal = read(tmp_path / "a.root", ["PIDCalibEff", "PIDCalibErr"])
    spread = drawn.std(axis=0) / nominal["PIDCalibErr"]
    assert np.median(spread) == pytest.approx(1, abs=0.15)
    result = pid_efficiency(maps, applied, cuts=cut, progress=False)[0]
    parts = np.hypot(result.syst["calibration"], result.syst["binning"])
    assert drawn.mean(axis=1).std() == pytest.approx(parts, rel=0.2)


def test_no_columns_but_those_that_are_asked_for(
    maps: dict[str, Any], applied: Path, tmp_path: Path
) -> None:
    write_efficiency_columns(
        maps, applied, tmp_path / "a.root", cuts=f"K_{CUTS[0]} & pi_{CUTS[0]}"
    )
    with uproot.open(tmp_path / "a.root") as file:
        assert len(file["T"].keys()) == 7
    with pytest.raises(ValueError, match="replicas is -1"):
        write_efficiency_columns(maps, applied, tmp_path / "b.root", replicas=-1)


def total_of(spec: dict[str, Any], number: int) -> tuple[float, float]:
    """Yield of a channel and its uncertainty, from the content of the file."""
    (sample,) = spec["channels"][number]["samples"]
    variance = 0.0
    for own in sample["modifiers"]:
        if own["type"] == "histosys":
            variance += (sum(own["data"]["hi_data"]) - sum(sample["data"])) ** 2
        elif own["type"] == "normsys":
            variance += ((own["data"]["hi"] - 1) * sample["data"][0]) ** 2
    return sum(sample["data"]), np.sqrt(variance)


def test_the_modifiers_have_the_total_uncertainty(
    maps: dict[str, Any], applied: Path, found: PidEfficiencies
) -> None:
    cuts = [f"K_{cut} & pi_{cut}" for cut in CUTS]
    whole = pid_efficiency(maps, applied, cuts=cuts, weights="w", progress=False)
    spec, one_bin = fit_workspace(found), fit_workspace(whole)
    (rows,) = whole.estimates.samples
    size = rows.sums[0]  # type: ignore[attr-defined]
    for number, result in enumerate(whole):
        for content in (spec, one_bin):
            total, error = total_of(content, number)
            assert total / size == pytest.approx(result.value, rel=1e-12)
            # `transfer` is not linear in the bins of the analysis.
            assert error / size == pytest.approx(result.total, rel=0.02)
        total, error = total_of(one_bin, number)
        assert error / size == pytest.approx(result.total, rel=1e-9)
    types = {m["type"] for m in one_bin["channels"][0]["samples"][0]["modifiers"]}
    assert types == {"normfactor", "normsys"}
    names = [c["name"] for c in spec["channels"]]
    assert names == ["K_DLLk_gt_0_and_pi_DLLk_gt_0", "K_DLLk_gt_2_and_pi_DLLk_gt_2"]


@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_pyhf_and_cabinetry_give_the_total_uncertainty(
    found: PidEfficiencies, tmp_path: Path
) -> None:
    pyhf = pytest.importorskip("pyhf")
    cabinetry = pytest.importorskip("cabinetry")
    path = write_fit_workspace(found, tmp_path / "workspace.json")
    spec = json.loads(path.read_text())
    pyhf.Workspace(spec)  # valid by its schema
    model, data = cabinetry.model_utils.model_and_data(spec)
    prediction = cabinetry.model_utils.prediction(model)
    (rows,) = found.estimates.samples
    sizes = rows.sums  # type: ignore[attr-defined]
    for number, channel in enumerate(model.config.channels):
        results = found.results[8 * number : 8 * (number + 1)]
        own = prediction.model_yields[number][0]
        errors = prediction.total_stdev_model_bins[number][-1]
        for k, result in enumerate(results):
            assert own[k] / sizes[k] == pytest.approx(result.value, rel=1e-9)
            assert errors[k] / sizes[k] == pytest.approx(result.total, rel=0.01)
        cells = slice(8 * number, 8 * (number + 1))
        share = sizes / sizes.sum()
        total = np.sqrt(share @ found.covariance[cells, cells] @ share)
        error = prediction.total_stdev_model_channels[number][-1]
        assert error / sizes.sum() == pytest.approx(total, rel=0.01), channel
    fit = cabinetry.fit.fit(model, data)
    mu = list(fit.labels).index("mu")
    assert fit.bestfit[mu] == pytest.approx(1, abs=1e-3)
    # The yield of the first channel is no better known than its efficiency.
    assert fit.uncertainty[mu] > 0


def test_a_bin_without_efficiency_is_no_input(
    maps: dict[str, Any], applied: Path
) -> None:
    edges = {"mass": [0.0, 0.5, 1.0, 2.0]}
    only = {"K": maps["K"]}
    with pytest.warns(match="no efficiency"):
        lacking = pid_efficiency(only, applied, binning=edges, progress=False)
    with pytest.raises(MapError, match="2 of 6 bins have no efficiency"):
        fit_workspace(lacking)
    with pytest.raises(ValueError, match="share is 0"):
        fit_workspace(lacking, share=0.0)


def test_a_correction_table_has_the_map_and_its_covariance(
    maps: dict[str, Any], tmp_path: Path
) -> None:
    own = maps["K"]
    path, beside = write_sysvar_table(own, tmp_path / "kaon.csv", CUTS[1])
    table, covariance = pd.read_csv(path), np.load(beside)
    assert len(table) == len(covariance) == 18
    assert list(table)[:4] == ["P_min", "P_max", "ETA_min", "ETA_max"]
    ratio = own.nominal[1] / own.generated[1]
    assert np.allclose(table["data_MC_ratio"], ratio)
    parts = [table[f"data_MC_uncertainty_{k}_up"] ** 2 for k in ("stat", "sys")]
    assert np.allclose(np.diag(covariance), sum(parts))
    assert np.allclose(np.diag(covariance), (own.error[1] / own.generated[1]) ** 2)
    assert set(table["PDG"]) == set(table["mcPDG"]) == {321}
    assert set(table["variable"]) == {"DLLk"}
    assert set(table["threshold"]) == {2.0}
    # Weighted rows that pass have the corrected efficiency.
    weights = own.generated[1] * table["data_MC_ratio"]
    assert np.allclose(weights, own.nominal[1])
    fakes, _ = sysvar_table(own, CUTS[1], hypothesis=211)
    assert set(fakes["PDG"]) == {211}
    with pytest.raises(ValueError, match=r"expected \.csv"):
        write_sysvar_table(own, tmp_path / "kaon.txt", CUTS[1])
    with pytest.raises(MapError, match="has no cut"):
        sysvar_table(own, "DLLk > 7")


def test_a_matrix_has_named_rows_and_columns(
    maps: dict[str, Any], applied: Path, tmp_path: Path
) -> None:
    named = {"kaon": CUTS[0], "tight": CUTS[1]}
    found = misid_matrix(maps, applied, named, progress=False)
    assert list(found.frame().index) == ["K+", "pi+"]
    assert list(found.frame()) == ["kaon", "tight"]
    assert found.names[1] == "K+ as tight"
    for row, track in enumerate(("K", "pi")):
        alone = pid_efficiency(
            {track: maps[track]}, applied, cuts=list(CUTS), progress=False
        )
        assert np.allclose(found.frame().iloc[row], [one.value for one in alone])
        block = found.covariance[2 * row : 2 * row + 2, 2 * row : 2 * row + 2]
        assert np.allclose(block, alone.covariance)
    assert np.linalg.eigvalsh(found.covariance).min() > -1e-15
    names = [path.name for path in found.save(tmp_path / "matrix.csv")]
    assert names == ["matrix.csv", "matrix.covariance.csv"]
    again = pd.read_csv(tmp_path / "matrix.csv", index_col=0)
    assert np.allclose(again, found.frame())
    cov = pd.read_csv(tmp_path / "matrix.covariance.csv", index_col=0)
    assert np.allclose(cov, found.covariance)
    assert list(cov) == list(found.names)
    (path,) = found.save(tmp_path / "matrix.json")
    content = json.loads(path.read_text())
    assert content["selections"] == named
    assert np.allclose(content["covariance"], found.covariance)
    assert "K+" in found.text()
    with pytest.raises(MapError, match=r"two tracks are of the species K\+"):
        misid_matrix({"K": maps["K"], "pi": maps["K"]}, applied, named)
    with pytest.raises(ValueError, match="binning is not for a matrix"):
        misid_matrix(maps, applied, named, binning=BINS)
    with pytest.raises(ValueError, match=r"expected \.json or \.csv"):
        found.save(tmp_path / "matrix.txt")


def test_a_table_has_no_ratio(maps: dict[str, Any]) -> None:
    table = make_map(metadata={**make_map().metadata, "kind": "table", "name": "t"})
    with pytest.raises(MapError, match="is a table of efficiencies"):
        sysvar_table(table, table.cuts[0])
    assert generator_hash(KAON)
    assert maps
