"""The command line: every verb works, and bad input is one line and exit code 1."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest
import uproot
from click.shell_completion import ShellComplete
from command_line import Run, commands
from command_line import one_line as _one_line
from toy_generator import make_card, make_sample, toy_onnx, with_self_test

from pidgan.application.quantile_map import QuantileMap
from pidgan.cli import VERBS, cli
from pidgan.cli.given_maps import parse_maps
from pidgan.cli.verbs import OLD_SPELLINGS, ROLES
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.report.classifiers import TREES
from pidgan.sample.dataset import Dataset


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example(run: Run, verb: str) -> None:
    result = run(verb, "--help")
    assert result.code == 0
    assert f"Example: pidgan {verb}" in " ".join(result.out.split())


def test_verbs_are_listed_by_role_with_whole_sentences(run: Run) -> None:
    text = run("--help").out
    listed = [name for names in ROLES.values() for name in names]
    assert set(cli.commands) <= set(listed)
    found = re.findall(r"(?m)^  ([a-z-]+) {2,}[A-Z]", text.partition("Start:")[2])
    assert found == [name for name in listed if name in cli.commands]
    assert "..." not in text.partition("Start:")[2]


def test_quiet_and_verbose_mean_the_same_everywhere(run: Run, tmp_path: Path) -> None:
    for words, command in commands():
        text = command.get_help(click.Context(command))
        assert "-q, --quiet" in text, words
        assert "-v, --verbose" in text, words
        assert "--json" in text, words
    words = ("simulate", "rich", "--decay", "dstar_k", "-n", 9)
    found = json.loads(run(*words, "--json", "-o", tmp_path / "j.root").out)
    assert sum(found["entries"].values()) == 9
    done = run(*words, "-v", "-o", tmp_path / "k.root")
    assert re.fullmatch(r"pidgan: [\d.]+ s, [\d.]+ s of CPU time, .*MiB.*\n", done.err)
    wrong = run(*words, "--verbose", "-o", tmp_path / "k.root")
    assert "Traceback" in wrong.err
    assert "pidgan: error: " in wrong.err
    assert wrong.code == 1
    samples = tmp_path / "samples.json"
    samples.write_text('{"Turbo16-MagUp-K": {"files": ["one.root"]}}')
    convert = ("samples", "--from-pidcalib", samples)
    assert run(*convert).err == "1 converted\n"
    quiet = run(*convert, "-q")
    assert quiet.err == ""
    assert quiet.out == run(*convert).out


def test_unknown_verbs_and_options(run: Run) -> None:
    assert run("trian").code == 2
    assert run("train", "--epochs", "3").code == 2


def test_samples(run: Run) -> None:
    listed = run("samples").out
    assert "run2_dstar_k" in listed
    assert "sim_dstar_k" in listed
    shown = run("samples", "run2_dstar_k").out
    assert "probe_Brunel_RichDLLk" in shown
    assert json.loads(run("samples", "run2_dstar_k", "--json").out)["species"] == "K+"
    _one_line(run("samples", "run2_dstar_kk"), "run2_dstar_kk", "closest", "run2_dstar")


def test_samples_of_pidcalib(run: Run, tmp_path: Path) -> None:
    own, out = tmp_path / "samples.json", tmp_path / "k.toml"
    keys = {"Turbo16-MagUp-K": {"files": ["one.root"]}, "Turbo16-MagUp": {}}
    own.write_text(json.dumps(keys))
    convert = ("samples", "--from-pidcalib", own)
    assert run(*convert).out.splitlines()[1].split()[1:] == ["list", "of", "files"]
    shown = run(*convert, "Turbo16-MagUp-K")
    assert 'species = "K+"' in shown.out
    assert "one.root" in shown.err
    assert run(*convert, "Turbo16-MagUp-K", "-o", out).code == 0
    assert out.read_text() == shown.out
    _one_line(run(*convert, "Turbo16-MagUp-K", "-o", out), str(out), "exist")
    _one_line(run(*convert, "Turbo16-MagUp-k"), "closest", "Turbo16-MagUp-K")
    result = run(*convert, "--all", "-o", tmp_path / "all", "--json")
    assert json.loads(result.out)["Turbo16-MagUp-K"]["outcome"] == "converted"
    assert "1 converted, 1 list of files" in result.err
    assert (tmp_path / "all" / "Turbo16-MagUp-K.toml").read_text() == shown.out
    new = ("-o", tmp_path / "new")
    for wrong in (("samples", *new), (*convert, "--all"), (*convert, *new)):
        assert run(*wrong).code == 2


def test_simulate(run: Run, tmp_path: Path) -> None:
    calib, analysis = tmp_path / "k.root", tmp_path / "d2kpi.root"
    arguments = ("simulate", "rich", "--decay", "dstar_k", "-n", 500, "-o", calib)
    assert run(*arguments).code == 0
    with uproot.open(calib) as file:
        entries = [file[f"DSt_K{c}Tuple/DecayTree"].num_entries for c in "PM"]
    assert sum(entries) == 500
    _one_line(run(*arguments), str(calib), "exist")
    assert run(*arguments, "--overwrite").code == 0
    assert run("simulate", "analysis", "-n", 200, "-o", analysis).code == 0
    muons = tmp_path / "mu.root"
    arguments = (
        "simulate",
        "spectrometer",
        "--decay",
        "jpsi_mu",
        "-n",
        90,
        "-o",
        muons,
    )
    assert run(*arguments).out.count("Tuple/DecayTree") == 2
    jpsi = tmp_path / "jpsi.root"
    assert run("simulate", "dimuons", "-n", 50, "-o", jpsi).code == 0
    with uproot.open(jpsi) as file:
        assert {"muplus_isMuon", "muminus_TRUE_PIDmu"} <= set(file["DecayTree"].keys())
    for kind, species, tree in (
        ("tpc", "K+", "TPC/DecayTree"),
        ("calorimeter", "gamma", "Calo/DecayTree"),
    ):
        path = tmp_path / f"{kind}.root"
        arguments = ("simulate", kind, "--species", species, "-n", 60, "-o", path)
        assert run(*arguments).out == f"{path}:{tree}  60 entries\n"
        _one_line(run(*arguments), str(path), "exist")
    assert run("simulate", "tpc", "--species", "k", "-o", tmp_path / "x.root").code == 2
    assert run("simulate", "analysis", "-n", 0, "-o", tmp_path / "x.root").code == 2
    assert not (tmp_path / "x.root").exists()


COARSE = """
extends = "sim_dstar_k"
[map_binning]
P = [9300, 19000, 35000, 60000]
ETA = [2.4, 3.2, 4.1]
"""
"""A sample with few bins: the chain is about what the verbs hand on."""

BRIEF = (
    *("--family", "cramer"),
    *("--set", "teach=0", "--set", "distil=0", "--set", "play=1", "--set", "xla=0"),
)
"""Settings with one phase of training: each is compiled anew."""


def test_the_whole_chain(
    run: Run,
    calibration_file: Path,
    analysis_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("tensorflow")
    data, model, bundle = (tmp_path / name for name in ("data", "model", "kaon.onnx"))
    sample = tmp_path / "coarse.toml"
    sample.write_text(COARSE)
    prepared = run("prepare", sample, calibration_file, "-o", data)
    assert "effective size" in prepared.out
    _one_line(run("prepare", sample, calibration_file, "-o", data), "exists")

    assert run("train", data, "-o", model, "--steps", 30, *BRIEF).code == 0
    _one_line(run("train", data, "-o", model, "--steps", 30), "exists")
    assert run("train", data, "-o", model, "--resume", *BRIEF).code == 0
    assert run("train", data, "-o", model, "--budget", "1m", "--steps", 3).code == 2

    report = tmp_path / "report"
    # scikit-learn sorts all rows anew for each of the 255 bins of its trees.
    monkeypatch.setitem(TREES, "max_bins", 31)
    validated = run("validate", model, data, "-o", report, "--cut", "RichDLLk > 0")
    assert validated.code == 0, validated.err
    assert (report / "report.html").stat().st_size > 10_000
    json.loads((report / "report.json").read_text())

    assert run("export", model, "-o", bundle).code == 0
    assert "K+" in run("inspect", bundle, "--verify").out
    assert json.loads(run("inspect", bundle, "--json").out)["species"] == "K+"

    code = ("export", bundle, "--format", "c", "-o", tmp_path / "kaon.c")
    assert run(*code, "--name", "response").code == 0
    assert "float *response(float *output" in (tmp_path / "kaon.c").read_text()
    _one_line(run(*code), "kaon.c", "exists")
    _one_line(run(*code, "--overwrite", "--name", "for"), "no name for a C function")
    from_model = tmp_path / "model.c"
    assert run("export", model, "--format", "c", "-o", from_model).code == 0
    assert "float *model(float *output" in from_model.read_text()
    assert run("export", bundle, "-o", tmp_path / "again.onnx").code == 2
    assert run("export", model, "--name", "k", "-o", tmp_path / "k.onnx").code == 2

    maps = tmp_path / "map.json"
    cuts = ("--cut", "RichDLLk > 0", "--cut", "RichDLLk > 5")
    assert run("systematics", bundle, *cuts, "-o", maps).code == 0
    assert run("systematics", model, data, *cuts, "-o", tmp_path / "m2.json").code == 0
    _one_line(
        run("systematics", bundle, "--cut", "RichDLK > 0", "-o", tmp_path / "m3.json"),
        "RichDLK",
        "closest: 'RichDLLk'",
    )

    before = analysis_file.read_bytes()
    out = tmp_path / "out.root"
    apply = ("apply", "--track", f"Kplus={bundle}", analysis_file)
    assert "nTracks" in run(*apply, "-o", out, "--mode", "replace", "--dry-run").out
    assert not out.exists()
    done = run(*apply, "-o", out, "--mode", "replace", "--species-from", "TRUEID")
    assert done.code == 0, done.err
    friend = tmp_path / "friend.root"
    assert run(*apply, "-o", friend, "--mode", "friend").code == 0
    assert analysis_file.read_bytes() == before
    _one_line(run(*apply, "-o", tmp_path / "x.root"), "Kplus_RichDLL", "replace")

    efficiency = ("efficiency", out, "--track", "Kplus", "--map", maps)
    found = json.loads(
        run(
            *efficiency, "--cut", "RichDLLk>0", "--species-from", "TRUEID", "--json"
        ).out
    )
    (row,) = found["results"]
    assert 0.5 < row["value"] < 1.1
    assert row["total"] >= row["stat"] > 0
    table = run(*efficiency, "--species-from", "TRUEID").out
    assert "RichDLLk > 5" in table
    bare = run(*efficiency, "--no-correction", "--species-from", "TRUEID", "--json").out
    assert json.loads(bare)["results"][0]["value"] == row["generated"]
    _one_line(run(*efficiency, "--cut", "RichDLLk > 3"), "RichDLLk > 3")


def test_bad_files_are_one_line(
    run: Run, calibration_file: Path, tmp_path: Path
) -> None:
    out = ("-o", tmp_path / "data")
    _one_line(
        run("prepare", "sim_dstar_k", calibration_file.with_name("koan.root"), *out),
        "koan.root",
        "kaon.root",
    )
    truncated = tmp_path / "truncated.root"
    truncated.write_bytes(calibration_file.read_bytes()[:20_000])
    _one_line(run("prepare", "sim_dstar_k", truncated, *out), "truncated.root")
    _one_line(run("prepare", "run3_dstar_k", calibration_file, *out), "DecayTree")
    _one_line(
        run(
            "prepare", "sim_dstar_pi", f"{calibration_file}:DSt_KPTuple/DecayTre", *out
        ),
        "DSt_KPTuple/DecayTree",
    )
    assert not (tmp_path / "data").exists()


def test_bad_data_are_one_line(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    n = 500
    good = pd.DataFrame(
        {
            "P": rng.uniform(4e3, 9e4, n),
            "ETA": rng.uniform(2, 4.5, n),
            "nLongTracks": rng.integers(20, 200, n),
            "DLLp": rng.normal(10, 20, n),
            "sWeight": np.ones(n),
        }
    )
    for name, frame, text in (
        ("gev", good.assign(P=good["P"] / 1000), 'unit = "GeV"'),
        ("negative", good.assign(sWeight=-1.0), "sum of 'sWeight'"),
        ("zero", good.assign(sWeight=0.0), "sum of 'sWeight'"),
        ("nan", good.assign(DLLp=np.nan), "no rows left"),
        ("renamed", good.rename(columns={"DLLp": "dllp"}), "closest: 'dllp'"),
        ("empty", good.iloc[:0], "is empty"),
    ):
        path, data = tmp_path / f"{name}.parquet", tmp_path / name
        frame.to_parquet(path)
        _one_line(run("prepare", "run3_lambdac_p", path, "-o", data), name, text)
        assert not data.exists()


def test_bad_bundles_are_one_line(
    run: Run, toy_bundles: list[Path], analysis_file: Path, tmp_path: Path
) -> None:
    kaon_bundle, _ = toy_bundles
    damaged = tmp_path / "damaged.onnx"
    whole = kaon_bundle.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    _one_line(run("inspect", damaged), "damaged.onnx")
    _one_line(run("inspect", tmp_path / "none.onnx"), "none.onnx", "damaged.onnx")
    out = tmp_path / "out.root"
    _one_line(
        run("apply", "--track", f"Kplus={damaged}", analysis_file, "-o", out),
        "damaged.onnx",
    )
    _one_line(
        run("apply", "--track", f"Kplu={kaon_bundle}", analysis_file, "-o", out),
        "Kplu_P",
        "Kplus_P",
    )
    assert not out.exists()
    lonely = tmp_path / "alone" / "lonely.onnx"
    lonely.parent.mkdir()
    shutil.copy(kaon_bundle, lonely)
    _one_line(
        run("systematics", lonely, "--cut", "DLLk > 0", "-o", tmp_path / "m.json"),
        "reference",
    )


def test_options_of_apply(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    bundle = tmp_path / "kaon.onnx"
    bundle.write_bytes(toy_onnx(with_self_test(make_card())))
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"K_P": rng.uniform(5e3, 9e4, 900), "K_ETA": 3.0})
    frame = frame.assign(K_DLLk=7.0, K_DLLp=8.0)
    for name in ("a", "b"):
        frame.to_parquet(tmp_path / f"{name}.parquet")
    files = (tmp_path / "a.parquet", tmp_path / "b.parquet")
    words = ("apply", "--track", f"K={bundle}", *files, "-o", tmp_path / "out")
    words += ("--mode", "replace", "--where", "{track}_P > 3e4", "--elsewhere", "keep")
    words += ("--scale", "K.P=1.1", "--threads", 2, "--json")
    first = run(*words, "--files-part", "1/2", "--quiet")
    assert first.err == ""
    summary = json.loads(first.out)
    passed = np.count_nonzero(frame["K_P"] > 3e4)
    assert [Path(p).name for p in summary["outputs"]] == ["a.parquet"]
    assert summary["counts"]["K"]["generated"] == passed
    assert summary["mapping"]["K"]["P"] == "K_P [MeV] times 1.1"
    both = run(*words)
    assert len(json.loads(both.out)["skipped"]) == 1
    assert "apply: 1,800 entries" in both.err
    kept = pd.read_parquet(tmp_path / "out/b.parquet")["K_DLLk"] == 7.0
    assert (kept == (frame["K_P"] <= 3e4)).all()
    assert run(*words, "--scale", "K.P=x").code == 2
    _one_line(run(*words, "--quantile-map", "P=none.json"), "none.json", "no such file")


def test_a_quantile_map_from_files(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    tracks = rng.integers(20, 400, 5000)
    pd.DataFrame({"nTracks": tracks, "w": 1.0}).to_parquet(tmp_path / "mc.parquet")
    data = pd.DataFrame({"nLongTracks": 2 * tracks, "sweight": 1.0})
    data.to_parquet(tmp_path / "data.parquet")
    arguments = ("quantile-map", tmp_path / "mc.parquet", "--variable", "nTracks")
    arguments += ("--data", tmp_path / "data.parquet", "-o", tmp_path / "m.json")
    _one_line(run(*arguments), "data.parquet", "no branch 'nTracks'", "nLongTracks")
    arguments += ("--data-branch", "nLongTracks", "--data-weights", "sweight")
    done = run(*arguments, "--weights", "w")
    assert "5000 entries of simulation, 5000 of data" in done.out
    found = QuantileMap.open(tmp_path / "m.json")
    np.testing.assert_allclose(found.evaluate(tracks), 2 * tracks, atol=1)
    _one_line(run(*arguments), "m.json exists")


@pytest.mark.parametrize("part", ["0/3", "4/3", "1", "a/b", "1/0"])
def test_parts_that_do_not_exist(run: Run, tmp_path: Path, part: str) -> None:
    result = run(
        "apply", "--files-part", part, "--track", "K=k.onnx", "x.root", "-o", tmp_path
    )
    assert result.code == 2
    assert "expected I/N with 1 <= I <= N" in result.err


def test_arguments_that_are_no_pairs(run: Run, tmp_path: Path) -> None:
    result = run("apply", "--track", "Kplus", "x.root", "-o", tmp_path / "out.root")
    assert result.code == 2
    assert "'Kplus': expected TRACK=BUNDLE" in result.err


@pytest.fixture
def toy_bundles(tmp_path: Path) -> list[Path]:
    """Bundles of kaons and pions with reference files beside them."""
    pytest.importorskip("onnx")
    rng = np.random.default_rng(1)
    paths = []
    for name, species in (("kaon", "K+"), ("pion", "pi+")):
        x = np.stack([rng.uniform(3e3, 9e4, 3000), rng.uniform(2, 5, 3000)], axis=1)
        columns = {"P": x[:, 0], "ETA": x[:, 1], "DLLp": 1.0, "weight": 1.0}
        frame = pd.DataFrame(columns).astype("float32")
        mean = 4 - 5e-5 * x[:, 0] - (3 if name == "pion" else 0)
        frame["DLLk"] = (mean + rng.standard_normal(3000)).astype("float32")
        reference = tmp_path / f"{name}.reference.parquet"
        frame.to_parquet(reference, index=False)
        digest = hashlib.sha256(reference.read_bytes()).hexdigest()
        card = make_card(
            species=species,
            sample=make_sample(species=species),
            reference={"file": reference.name, "sha256": digest, "rows": 3000},
        )
        paths.append(tmp_path / f"{name}.onnx")
        paths[-1].write_bytes(toy_onnx(with_self_test(card)))
    return paths


def test_table(run: Run, toy_bundles: list[Path], tmp_path: Path) -> None:
    words = ("table", toy_bundles[0], "--cut", "DLLk > 2", "--binning", "P=3")
    shown = run(*words)
    assert shown.code == 0, shown.err
    assert len(shown.out.splitlines()) == 4
    content = json.loads(run(*words, "--json").out)
    assert [0 < row["real_efficiency"] <= 1 for row in content] == [True] * 3
    words = (*words, "--binning", "ETA=2,3,5")
    for suffix in ("csv", "parquet", "root"):
        path = tmp_path / f"table.{suffix}"
        assert run(*words, "-o", path).code == 0
        _one_line(run(*words, "-o", path), path.name, "exists")
    frame = pd.read_csv(tmp_path / "table.csv")
    pd.testing.assert_frame_equal(
        frame, pd.read_parquet(tmp_path / "table.parquet"), check_dtype=False
    )
    with uproot.open(tmp_path / "table.root") as file:
        real = file["real_1"].values()
    np.testing.assert_allclose(real.ravel(), frame["real_efficiency"])
    assert run(*words, "-o", tmp_path / "table.txt").code == 2
    wrong = run(*words, "--binning", "Q=3")
    assert wrong.code == 2
    assert "'Q', which is not a column" in wrong.err
    _one_line(run(*words[:4], "--binning", "hadron"), "hadron", "closest", "hadrons")
    assert run(*words[:4], "--binning", "hadrons", "--binning", "P=3").code == 2


def test_table_of_a_dataset(run: Run, kaon_dataset: Dataset, tmp_path: Path) -> None:
    kaon_dataset.save(tmp_path / "kaon")
    words = ("table", tmp_path / "kaon", "--cut", "RichDLLk > 0", "--binning", "P=3")
    content = json.loads(run(*words, "--variance", "pidcalib", "--json").out)
    rows = sum(kaon_dataset.info["rows"].values())
    assert sum(row["n_rows"] for row in content) == rows
    assert all(0.5 < row["efficiency"] < 1.1 for row in content)
    assert run(*words, "-o", tmp_path / "kaon.root").code == 0
    with uproot.open(tmp_path / "kaon.root") as file:
        values = file["efficiency_1"].values()
    np.testing.assert_allclose(values, [row["efficiency"] for row in content])
    assert run(*words[:2], tmp_path / "x.parquet").code == 1
    # The branch of the calibration file is a name of the variable.
    branch = run("table", *words[1:3], "probe_Brunel_RichDLLk > 0", *words[4:])
    assert len(branch.out.splitlines()) == 4


def test_working_point(run: Run, toy_bundles: list[Path]) -> None:
    words = ("working-point", *toy_bundles, "--cut", "DLLk > x")
    found = json.loads(run(*words, "--efficiency", 0.8, "--json").out)
    assert found["species"][0]["value"] == pytest.approx(0.8, abs=0.01)
    assert "misID pi+" in run(*words, "--max-misid", "0.1").out
    for wrong in ((), ("--efficiency", 0.8, "--max-misid", 0.1), ("--efficiency", 80)):
        assert run(*words, *wrong).code == 2
    _one_line(
        run(*words, "--efficiency", 0.8, "--thresholds", "7,8"), "0.8", "x = 7 to 8"
    )


def test_report_of_a_map(run: Run, toy_bundles: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("mplhep")
    kaon, pion = toy_bundles
    words = ("systematics", kaon, "--cut", "DLLk > 2", "-o", tmp_path / "map.json")
    done = run(*words, "--report", tmp_path / "report", "--misid", pion)
    assert done.code == 0, done.err
    assert "MisID of pi+" in (tmp_path / "report/report.html").read_text()
    assert run(*words, "--overwrite", "--misid", pion).code == 2
    _one_line(run(*words, "--overwrite", "--cut", "DLLkk > 0"), "closest: 'DLLk'")


def test_ways_to_give_maps_of_tracks() -> None:
    both = {"K": "k.json", "pi": "pi.json"}
    assert parse_maps([], ["K=k.json", "pi=pi.json"]) == both
    assert parse_maps(["K=k.json"], ["pi=pi.json"]) == both
    assert list(parse_maps(["pi", "K"], ["K=k.json", "pi=pi.json"])) == ["pi", "K"]
    assert parse_maps(["K", "L"], ["k.json"]) == {"K": "k.json", "L": "k.json"}
    for tracks, maps, message in (
        ([], [], "--map is missing"),
        (["K"], [], "--map is missing"),
        ([], ["k.json"], "--map k.json: expected TRACK=MAP.json"),
        (["K"], ["k.json", "pi=pi.json"], "--map k.json: expected"),
        (["K", "p"], ["K=k.json"], "tracks are K, p, but maps are given for K"),
        (["K=k.json"], ["K=pi.json"], "'K' is given twice"),
    ):
        with pytest.raises(click.UsageError, match=re.escape(message)):
            parse_maps(tracks, maps)


OLD = [(verb, old) for verb, names in OLD_SPELLINGS.items() for old in names]


@pytest.mark.parametrize(("verb", "old"), OLD)
def test_spellings_of_version_0_1(run: Run, verb: str, old: str) -> None:
    words = next(words for words, command in commands() if command.name == verb)
    new = OLD_SPELLINGS[verb][old]
    for given in ((f"{old}=x",), (old, "")):
        result = run(*words.split(), *given)
        assert result.code == (1 if "no such file" in result.err else 2), result.err
        assert f"{old} is the old spelling of {new}, and goes" in result.err
        assert "No such option" not in result.err
    (command,) = [command for name, command in commands() if name == words]
    text = command.get_help(click.Context(command))
    assert re.search(rf"(?m)^ .*{new}\b", text)
    assert not re.search(rf"(?m)^ +{old}\b", text)


def test_families(run: Run) -> None:
    pytest.importorskip("tensorflow")
    listed = run("families").out.splitlines()
    assert {"cramer", "maevskiy2019"} <= {line.split()[0] for line in listed}
    shown = run("families", "energy").out
    assert "width (int, default 64)" in shown
    (content,) = json.loads(run("families", "energy", "--json").out)
    assert "width" in [setting["name"] for setting in content["settings"]]
    _one_line(run("families", "enrgy"), "enrgy", "closest: 'energy'")


def test_a_map_has_a_name_that_ends_in_json(
    run: Run, toy_bundles: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pidgan.efficiency.systematics.run_systematics", None)
    words = ("systematics", toy_bundles[0], "-o", tmp_path / "map.root")
    result = run(*words)
    assert result.code == 2
    assert "expected a name that ends in .json" in result.err


def test_binning_of_a_map(run: Run, toy_bundles: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    words = ("systematics", toy_bundles[0], "--cut", "DLLk > 2", "-o", path)
    done = run(*words, "--binning", "P=3e3,3e4,9e4", "--binning", "ETA=2")
    assert done.code == 0, done.err
    binning = EfficiencyMap.open(path).binning
    assert binning["P"] == (3e3, 3e4, 9e4)
    assert len(binning["ETA"]) == 3


@pytest.mark.parametrize(
    ("words", "incomplete", "expected"),
    [
        (("simul",), "simul", "simulate"),
        (("train", "kaon", "--family"), "cr", "cramer"),
        (("train", "kaon", "--family", "energy", "--set"), "wi", "width="),
        (("compare", "kaon", "--families"), "energy,cr", "energy,cramer"),
        (("families",), "dist", "distilled"),
        (("samples",), "run2_dstar_k", "run2_dstar_k"),
        (("prepare",), "sim_dstar", "sim_dstar_pi"),
        (("table", "kaon.onnx", "--binning"), "had", "hadrons"),
        (("simulate", "rich", "--decay"), "jp", "jpsi_mu"),
    ],
)
def test_names_are_completed_in_a_shell(
    words: tuple[str, ...], incomplete: str, expected: str
) -> None:
    given = [] if words == ("simul",) else list(words)
    shell = ShellComplete(cli, {}, "pidgan", "_PIDGAN_COMPLETE")
    found = [item.value for item in shell.get_completions(given, incomplete)]
    assert expected in found
    assert all(value.startswith(incomplete) for value in found)
