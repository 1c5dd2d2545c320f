"""Family `flow`: the autoregressive spline flow itself is the generator.

`pidgan.training.networks.autoregressive` is the density; it is fitted by maximum
likelihood. Generating goes through it backwards, one coordinate after the other, each
with its own small network: several times slower than a one-pass generator, and as close
to the data as its likelihood. As a likelihood has no bound where weights are negative,
the weights are E[w | x, y] (arXiv:1905.11719).
"""

import dataclasses
from typing import Any

from pidgan.training.families.settings import Span
from pidgan.training.networks.autoregressive import (
    FlowGenerator,
    SplineFlow,
    decay_of_few,
)
from pidgan.training.networks.perceptrons import Shape
from pidgan.training.phases import Batch, Descent, Family, Optimizer, Phase, Update


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flow:
    """An autoregressive spline flow, fitted by maximum likelihood.

    Attributes:
        width: Width of the network of each coordinate.
        blocks: Number of residual blocks of the network of each coordinate.
        bins: Number of bins of each spline.
        batch_size: Number of rows of a step.
        learning_rate: Learning rate at the start.
        weight_decay: Weight decay for 300,000 effective rows; fewer rows get more.
        xla: Whether the steps are compiled with XLA; None compiles trainings of a
            minute or 2000 steps and more.
    """

    width: int = 64
    blocks: int = 2
    bins: int = 16
    batch_size: int = 1024
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    xla: bool | None = None

    spans = {  # noqa: RUF012
        "width": Span(32, 128, log=True),
        "blocks": Span(1, 3),
        "bins": Span(8, 32, log=True),
        "learning_rate": Span(4e-4, 2e-3, log=True),
        "weight_decay": Span(0.005, 0.2, log=True),
    }


def build(settings: Flow, *, shape: Shape, seed: int) -> Family:
    """Return the flow and the one phase in which it maximises the likelihood."""
    s = settings
    flow = SplineFlow(
        shape=shape, width=s.width, blocks=s.blocks, bins=s.bins, seed=seed
    )

    def losses(batch: Batch, seed: Any) -> dict[str, Any]:
        return {"likelihood": flow.loss(batch)}

    decay = s.weight_decay * decay_of_few(shape.n_rows)
    optimizer = Optimizer(s.learning_rate, weight_decay=decay)
    update = Update(losses, Descent(flow.variables, optimizer, held_out=losses))
    return Family(
        generator=FlowGenerator(flow, shape),
        n_noise=shape.n_targets,
        phases=[Phase("fit", 1.0, s.batch_size, updates=[update])],
        needs_positive_weights=True,
    )
