"""What `apply` is asked for, the same for every file and every process of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from pidgan.application.conditions import Conditions
from pidgan.application.manifest import package_version
from pidgan.bundle.card import Generator
from pidgan.errors import NtupleError

Track: TypeAlias = str | Path | Generator
"""A bundle, a directory of bundles, or an open generator."""

Mode: TypeAlias = Literal["append", "replace", "friend"]

Elsewhere: TypeAlias = Literal["nan", "keep"]


def bundle_path(given: Track) -> str | Path | None:
    """Return the path of a bundle or directory, None for another generator."""
    return given if isinstance(given, str | Path) else getattr(given, "path", None)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What `apply` is asked for; the attributes are its arguments.

    Raises:
        ValueError: There is no track, or no such mode.
        NtupleError: The arguments contradict one another.
    """

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

    def __post_init__(self) -> None:
        if not self.tracks:
            raise ValueError("tracks is empty, expected at least one")
        if self.mode not in get_args(Mode):
            raise ValueError(
                f"mode is {self.mode!r}, expected {' or '.join(get_args(Mode))}"
            )
        if self.elsewhere not in get_args(Elsewhere):
            raise ValueError(f"elsewhere is {self.elsewhere!r}, expected nan or keep")
        if self.mother_from is not None and self.species_from is None:
            raise NtupleError("decays in flight are flagged only with --species-from")
        if self.elsewhere == "keep" and self.where is None:
            raise NtupleError("--elsewhere keep needs a selection, --where")
        if self.elsewhere == "keep" and self.mode == "append":
            raise NtupleError(
                "--elsewhere keep needs values to keep: --mode replace or --mode friend"
            )

    @property
    def has_paths(self) -> bool:
        """Whether another process can open all generators."""
        return all(bundle_path(given) is not None for given in self.tracks.values())

    def record(self, hashes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Return what a manifest says was asked for, with the hashes of each track."""
        return {
            "mode": self.mode,
            "seed": self.seed,
            "species_from": self.species_from,
            "mother_from": self.mother_from,
            "where": self.where,
            "elsewhere": self.elsewhere,
            **self.conditions.record(),
            "suffix": self.suffix,
            "key": list(self.key),
            "tracks": {track: list(found) for track, found in hashes.items()},
            "pidgan": package_version("pidgan"),
        }
