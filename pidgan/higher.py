"""Work of a higher room, for methods that people look for at an object of a lower one.

Rooms import downwards only. `bundle.sample(frame)` needs what `application` knows of
columns and units; a method like it has the signature and the text, and calls the
function that does the work. `tests/test_architecture.py` lists all of them.
"""

import importlib
from collections.abc import Callable
from typing import Any


def function(place: str, name: str) -> Callable[..., Any]:
    """Return a function of a module, "application.in_memory", loaded when needed."""
    module = importlib.import_module(f"pidgan.{place}")
    found: Callable[..., Any] = getattr(module, name)
    return found
