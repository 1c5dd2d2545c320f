"""Networks: residual multilayer perceptrons of plain keras layers.

Only `Dense`, `Activation`, `Add` and `Concatenate` are used, so that the ONNX and C
exporters need to know no more.
"""

import dataclasses
from typing import Any

from pidgan.training.backend import keras


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of the arrays that the networks of one model exchange."""

    n_conditions: int  # columns of the scaled conditions
    n_patterns: int  # classes of discrete structure; 0 without
    n_targets: int  # coordinates
    n_energies: int = 0  # leading coordinates of showers that are sums over cells
    image: tuple[int, ...] = ()  # layers, rows, columns of a grid of all other ones
    transform: Any = None  # `CellTransform` of showers
    geometry: Any = None  # `Geometry` of showers
    n_rows: int = 0  # effective, for training, without mirror images; 0 if unknown
    free: tuple[tuple[int, ...], ...] = ()  # 1 if continuous, in each pattern

    def inputs(self, **others: int) -> dict[str, int]:
        """Return the sizes of the inputs of a network, some of them its own."""
        known = {"conditions": self.n_conditions, "pattern": self.n_patterns}
        return {**known, **others}


def residual_network(
    inputs: dict[str, int],
    n_outputs: int,
    *,
    width: int,
    blocks: int,
    seed: int,
    output_scale: float = 1.0,
) -> keras.Model:
    """Build a network of residual blocks, v + W2 a(W1 v), after a linear embedding.

    He et al., arXiv:1603.05027 (pre-activation blocks). The named inputs are
    concatenated; `output_scale` is the variance of the initial output.
    """
    entries, v = _entries(inputs)
    body = Residual(width=width, blocks=blocks, seed=seed)
    output = _dense(n_outputs, output_scale, body.seeds)(body(v))
    return keras.Model(entries, output)


def one_network(s: Any, *, shape: Shape, seed: int) -> keras.Model:
    """Return the residual network of `families.settings.OneNetwork`."""
    size = {"width": s.width, "blocks": s.blocks}
    inputs = shape.inputs(noise=s.n_noise)
    return residual_network(inputs, shape.n_targets, **size, seed=seed)


class Residual:
    """Hidden layers of `residual_network`, to be called wherever they are needed."""

    def __init__(self, *, width: int, blocks: int, seed: int) -> None:
        self.seeds = keras.random.SeedGenerator(seed)
        self.first = _dense(width, 1.0, self.seeds)
        self.blocks = [
            (_dense(width, 2.0, self.seeds), _dense(width, 0.5, self.seeds))
            for _ in range(blocks)
        ]

    def __call__(self, v: Any) -> Any:
        """Return the last hidden values of tensors or of symbols of a keras model."""
        v = self.first(v)
        for inner, outer in self.blocks:
            hidden = inner(keras.layers.Activation("relu")(v))
            hidden = outer(keras.layers.Activation("relu")(hidden))
            v = keras.layers.Add()([v, hidden])
        return keras.layers.Activation("relu")(v)

    @property
    def trainable_variables(self) -> list[Any]:
        """Return the weights, in order."""
        return weights_of(
            self.first, *(layer for pair in self.blocks for layer in pair)
        )


def weights_of(*layers: Any) -> list[Any]:
    """Return the trained weights of layers, in order."""
    return [v for layer in layers for v in layer.trainable_variables]


class Take(keras.layers.Layer):  # type: ignore[misc]
    """Some neighbouring columns of a row."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop = start, stop

    def call(self, v: Any) -> Any:
        """Return (n, stop - start)."""
        return v[:, self.start : self.stop]


def plain_network(
    inputs: dict[str, int], n_outputs: int, *, width: int, layers: int, seed: int
) -> keras.Model:
    """Build a multilayer perceptron: ReLU layers of one width, then a linear one."""
    initializer = keras.initializers.GlorotUniform(keras.random.SeedGenerator(seed))
    entries, v = _entries(inputs)
    for _ in range(layers):
        v = keras.layers.Dense(width, kernel_initializer=initializer)(v)
        v = keras.layers.Activation("relu")(v)
    output = keras.layers.Dense(n_outputs, kernel_initializer=initializer)(v)
    return keras.Model(entries, output)


def _entries(inputs: dict[str, int]) -> tuple[list[Any], Any]:
    """Return the named inputs that are not empty, and all of them joined."""
    entries = [keras.Input((size,), name=key) for key, size in inputs.items() if size]
    joined = keras.layers.Concatenate()(entries) if len(entries) > 1 else entries[0]
    return entries, joined


def _dense(units: int, scale: float, seeds: Any) -> Any:
    initializer = keras.initializers.VarianceScaling(
        scale=scale, mode="fan_in", distribution="truncated_normal", seed=seeds
    )
    return keras.layers.Dense(units, kernel_initializer=initializer)
