"""Efficiencies and columns of analysis ntuples, from files and the command line."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pandas as pd
import pytest
import uproot
from scipy.stats import norm
from toy_generator import ToyGenerator, location, make_card
from toy_map import DISCREPANCY, EDGES, GENERATED, make_map

from pidgan.bundle.card import sample_targets
from pidgan.cli import main
from pidgan.efficiency import columns as columns_module
from pidgan.efficiency import pid_efficiency as pid_efficiency_module
from pidgan.efficiency.binning import bin_index
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.systematics import run_systematics
from pidgan.errors import CutError, MapError, NtupleError, PidganWarning
from pidgan.files.tables import Source, read_columns, write_trees
from pidgan.sample.loading import load_binning

N = 2000
BOTH = "Kplus_DLLk > 5 & Kminus_DLLk > 0"


def two_tracks(seed: int = 1, **changes: Any) -> dict[str, Any]:
    """Two kaons with correlated momenta, which pass the cuts as the map says."""
    rng = np.random.default_rng(seed)
    branches: dict[str, Any] = {
        "q2": rng.uniform(0, 10, N),
        "sw": rng.choice([1.2, -0.4], N, p=[0.8, 0.2]),
    }
    p = np.exp(rng.uniform(np.log(3e3), np.log(1e5), N))
    for track in ("Kplus", "Kminus"):
        place = np.searchsorted(EDGES, p, side="right") - 1
        u = rng.random(N)
        y = np.where(u < GENERATED[1][place], 6.0, 3.0)
        branches[f"{track}_P"] = p.astype(np.float32)
        branches[f"{track}_ETA"] = rng.uniform(2, 5, N).astype(np.float32)
        branches[f"{track}_DLLk"] = np.where(u < GENERATED[0][place], y, -4.0)
        branches[f"{track}_TRUEID"] = np.where(rng.random(N) < 0.9, 321, 211)
        p = np.clip(rng.permutation(p) * 0.3 + 0.7 * p, 3001, 99_999)
    branches |= changes
    return {name: values for name, values in branches.items() if values is not None}


def write(path: Path, **changes: Any) -> Path:
    write_trees(path, {"DecayTree": two_tracks(**changes)})
    return path


@pytest.fixture
def ntuple(tmp_path: Path) -> Path:
    return write(tmp_path / "analysis.root")


OPTIONS: dict[str, Any] = {"maps": dict.fromkeys(("Kplus", "Kminus"), make_map())}

# The columns are drawn here: nothing proves that a bundle made them.
pid_efficiency = partial(pid_efficiency_module.pid_efficiency, trust=True)
write_efficiency_columns = partial(columns_module.write_efficiency_columns, trust=True)
pytestmark = pytest.mark.filterwarnings("ignore:.*NOT PROVEN:")


def test_chunks_formats_and_maps_do_not_matter(ntuple: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "cuts": [BOTH, "Kplus_DLLk > 0"],
        "weights": "sw",
        "species_from": "TRUEID",
        "binning": {"q2": [0, 1, 4, 10], "Kplus_P": [3e3, 2e4, 1e5]},
    }
    efficiency_map = make_map()
    file, *_ = efficiency_map.save(tmp_path / "map.json")
    write_trees(tmp_path / "a.parquet", {"DecayTree": two_tracks()})
    same = dict.fromkeys(("Kplus", "Kminus"), efficiency_map)
    whole = pid_efficiency(same, ntuple, **options)
    assert len(whole) == 12
    assert sum(one.n_rows for one in whole.results[:6]) < 0.85 * N
    for files, given, chunk in (
        (f"{ntuple}:DecayTree", dict.fromkeys(same, file), 123),
        (tmp_path / "a.parquet", {"Kplus": efficiency_map, "Kminus": file}, 1000),
    ):
        again = pid_efficiency(given, files, chunk=chunk, **options)
        for one, other in zip(whole, again, strict=True):
            assert one == other
        np.testing.assert_array_equal(whole.covariance, again.covariance)


def test_cuts_may_use_the_names_of_the_calibration_sample(ntuple: Path) -> None:
    known = make_map()
    metadata = {**known.metadata, "aliases": {"probe_DLLk": "DLLk"}}
    named = make_map(cuts=("probe_DLLk > 0", "DLLk > 5"), metadata=metadata)
    (found,) = pid_efficiency({"Kplus": named}, ntuple, cuts="probe_DLLk > 0")
    (expected,) = pid_efficiency({"Kplus": known}, ntuple, cuts="DLLk > 0")
    assert (found.value, found.total) == (expected.value, expected.total)


def test_tracks_of_candidates_in_arrays(ntuple: Path, tmp_path: Path) -> None:
    """Several candidates an entry, each with two tracks, are rows."""
    columns = two_tracks()
    counts = np.random.default_rng(1).multinomial(N, np.full(700, 1 / 700))
    nested = {
        name: ak.unflatten(values, counts)
        for name, values in columns.items()
        if name != "q2"
    }
    write_trees(tmp_path / "nested.root", {"DecayTree": nested})
    options: dict[str, Any] = OPTIONS | {"cuts": [BOTH], "weights": "sw"}
    bins = {"Kplus_P": [3e3, 2e4, 1e5]}
    flat = write(tmp_path / "flat.root", entry=np.repeat(np.arange(700), counts))
    expected = pid_efficiency(files=flat, binning=bins, key=["entry"], **options)
    found = pid_efficiency(
        files=tmp_path / "nested.root", binning=bins, chunk=99, **options
    )
    np.testing.assert_allclose(found.estimates.values, expected.estimates.values)
    np.testing.assert_allclose(found.covariance, expected.covariance)
    mixed = {k: v for k, v in nested.items() if k.startswith("Kplus")}
    mixed |= {k: columns[k][:700] for k in columns if k.startswith("Kminus")}
    write_trees(tmp_path / "mixed.root", {"DecayTree": mixed})
    with pytest.raises(NtupleError, match="Kminus one track an entry; expected the sa"):
        pid_efficiency(files=tmp_path / "mixed.root", cuts=BOTH, **OPTIONS)


def test_bins_are_edges_numbers_or_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a.root", P=two_tracks()["Kplus_P"])
    options: dict[str, Any] = {"maps": {"Kplus": make_map()}, "chunk": 400}
    found = pid_efficiency(files=path, binning={"q2": 3}, **options)
    edges = found.binning["q2"]
    assert len(edges) == 4
    assert [one.cut for one in found] == 3 * ["DLLk > 0"] + 3 * ["DLLk > 5"]
    rows = [one.n_rows for one in found.results[:3]]
    assert sum(rows) == N
    assert max(rows) - min(rows) < 0.02 * N
    again = pid_efficiency(files=path, binning=found.binning, **options)
    assert again.results == found.results
    named = pid_efficiency(files=path, binning={"P": "muons"}, **options)
    assert named.binning == {"P": load_binning("muons")["P"]}
    with pytest.raises(NtupleError, match="no branch 'ETA'"):
        pid_efficiency(files=path, binning="muons", **options)


def test_two_files_are_one_sample(ntuple: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.root", seed=2)
    options: dict[str, Any] = OPTIONS | {"cuts": [BOTH, "Kplus_DLLk > 0"]}
    a, b, both = (
        pid_efficiency(files=files, **options)
        for files in (ntuple, other, [ntuple, other])
    )
    average = (a.estimates + b.estimates).linear(np.eye(2) / 2, labels=["", ""])
    np.testing.assert_allclose(both.estimates.values, average.values)
    for name in ("calibration", "binning"):
        np.testing.assert_allclose(both.covariances[name], average.systematics[name])
    np.testing.assert_allclose(both.estimates.stat, average.stat, rtol=0.02, atol=1e-9)
    # The rows of the first file are a part of both.
    difference = both.estimates - a.estimates
    np.testing.assert_allclose(
        difference.stat, (a.estimates.stat + b.estimates.stat) / 4, rtol=0.02, atol=1e-7
    )


def test_a_joint_efficiency_agrees_with_the_truth(tmp_path: Path) -> None:
    """The whole chain, on two tracks whose generator is wrong by a known amount."""
    generator = ToyGenerator(card=make_card())
    pulls = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        offset = rng.normal(0, 0.3)

        def kinematics(n: int, low: float, rng: Any = rng) -> np.ndarray:
            p = np.exp(rng.uniform(np.log(low), np.log(1e5), n))
            return np.stack([p, rng.uniform(1.6, 4.9, n)], axis=1)

        x = kinematics(4000, 3.1e3)
        y = location(x) + offset + rng.standard_normal((4000, 2))
        columns = {"P": x[:, 0], "ETA": x[:, 1], "DLLk": y[:, 0], "DLLp": y[:, 1]}
        found = run_systematics(
            generator,
            pd.DataFrame(columns | {"weight": np.ones(4000)}),
            cuts=["DLLk > 1", "DLLk > 2"],
            seed=seed,
            repeats=3,
        )
        branches, pass_real = {}, np.ones(8000)
        first = kinematics(8000, 1e4)
        for track, threshold in (("Kplus", 1.0), ("Kminus", 2.0)):
            own = first * ([1.0, 1.0] if track == "Kplus" else [0.4, 1.0])
            branches[f"{track}_P"], branches[f"{track}_ETA"] = own.T
            target = sample_targets(generator, own, seed=seed, track=track)
            branches[f"{track}_DLLk"] = target[:, 0]
            pass_real *= norm.sf(threshold - location(own)[:, 0] - offset)
        path = tmp_path / f"{seed}.root"
        write_trees(path, {"DecayTree": branches})
        (one,) = pid_efficiency(
            dict.fromkeys(("Kplus", "Kminus"), found),
            path,
            cuts="Kplus_DLLk > 1 & Kminus_DLLk > 2",
        )
        pulls.append((one.value - pass_real.mean()) / one.total)
    assert np.abs(pulls).max() < 3
    assert 0.3 < np.std(pulls) < 1.5


def test_bad_requests(ntuple: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = OPTIONS | {"cuts": BOTH}
    with pytest.raises(NtupleError, match="no branch 'q3', needed for Kplus, Kminus"):
        pid_efficiency(files=ntuple, binning={"q3": [0, 1]}, **options)
    with pytest.raises(ValueError, match="edges of 'q2' must be two or more"):
        pid_efficiency(files=ntuple, binning={"q2": [1, 0]}, **options)
    with pytest.raises(MapError, match="0 rows in the bins of the analysis"):
        pid_efficiency(files=ntuple, binning={"q2": [20, 30]}, **options)
    with pytest.raises(NtupleError, match="no branch 'Kplus_DLLk_new'"):
        pid_efficiency(files=ntuple, suffix="_new", **options)
    bare = write(tmp_path / "bare.root", Kminus_P=None)
    with pytest.raises(NtupleError, match="no branch for condition P of Kminus"):
        pid_efficiency(files=bare, **options)
    protons = write(tmp_path / "protons.root", Kminus_TRUEID=np.full(N, 2212))
    with pytest.raises(
        MapError, match=r"no usable row for Kplus, Kminus with Kplus_TRUEID = K\+ and"
    ):
        pid_efficiency(files=protons, species_from="TRUEID", **options)


def test_rows_where_one_track_has_no_targets(tmp_path: Path) -> None:
    y = two_tracks()["Kminus_DLLk"].copy()
    y[:50] = np.nan
    path = write(tmp_path / "a.root", Kminus_DLLk=y)
    with pytest.warns(
        PidganWarning, match="50 of 2000 rows have no .* for Kplus and Kminus"
    ):
        (one,) = pid_efficiency(files=path, cuts=BOTH, **OPTIONS)
    assert (one.n_rows, one.n_invalid) == (N - 50, 50)


# Columns


def columns_of(path: Path, names: list[str]) -> Any:
    tree = None if path.suffix == ".parquet" else "DecayTree"
    return read_columns(Source(str(path), tree), names)


@pytest.mark.parametrize("suffix", ["root", "parquet"])
def test_columns_are_the_map(tmp_path: Path, suffix: str) -> None:
    p = two_tracks()["Kplus_P"].copy()
    p[:10], p[10:20] = 2e3, np.nan
    source, output = tmp_path / f"a.{suffix}", tmp_path / f"out/eff.{suffix}"
    write_trees(source, {"DecayTree": two_tracks(Kplus_P=p)})
    one, other = make_map(), make_map(seed=1)
    with pytest.warns(PidganWarning, match="10 of 2000 rows of Kplus lie outside its"):
        (written,) = write_efficiency_columns(
            {"Kplus": one, "Kminus": other},
            source,
            output,
            cuts=BOTH,
            chunk=333,
        )
    assert written == output
    names = [
        f"{t}PIDCalib{n}" for t in ("Kplus_", "Kminus_", "") for n in ("Eff", "Err")
    ]
    found = columns_of(output, names)
    expected = {}
    for track, efficiency_map, cut in (("Kplus", one, 1), ("Kminus", other, 0)):
        column = columns_of(source, [f"{track}_P"]).to_numpy()[:, 0]
        place = bin_index({"P": column}, {"P": EDGES})
        for name in ("nominal", "error"):
            values = getattr(efficiency_map, name)[cut][place]
            expected[track, name] = np.where(place >= 0, values, np.nan)
        np.testing.assert_allclose(
            found[f"{track}_PIDCalibEff"], expected[track, "nominal"]
        )
        np.testing.assert_allclose(
            found[f"{track}_PIDCalibErr"], expected[track, "error"]
        )
    assert found["Kplus_PIDCalibEff"].isna().sum() == 20
    e, f = expected["Kplus", "nominal"], expected["Kminus", "nominal"]
    np.testing.assert_allclose(found["PIDCalibEff"], e * f)
    # PIDCalib2's formula; it holds because the two maps are independent.
    relative = np.hypot(expected["Kplus", "error"] / e, expected["Kminus", "error"] / f)
    np.testing.assert_allclose(found["PIDCalibErr"], e * f * relative)


@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_columns_are_those_of_pidcalib(ntuple: Path, tmp_path: Path) -> None:
    """PIDCalib2's own code writes the same numbers from the same tables."""
    utils = pytest.importorskip("pidcalib2.utils")
    import boost_histogram as bh

    maps = {"Kplus": make_map(), "Kminus": make_map(seed=1)}
    histograms = {}
    for track, cut in (("Kplus", 1), ("Kminus", 0)):
        axis = bh.axis.Variable(EDGES, metadata={"name": "P"})
        histogram = bh.Histogram(axis, storage=bh.storage.Weight())
        content = histogram.view()
        content["value"] = maps[track].nominal[cut]
        content["variance"] = maps[track].error[cut] ** 2
        histograms[track] = {"eff": histogram}
    frame = columns_of(ntuple, [f"{track}_P" for track in maps])
    binned = utils.add_bin_indices(frame, list(maps), {"P": "P"}, histograms, "")
    expected = utils.add_efficiencies(binned, list(maps), histograms, "")
    expected = utils.assign_overall_eff(expected, list(maps))
    write_efficiency_columns(maps, ntuple, tmp_path / "eff.root", cuts=BOTH)
    names = [name for name in expected if name.endswith(("CalibEff", "CalibErr"))]
    assert len(names) == 6
    found = columns_of(tmp_path / "eff.root", names)
    np.testing.assert_allclose(found, expected[names], rtol=1e-12)


def test_errors_of_tracks_in_one_map_are_not_independent(
    ntuple: Path, tmp_path: Path
) -> None:
    output = tmp_path / "eff.root"
    write_efficiency_columns(
        files=ntuple, output=output, cuts="Kplus_DLLk > 0 & Kminus_DLLk > 0", **OPTIONS
    )
    tracks = ["Kplus_PIDCalibEff", "Kplus_PIDCalibErr", "Kminus_PIDCalibEff"]
    found = columns_of(output, [*tracks, "PIDCalibErr"])
    same = found["Kplus_PIDCalibEff"] == found["Kminus_PIDCalibEff"]
    assert 0.1 < same.mean() < 0.9
    # e^2 has the error 2 e sigma, not sqrt 2 e sigma.
    e, sigma = (found[name][same] for name in tracks[:2])
    np.testing.assert_allclose(found["PIDCalibErr"][same], 2 * e * sigma)


def test_mean_of_columns_is_the_efficiency(ntuple: Path, tmp_path: Path) -> None:
    """Draws and the map's own generated efficiency are the same on average."""
    cuts = ["Kplus_DLLk > 0", BOTH]
    found = pid_efficiency(files=ntuple, cuts=cuts, **OPTIONS)
    write_efficiency_columns(
        files=ntuple, output=tmp_path / "eff.root", cuts=cuts, **OPTIONS
    )
    names = ["Kplus_DLLk_gt_0_", "Kplus_DLLk_gt_5_and_Kminus_DLLk_gt_0_"]
    columns = columns_of(tmp_path / "eff.root", [f"{n}PIDCalibEff" for n in names])
    for one, name in zip(found, columns, strict=True):
        assert one.value == pytest.approx(columns[name].mean(), abs=3 * one.stat)


def test_columns_of_collections(tmp_path: Path) -> None:
    counts = np.random.default_rng(1).multinomial(N, np.full(700, 1 / 700))
    nested = {
        name: ak.unflatten(values, counts)
        for name, values in two_tracks().items()
        if name.startswith("Kplus_")
    }
    source, output = tmp_path / "a.root", tmp_path / "eff.root"
    write_trees(source, {"DecayTree": nested})
    write_efficiency_columns(
        {"Kplus": make_map()}, source, output, cuts="DLLk > 0", chunk=100
    )
    with uproot.open(output) as file:
        found = file["DecayTree/Kplus_PIDCalibEff"].array()
    assert ak.num(found).tolist() == counts.tolist()
    place = bin_index({"P": two_tracks()["Kplus_P"]}, {"P": EDGES})
    np.testing.assert_allclose(
        ak.flatten(found).to_numpy(), (GENERATED + DISCREPANCY)[0][place]
    )


def test_columns_are_whole_or_not_there(ntuple: Path, tmp_path: Path) -> None:
    output, before = tmp_path / "eff.root", ntuple.read_bytes()
    options: dict[str, Any] = OPTIONS | {"cuts": BOTH}
    with pytest.raises(NtupleError, match="is an input; an input is never changed"):
        write_efficiency_columns(files=ntuple, output=ntuple, overwrite=True, **options)
    with pytest.raises(CutError, match="is given twice, as DLLk_gt_0_PIDCalibEff"):
        write_efficiency_columns(
            files=ntuple, output=output, **(options | {"cuts": ["DLLk > 0", "DLLk>0"]})
        )
    with pytest.raises(NtupleError, match="looks like GeV"):
        write_efficiency_columns(
            files=write(tmp_path / "gev.root", Kplus_P=two_tracks()["Kplus_P"] / 1e3),
            output=output,
            **options,
        )
    assert not output.exists()
    both = [ntuple, write(tmp_path / "more.root", seed=2)]
    with pytest.raises(NtupleError, match="expected a directory for 2 files"):
        write_efficiency_columns(files=both, output=output, **options)
    files = write_efficiency_columns(files=both, output=tmp_path / "out", **options)
    assert [file.name for file in files] == ["analysis.root", "more.root"]
    write_efficiency_columns(files=ntuple, output=output, **options)
    with pytest.raises(NtupleError, match=r"eff\.root exists"):
        write_efficiency_columns(files=ntuple, output=output, **options)
    assert ntuple.read_bytes() == before


# The command line


@pytest.fixture
def map_file(tmp_path: Path) -> Path:
    file, *_ = make_map().save(tmp_path / "map.json")
    return file


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(
        "sys.argv", ["pidgan", "efficiency", "--trust", *map(str, words)]
    )
    code = 0
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_command_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ntuple: Path,
    map_file: Path,
    tmp_path: Path,
) -> None:
    def run(*words: object) -> tuple[int, str, str]:
        return call(monkeypatch, capsys, ntuple, *words)

    code, out, _ = run("--track", "Kplus", "--cut", "DLLk > 0", "--map", map_file)
    assert code == 0
    assert "DLLk > 0" in out
    code, out, _ = run("--track", "Kplus", "--map", map_file, "--json")
    assert [one["cut"] for one in json.loads(out)["results"]] == [
        "DLLk > 0",
        "DLLk > 5",
    ]

    other = write(tmp_path / "other.root", seed=5)
    two = ("--track", "Kplus", "--track", "Kminus", "--map", f"Kplus={map_file}")
    two += ("--map", f"Kminus={map_file}")
    table, columns = tmp_path / "table.tex", tmp_path / "eff.root"
    code, out, err = run(
        *two, "--cut", BOTH, "--cut", "Kplus_DLLk > 0", "--bins", "q2=0,5,10",
        "--ratio", "2/1", "--over", other, "--json", "--latex", table,
        "--columns", columns,
    )  # fmt: skip
    assert code == 0, err
    content = json.loads(out)
    options: dict[str, Any] = OPTIONS | {"cuts": [BOTH, "Kplus_DLLk > 0"]}
    found = pid_efficiency(files=ntuple, binning={"q2": [0, 5, 10]}, **options)
    control = pid_efficiency(files=other, binning={"q2": [0, 5, 10]}, **options)
    assert content["covariance"] == found.covariance.tolist()
    assert content["over"] == json.loads(control.to_json())
    one, all_of_them = content["ratios"]
    ratio = found.estimates[1] / found.estimates[0]
    assert one["results"][0]["total"] == next(iter(ratio)).total
    assert all_of_them["covariance"] == (found / control).covariance.tolist()
    assert table.read_text().count(r"\begin{tabular}") == 3
    assert "Kplus_DLLk_gt_0_PIDCalibErr" in uproot.open(columns)["DecayTree"]

    code, out, _ = run(*two, "--cut", BOTH, "--over", other)
    assert out.count(BOTH) == 8
    code, _, err = run(*two, "--cut", BOTH, "--latex", table)
    assert code == 1
    assert "table.tex exists" in err
    assert "eff.root exists" in run(*two, "--cut", BOTH, "--columns", columns)[2]
    assert run(*two, "--cut", BOTH, "--latex", table, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--ratio", "2/3"], 2, "--ratio 2/3: there are 2 results"),
        (["--ratio", "0/1"], 2, "expected I/J, counted from 1"),
        (["--bins", "q2=3,1"], 2, "must be two or more increasing numbers"),
        (["--bins", "q2=3,x"], 2, "'x' is not a number"),
        (["--bins", "q3=0,1"], 1, "no branch 'q3'"),
        (["--track", "Kplux"], 1, "closest: 'Kplus_"),
        (["--cut", "Kplus_DLLk > 0 | Kminus_DLLk > 0"], 1, "'Kminus_DLLk'"),
        (["--map", "Kminus=x.json"], 1, "x.json: no such file"),
    ],
)
def test_bad_command_lines(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ntuple: Path,
    map_file: Path,
    words: list[str],
    code: int,
    message: str,
) -> None:
    track = [] if "--track" in words else ["--track", "Kplus"]
    got, _, err = call(monkeypatch, capsys, ntuple, *track, "--map", map_file, *words)
    assert got == code
    assert message in err


def test_tracks_with_different_maps_need_a_cut(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ntuple: Path,
    map_file: Path,
    tmp_path: Path,
) -> None:
    other, *_ = _with_cuts("DLLk > 1", "DLLk > 2").save(tmp_path / "other.json")
    words = ["--track", "Kplus", "--track", "Kminus", "--map", f"Kplus={map_file}"]
    code, _, err = call(monkeypatch, capsys, ntuple, *words, "--map", f"Kminus={other}")
    assert code == 1
    assert "of Kminus has other cuts than that of Kplus; say which cuts" in err
    code, out, _ = call(
        monkeypatch, capsys, ntuple, *words, "--map", f"Kminus={map_file}"
    )
    assert "DLLk > 5" in out


def _with_cuts(*cuts: str) -> EfficiencyMap:
    return make_map(cuts=cuts)
