"""An ONNX graph under construction, which formulas append to."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pidgan.bundle.graph_values import Traced
from pidgan.training.export_layers import add_network

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
        """Append a keras network and return its output."""
        return add_network(network, inputs)

    def finish(
        self, inputs: Sequence[Traced], outputs: Mapping[str, Traced], *, version: str
    ) -> onnx.ModelProto:
        """Return the graph with inputs and outputs (n, width) by name, all float32."""
        renamed = [
            helper.make_node("Identity", [value.name], [name])
            for name, value in outputs.items()
        ]
        ports = [(value.name, value) for value in inputs]
        inner, outer = (
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *v.shape])
                for name, v in pairs
            ]
            for pairs in (ports, outputs.items())
        )
        return helper.make_model(
            helper.make_graph(
                [*self.nodes, *renamed], "generator", inner, outer, self.constants
            ),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="pidgan",
            producer_version=version,
        )
