"""Showers by splitting energies: the total, its layers, and the cells of each layer.

A shower is a tree of sums. The incident particle leaves a total; from front to back,
each layer takes its part of what is left; and each layer is cut in two, its halves as
well, and so on down to the cells (`pidgan.calorimeter.halving`). How an energy is split
has a density (`pidgan.training.networks.split_energy`) with a probability for nothing
on either side, so that empty cells, the layers before a shower starts and those behind
its end need no threshold, and what a single particle leaves in a cell is at its place.
The sum over the cells of a layer is its energy, exactly.

There are three networks: of the total; of the layers, which sees what earlier layers
hold; and of the halves, the same for all of them, which sees the energies around a
part, in its own layer and in those before and behind, its distance from the axis of
showers, and the energies of layers. A shower is one example for the first, a dozen for
the second and hundreds for the third. Each is fitted by maximum likelihood and judged
by itself.
"""

import dataclasses
import functools
from typing import Any

from pidgan.bundle.formulas import Array
from pidgan.errors import PidganError
from pidgan.training.backend import tf
from pidgan.training.families.settings import Span
from pidgan.training.networks.perceptrons import Shape
from pidgan.training.networks.shower_splits import ShowerSplits
from pidgan.training.phases import (
    Batch,
    Descent,
    Family,
    Losses,
    Optimizer,
    Phase,
    Update,
)
from pidgan.training.precise import in_double_precision

# Rows generated at a time by numpy: they stay in the cache.
BLOCK_ROWS = 64
# Cells times showers of a step: sums over nodes then take a small part of it.
STEP_CELLS = 2**18
LEAST_BATCH, MOST_BATCH = 8, 128
# Weight decays are those for so many showers; fewer showers need more of it.
DECAY_SHOWERS = 1350


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShowerTree:
    """Showers whose energy is split into layers and then, in halves, into cells.

    Attributes:
        total_width: Width of the network of the total.
        layer_width: Width of the network of the layers.
        width: Width of the network of the halves.
        splits: Number of splits into halves that a step learns from.
        batch_size: Number of showers of a step; none chooses it by the number of cells.
        learning_rate: Learning rate at the start.
        total_weight_decay: Weight decay of the network of the total for 1350 showers;
            other numbers of showers change each weight decay in inverse proportion.
        layer_weight_decay: Weight decay of the network of the layers.
        weight_decay: Weight decay of the network of the halves.
        average: Largest momentum of the averaged weights.
        xla: Whether the steps are compiled with XLA, which this family is not made for.
    """

    total_width: int = 16
    layer_width: int = 48
    width: int = 96
    splits: int = 8192
    batch_size: int | None = None
    learning_rate: float = 3e-3
    total_weight_decay: float = 1.0
    layer_weight_decay: float = 0.05
    weight_decay: float = 0.01
    average: float = 0.998
    xla: bool = False

    spans = {  # noqa: RUF012
        "layer_width": Span(24, 96, log=True),
        "width": Span(48, 192, log=True),
        "learning_rate": Span(1e-3, 6e-3, log=True),
        "layer_weight_decay": Span(0.01, 0.3, log=True),
        "weight_decay": Span(0.002, 0.05, log=True),
    }


def build(settings: ShowerTree, *, shape: Shape, seed: int) -> Family:
    """Return the generator and the one phase in which its networks are fitted."""
    s = settings
    if shape.geometry is None or len(shape.geometry.views) > 1:
        raise PidganError(
            "family 'shower_tree' splits the energies of one view, got "
            f"{len(shape.geometry.views) if shape.geometry else 0} views; take "
            "'shower_sequence'"
        )
    model = ShowerSplits(
        shape.geometry.views[0],
        shape.transform,
        widths=(s.total_width, s.layer_width, s.width),
        seed=seed,
    )
    scale = DECAY_SHOWERS / shape.n_rows if shape.n_rows else 1.0
    parts = [
        ("total", model.total, model.total_loss, s.total_weight_decay),
        ("layers", model.layers, model.layer_loss, s.layer_weight_decay),
        (
            "halves",
            model.halves,
            functools.partial(model.half_loss, splits=s.splits),
            s.weight_decay,
        ),
    ]
    updates = []
    for k, (name, network, loss, decay) in enumerate(parts):
        if network is None:
            continue
        own: Losses = functools.partial(_losses, name, loss, k)
        optimizer = Optimizer(
            s.learning_rate, weight_decay=decay * scale, clip=10.0, average=s.average
        )
        descent = Descent(network.variables, optimizer, held_out=own)
        updates.append(Update(own, descent))
    return Family(
        generator=TreeGenerator(model),
        n_noise=model.n_noise,
        phases=[
            Phase(
                "likelihood",
                1.0,
                s.batch_size or _batch_size(shape.n_targets),
                updates=updates,
                sees_whole=True,
            )
        ],
    )


def _batch_size(n_cells: int) -> int:
    return min(max(STEP_CELLS // n_cells, LEAST_BATCH), MOST_BATCH)


def _losses(name: str, loss: Any, k: int, batch: Batch, seed: Any) -> dict[str, Any]:
    """Return the loss of one network, with random numbers of its own."""
    own = tf.random.fold_in(seed, k)
    # Splits are drawn from those of all showers of a step.
    rows = batch.get("whole", batch) if name == "halves" else batch
    return {name: loss(rows["x"], rows["y"], rows["w"], seed=own)}


class TreeGenerator:
    """Function of conditions and one noise number for each split."""

    def __init__(self, model: ShowerSplits) -> None:
        self.model = model
        self.variables: list[Any] = model.variables

    def __call__(self, inputs: dict[str, Array]) -> Array:
        """Return the energies of the cells, (n, n_cells), made in double precision."""
        return in_double_precision(self.model.generate, inputs, size=BLOCK_ROWS)
