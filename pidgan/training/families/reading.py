"""Settings of families, read from their files without the network library.

`import tensorflow` takes seconds. Names, defaults, types and meanings of settings do
not need it: a misspelt one is refused, listed and completed at once, and in a base
installation too. Only the class of the settings is taken from a file of this package.
"""

import ast
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pidgan.training.families.settings import Span

_HERE = Path(__file__).parent


@functools.cache
def read_settings(home: str) -> Any:
    """Return a class with the fields and the docstring of "module.Settings"."""
    module, _, name = home.partition(".")
    text = (_HERE / f"{module}.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    classes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef)}
    known: dict[str, Any] = {"__name__": __name__, "dataclasses": dataclasses}
    known |= {"Literal": Literal, "Any": Any, "Span": Span}
    homes = dict(_imported(tree))
    for base in classes[name].bases:
        if isinstance(base, ast.Name):
            where = f"{module}.{base.id}" if base.id in classes else homes[base.id]
            known[base.id] = read_settings(where)
    used = {n.id for n in ast.walk(classes[name]) if isinstance(n, ast.Name)}
    body = [n for n in tree.body if _names(n) & used]
    code = ast.Module(body=[*body, classes[name]], type_ignores=[])
    # The source is this package's own.
    exec(compile(code, str(_HERE / f"{module}.py"), "exec"), known)
    return known[name]


def _names(node: ast.stmt) -> set[str]:
    """Return the constants that a line of a module defines."""
    targets = node.targets if isinstance(node, ast.Assign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the names that a family takes from another one, and where they are."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            room, _, module = node.module.rpartition(".")
            if room == "pidgan.training.families":
                for alias in node.names:
                    yield alias.asname or alias.name, f"{module}.{alias.name}"
