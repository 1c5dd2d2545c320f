"""Progress of long stages: bars on a terminal and in a notebook, else lines of a log.

`bar(stage, ...)` is one of tqdm, with the time that is left. Where the standard error
is neither a terminal nor a notebook, each stage prints one line when it ends. Nothing
is ever printed on the standard output.

Functions that take long have an argument `progress`: True for a bar, False for nothing,
or a function that is called instead.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import math
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeAlias

CountProgress: TypeAlias = Callable[[int, int], None] | bool | None
"""What is called with the number of entries done and of all; True for a bar."""

LOG_SECONDS = 60.0
"""Longest time between two lines in the log of a training."""

DELAY_SECONDS = 0.3
"""A stage that is shorter has no bar, which would only flash."""

SENT_SECONDS = 0.1
"""Shortest time between two messages about a bar that another process shows."""

_FORMAT = "{desc}: {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} {unit}{postfix}"
_FORMAT += " [{elapsed}, {remaining} left]"


class Bar:
    """The progress of one stage, for a `with` block.

    Args:
        stage: Name of the stage.
        total: Number of all units, None if it is not known.
        unit: What is counted, "entries".
        show: Whether anything is shown; False or None for nothing.
    """

    def __init__(
        self, stage: str, *, total: int | None = None, unit: str = "", show: Any = True
    ) -> None:
        self.stage, self.total, self.unit = stage, total, unit
        self.done = 0
        self._show, self._started = bool(show), time.monotonic()
        self._bar: Any = None
        if self._show and is_interactive():
            self._bar = _open(stage, total, unit)

    def expect(self, total: int) -> None:
        """Set the number of all units."""
        self.total = total
        if self._bar is not None:
            self._bar.total = total

    def add(self, n: int = 1, text: str = "") -> None:
        """Count more units as done, and say a few words about them."""
        self.to(self.done + n, text)

    def to(self, done: int, text: str = "") -> None:
        """Set the number of units that are done."""
        if self._bar is not None:
            if text:
                self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(done - self.done)
        self.done = done

    def close(self, *, failed: bool = False) -> None:
        """End the bar, or print the line of the log."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        elif self._show and not failed:
            seconds = time.monotonic() - self._started
            say(_ended(self.stage, self.done, self.unit, seconds))
        self._show = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _: BaseException | None,
        __: TracebackType | None,
    ) -> None:
        self.close(failed=kind is not None)


@contextlib.contextmanager
def entries_progress(given: CountProgress, stage: str) -> Iterator[Any]:
    """Give the function that is called with entries done and in all, or None."""
    if given is True:
        own = EntriesBar(stage)
        try:
            yield own
        except BaseException:
            own.close(failed=True)
            raise
        own.close()
    else:
        yield given or None


@contextlib.contextmanager
def training_progress(given: Any, *, named: bool = False) -> Iterator[Any]:
    """Give the function that is called with the progress of a training, or None.

    It gets the name of the training first if there are several, which are `named`.
    """
    if given is True:
        own = TrainingBar()
        try:
            yield own if named else functools.partial(own, "")
        finally:
            own.close()
    else:
        yield given or None


class EntriesBar:
    """A bar for functions that tell how many entries are done, and how many there are.

    The first call tells what an earlier run had done.
    """

    def __init__(self, stage: str, unit: str = "entries") -> None:
        self._stage, self._unit = stage, unit
        self._bar: Bar | None = None

    def __call__(self, done: int, total: int) -> None:
        """Show that some of all entries are done."""
        if self._bar is None:
            self._bar = Bar(self._stage, total=total, unit=self._unit)
            self._bar.to(done)
            return
        self._bar.to(done)
        if done >= total:
            self.close()

    def close(self, *, failed: bool = False) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close(failed=failed)


class TrainingBar:
    """A bar for a training, which shows the phase and the losses.

    A log gets a line when a phase begins, then for every tenth of the steps, and at
    least every minute.
    """

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._name = ""
        self._stage: tuple[Any, ...] = ()
        self._shown = 0.0

    def __call__(self, name: str, progress: Any) -> None:
        """Show the progress of a training, with its name if there are several."""
        if is_interactive():
            self._draw(name, progress)
            return
        tenth = 10 * progress.step // max(1, progress.steps)
        stage, now = (name, progress.phase, tenth), time.monotonic()
        if stage != self._stage or now - self._shown > LOG_SECONDS:
            self._stage, self._shown = stage, now
            say(training_text(name, progress))

    def close(self) -> None:
        """End the bar, also that of a training that is interrupted."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _draw(self, name: str, progress: Any) -> None:
        key = f"{name} train".strip()
        if self._bar is None or key != self._name:
            self.close()
            self._name = key
            self._bar = Bar(key, total=progress.steps, unit="steps")
        self._bar.expect(progress.steps)
        self._bar.to(progress.step, losses_text(progress))
        if progress.step >= progress.steps:
            self.close()


def training_text(name: str, progress: Any) -> str:
    """Return the progress of a training as a line of a log."""
    parts = [name, progress.phase, f"step {progress.step}/{progress.steps}"]
    parts.append(losses_text(progress, held_out="held out: "))
    if progress.seconds_left < math.inf:
        parts.append(f"{progress.seconds_left:.0f} s left")
    return "  ".join(part for part in parts if part)


def losses_text(progress: Any, *, held_out: str = "") -> str:
    """Return the losses of a training, those on rows not trained on at the end."""
    losses: Mapping[str, float] = progress.losses
    judged: Mapping[str, tuple[float, float]] = progress.held_out
    parts = [f"{key} {value:.4f}" for key, value in losses.items()]
    found = [f"{key} {v:.4f} +- {e:.4f}" for key, (v, e) in judged.items()]
    if not held_out:
        parts = [progress.phase, *parts[:2]]
        return ", ".join(parts)
    parts += [f"{held_out}{', '.join(found)}"] if found else []
    return "  ".join(parts)


def _ended(stage: str, done: int, unit: str, seconds: float) -> str:
    """Return the line of a stage that has ended."""
    counted = f"{done:,} {unit}, " if unit and done else ""
    return f"pidgan: {stage}: {counted}{seconds:.1f} s"


def is_interactive() -> bool:
    """Return whether somebody looks: the standard error is a terminal, or a notebook's.

    The kernel of a notebook or of a console has a flag of its own.
    """
    if _elsewhere is not None:
        return _elsewhere.interactive
    if sys.stderr is None:
        return False
    with contextlib.suppress(AttributeError, ValueError, OSError):
        if sys.stderr.isatty():
            return True
    return is_notebook()


def is_notebook() -> bool:
    """Return whether this is the kernel of a notebook."""
    shell = sys.modules.get("IPython")
    found = shell.get_ipython() if shell is not None else None
    return found is not None and hasattr(found, "kernel")


def say(line: str) -> None:
    """Print a line to the standard error; where that is closed, nothing is."""
    if _elsewhere is not None:
        _elsewhere.send("line", line)
    elif sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)


def tell_elsewhere(content: Any) -> None:
    """Send a value to the process that shows what this one does, if there is one."""
    if _elsewhere is not None:
        _elsewhere.send("told", content)


def _open(stage: str, total: int | None, unit: str, *, place: int | None = None) -> Any:
    """Return a bar of tqdm; in a notebook one of widgets, if there are some.

    A bar with a `place` is one of several below each other, and does not stay.
    """
    if _elsewhere is not None:
        return _SentBar(_elsewhere.send, stage, total, unit)
    if is_notebook() and importlib.util.find_spec("ipywidgets") is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from tqdm.auto import tqdm
    else:
        from tqdm import tqdm
    given: dict[str, Any] = {"desc": stage, "total": total, "unit": unit or "it"}
    if total is not None:
        given["bar_format"] = _FORMAT
    # Some terminals say that they have no columns and rows; tqdm then shows nothing.
    columns, rows = shutil.get_terminal_size()
    given |= {"ncols": columns, "nrows": rows}
    given |= {"leave": place is None, "position": place}
    return tqdm(file=sys.stderr, delay=DELAY_SECONDS, **given)


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """The process that shows what this one does.

    `send` takes a kind and its content: "line" and a text, "told" and any value, or
    "bar" and the stage, the number of units done, that of all, the unit and a few
    words; None for the end.
    """

    send: Callable[[str, Any], None]
    interactive: bool  # whether somebody looks there


_elsewhere: Elsewhere | None = None


def show_elsewhere(place: Elsewhere | None) -> None:
    """Show nothing in this process from now on, but in another one."""
    global _elsewhere
    _elsewhere = place


class _SentBar:
    """What a bar of tqdm can do, shown in another process."""

    def __init__(
        self, send: Callable[..., None], stage: str, total: int | None, unit: str
    ) -> None:
        self.total = total
        self._send, self._stage, self._unit = send, stage, unit
        self._done, self._text, self._sent = 0, "", -math.inf
        self.update(0)

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        """Say a few words."""
        self._text = text

    def update(self, n: int) -> None:
        """Count more units as done."""
        self._done += n
        if time.monotonic() - self._sent > SENT_SECONDS:
            self._tell()

    def close(self) -> None:
        """End the bar."""
        self._tell()
        self._send("bar", None)

    def _tell(self) -> None:
        self._sent = time.monotonic()
        content = (self._stage, self._done, self.total, self._unit, self._text)
        self._send("bar", content)


class Lines:
    """The bars of several processes below each other, with their names.

    A stage that ends leaves a line above them, as in a log. Processes that are not
    `named` are shown as if they were this one.
    """

    def __init__(self, names: Sequence[str], *, named: bool = True) -> None:
        self._names = list(names)
        self._labels = {name: f"{name}: " if named else "" for name in names}
        self._bars: dict[str, tuple[str, str, float, Any]] = {}

    def show(self, name: str, kind: str, content: Any) -> None:
        """Show what a process sent, see `Elsewhere`."""
        if kind == "line":
            start = "pidgan: " * content.startswith("pidgan: ")
            text = content.removeprefix("pidgan: ")
            with self.apart():
                say(f"{start}{self._labels[name]}{text}")
        elif content is None:
            self._end(name)
        else:
            stage, done, total, unit, text = content
            if name not in self._bars:
                place = self._names.index(name)
                bar = _open(f"{self._labels[name]}{stage}", total, unit, place=place)
                self._bars[name] = (stage, unit, time.monotonic(), bar)
            bar = self._bars[name][-1]
            bar.total = total
            bar.set_postfix_str(text, refresh=False)
            bar.update(done - bar.n)

    def close(self) -> None:
        """End the bars of all processes."""
        for *_, bar in self._bars.values():
            bar.close()
        self._bars = {}

    @staticmethod
    @contextlib.contextmanager
    def apart() -> Iterator[None]:
        """Print lines in this block above all bars."""
        if not is_interactive() or is_notebook():
            yield
            return
        from tqdm import tqdm

        with tqdm.external_write_mode(file=sys.stderr):
            yield

    def _end(self, name: str) -> None:
        stage, unit, began, bar = self._bars.pop(name)
        done, total, seconds = bar.n, bar.total, time.monotonic() - began
        bar.close()
        if seconds > DELAY_SECONDS and done >= (total or 0):
            with self.apart():
                say(_ended(f"{self._labels[name]}{stage}", done, unit, seconds))
