"""What `apply` is asked for, the same for every file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from pidgan.application.conditions import Conditions
from pidgan.bundle.card import Generator
from pidgan.bundle.collection import Collection, Gaps
from pidgan.bundle.devices import chosen_device
from pidgan.errors import NtupleError

Track: TypeAlias = str | Path | Generator | Collection
"""A bundle, a directory of bundles, a collection, or an open generator."""

Mode: TypeAlias = Literal["append", "replace", "friend"]

Elsewhere: TypeAlias = Literal["nan", "keep"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What `apply` is asked for; the attributes are its arguments."""

    tracks: Mapping[str, Track]
    mode: Mode = "append"
    seed: int = 1
    species_from: str | None = None
    mother_from: str | None = None
    where: str | None = None
    elsewhere: Elsewhere = "nan"
    conditions: Conditions = field(default_factory=Conditions)
    suffix: str = ""
    key: tuple[str, ...] = ()
    gaps: Gaps | None = None
    corrects: bool = False

    def __post_init__(self) -> None:
        if not self.tracks:
            raise ValueError("tracks is empty, expected at least one")
        for name, value, known in (
            ("mode", self.mode, get_args(Mode)),
            ("elsewhere", self.elsewhere, get_args(Elsewhere)),
            ("gaps", self.gaps or "error", get_args(Gaps)),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}, expected {' or '.join(known)}")
        if self.mother_from is not None and self.species_from is None:
            raise NtupleError("decays in flight are flagged only with --species-from")
        if self.elsewhere == "keep" and self.where is None:
            raise NtupleError("--elsewhere keep needs a selection, --where")
        if self.elsewhere == "keep" and self.mode == "append":
            raise NtupleError(
                "--elsewhere keep needs values to keep: --mode replace or --mode friend"
            )

    @property
    def verb(self) -> str:
        """The verb that is asked for."""
        return "correct" if self.corrects else "apply"

    @property
    def paths(self) -> dict[str, str | Path | None]:
        """The bundle or directory of each track, None for another generator."""
        return {
            track: given
            if isinstance(given, str | Path)
            else getattr(given, "path", None)
            for track, given in self.tracks.items()
        }

    def record(
        self,
        hashes: Mapping[str, Sequence[str]],
        collections: Mapping[str, Mapping[str, Any]],
    ) -> dict[str, Any]:
        """Return what a manifest says was asked for.

        It has the hashes of each track, and the rules of its collection if it has one.
        """
        unused = [n for n in ("gaps", "corrects") if not getattr(self, n)]
        others = ("tracks", "conditions", *unused)
        names = [f.name for f in fields(self) if f.name not in others]
        device = chosen_device()
        return {
            **({"device": device} if device != "cpu" else {}),
            **({"collections": dict(collections)} if collections else {}),
            **{name: getattr(self, name) for name in names},
            **self.conditions.record(),
            "key": list(self.key),
            "tracks": {track: list(found) for track, found in hashes.items()},
            "pidgan": package_version("pidgan"),
        }


def package_version(name: str) -> str:
    """Return the version of an installed package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
