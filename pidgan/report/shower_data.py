"""What the page of generated showers is drawn from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pidgan.arrays import FloatArray
from pidgan.calorimeter.geometry import Geometry
from pidgan.report.shower_metrics import Curve, Response


@dataclass(frozen=True, kw_only=True)
class ShowerData:
    """Measurements that the sections are drawn from; pairs are real and generated.

    The response is by species, "all" first, curves are named "profile/VIEW",
    "lateral/VIEW" and "spectrum/VIEW". Cells are averages (n_cells,) and `single`
    showers (k, n_cells), the history lists of losses by name, against "step".
    `responses` are those of showers (n,) of an incident energy (n,), in the bins of the
    response.
    """

    geometry: Geometry
    energy_unit: str
    response: dict[str, tuple[Response, Response]]
    curves: dict[str, tuple[Curve, Curve]]
    observables: dict[str, tuple[FloatArray, FloatArray]]
    average: tuple[FloatArray, FloatArray]
    single: tuple[FloatArray, FloatArray]
    single_energy: FloatArray
    energy: FloatArray
    edges: FloatArray
    responses: tuple[FloatArray, FloatArray]
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)
