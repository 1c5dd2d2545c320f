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
from typing import Any, Literal

from pidgan.errors import PidganError
from pidgan.training.backend import tf
from pidgan.training.families.settings import OneNetwork, Span
from pidgan.training.networks.perceptrons import Shape, one_network
from pidgan.training.networks.updates import Kernel, draw, kernel_score, minus_distance
from pidgan.training.phases import Batch, Descent, Family, Optimizer, Phase, Update

# Each scale is twice the one before it.
SCALE_STEP = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Energy(OneNetwork):
    """A generator that minimises the energy score; there is no critic.

    Attributes:
        samples: Number of generated samples for each real row.
    """

    samples: int = 4

    spans = {**OneNetwork.spans, "samples": Span(2, 8)}  # noqa: RUF012


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mmd(Energy):
    """A generator that minimises the maximum mean discrepancy; there is no critic.

    Attributes:
        kernel: Kernel, "gaussian", "breit_wigner" or "both".
        smallest_scale: Smallest scale of the kernel, in coordinates of unit variance.
        scales: Number of scales of the kernel, each twice the one before it.
    """

    kernel: Literal["gaussian", "breit_wigner", "both"] = "both"
    smallest_scale: float = 0.25
    scales: int = 5

    spans = {**Energy.spans, "smallest_scale": Span(0.1, 1, log=True)}  # noqa: RUF012


def build(settings: Energy, *, shape: Shape, seed: int) -> Family:
    """Return a generator and the one phase in which it minimises a kernel score."""
    s = settings
    if s.samples < 2:
        raise PidganError(f"samples is {s.samples}, expected at least 2")
    kernel = _kernel(s) if isinstance(s, Mmd) else minus_distance
    w = "positive_w" if kernel is minus_distance else "w"
    generator = one_network(s, shape=shape, seed=seed)

    def losses(batch: Batch, seed: Any) -> dict[str, Any]:
        y_g = draw(generator, batch, n_noise=s.n_noise, copies=s.samples, seed=seed)
        return {"score": kernel_score(kernel, batch["y"], y_g, batch[w])}

    optimizer = Optimizer(s.learning_rate, average=s.average)
    descent = Descent(generator.trainable_variables, optimizer, held_out=losses)
    update = Update(losses, descent)
    return Family(
        generator=generator,
        n_noise=s.n_noise,
        phases=[Phase("fit", 1.0, s.batch_size, updates=[update])],
        needs_positive_weights=w == "positive_w",
    )


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


def _kernel(settings: Mmd) -> Kernel:
    if settings.scales < 1 or not settings.smallest_scale > 0:
        raise PidganError(
            f"scales is {settings.scales} and smallest_scale "
            f"{settings.smallest_scale:g}, expected at least 1, and above 0"
        )
    powers = range(settings.scales)
    return mixture_kernel(
        settings.kernel, [settings.smallest_scale * SCALE_STEP**i for i in powers]
    )
