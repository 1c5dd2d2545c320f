"""The group of all verbs, and what they share: paths that are opened, lines printed."""

import contextlib
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

import pidgan
from pidgan.cli.verbs import Verbs, shown


@click.group(
    cls=Verbs,
    context_settings={"show_default": True, "help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="pidgan")
def cli() -> None:
    """Learn the PID response of a detector from calibration data, judge it, apply it.

    \b
    The usual order:
      prepare -> train -> validate -> export -> systematics    (PID expert)
      apply -> efficiency                                      (analyst)
    FILE is a ROOT or Parquet file, FILE:TREE, a pattern in quotes, or an address.
    """


def fail(message: str, *, code: int) -> None:
    """Print one line and leave."""
    tell(f"pidgan: error: {' '.join(message.split())}")
    sys.exit(code)


def tell(line: str, *, nl: bool = True) -> None:
    """Print a line to the standard error; where that is closed, nothing is."""
    with contextlib.suppress(OSError):
        click.echo(line, nl=nl, err=True)


def note(line: str, *, nl: bool = True) -> None:
    """Print a line to the standard error, which a quiet command leaves out."""
    if not shown().quiet:
        tell(line, nl=nl)


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Show a ValueError about an argument as click shows its own."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def open_generator(path: Path) -> Any:
    """Open a model folder or a bundle."""
    if not path.is_dir():
        return pidgan.open_bundle(path)
    from pidgan.training.model import open_model

    return open_model(path)


def open_generators(path: Path) -> list[Any]:
    """Open a model or a bundle, or all of a folder of members."""
    from pidgan.training.members import member_paths

    return [open_generator(one) for one in member_paths(path) or [path]]


def open_rows(path: Path | None) -> Any:
    """Open a dataset or a reference file, if one is given."""
    from pidgan.files.tables import read_table

    if path is None:
        return None
    return pidgan.Dataset.open(path) if path.is_dir() else read_table(path)


def open_pairs(texts: Iterable[str]) -> list[tuple[Any, Any]]:
    """Open the generators of GENERATOR[=ROWS] texts, and their rows where given."""
    pairs = []
    for text in texts:
        path, _, rows = (text, "", "") if Path(text).exists() else text.partition("=")
        opened = open_generator(Path(path))
        pairs.append((opened, open_rows(Path(rows) if rows else None)))
    return pairs


LOG_SECONDS = 60.0  # longest time between two lines in the log of a training


class TrainingLine:
    """A line with the progress of a training.

    A terminal shows the last one. A log gets one when a phase begins, then for every
    tenth of the steps, and at least every minute.
    """

    def __init__(self) -> None:
        self._stage: tuple[Any, ...] = ()
        self._shown = 0.0
        self._quiet = shown().quiet  # another thread has no context of click

    def __call__(self, name: str, progress: Any) -> None:
        """Show the progress of a training, with its name if there are several."""
        tenth = 10 * progress.step // max(1, progress.steps)
        stage, now = (name, progress.phase, tenth), time.monotonic()
        is_due = stage != self._stage or now - self._shown > LOG_SECONDS
        if is_due:
            self._stage, self._shown = stage, now
        last = progress.step == progress.steps
        if self._quiet:
            return
        _overwrite_line(_training_text(name, progress), last=last, log=is_due)


def _training_text(name: str, progress: Any) -> str:
    losses: Mapping[str, float] = progress.losses
    held_out: Mapping[str, tuple[float, float]] = progress.held_out
    parts = [name, progress.phase, f"step {progress.step}/{progress.steps}"]
    parts += [f"{key} {value:.4f}" for key, value in losses.items()]
    found = [f"{key} {v:.4f} +- {e:.4f}" for key, (v, e) in held_out.items()]
    parts += [f"held out: {', '.join(found)}"] if found else []
    if progress.seconds_left < math.inf:
        parts.append(f"{progress.seconds_left:.0f} s left")
    return "  ".join(part for part in parts if part)


class EntriesLine:
    """A line with entries done, rate and time left."""

    def __init__(self) -> None:
        self.started = 0.0
        self._quiet = shown().quiet  # another thread has no context of click
        self.before: int | None = None

    def __call__(self, done: int, total: int) -> None:
        # The first call tells what an earlier run had done.
        if self.before is None:
            self.before, self.started = done, time.monotonic()
        seconds = max(time.monotonic() - self.started, 1e-3)
        line = f"{done}/{total} entries"
        if done > self.before:
            rate = (done - self.before) / seconds
            line += (
                f"  {100 * done // total} %  {rate / 1e3:.0f}k entries/s  "
                f"{(total - done) / rate:.0f} s left"
            )
        last = done >= total
        if self._quiet:
            return
        _overwrite_line(line, last=last, log=last)


def end_line() -> None:
    """Leave the line of a terminal that was rewritten."""
    if _is_terminal():
        note("")


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _overwrite_line(line: str, *, last: bool, log: bool) -> None:
    """Rewrite one line of a terminal; elsewhere print it if it is for a log too."""
    if _is_terminal():
        tell(f"\r\033[K{line}", nl=last)
    elif log:
        tell(line)
