"""An ONNX graph under construction, which formulas and keras networks append to.

Keras' own exporter needs a converter that does not follow current releases; the few
layers that the networks are made of are written here. Everything else is a formula in
the language of `pidgan.bundle.formulas`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pidgan.bundle import formulas as f
from pidgan.bundle.graph_values import Recorder, Traced
from pidgan.errors import BundleError

OPSET = 17
IR_VERSION = 8


class OnnxGraph:
    """Nodes and constants; with `double`, `precise` values are in double precision."""

    def __init__(self, *, double: bool = False) -> None:
        self.double = double
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def value(self, name: str, width: int) -> Traced:
        """Return an input (n, width) of the graph."""
        return Traced(self, name, (width,))

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output and return the output's name."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, value: Any, dtype: type = np.float32) -> str:
        """Append a constant, unless it is there already, and return its name."""
        array: Any = np.asarray(value, dtype=dtype, order="C")
        content = (str(array.dtype), np.shape(value), array.tobytes())
        if content in self._known:
            return self._known[content]
        name = self._known[content] = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def network(self, network: Any, inputs: dict[str, Traced]) -> Traced:
        """Append the layers of a keras model, each used once, and return the output.

        The inputs, by name, are in single precision. A layer that has no translation is
        a BundleError.
        """
        names: dict[int, str] = {}
        for layer in network.layers:
            kind = type(layer).__name__
            if kind == "InputLayer":
                names[id(layer.output)] = inputs[layer.name].name
                continue
            entries = layer.input if isinstance(layer.input, list) else [layer.input]
            sources = [names[id(entry)] for entry in entries]
            names[id(layer.output)] = _add_layer(self, kind, layer, sources)
        (output,) = network.outputs
        first = next(iter(inputs.values()))
        return first.like(names[id(output)], tuple(output.shape[1:]))

    def finish(
        self, inputs: Sequence[Traced], outputs: Mapping[str, Traced], *, version: str
    ) -> onnx.ModelProto:
        """Return the graph with inputs and outputs (n, width) by name, all float32.

        What no output depends on is left out.
        """
        needed = {value.name for value in outputs.values()}
        nodes: list[onnx.NodeProto] = []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                nodes.append(node)
        nodes.reverse()
        for name, value in outputs.items():
            nodes.append(helper.make_node("Identity", [value.name], [name]))

        def port(name: str, value: Traced) -> onnx.ValueInfoProto:
            shape = ["n", *value.shape]
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

        inner = [port(value.name, value) for value in inputs]
        outer = [port(name, value) for name, value in outputs.items()]
        constants = [tensor for tensor in self.constants if tensor.name in needed]
        return helper.make_model(
            helper.make_graph(nodes, "generator", inner, outer, constants),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="pidgan",
            producer_version=version,
        )


def _add_layer(graph: Recorder, kind: str, layer: Any, sources: list[str]) -> str:
    if kind == "Dense":
        kernel = graph.constant(layer.kernel.numpy())
        if not layer.use_bias:
            return graph.add("MatMul", sources[0], kernel)
        return graph.add("Gemm", sources[0], kernel, graph.constant(layer.bias.numpy()))
    if kind == "Concatenate":
        return graph.add("Concat", *sources, axis=1)
    if kind in ("Add", "Multiply"):
        return graph.add({"Multiply": "Mul"}.get(kind, kind), *sources)
    if kind in ("Conv1D", "Conv2D", "Conv3D", "UpSampling2D", "UpSampling3D"):
        return _add_to_grid(graph, kind, layer, sources[0])
    if kind == "Reshape":  # to a grid: keras has the channels last, ONNX first
        shape = layer.target_shape
        grid = graph.add("Reshape", sources[0], _ints(graph, [0, *shape]))
        n = len(shape)
        return graph.add("Transpose", grid, perm=[0, n, *range(1, n)])
    if kind == "Flatten":
        n = len(layer.input.shape) - 1
        last = graph.add("Transpose", sources[0], perm=[0, *range(2, n + 1), 1])
        return graph.add("Reshape", last, _ints(graph, [0, -1]))
    if kind in ("FromPlanes", "ToPlanes"):  # planes have the channels first, as ONNX
        return graph.add("Reshape", sources[0], _ints(graph, [0, *layer.planes]))
    if kind == "GRU":
        return _add_recurrent(graph, layer, sources[0])
    if kind == "Take":
        bounds = (_ints(graph, [n]) for n in (layer.start, layer.stop, 1))
        return graph.add("Slice", sources[0], *bounds)
    function = layer.activation.__name__ if kind == "Activation" else kind
    if function == "silu":
        return graph.add("Mul", sources[0], graph.add("Sigmoid", sources[0]))
    operators = {"relu": "Relu", "exponential": "Exp", "tanh": "Tanh"}
    if function in operators:
        return graph.add(operators[function], sources[0])
    raise BundleError(f"layer {layer.name!r} ({function}) has no ONNX translation")


def _add_to_grid(graph: Recorder, kind: str, layer: Any, source: str) -> str:
    """Append a layer that works on (n, channels, ...)."""
    if kind.startswith("UpSampling"):
        grid = source
        for axis, factor in enumerate(layer.size):
            if factor > 1:
                index = np.repeat(np.arange(layer.input.shape[1 + axis]), factor)
                grid = graph.add("Gather", grid, _ints(graph, index), axis=2 + axis)
        return grid
    kernel = np.moveaxis(layer.kernel.numpy(), (-1, -2), (0, 1))
    sizes = kernel.shape[2:]
    if layer.padding != "same" or any(size % 2 == 0 for size in sizes):
        raise BundleError(f"layer {layer.name!r} has no ONNX translation")
    return graph.add(
        "Conv",
        source,
        graph.constant(kernel),
        graph.constant(layer.bias.numpy()),
        kernel_shape=list(sizes),
        pads=[size // 2 for size in sizes] * 2,
    )


def _add_recurrent(graph: Recorder, layer: Any, source: str) -> str:
    """Append a gated recurrent unit, place after place; ONNX has rows second."""
    kernel, recurrent, bias = (v.numpy() for v in layer.cell.weights)
    width, places = layer.units, layer.input.shape[1]
    grid = Traced(graph, source, (layer.input.shape[2], places))
    # What goes in does not depend on the state: all places at once.
    last = grid.then("Transpose", grid.shape[::-1], perm=[0, 2, 1])
    entry = f.reshape(f.matmul(last, kernel), (3 * places * width,))
    gate_bias = bias[1] + np.where(np.arange(3 * width) < 2 * width, bias[0], 0)
    state = f.columns(entry, 0, width) * 0.0
    states = []
    for place in range(places):
        start = 3 * width * place
        known = f.affine(state, recurrent, gate_bias)
        both = f.columns(entry, start, start + 2 * width)
        gates = f.sigmoid(both + f.columns(known, 0, 2 * width))
        kept = f.columns(gates, width, 2 * width)
        kept = kept * f.columns(known, 2 * width, 3 * width)
        fresh = f.columns(entry, start + 2 * width, start + 3 * width)
        new = f.tanh(fresh + kept + bias[0, 2 * width :])
        state = new + f.columns(gates, 0, width) * (state - new)
        states.append(state)
    rows = f.reshape(f.concatenate(states), (places, width))
    turned: Traced = rows.then("Transpose", (width, places), perm=[0, 2, 1])
    return turned.name


def _ints(graph: Recorder, value: Any) -> str:
    return graph.constant(value, np.int64)
