"""Arguments that somebody gives by mistake or by malice, generated from signatures.

A law for all of them: one line, a `PidganError`, or a ValueError or TypeError that
names the argument; on the command line exit code 1 or 2. Nothing hangs. A share of them
runs by default, all of them with PIDGAN_MUTANTS=5000.
"""

import contextlib
import os
import shutil
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from pidgan.bundle.collecting import collect

GOLDEN = Path(__file__).parent / "golden"
SHARE = max(1, 1600 // int(os.environ.get("PIDGAN_MUTANTS", "40")))
SECONDS = 60

DEEP = 400
CUTS = (
    *("", " ", "(", "x", "RichDLLk", "RichDLLk > ", "RichDLLk > 1e400", "1 > 0"),
    *(
        "RichDLLk > nan",
        "RichDLLk > 0 # & P > 3",
        "RichDLLk > 0; P > 3",
        "RichDLLk = 0",
    ),
    *("__import__('os')", "RichDLLk > 0\n& P", "RichDLLk[0] > 1", "abs() > 1"),
    *(" & ".join(["RichDLLk > 0"] * DEEP), "(" * DEEP + "RichDLLk > 0" + ")" * DEEP),
    *("RichDLLk" + " + 1" * DEEP + " > 0", "!" * DEEP + "(RichDLLk > 0)"),
    *("RichDLLk > 0 if 1 else 2", "lambda: 0", "RichDLLk > 1j", "é > 0", "{track} > 0"),
)
TEXTS = (
    *("", " ", "x", "\n", "é", "%s", "{", "{track", "{0}", "-1", "nan"),
    *(
        "../x",
        "/",
        "a" * 5000,
        "=",
        "a=",
        "=b",
        "a=b",
        "P=x",
        "P=1",
        "P=nan",
        "P=1e400",
    ),
    *("P=0", "P=-1", "P=2,1", "P=1,1", "P=1,nan", "P=1,inf", "P=,", "P=1,,2", "a=b=c"),
    *("P=99999999999", "1/0", "0/1", "2/1", "1/2", "99999999999/1", "width=32.5"),
    *("width=x", "width=-1", "width=nan", "learning_rate=nan", "layers=999999999999"),
    *("energy.width=x", "energy=1", "x.y=1", ",", "a,a", "energy,energy", "energy,x"),
)
NUMBERS = (
    *("-1", "0", "1.5", "x", "", "nan", "inf", "-inf", "1e3", "1e400", "9" * 30),
    *("0x10", " "),
)
DURATIONS = ("", "x", "0", "-1m", "nan", "inf", "1e400h", "1y", "9" * 400 + "s", "1m1m")


def make_world(folder: Path) -> None:
    """Make valid files of every kind in a folder, and things that are none."""
    shutil.copytree(GOLDEN, folder, dirs_exist_ok=True)
    (folder / "text.txt").write_text("nothing\n")
    (folder / "empty.root").write_bytes(b"")
    (folder / "half.onnx").write_bytes((folder / "kaon.onnx").read_bytes()[:5000])
    (folder / "list.json").write_text("[]")
    (folder / "samples.json").write_text('{"Turbo16-MagUp-K": {"files": ["a.root"]}}')
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "deep.toml").write_text("a = " + "[" * 100_000)
    (folder / "own.toml").write_text('extends = "own.toml"\n')
    (folder / "five.toml").write_text('extends = "sim_dstar_k"\nconditions = 5\n')
    calibration = 'sample = "sim_dstar_k"\nfiles = "analysis.root"\n'
    (folder / "campaign.toml").write_text(
        f"schema = 1\n{calibration}grid = {{a = [1]}}\n"
    )
    (folder / "void").mkdir()
    (folder / "reports").mkdir()
    (folder / "reports" / "report.html").write_text("<title>A report</title>")
    collect([folder / "kaon.onnx"], folder / "collection.toml")
    shutil.copy(folder / "text.txt", folder / "text.root")
    shutil.copy(folder / "text.txt", folder / "text.parquet")
    shutil.copy(folder / "text.txt", folder / "text.npz")
    os.mkfifo(folder / "pipe")
    os.mkfifo(folder / "pipe.toml")
    os.mkfifo(folder / "pipe.root")
    (folder / "loop").symlink_to("loop")
    (folder / "folder.onnx").mkdir()


INPUTS = (
    *("kaon", "kaon-model", "kaon.onnx", "kaon.reference.parquet", "kmap.json"),
    *(
        "collection.toml",
        "kmap.npz",
        "kmap.root",
        "occupancy.json",
        "analysis.root",
        "showers.onnx",
    ),
    *("text.txt", "empty.root", "half.onnx", "list.json", "deep.json", "deep.toml"),
    *("samples.json", "campaign.toml"),
    *("own.toml", "five.toml", "void", "text.root", "text.parquet", "text.npz", "pipe"),
    *(
        "pipe.toml",
        "pipe.root",
        "loop",
        "folder.onnx",
        "none",
        "none.onnx",
        "none.toml",
    ),
    *("", ".", "/", "/dev/null", "/dev/full", "a" * 300, "text.txt/below", "*"),
    *(
        "http://127.0.0.1:9/x.root",
        "http://",
        "root://",
        "analysis.root:none",
        "[",
        "**",
    ),
    *("analysis.root:", ":DecayTree", "analysis.root:DecayTree;9", "analysis.root::x"),
)
OUTPUTS = (
    *("root://host//x.root", "http://host/x", "file:///x", "text.txt/below", "pipe"),
    *("/dev/full", "/dev/null", "a" * 300, "", ".", "/"),
    *(
        "loop",
        "loop/x",
        "kaon",
        "text.txt",
        "new.unknown",
        "new",
        "new.json",
        "new.root",
    ),
)


@contextlib.contextmanager
def time_limit(what: str) -> Iterator[None]:
    """Fail where a call hangs."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise AssertionError(f"{what} takes more than {SECONDS} seconds")

    old = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


def is_chosen(what: str) -> bool:
    """Return whether a case is in the share that runs."""
    return zlib.crc32(what.encode("utf-8", "replace")) % SHARE == 0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    return folder
