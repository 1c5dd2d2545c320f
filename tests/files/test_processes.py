"""Calls in processes of their own: results, what is shown, errors, ends."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pidgan import progress
from pidgan.errors import PidganError, PidganWarning, SampleError
from pidgan.files.processes import THREAD_NUMBERS, Processes
from pidgan.progress import Bar, Lines

NAMES = ("kaon", "pion")
MOST_SECONDS = 300.0


def double(n: int) -> int:
    """Work, and show and warn of it."""
    with Bar("double", total=3, unit="rows") as bar:
        bar.add(3)
    warnings.warn(f"{n} is small", PidganWarning, stacklevel=1)
    return 2 * n


def fail(path: Path) -> None:
    """Fail when the other process works."""
    _await(path)
    raise SampleError("no such sample")


def sleep(path: Path) -> None:
    """Say that it works, and end cleanly when it is interrupted."""
    path.write_text(str(os.getpid()))
    try:
        time.sleep(MOST_SECONDS)
    except KeyboardInterrupt:
        path.with_suffix(".ended").touch()
        raise


def die(path: Path) -> None:
    """End as a process without memory does."""
    _await(path)
    os.kill(os.getpid(), signal.SIGKILL)


def _await(path: Path) -> None:
    until = time.monotonic() + MOST_SECONDS
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.01)


def environment() -> list[str | None]:
    """Return the numbers of threads."""
    return [os.environ.get(name) for name in THREAD_NUMBERS]


def test_results_lines_and_warnings_have_names(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in THREAD_NUMBERS:
        monkeypatch.delenv(name, raising=False)
    with Processes(NAMES, threads=1) as them:
        with pytest.warns(PidganWarning) as warned:
            found = them.call({n: partial(double, i) for i, n in enumerate(NAMES)})
        assert found == {"kaon": 0, "pion": 2}
        assert {str(one.message) for one in warned} == {
            "kaon: 0 is small",
            "pion: 1 is small",
        }
        assert them.call({"pion": environment}) == {"pion": ["1"] * 3}
    lines = sorted(capsys.readouterr().err.splitlines())
    for name, line in zip(NAMES, lines, strict=True):
        assert re.fullmatch(rf"pidgan: {name}: double: 3 rows, \d+\.\d s", line)
    assert not any(name in os.environ for name in THREAD_NUMBERS)


@pytest.mark.parametrize("other", [fail, die])
def test_an_error_ends_the_others(tmp_path: Path, other: Any) -> None:
    path = tmp_path / "works"
    expected = {
        fail: (SampleError, "no such sample"),
        die: (PidganError, "the process of pion was killed by signal 9"),
    }
    kind, text = expected[other]
    with Processes(NAMES, show=False) as them, pytest.raises(kind, match=text):
        them.call({"kaon": partial(sleep, path), "pion": partial(other, path)})
    assert path.with_suffix(".ended").exists()  # it was not killed
    _check_gone(int(path.read_text()))


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_none_outlives_the_program(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "works"
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nfrom functools import partial\nfrom pathlib import Path\n"
        "from pidgan.files.processes import Processes\n"
        "from test_processes import sleep\n"
        "if __name__ == '__main__':\n"
        "    with Processes(['one']) as them:\n"
        "        them.call({'one': partial(sleep, Path(sys.argv[1]))})\n"
    )
    places = [str(Path(__file__).parent), *sys.path]
    given = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
    words = [sys.executable, str(program), str(path)]
    with subprocess.Popen(words, env=given, stderr=subprocess.PIPE) as running:
        _await(path)
        time.sleep(0.1)  # the number is written
        child = int(path.read_text())
        running.send_signal(number)
        running.communicate(timeout=MOST_SECONDS)
    _check_gone(child)
    assert path.with_suffix(".ended").exists() == (number == signal.SIGINT)


def _check_gone(process: int) -> None:
    until = time.monotonic() + MOST_SECONDS
    while time.monotonic() < until:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return
        if _is_zombie(process):
            return
        time.sleep(0.05)
    raise AssertionError(f"process {process} is still there")


def _is_zombie(process: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False


def test_a_program_may_work_in_threads() -> None:
    found: list[Any] = []

    def work() -> None:
        with Processes(["one"], show=False) as them:
            found.append(them.call({"one": partial(abs, -2)}))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(MOST_SECONDS)
    assert found == [{"one": 2}]


def test_bars_have_names_and_leave_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tqdm")
    monkeypatch.setattr(progress, "DELAY_SECONDS", 0)
    lines, sent = Lines(NAMES), list[tuple[str, Any]]()
    place = progress.Elsewhere(lambda *one: sent.append(one), interactive=True)
    progress.show_elsewhere(place)
    try:
        with Bar("prepare", total=4, unit="rows") as bar:
            bar.add(4, "so far")
    finally:
        progress.show_elsewhere(None)
    assert sent[0] == ("bar", ("prepare", 0, 4, "rows", ""))
    for name in NAMES:
        for one in sent[:-1]:
            lines.show(name, *one)
    for name in NAMES:
        lines.show(name, *sent[-1])
    lines.close()
    shown = capsys.readouterr().err
    for name in NAMES:
        assert f"{name}: prepare:   0%" in shown
        assert f"pidgan: {name}: prepare: 4 rows, 0.0 s\n" in shown
