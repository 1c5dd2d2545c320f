"""Family `distilled`: a generator is taught by a normalising flow; no critic plays.

Phase `teach` fits a normalising flow T (`pidgan.training.networks.autoregressive`),
which generates slowly but is found by maximum likelihood. In phase `distil` the
generator G (`pidgan.training.networks.per_coordinate`) learns to make of the *same*
noise what the flow makes, one coordinate at a time, at the earlier ones of real rows:

    L_distil = sum_j E[|G_j(z_j) - T_j(z_j)| / (dT_j / dz_j + epsilon)]

The derivative is the local scale of the density: a distance is counted in units of the
noise, so that narrow structures are learnt as well as wide ones. The noise z is twice
as wide as when the generator is used: otherwise jumps of T, where noise is rare, are
pushed outwards, and too little is made beyond them.
"""

import dataclasses
from typing import Any

from pidgan.training.backend import tf
from pidgan.training.families.settings import Span
from pidgan.training.networks import draws
from pidgan.training.networks.autoregressive import SplineFlow, decay_of_few
from pidgan.training.networks.per_coordinate import OnePassGenerator
from pidgan.training.networks.perceptrons import Shape
from pidgan.training.phases import Batch, Descent, Family, Optimizer, Phase, Update

# Scale below which a distance in `distil` is not counted in units of the noise.
EPSILON = 0.5
# Standard deviation of the noise in `distil`: what is rare has to be learnt too.
SPREAD = 2.0
# Stream of random numbers for the shifts of known coordinates.
SHIFT = 1001


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distilled:
    """A generator that a normalising flow has taught.

    The defaults are those of the figures in docs/explanation/recipe.

    Attributes:
        width: Width of each network of the generator, one for each target.
        layers: Number of hidden layers of each network of the generator.
        teach: Share of the steps in which the flow is fitted.
        distil: Share of the steps in which the generator learns from the flow.
        teacher_width: Width of the networks of the flow.
        teacher_blocks: Number of residual blocks of the networks of the flow.
        teacher_bins: Number of bins of each spline of the flow.
        teach_batch_size: Number of rows of a step in phase `teach`.
        teach_learning_rate: Learning rate at the start of phase `teach`.
        teach_weight_decay: Weight decay in phase `teach` for 300,000 effective rows;
            fewer rows get more.
        distil_batch_size: Number of rows of a step in phase `distil`.
        distil_learning_rate: Learning rate at the start of phase `distil`.
        xla: Whether the steps are compiled with XLA, which takes some seconds and then
            halves their time; None compiles trainings of a minute or 2000 steps and
            more.
    """

    width: int = 48
    layers: int = 3
    teach: float = 0.4
    distil: float = 0.6
    teacher_width: int = 64
    teacher_blocks: int = 2
    teacher_bins: int = 16
    teach_batch_size: int = 1024
    teach_learning_rate: float = 5e-3
    teach_weight_decay: float = 0.05
    distil_batch_size: int = 1024
    distil_learning_rate: float = 1e-2
    xla: bool | None = None

    spans = {  # noqa: RUF012
        "width": Span(24, 96, log=True),
        "layers": Span(2, 4),
        "teach": Span(0.2, 0.6, rest="distil"),
        "teacher_width": Span(32, 128, log=True),
        "teacher_blocks": Span(1, 3),
        "teacher_bins": Span(8, 32, log=True),
        "teach_learning_rate": Span(1e-3, 1e-2, log=True),
        "teach_weight_decay": Span(0.005, 0.2, log=True),
        "distil_learning_rate": Span(2e-3, 2e-2, log=True),
    }


def build(settings: Distilled, *, shape: Shape, seed: int) -> Family:
    """Return the generator and the two phases that teach it."""
    generator, phases = taught_generator(settings, shape=shape, seed=seed)
    return Family(
        generator=generator,
        n_noise=shape.n_targets,
        phases=phases,
        needs_positive_weights=True,
    )


def taught_generator(
    s: Distilled, *, shape: Shape, seed: int
) -> tuple[OnePassGenerator, list[Phase]]:
    """Return a generator and the phases in which a flow is fitted and teaches it."""
    generator = OnePassGenerator(shape=shape, width=s.width, layers=s.layers, seed=seed)
    teacher = SplineFlow(
        shape=shape,
        width=s.teacher_width,
        blocks=s.teacher_blocks,
        bins=s.teacher_bins,
        seed=seed + 3,
    )

    def teach(batch: Batch, seed: Any) -> dict[str, Any]:
        return {"likelihood": teacher.loss(batch)}

    def answer(batch: Batch, seed: Any) -> Batch:
        """Add noise, what the teacher makes of it, and the weight of a distance."""
        size = (shape.n_targets, tf.shape(batch["x"])[0])
        z = draws.normal(size, seed, axis=1, stddev=SPREAD)
        y_t, slope, earlier = teacher.respond(batch, z)
        weight = batch["positive_w"] * tf.transpose(batch["free"]) / (slope + EPSILON)
        return {**batch, "z": z, "y_t": y_t, "earlier": earlier, "weight": weight}

    def distil(batch: Batch, seed: Any) -> dict[str, Any]:
        shifts = tf.random.fold_in(seed, SHIFT)
        y_g = generator.respond(batch, batch["earlier"], batch["z"], shifts)
        distance = batch["weight"] * tf.abs(y_g - batch["y_t"])
        return {"distance": tf.reduce_mean(tf.reduce_sum(distance, axis=0))}

    decay = s.teach_weight_decay * decay_of_few(shape.n_rows)
    teacher_descent = Descent(
        teacher.variables,
        Optimizer(s.teach_learning_rate, weight_decay=decay),
        held_out=teach,
    )
    generator_descent = Descent(
        generator.variables, Optimizer(s.distil_learning_rate), held_out=distil
    )
    taught = [Update(teach, teacher_descent)]
    distilled = [Update(distil, generator_descent)]
    return generator, [
        Phase("teach", s.teach, s.teach_batch_size, updates=taught),
        Phase(
            "distil", s.distil, s.distil_batch_size, updates=distilled, prepare=answer
        ),
    ]
