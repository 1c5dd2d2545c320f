"""Bars where somebody looks, one line a stage in a log, nothing where it is quiet."""

import io
import math
import re
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pidgan
from pidgan import progress
from pidgan.progress import Bar, TrainingBar, entries_progress, training_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Replace the standard error, which pytest itself sets at the start of a test."""
    pytest.importorskip("tqdm")
    found = Terminal()
    monkeypatch.setattr(sys, "stderr", found)
    monkeypatch.setattr(progress, "DELAY_SECONDS", 0)
    return found


def test_a_log_gets_one_line_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("prepare", total=10, unit="rows") as bar:
        for _ in range(5):
            bar.add(2)
    shown = capsys.readouterr()
    assert re.fullmatch(r"pidgan: prepare: 10 rows, \d+\.\d s\n", shown.err)
    assert shown.out == ""


def test_a_stage_that_fails_has_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with Bar("prepare"):
            raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        fail()
    assert capsys.readouterr().err == ""


def test_nothing_is_shown_without_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("prepare", unit="rows", show=False) as bar:
        bar.add(3)
    for off in (False, None):
        with entries_progress(off, "apply") as told, training_progress(off) as other:
            assert told is None
            assert other is None
    assert capsys.readouterr() == ("", "")


def test_a_function_is_called_instead(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[tuple[int, int]] = []
    with entries_progress(lambda done, total: calls.append((done, total)), "x") as told:
        told(1, 2)
    assert calls == [(1, 2)]
    assert capsys.readouterr().err == ""


def test_a_terminal_has_a_bar_with_the_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = _on_terminal(monkeypatch)
    with entries_progress(True, "apply") as told:
        told(1_000_000, 4_000_000)
        told(3_000_000, 4_000_000)
        told(4_000_000, 4_000_000)
    text = terminal.getvalue()
    assert "apply:" in text
    assert "100%" in text
    assert "left]" in text
    assert "4000000/4000000 entries" in text
    assert text.endswith("\n")


def test_a_notebook_has_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tqdm")
    shell = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=1))
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(progress, "DELAY_SECONDS", 0)
    with Bar("validate", total=4, unit="parts") as bar:
        bar.add(4, "classifiers")
    assert "validate: 100%" in capsys.readouterr().err


def _progress(step: int, **more: Any) -> Any:
    phase = "teach" if step < 405 else "distil"
    known: dict[str, Any] = {"phase": phase, "losses": {"loss": 2.0}, "steps": 1000}
    known |= {"held_out": {"loss": (1.5, 0.25)}, "seconds_left": 1000.0 - step}
    return SimpleNamespace(step=step, **known | more)


def test_a_log_of_a_training_has_few_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with training_progress(True, named=True) as told:
        for step in range(1001):
            now += 1.0 if step < 300 else 0.1
            told("kaon", _progress(step))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == (
        "kaon  teach  step 0/1000  loss 2.0000  held out: loss 1.5000 +- 0.2500  "
        "1000 s left"
    )
    steps = [int(re.findall(r"step (\d+)/", text)[0]) for text in lines]
    # Each tenth and each phase; at first a minute is less than a tenth.
    assert set(range(0, 1001, 100)) | {405} < set(steps)
    assert [s for s in steps if s < 100] == [0, 61]
    assert len(steps) < 20
    assert "left" not in progress.training_text("", _progress(1, seconds_left=math.inf))


def test_a_training_on_a_terminal_shows_phase_and_losses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = _on_terminal(monkeypatch)
    bar = TrainingBar()
    bar("", _progress(0))
    bar("", _progress(500))
    bar("", _progress(1000))
    text = terminal.getvalue()
    assert "distil, loss 2.0000" in text
    assert "1000/1000 steps" in text


def test_a_closed_error_output_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        monkeypatch.setattr(sys, "stderr", stream)
        with Bar("prepare", unit="rows") as bar:
            bar.add(1)


def test_stages_of_functions(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = pidgan.open_bundle("demo-kaon")
    given: dict[str, Any] = {"cuts": "RichDLLk > 0", "binning": {"P": 2}, "repeats": 2}
    loud = pidgan.run_systematics(bundle, **given)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.fullmatch(r"pidgan: systematics: 2 draws, [\d.]+ s\n", shown.err)
    quiet = pidgan.run_systematics(bundle, progress=False, **given)
    assert capsys.readouterr().err == ""
    np.testing.assert_array_equal(loud.nominal, quiet.nominal)
