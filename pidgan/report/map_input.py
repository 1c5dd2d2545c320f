"""An efficiency map with the generator and the rows that its report needs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pidgan.bundle.card import Generator
from pidgan.bundle.opening import open_generator
from pidgan.bundle.shipped import shipped_names
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.errors import MapError
from pidgan.files.seals import file_sha256


@dataclass(frozen=True, kw_only=True)
class MapInput:
    """An efficiency map with the generator and the rows that it was made from.

    Attributes:
        map: Efficiency map, from `run_systematics`, or its file, which is opened.
        generator: Generator of the map: a model or a bundle, or its path.
        reference: Reference rows of the map; None means those of the generator.
    """

    map: EfficiencyMap
    generator: Generator
    reference: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "map", EfficiencyMap.open(self.map))
        object.__setattr__(self, "generator", open_generator(self.generator))


GivenInput: TypeAlias = MapInput | str | Path
"""A map with its generator, or a map whose bundle lies beside it, or that ships."""


def open_input(given: GivenInput) -> MapInput:
    """Return a map with its generator, which is looked for if it is not given."""
    if isinstance(given, MapInput):
        return given
    found = EfficiencyMap.open(given)
    wanted = found.metadata.get("bundle_sha256")
    if str(given) in shipped_names() and not Path(given).exists():
        return MapInput(map=found, generator=open_generator(given))
    for path in sorted(Path(given).parent.glob("*.onnx")):
        if wanted and file_sha256(path) == wanted:
            return MapInput(map=found, generator=open_generator(path))
    raise MapError(
        f"{given}: its bundle (sha256 {str(wanted)[:12]}...) is not beside it; give "
        "MapInput(map=..., generator=...) with the bundle or model of the map"
    )
