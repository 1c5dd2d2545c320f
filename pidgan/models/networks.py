"""Networks: residual multilayer perceptrons of plain keras layers.

Only `Dense`, `Activation`, `Add` and `Concatenate` are used, so that the ONNX and C
exporters need to know no more.
"""

import dataclasses

from pidgan.models.backend import keras


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of the arrays that the networks of one model exchange.

    Attributes:
        n_conditions: scaled conditions.
        n_patterns: classes of discrete structure, one-hot coded.
        n_targets: coordinates of the targets.
        free: for each pattern, 1 for each coordinate that is continuous in it; without
            it all are, in the only pattern.
    """

    n_conditions: int
    n_patterns: int
    n_targets: int
    free: tuple[tuple[int, ...], ...] = ()


def residual_network(
    inputs: dict[str, int],
    *,
    n_outputs: int,
    width: int,
    blocks: int,
    seed: int,
    name: str,
    activation: str = "relu",
    output_scale: float = 1.0,
) -> keras.Model:
    """Build a network of residual blocks, v + W2 a(W1 v), after a linear embedding.

    He et al., arXiv:1603.05027 (pre-activation blocks).

    Args:
        inputs: size of each named input; they are concatenated in this order.
        n_outputs: size of the output.
        width: of every hidden layer.
        blocks: number of residual blocks.
        seed: of the initial weights.
        name: of the model.
        activation: between the layers.
        output_scale: of the variance of the initial output.
    """
    seeds = keras.random.SeedGenerator(seed)

    def dense(units: int, scale: float = 1.0) -> keras.layers.Dense:
        initializer = keras.initializers.VarianceScaling(
            scale=scale, mode="fan_in", distribution="truncated_normal", seed=seeds
        )
        return keras.layers.Dense(units, kernel_initializer=initializer)

    entries = [keras.Input((size,), name=key) for key, size in inputs.items() if size]
    joined = keras.layers.Concatenate()(entries) if len(entries) > 1 else entries[0]
    v = dense(width)(joined)
    for _ in range(blocks):
        hidden = keras.layers.Activation(activation)(v)
        hidden = dense(width, scale=2.0)(hidden)
        hidden = keras.layers.Activation(activation)(hidden)
        v = keras.layers.Add()([v, dense(width, scale=0.5)(hidden)])
    v = keras.layers.Activation(activation)(v)
    output = dense(n_outputs, scale=output_scale)(v)
    return keras.Model(entries, output, name=name)


def plain_network(
    inputs: dict[str, int],
    *,
    n_outputs: int,
    width: int,
    layers: int,
    seed: int,
    name: str,
) -> keras.Model:
    """Build a multilayer perceptron: ReLU layers of one width, then a linear one.

    Args:
        inputs: size of each named input; they are concatenated in this order.
        n_outputs: size of the output.
        width: of every hidden layer.
        layers: number of hidden layers.
        seed: of the initial weights.
        name: of the model.
    """
    seeds = keras.random.SeedGenerator(seed)

    def dense(units: int) -> keras.layers.Dense:
        initializer = keras.initializers.GlorotUniform(seed=seeds)
        return keras.layers.Dense(units, kernel_initializer=initializer)

    entries = [keras.Input((size,), name=key) for key, size in inputs.items() if size]
    v = keras.layers.Concatenate()(entries) if len(entries) > 1 else entries[0]
    for _ in range(layers):
        v = keras.layers.Activation("relu")(dense(width)(v))
    return keras.Model(entries, dense(n_outputs)(v), name=name)
