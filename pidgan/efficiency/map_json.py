"""The head of an efficiency map: a JSON file in the schema of correctionlib."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pidgan.arrays import FloatArray
from pidgan.bundle.shipped import shipped_names
from pidgan.errors import MapError, nearest
from pidgan.files.documents import read_json
from pidgan.files.recognition import refuse_other
from pidgan.files.seals import SEAL, check_seal, reason, sealed

SCHEMA_VERSION = 2

WITH_WHERE = 3
"""Schema of a map with a denominator, which older versions would not know of."""

UNSEALED = 1
"""Schema without a seal, which version 0.1 of this package wrote."""

_MARK = "pidgan: "


def check_suffix(path: str | Path) -> None:
    """Raise a MapError if the name of a map does not end in .json."""
    if Path(path).suffix != ".json":
        raise MapError(f"{path}: expected a name that ends in .json")


def correction(
    cut: str,
    nominal: FloatArray,
    shifts: Mapping[str, FloatArray],
    *,
    binning: Mapping[str, Sequence[float]],
    units: Mapping[str, str],
    where: str,
) -> dict[str, Any]:
    """Return the efficiency of a cut (n_bins,) and its shifts as a correction."""
    text = "nominal, <name>_up or <name>_down"
    inputs: list[dict[str, str | None]]
    inputs = [{"name": "variation", "type": "string", "description": text}]
    for name in binning:
        unit = f"in {units[name]}" if units[name] != "1" else None
        inputs.append({"name": name, "type": "real", "description": unit})
    tables = {"nominal": nominal}
    for name, shift in shifts.items():
        tables |= {f"{name}_up": nominal + shift, f"{name}_down": nominal - shift}
    return {
        "name": cut,
        "description": f"efficiency of {cut}" + (f" among {where}" if where else ""),
        "version": 1,
        "inputs": inputs,
        "output": {"name": "efficiency", "type": "real"},
        "data": {
            "nodetype": "category",
            "input": "variation",
            "content": [
                {"key": key, "value": _node(binning, values)}
                for key, values in tables.items()
            ],
        },
    }


def _node(binning: Mapping[str, Sequence[float]], values: FloatArray) -> dict[str, Any]:
    return {
        "nodetype": "multibinning",
        "inputs": list(binning),
        "edges": [list(edges) for edges in binning.values()],
        # Nine digits: a float32, and half the size of the file.
        "content": [float(f"{value:.9g}") for value in values],
        "flow": "error",
    }


def sealed_content(
    title: str, corrections: Sequence[Mapping[str, Any]], head: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of the file, with a head of the package and its seal."""
    content = {
        "schema_version": 2,
        "description": title,
        "corrections": list(corrections),
    }
    head = {**head, SEAL: sealed({**content, "pidgan": dict(head)})[SEAL]}
    return {**content, "description": f"{title}\n{_MARK}{json.dumps(head)}"}


def read_head(path: Path) -> dict[str, Any]:
    """Return the head of the package in a map; a MapError says why there is none."""
    if not path.is_file():
        refuse_other(path, "map", error=MapError)
        siblings = sorted(os.listdir(path.parent)) if path.parent.is_dir() else []
        siblings += shipped_names()
        raise MapError(f"{path}: no such efficiency map{nearest(path.name, siblings)}")
    refuse_other(path, "map", error=MapError)
    content = read_json(path, error=MapError)
    description = content.get("description") if isinstance(content, Mapping) else None
    title, mark, text = str(description or "").partition(f"\n{_MARK}")
    if not mark:
        raise MapError(f"{path}: JSON, but not an efficiency map of pidgan")
    try:
        head: dict[str, Any] = json.loads(text)
        version = head["schema_version"]
        if type(version) is not int or version < UNSEALED:
            raise ValueError(f"schema version {version!r}, expected a number")
        if version <= WITH_WHERE and (version > UNSEALED or SEAL in head):
            seal = head.pop(SEAL, None)
            parts = {**content, "description": title, "pidgan": head}
            check_seal({**parts, SEAL: seal})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        text = f"{path}: damaged efficiency map ({reason(error)})"
        raise MapError(text) from error
    if version > WITH_WHERE:
        raise MapError(
            f"{path}: schema version {version}, this package reads up to "
            f"{WITH_WHERE}: install a newer version"
        )
    return head
