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
from toy_showers import LAYERS, NAMES, STACK, toy_showers

from pidgan import Collection
from pidgan.application.apply import apply
from pidgan.bundle.bundle import open_bundle
from pidgan.bundle.c_file import export_c
from pidgan.files.tables import find_sources, read_columns, write_trees
from pidgan.sample.definition import Sample
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
        trees = simulate_calibration("dstar_k", 3000, seed=len(polarity))
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
    out = _build(tmp_path / "build", f"-DGENERATOR={source}")
    assert "100% tests passed, 0 tests failed out of 2" in out
    assert "2000 events" in out


def _build(build: Path, *options: str) -> str:
    """Build and test the examples in C++; return what their tests print."""
    _command("cmake", "-S", EXAMPLES / "cpp", "-B", build, *options)
    _command("cmake", "--build", build)
    return _command("ctest", "--test-dir", build, "--verbose")


def _command(*words: object) -> str:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def showers_in_c(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hadrons in the calorimeter of the simulation, as pions.c."""
    pytest.importorskip("tensorflow")
    from pidgan.sample.building import build_dataset
    from pidgan.training.export import export_bundle
    from pidgan.training.loop import train

    folder = tmp_path_factory.mktemp("showers")
    sample = {
        "schema": 1,
        "name": "toy",
        "title": "Toy showers",
        "detector": "toy",
        "species": "pi+",
        "source": "tests",
        "unweighted": True,
        "conditions": [
            {"name": name, "unit": unit, "range": [-1e6, 1e6]}
            for name, unit in zip(
                NAMES[:5], ("MeV", "rad", "rad", "mm", "mm"), strict=True
            )
        ],
        "cells": {
            "unit": "MeV",
            "incident": "energy",
            "arrays": {STACK.views[0].name: "cells"},
            "geometry": STACK.to_dict(),
        },
    }
    conditions, cells = toy_showers(300, seed=1, spots=20)
    columns = dict(zip(NAMES, conditions.T, strict=True))
    np.savez(folder / "toy.npz", **columns, cells=cells.reshape(len(cells), LAYERS, -1))
    dataset = build_dataset(Sample.model_validate(sample), folder / "toy.npz")
    model = train(dataset, family="shower_tree", steps=3, settings={"width": 16})
    bundle = export_bundle(model, folder / "pions.onnx", progress=False)
    return export_c(open_bundle(bundle), folder / "pions.c")


CXX, CC = shutil.which("c++"), shutil.which("cc")


@pytest.mark.skipif(not (CC and CXX), reason="needs compilers of C and C++")
def test_shower_simulation_in_cpp(showers_in_c: Path) -> None:
    # No more than two compilers are needed.
    folder, source = showers_in_c.parent, EXAMPLES / "cpp"
    strict = ("-Wall", "-Wextra", "-Werror", f"-I{folder}", f"-I{source}")
    _command(
        CC,
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-c",
        showers_in_c,
        "-o",
        folder / "p.o",
    )
    simulation = (source / "shower_simulation.cpp", folder / "p.o", "-pthread", "-lm")
    flags = ("-std=c++17", "-O1", *strict)
    _command(CXX, *flags, *simulation, "-o", folder / "simulation")
    out = _command(folder / "simulation", 20, 4)
    assert re.match(r"20 events, \d+ showers, .* in 4 threads the same", out)
    stand_in = f"-I{source / 'stand_in'}"
    adapter = (source / "ddml_check.cpp", folder / "p.o", "-lm")
    _command(CXX, "-std=c++20", *strict, stand_in, *adapter, "-o", folder / "ddml")
    assert f"in {LAYERS} layers" in _command(folder / "ddml")


@pytest.mark.skipif(
    not (os.environ.get("PIDGAN_CMAKE") and CXX),
    reason="20 s more, of what the test above builds without CMake: set PIDGAN_CMAKE",
)
def test_shower_simulation_is_built_by_cmake(showers_in_c: Path) -> None:
    out = _build(showers_in_c.parent / "build", f"-DSHOWERS={showers_in_c}")
    assert "100% tests passed, 0 tests failed out of 3" in out
