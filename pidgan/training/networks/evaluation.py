"""Evaluates networks on arrays, tensors and values of a graph."""

from typing import Any, Protocol

import numpy as np

from pidgan.bundle.formulas import Array
from pidgan.bundle.graph_values import Traced
from pidgan.training.backend import keras, tf


class Generator(Protocol):
    """A generator that is a formula, in place of a keras network."""

    variables: list[Any]

    def __call__(self, inputs: dict[str, Array]) -> Array:
        """Return coordinates, from "conditions", "noise" and perhaps "pattern"."""


def evaluate(network: Any, inputs: dict[str, Array]) -> Array:
    """Return what a network, or a `Generator`, makes of its inputs by name.

    These are arrays, of which tensorflow makes arrays; tensors; or values of a graph,
    for layers that `pidgan.training.export_graph` knows.
    """
    first = next(iter(inputs.values()))
    if isinstance(first, np.ndarray):
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        return np.asarray(network(tensors))
    if isinstance(first, Traced) and isinstance(network, keras.Model):
        return first.graph.network(network, inputs)
    return network(inputs)
