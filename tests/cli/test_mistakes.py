"""Mistakes of typing and of order: each is one line that says how to mend it.

None loads the network library, and none leaves a file.
"""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Run
from mistakes import MISTAKES

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(GOLDEN, tmp_path_factory.mktemp("m") / "files"))


# Runs every line in a process that has no network library, and none is asked for.
WITHOUT_NETWORKS = """
import contextlib, io, shlex, sys, warnings
from pidgan.cli import main

class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name in ("tensorflow", "keras", "matplotlib"):
            raise AssertionError(f"{line!r} imports {name}")

sys.meta_path.insert(0, Refuses())
for line in sys.stdin.read().splitlines():
    sys.argv = ["pidgan", *shlex.split(line)]
    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
        main()
"""


def test_no_mistake_waits_for_the_network_library(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORKS],
        input="\n".join(line for line, *_ in MISTAKES),
        text=True,
        capture_output=True,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("line", "code", "texts"), MISTAKES)
def test_a_mistake_is_one_line(
    line: str,
    code: int,
    texts: tuple[str, ...],
    run: Run,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    before = set(folder.rglob("*"))
    result = run(*shlex.split(line))
    lines = result.err.splitlines()
    (message,) = [line for line in lines if not line.startswith("pidgan: warning: ")]
    assert message.startswith("pidgan: error: ")
    assert result.code == code, message
    assert result.out == ""
    for text in texts:
        assert text in message
    assert set(folder.rglob("*")) == before


def test_there_are_many_mistakes_of_every_verb() -> None:
    from pidgan.cli import VERBS

    assert len(MISTAKES) >= 77
    assert len({line for line, *_ in MISTAKES}) == len(MISTAKES)
    verbs = {word for line, *_ in MISTAKES for word in shlex.split(line)[:2]}
    assert set(VERBS) <= verbs
