"""Every example runs."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pidgan.bundle.bundle import open_bundle
from pidgan.bundle.c_file import export_c

pytest.importorskip("tensorflow")

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


def test_simulated_kaons(tmp_path: Path) -> None:
    out = _run(
        "simulated_kaons.py", "-o", tmp_path / "k", "-n", 15_000, "--budget", "12s"
    )
    assert "RichDLLk > 5" in out


@pytest.mark.skipif(
    importlib.util.find_spec("pidcalib2") is None, reason="needs pidcalib2"
)
def test_lhcb_run3_protons(tmp_path: Path) -> None:
    out = _run("lhcb_run3_protons.py", "-o", tmp_path / "p", "--budget", "20s")
    assert "DLLp > 5" in out


@pytest.mark.skipif(
    not (shutil.which("cmake") and shutil.which("c++")), reason="needs cmake and c++"
)
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
