"""Family `flow`: the autoregressive spline flow itself is the generator.

`pidgan.training.networks.autoregressive` is the density; it is fitted by maximum
likelihood. Generating goes through it backwards, one coordinate after the other, each
with its own small network: several times slower than a one-pass generator, and as close
to the data as its likelihood. As a likelihood has no bound where weights are negative,
the weights are E[w | x, y] (arXiv:1905.11719).
"""

import copy
import dataclasses
from typing import Any

import numpy as np

from pidgan.training.backend import tf
from pidgan.training.families.phases import (
    Batch,
    Descent,
    Family,
    Optimizer,
    Phase,
    Update,
)
from pidgan.training.networks.autoregressive import SplineFlow, decay_of_few
from pidgan.training.networks.nodes import Graph
from pidgan.training.networks.per_coordinate import (
    known_rows,
    write_free,
    write_in_turn,
)
from pidgan.training.networks.perceptrons import Shape
from pidgan.training.networks.splines import (
    BOUND,
    MIN_BIN,
    MIN_DERIVATIVE,
    UNIT_DERIVATIVE,
    equal_edges,
)

# Types of `Cast` in ONNX (onnx.TensorProto.DataType).
FLOAT, INT64 = 1, 7


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


class FlowGenerator:
    """A spline flow as a function of conditions, pattern and noise."""

    def __init__(self, flow: SplineFlow, shape: Shape) -> None:
        """Wrap a flow."""
        self.flow, self.shape = flow, shape
        self.n_bins = (flow.networks.kernels[-1].shape[-1] - 1) // 3
        self.variables: list[Any] = list(flow.variables)

    def __call__(self, inputs: dict[str, Any]) -> tf.Tensor:
        """Return the coordinates that the noise is the image of.

        In double precision: through several networks and splines, rounding grows to
        what an exported graph is allowed to differ by, and this is its reference.
        """
        batch = known_rows(self.shape, inputs, dtype=tf.float64)
        flow = copy.copy(self.flow)
        flow.networks = self.flow.networks.in_double()
        y = flow.generate(batch, tf.cast(inputs["noise"], tf.float64))
        return tf.cast(y, tf.float32)

    def write_onnx(self, graph: Graph, inputs: dict[str, str]) -> str:
        """Append the networks and inverse splines to a graph."""

        def write(j: int, known: list[str]) -> str:
            v = self.flow.networks.write_hidden(graph, j, known)
            u = graph.columns(inputs["noise"], j, j + 1)
            outputs = self._write_outputs(graph, v, j)
            return _write_coordinate(graph, outputs, u, self.n_bins)

        free = write_free(graph, self.shape, inputs)
        return write_in_turn(graph, self.shape, inputs, free, write)

    def _write_outputs(self, graph: Graph, v: str, j: int) -> dict[str, str]:
        """Append the last layer of the network of a coordinate.

        Returns:
            Names of shift, logarithm of the scale and the three parts of the spline's
            parameters: bins in u, bins in y, and slopes at all edges.
        """
        kernels, biases = self.flow.networks.weights(-1, j)
        n = self.n_bins
        parts = {"shift": 1, "log_scale": 1, "widths": n, "heights": n, "slopes": n - 1}
        found, start = {}, 0
        for name, size in parts.items():
            columns = slice(start, start + size)
            kernel, bias = kernels[:, columns], biases[columns]
            if name == "slopes":
                # Columns of zero: the slope is one at both ends.
                kernel, bias = np.pad(kernel, ((0, 0), (1, 1))), np.pad(bias, 1)
                bias = bias + UNIT_DERIVATIVE
            found[name] = graph.add(
                "Gemm", v, graph.constant(kernel), graph.constant(bias)
            )
            start += size
        return found


def build(settings: Flow, *, shape: Shape, seed: int) -> Family:
    """Return the flow and the one phase in which it maximises the likelihood."""
    s = settings
    flow = SplineFlow(
        shape=shape, width=s.width, blocks=s.blocks, bins=s.bins, seed=seed
    )

    def losses(batch: Batch, seed: Any) -> dict[str, Any]:
        return {"likelihood": flow.loss(batch)}

    descent = Descent(
        variables=flow.variables,
        optimizer=Optimizer(
            learning_rate=s.learning_rate,
            weight_decay=s.weight_decay * decay_of_few(shape.n_rows),
        ),
    )
    fit = Phase(
        "fit",
        batch_size=s.batch_size,
        updates=(Update(losses=losses, descents=(descent,)),),
    )
    return Family(
        generator=FlowGenerator(flow, shape),
        n_noise=shape.n_targets,
        phases=(fit,),
        needs_positive_weights=True,
    )


def _write_bins(graph: Graph, parameters: str, n_bins: int) -> tuple[str, str]:
    """Append sizes and left edges of the bins, as `splines._bins`."""
    share = graph.add("Softmax", parameters, axis=1)
    share = graph.add("Mul", share, graph.constant(1 - MIN_BIN * n_bins))
    share = graph.add("Add", share, graph.constant(MIN_BIN))
    size = graph.add("Mul", share, graph.constant(2 * BOUND))
    excess = graph.add("Sub", size, graph.constant(2 * BOUND / n_bins))
    excess = graph.add("CumSum", excess, graph.ints(1), exclusive=1)
    return size, graph.add("Add", excess, graph.constant(equal_edges(n_bins)))


def _write_coordinate(
    graph: Graph, outputs: dict[str, str], u: str, n_bins: int
) -> str:
    """Append shift + scale S^-1(u), S^-1 as `splines.spline` (Eq. 6-8)."""
    add, number = graph.add, graph.constant
    widths, x_edges = _write_bins(graph, outputs["widths"], n_bins)
    heights, y_edges = _write_bins(graph, outputs["heights"], n_bins)
    slopes = add("Add", add("Softplus", outputs["slopes"]), number(MIN_DERIVATIVE))
    inside = add("Less", add("Abs", u), number(BOUND))
    v = add("Clip", u, number(-BOUND), number(BOUND))
    inner = graph.columns(y_edges, 1, n_bins)
    above = add("Cast", add("GreaterOrEqual", v, inner), to=FLOAT)
    count = add("ReduceSum", above, graph.ints([1]), keepdims=1)
    index = add("Cast", count, to=INT64)
    following = add("Add", index, graph.ints(1))

    def pick(values: str, where: str = index) -> str:
        return add("GatherElements", values, where, axis=1)

    w, h, x, y = (pick(values) for values in (widths, heights, x_edges, y_edges))
    d_0, d_1 = pick(slopes), pick(slopes, following)
    s = add("Div", h, w)
    curve = add("Sub", add("Add", d_0, d_1), add("Mul", number(2.0), s))
    above_y = add("Sub", v, y)
    bend = add("Mul", above_y, curve)
    a = add("Add", add("Mul", h, add("Sub", s, d_0)), bend)
    b = add("Sub", add("Mul", h, d_0), bend)
    c = add("Neg", add("Mul", s, above_y))
    ac4 = add("Mul", number(4.0), add("Mul", a, c))
    square = add("Sub", add("Mul", b, b), ac4)
    root = add("Sqrt", add("Max", square, number(0.0)))
    xi = add("Div", add("Mul", number(2.0), c), add("Neg", add("Add", b, root)))
    xi = add("Clip", xi, number(0.0), number(1.0))
    image = add("Where", inside, add("Add", x, add("Mul", w, xi)), u)
    four = number(4.0)
    bounded = add("Tanh", add("Div", outputs["log_scale"], four))
    scale = add("Exp", add("Mul", bounded, four))
    return add("Add", outputs["shift"], add("Mul", scale, image))
