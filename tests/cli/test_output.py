"""Results that cannot be printed end in one line and an exit code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[1] / "golden"
RUN = "import sys, pidgan.cli; sys.argv[0] = 'pidgan'; pidgan.cli.main()"
FULL = "pidgan: error: the standard output cannot be written: OSError: [Errno 28]"

pytestmark = pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="this system has no device that is full"
)


def pidgan(*words: object, **streams: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RUN, *map(str, words)]
    given: dict[str, object] = {"stderr": subprocess.PIPE, "text": True, **streams}
    return subprocess.run(command, check=False, timeout=120, **given)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "words",
    [
        ("samples",),
        ("samples", "sim_dstar_k", "--json"),
        ("inspect", GOLDEN / "kaon.onnx"),
        ("--version",),
        ("apply", "--help"),
    ],
)
def test_a_full_output(words: tuple[object, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = pidgan(*words, stdout=full)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(FULL)


def test_a_reader_that_has_gone() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = pidgan("samples", stdout=writer)
    os.close(writer)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.endswith("cannot be written: its reader has gone")


def test_a_full_output_of_errors_changes_no_exit_code() -> None:
    with open("/dev/full", "w") as full:
        assert pidgan("apply", stdout=full, stderr=full).returncode == 2
        assert pidgan("inspect", "none", stdout=full, stderr=full).returncode == 1


def test_a_file_that_is_full_names_it(tmp_path: Path) -> None:
    limit = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)); {RUN}"
    )
    words = ("simulate", "analysis", "-n", "20000", "-o", str(tmp_path / "out.root"))
    done = subprocess.run(
        [sys.executable, "-c", limit, *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"pidgan: error: {tmp_path}/out.root cannot be written")
    assert not list(tmp_path.iterdir())
