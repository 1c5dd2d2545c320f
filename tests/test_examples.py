"""Every example runs."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pidgan import Collection
from pidgan.application.apply import apply
from pidgan.bundle.bundle import open_bundle
from pidgan.bundle.c_file import export_c
from pidgan.files.tables import find_sources, read_columns, write_trees
from pidgan.simulation import (
    ANALYSIS_TREE,
    simulate_analysis,
    simulate_calibration,
)

needs_training = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="needs tensorflow"
)

EXAMPLES = Path(__file__).parents[1] / "examples"


def _run(name: str, *arguments: object) -> str:
    command = [sys.executable, EXAMPLES / name, *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.name}"' in text


@needs_training
def test_simulated_kaons(tmp_path: Path) -> None:
    out = _run(
        "simulated_kaons.py", "-o", tmp_path / "k", "-n", 15_000, "--budget", "12s"
    )
    assert "RichDLLk > 5" in out


@pytest.mark.skipif(
    importlib.util.find_spec("pidcalib2") is None, reason="needs pidcalib2"
)
@needs_training
def test_lhcb_run3_protons(tmp_path: Path) -> None:
    out = _run("lhcb_run3_protons.py", "-o", tmp_path / "p", "--budget", "20s")
    assert "DLLp > 5" in out


def _root_python() -> str | None:
    """Return a Python that has ROOT: this one, or that of PIDGAN_ROOT_PYTHON."""
    if importlib.util.find_spec("ROOT") is not None:
        return sys.executable
    return os.environ.get("PIDGAN_ROOT_PYTHON")


@pytest.mark.skipif(
    _root_python() is None,
    reason="needs ROOT, or a Python with it in PIDGAN_ROOT_PYTHON",
)
def test_rdataframe(tmp_path: Path) -> None:
    ntuple, friend = tmp_path / "d2kpi.root", tmp_path / "friends" / "d2kpi.root"
    write_trees(ntuple, {ANALYSIS_TREE: simulate_analysis(3000, seed=5)})
    apply({"Kplus": "demo-kaon"}, ntuple, friend.parent, mode="friend")
    words = [_root_python(), EXAMPLES / "rdataframe.py", ntuple, friend]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = ["Kplus_RichDLLk", "Kplus_pidgan_status"]
    kaons = np.abs(read_columns(find_sources(ntuple)[0], ["Kplus_TRUEID"])) == 321
    found = read_columns(find_sources(friend)[0], names)
    good = found[kaons["Kplus_TRUEID"] & (found["Kplus_pidgan_status"] == 0)]
    n_passed = (good["Kplus_RichDLLk"] > 0).sum()
    assert done.stdout.splitlines()[-1] == f"{n_passed} of {len(good)} kaons pass"
    shares = re.findall(r"(\d+) - *(\d+) +([\d.]+) \+-", done.stdout)
    assert len(shares) == 5
    assert float(shares[0][2]) > 90 > float(shares[-1][2])


SNAKEMAKE = os.environ.get("PIDGAN_SNAKEMAKE") or shutil.which("snakemake")


@pytest.mark.skipif(
    SNAKEMAKE is None, reason="needs snakemake, here or in PIDGAN_SNAKEMAKE"
)
@needs_training
def test_snakemake(tmp_path: Path) -> None:
    (tmp_path / "calib").mkdir()
    for polarity in ("down", "up"):
        trees = simulate_calibration("dstar_k", 1000, seed=len(polarity))
        write_trees(tmp_path / "calib" / f"k_{polarity}.root", trees)
    command = tmp_path / "bin" / "pidgan"
    command.parent.mkdir()
    run = "from pidgan.cli import main; main()"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{run}" "$@"\n')
    command.chmod(0o755)
    config = ["hadrons=['k']", "steps=5"]
    words = [SNAKEMAKE, "-s", EXAMPLES / "snakemake" / "Snakefile", "--cores", 1]
    done = subprocess.run(
        [*map(str, words), "--directory", str(tmp_path), "--config", *config],
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}"},
    )
    logs = [path.read_text() for path in (tmp_path / "logs").glob("*.log")]
    assert done.returncode == 0, "\n".join([done.stderr, *logs])
    bundles = Collection.open(tmp_path / "collection.toml").open_bundles()
    polarities = {one.card.sample.data_taking["polarity"] for one in bundles}
    assert polarities == {"down", "up"}
    for place in ("reports/index.html", "maps/k-down.json", "maps/k-up.json"):
        assert (tmp_path / place).is_file()


@pytest.mark.skipif(
    not (shutil.which("cmake") and shutil.which("c++")), reason="needs cmake and c++"
)
@needs_training
def test_fast_simulation_in_cpp(kaon_bundle: Path, tmp_path: Path) -> None:
    source = export_c(open_bundle(kaon_bundle), tmp_path / "kaon.c")
    build = tmp_path / "build"
    for command in (
        ("cmake", "-S", EXAMPLES / "cpp", "-B", build, f"-DGENERATOR={source}"),
        ("cmake", "--build", build),
        ("ctest", "--test-dir", build, "--verbose"),
    ):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "100% tests passed, 0 tests failed out of 2" in done.stdout
    assert "2000 events" in done.stdout
