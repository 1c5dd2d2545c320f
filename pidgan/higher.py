"""Work of a higher room, for methods that people look for at an object of a lower one.

Rooms import downwards only. `bundle.sample(frame)` needs what `application` knows of
columns and units; a method like it has the signature and the text, and calls the
function that does the work. `tests/test_architecture.py` lists all of them. `plot` is
such a method of everything that can be plotted.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from pidgan.arguments import checked

DRAWING = (
    'pictures need {}; install the training dependencies: pip install ".[train]" in '
    "the source tree"
)


def function(place: str, name: str) -> Callable[..., Any]:
    """Return a function of a module, "application.in_memory", loaded when needed."""
    module = importlib.import_module(f"pidgan.{place}")
    found: Callable[..., Any] = getattr(module, name)
    return found


@checked
def plot(
    self: Any,
    *beside: Any,
    cuts: str | Sequence[str] | None = None,
    binning: Any = None,
    variables: Sequence[str] = (),
    track: str = "",
    weights: str | None = None,
    conditions: Any = None,
    seed: int = 1,
) -> Any:
    """Return pictures of this object by name, as `pidgan.plot(this, ...)` does.

    Args:
        *beside: What it is drawn with, or paths: a generator, another species to
            reject, or the ntuple of an analysis.
        cuts: PID cuts.
        binning: Binning of the efficiencies.
        variables: Variables that are drawn, by default all.
        track: Prefix of the track in the ntuple beside.
        weights: Branch with weights of the ntuple.
        conditions: Branches and units of conditions in the ntuple.
        seed: Seed of the generated targets.

    Returns:
        The `pidgan.Pictures`: figures of matplotlib by name, which `save` writes.

    Raises:
        ModuleNotFoundError: The libraries that draw are not installed.
        ValueError: An argument says nothing about this kind of object.
    """
    try:
        draw = function("report.drawing", "plot")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("pidgan"):
            raise
        message = DRAWING.format(error.name)
        raise ModuleNotFoundError(message, name=error.name) from error
    return draw(
        self,
        *beside,
        cuts=cuts,
        binning=binning,
        variables=variables,
        track=track,
        weights=weights,
        conditions=conditions,
        seed=seed,
    )
