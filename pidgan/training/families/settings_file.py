"""A file with the settings of a family, which `train` takes and `tune` writes.

It is a small TOML file, and a person can write it:

    family = "distilled"

    [settings]
    width = 64
    teach_learning_rate = 3e-3

Settings that are not named have their defaults. The table `[provenance]`, which `tune`
adds, says where the values come from; a training does not need it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pidgan.arguments import checked
from pidgan.errors import PidganError, nearest
from pidgan.files.documents import read_toml
from pidgan.files.recognition import refuse_other
from pidgan.files.writing import writing_file
from pidgan.training.families import TABLE, check_settings, describe_family

FORMAT = 1
"""Version of the file's layout; a file without a number has this one."""

_KEYS = ("format", "family", "settings", "provenance")


@dataclass(frozen=True, kw_only=True)
class SettingsFile:
    """What a file of settings holds.

    Attributes:
        family: Name of the family.
        settings: Values by name that differ from the defaults, or are those.
        provenance: Where they come from; empty if a person wrote the file.
    """

    family: str
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """Return the file as TOML."""
        lines = [f"format = {FORMAT}", f"family = {_value(self.family)}", ""]
        lines += ["[settings]", *_pairs(self.settings)]
        tables = {k: v for k, v in self.provenance.items() if isinstance(v, Mapping)}
        plain = {k: v for k, v in self.provenance.items() if k not in tables}
        if self.provenance:
            lines += ["", "[provenance]", *_pairs(plain)]
        for name, table in tables.items():
            lines += ["", f"[provenance.{name}]", *_pairs(table)]
        return "\n".join(lines) + "\n"

    def origin(self) -> str:
        """Return in one line where the settings come from."""
        known = self.provenance
        words = [str(known.get("result", "settings of a file")).rstrip(".")]
        if "sample" in known:
            words.append(f"found on {known['sample']}")
        if "steps" in known:
            words.append(f"for trainings of {known['steps']} steps")
        return ", ".join(words)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the file, whole or not at all."""
        with writing_file(path, overwrite=overwrite) as file:
            file.write_text(self.text(), encoding="utf-8")


@checked
def read_settings_file(path: str | Path, *, family: str | None = None) -> SettingsFile:
    """Read a file of settings, and check them as `parse_settings` does.

    Args:
        path: TOML file with `family` and a table `[settings]`.
        family: Name of the family that is meant elsewhere, e.g. by `--family`.

    Raises:
        PidganError: The file is no such file, is of another family than the given one,
            or has a setting that the family does not have, of a wrong type, or that is
            out of its range.

    Example:
        >>> read_settings_file("tuned/settings.toml").family        # doctest: +SKIP
        'distilled'
    """
    refuse_other(path, "settings")
    content = read_toml(path, error=PidganError)
    for key in content:
        if key not in _KEYS:
            raise PidganError(
                f"{path} has no use for {key!r}, expected {', '.join(_KEYS)}"
                + _misplaced(key, content, path)
            )
    version = content.get("format", FORMAT)
    if version != FORMAT or isinstance(version, bool):
        raise PidganError(f"{path} has format {version!r}, expected {FORMAT}")
    own, settings = content.get("family"), content.get("settings", {})
    provenance = content.get("provenance", {})
    if not isinstance(own, str):
        got = "is missing" if own is None else f"is {own!r}"
        raise PidganError(f"{path}: family {got}, expected a name such as 'distilled'")
    for name, table in (("settings", settings), ("provenance", provenance)):
        if not isinstance(table, dict):
            raise PidganError(f"{path}: {name} is {table!r}, expected a table [{name}]")
    if family is not None and family != own:
        raise PidganError(
            f"{path} has settings of family {own!r}, but the family asked for is "
            f"{family!r}; give one of them"
        )
    try:
        settings = check_settings(own, settings)
    except PidganError as error:
        raise PidganError(f"{path}: {error}") from error
    return SettingsFile(family=own, settings=settings, provenance=provenance)


def _misplaced(key: str, content: Mapping[str, Any], path: str | Path) -> str:
    """Return a hint for a key at the top that is a setting, or nearly a known key."""
    own = str(content.get("family"))
    names = [s.name for s in describe_family(own).settings] if own in TABLE else []
    if key in names:
        return f"; {key} is a setting: write it below [settings]"
    return nearest(key, _KEYS)


def _pairs(table: Mapping[str, Any]) -> list[str]:
    return [f"{name} = {_value(v)}" for name, v in table.items() if v is not None]


def _value(value: Any) -> str:
    """Return a value as TOML has it; text is that of JSON."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    text = json.dumps(str(value), ensure_ascii=False)
    return text.replace("\x7f", "\\u007f")
