"""What a generator that is no keras network needs to write itself as ONNX operators."""

from typing import Any, Protocol

import numpy as np


class Graph(Protocol):
    """An ONNX graph under construction; `onnx_export` has it.

    Attributes:
        double: whether a generator that can computes in double precision.
    """

    double: bool

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append an operator with one output and return the output's name."""

    def constant(self, value: Any, dtype: type = ...) -> str:
        """Append a constant, float32 unless said otherwise, and return its name."""

    def ints(self, value: Any) -> str:
        """Append a constant of int64 and return its name."""

    def columns(self, value: str, start: int, stop: int) -> str:
        """Append the columns from start to stop of a matrix and return their name."""

    def network(self, network: Any, inputs: dict[str, str]) -> str:
        """Append a keras network and return its output's name."""


def uniform(graph: Any, z: Any) -> Any:
    """Append Phi(z), which is uniform where z is normal, and return its name.

    Args:
        graph: a `Graph`, or what computes the same operators at once.
        z: name, or values.
    """
    erf = graph.add("Erf", graph.add("Mul", z, graph.constant(np.sqrt(0.5))))
    half = graph.constant(0.5)
    return graph.add("Add", graph.add("Mul", erf, half), half)


class Writable(Protocol):
    """A generator that writes its own operators.

    Attributes:
        variables: its weights, in a fixed order.
    """

    variables: list[Any]

    def __call__(self, inputs: dict[str, Any]) -> Any:
        """Return coordinates, from "conditions", "noise" and perhaps "pattern"."""

    def write_onnx(self, graph: Graph, inputs: dict[str, str]) -> str:
        """Append the same operators to a graph and return the coordinates' name."""
