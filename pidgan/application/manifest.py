"""The manifest beside an output: what was asked for, and with what it was made.

An output with a manifest that fits the request is finished, whenever a run was killed.
"""

import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pidgan.files.writing import exists_error

SCHEMA = 2

LIBRARIES = ("awkward", "numpy", "onnxruntime", "pyarrow", "uproot")
"""Packages whose versions a manifest records."""


def path_of(output: Path) -> Path:
    """Return where the manifest of an output lies."""
    return output.with_name(f"{output.name}.json")


def text(output: Path, content: Mapping[str, Any]) -> str:
    """Return the text of the manifest of an output, under whatever name it lies."""
    versions = {name: package_version(name) for name in LIBRARIES}
    whole = {
        "schema": SCHEMA,
        "output": {"size": output.stat().st_size},
        **content,
        "versions": {"python": platform.python_version()} | versions,
    }
    return json.dumps(whole, indent=2)


def read(output: Path) -> dict[str, Any]:
    """Return the manifest beside an output, empty if there is none."""
    try:
        content = json.loads(path_of(output).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and "request" in content else {}


def is_finished(output: Path, request: Mapping[str, Any]) -> bool:
    """Return whether an earlier run wrote an output; raise if another file is there."""
    manifest = read(output)
    if not manifest and path_of(output).exists():
        reason = " and is not the manifest of an output"
        raise exists_error(path_of(output), reason)
    if not output.exists():
        return False
    old = {**manifest.get("request", {}), "output": manifest.get("output")}
    new = {**request, "output": {"size": output.stat().st_size}}
    differing = sorted(name for name in new if old.get(name) != new[name])
    if differing:
        reason = f" and differs in {', '.join(differing)}" if manifest else ""
        raise exists_error(output, reason)
    return True


def package_version(name: str) -> str:
    """Return the version of an installed package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
