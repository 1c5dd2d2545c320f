"""Generators without a critic: the energy score and the maximum mean discrepancy.

Both minimise a kernel score (`updates.kernel_score`), with several independent
generated samples at the conditions of each real row:

    L = E[w (k(y_g, y_g') - 2 k(y_g, y_r))].

- `energy`: k(a, b) = -|a - b| (Gneiting and Raftery, JASA 102 (2007) 359). It has no
  scale to choose, and does not oscillate: there is no adversary. This kernel has no
  bound, nor has its score where weights of neighbouring rows sum to less than zero: w
  is E[w | x, y] here, which is not negative.
- `mmd`: a sum over scales s of Gaussian, exp(-d^2 / 2 s^2), and Breit-Wigner,
  s^2 / (s^2 + d^2), kernels of the distance d (Gretton et al., JMLR 13 (2012) 723; the
  Breit-Wigner kernel: Butter, Plehn and Winterhalder, arXiv:1907.03764). Small scales
  see fine structure, wide tails pull from far away.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pidgan.errors import PidganError, nearest
from pidgan.training.backend import keras, tf
from pidgan.training.networks.perceptrons import Shape, residual_network
from pidgan.training.networks.updates import (
    Kernel,
    descend,
    draw,
    held_out_losses,
    kernel_score,
    minus_distance,
)

KERNELS = ("gaussian", "breit_wigner", "both")
# Each scale is twice the one before it.
SCALE_STEP = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnergySettings:
    """What can be chosen in family `energy`.

    Attributes:
        n_noise: size of the generator's noise.
        width, blocks: of the generator.
        samples: generated for each real row.
        batch_size: real rows of one update.
        learning_rate: of Adam; falls with a cosine.
        average: momentum of the averaged generator weights.
        xla: compile the steps with XLA; pays in trainings of more than a few minutes.
    """

    n_noise: int = 16
    width: int = 64
    blocks: int = 3
    samples: int = 4
    batch_size: int = 512
    learning_rate: float = 1e-3
    average: float = 0.999
    xla: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class MMDSettings:
    """What can be chosen in family `mmd`: as in `energy`, and the kernel.

    Attributes:
        kernel: "gaussian", "breit_wigner" or "both".
        smallest_scale: of the kernel, in coordinates of unit variance.
        scales: how many there are, each twice the one before it.
    """

    n_noise: int = 16
    width: int = 64
    blocks: int = 3
    samples: int = 4
    batch_size: int = 512
    learning_rate: float = 1e-3
    average: float = 0.999
    kernel: str = "both"
    smallest_scale: float = 0.25
    scales: int = 5
    xla: bool = False


class KernelScore:
    """Families `energy` and `mmd`: a generator that minimises a kernel score."""

    def __init__(
        self, *, shape: Shape, settings: EnergySettings | MMDSettings, seed: int
    ) -> None:
        """Build the generator and its optimizer.

        Raises:
            PidganError: fewer than two samples, or no such kernel.
        """
        self.settings = s = settings
        if s.samples < 2:
            raise PidganError(f"samples is {s.samples}, expected at least 2")
        self.kernel = _kernel(s)
        self.needs_positive_weights = self.kernel is minus_distance
        self.n_noise = s.n_noise
        self.generator = residual_network(
            {
                "conditions": shape.n_conditions,
                "pattern": shape.n_patterns,
                "noise": s.n_noise,
            },
            n_outputs=shape.n_targets,
            width=s.width,
            blocks=s.blocks,
            seed=seed,
            name="generator",
        )
        self.optimizer = keras.optimizers.Adam(
            s.learning_rate, use_ema=True, ema_momentum=s.average
        )
        self.optimizer.build(self.generator.trainable_variables)
        self.phases: Mapping[str, float] = {"fit": 1.0}
        self.batch_sizes: Mapping[str, int] = {"fit": s.batch_size}

    @property
    def variables(self) -> list[Any]:
        """Return all variables, the optimizer's included, in a fixed order."""
        return [*self.generator.variables, *self.optimizer.variables]

    def step(
        self, batch: dict[str, Any], *, phase: str, seed: Any, rate: Any
    ) -> dict[str, Any]:
        """Do one update and return the score."""
        s = self.settings
        self.optimizer.learning_rate = s.learning_rate * rate
        with tf.GradientTape() as tape:
            samples = draw(
                self.generator,
                batch,
                n_noise=self.n_noise,
                copies=s.samples,
                seed=seed,
            )
            w = batch["positive_w" if self.needs_positive_weights else "w"]
            loss = kernel_score(self.kernel, batch["y"], samples, w)
        descend(tape, loss, self.optimizer, self.generator.trainable_variables)
        return {"score": loss}

    def losses(self, batch: dict[str, Any], *, seed: Any) -> dict[str, Any]:
        """Return the energy score of the generator."""
        return held_out_losses(self.generator, batch, n_noise=self.n_noise, seed=seed)

    def end(self, phase: str) -> None:
        """Put the averaged weights into the generator."""
        self.optimizer.finalize_variable_values(self.generator.trainable_variables)


def mixture_kernel(shape: str, scales: list[float]) -> Kernel:
    """Return the mean over scales of Gaussian or Breit-Wigner kernels, or of both."""

    def kernel(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        d2 = tf.reduce_sum(tf.square(a - b), axis=-1)
        terms = []
        for scale in scales:
            if shape in ("gaussian", "both"):
                terms.append(tf.exp(-d2 / (2 * scale**2)))
            if shape in ("breit_wigner", "both"):
                terms.append(scale**2 / (scale**2 + d2))
        return tf.add_n(terms) / len(terms)

    return kernel


def _kernel(settings: EnergySettings | MMDSettings) -> Kernel:
    if isinstance(settings, EnergySettings):
        return minus_distance
    if settings.kernel not in KERNELS:
        raise PidganError(
            f"kernel is {settings.kernel!r}, expected one of {', '.join(KERNELS)}"
            + nearest(str(settings.kernel), KERNELS)
        )
    if settings.scales < 1 or not settings.smallest_scale > 0:
        raise PidganError(
            f"scales is {settings.scales} and smallest_scale "
            f"{settings.smallest_scale:g}, expected at least 1, and above 0"
        )
    powers = range(settings.scales)
    return mixture_kernel(
        settings.kernel, [settings.smallest_scale * SCALE_STEP**i for i in powers]
    )
