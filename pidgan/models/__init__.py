"""Families: the ways to learn a generator, behind one protocol.

A family owns a `generator` (the keras model that is exported), and has `step`, one
update that returns named losses, and `losses`, the same numbers without an update.
Families are final classes that call shared functions.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from pidgan.errors import PidganError, nearest

FAMILIES = ("cramer",)
SHOWER_FAMILIES = ("shower_flow", "shower_vae", "shower_gan")


class Family(Protocol):
    """What the training loop needs from a family.

    Attributes:
        generator: network from (conditions, pattern, noise) to coordinates.
        settings: dataclass of everything that was chosen.
        variables: everything that a checkpoint must hold.
        n_noise: numbers of noise for a row.
        phases: names of the phases in order, with the share of steps each takes.
        batch_sizes: rows of one update in each phase.
    """

    generator: Any
    settings: Any
    n_noise: int
    phases: Mapping[str, float]
    batch_sizes: Mapping[str, int]

    @property
    def variables(self) -> list[Any]:
        """Return all variables, optimizers' included, in a fixed order."""

    def step(self, batch: Any, *, phase: str, seed: Any, rate: Any) -> dict[str, Any]:
        """Do one update in a phase and return the losses by name."""

    def losses(self, batch: Any, *, seed: Any) -> dict[str, Any]:
        """Return the same losses without an update."""

    def end(self, phase: str) -> None:
        """Settle what a phase has learnt; called when its last step is done."""


def make_family(
    name: str, *, shape: Any, settings: Mapping[str, Any], seed: int
) -> Family:
    """Build a family by name.

    Args:
        name: one of `FAMILIES`.
        shape: sizes of the arrays, a `networks.Shape`.
        settings: overrides of the family's defaults.
        seed: of the initial weights.

    Raises:
        PidganError: no such family, or a setting that it does not have.
    """
    from pidgan.models.adversarial import CramerGAN, CramerSettings
    from pidgan.models.showers import ShowerModel, ShowerSettings

    gan = {"shape": "latent", "encoder": False, "likelihood": 0.3, "play": 0.7}
    families: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "cramer": (CramerGAN, CramerSettings, {}),
        "shower_flow": (ShowerModel, ShowerSettings, {}),
        "shower_vae": (ShowerModel, ShowerSettings, {"shape": "latent"}),
        "shower_gan": (ShowerModel, ShowerSettings, gan),
    }
    if name not in families:
        raise PidganError(
            f"no family {name!r}; there are {', '.join(families)}"
            + nearest(name, families)
        )
    family, chosen, defaults = families[name]
    known = chosen.__dataclass_fields__
    for key in settings:
        if key not in known:
            raise PidganError(
                f"family {name!r} has no setting {key!r}" + nearest(key, known)
            )
    values = chosen(**(defaults | dict(settings)))
    built: Family = family(shape=shape, settings=values, seed=seed)
    return built
