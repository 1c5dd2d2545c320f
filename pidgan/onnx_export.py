"""Write a trained model as one ONNX file in physical units.

The graph is built from standard operators: the keras layers of `models.networks`, and
the transforms of `preprocessing` around them. Keras' own exporter knows only the
networks and needs a converter that does not follow current releases, so the few layers
are written here. Before the file gets its name, its output is compared with the keras
model's; the card goes into the file's metadata.
"""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, helper, numpy_helper

from pidgan.bundle import CARD_KEY, Bundle, open_bundle, seal
from pidgan.card import SCHEMA_VERSION
from pidgan.errors import BundleError
from pidgan.models.model import Model
from pidgan.noise import entry_keys, keyed_normal
from pidgan.ntuple import write_table
from pidgan.preprocessing import N_KNOTS, TargetTransform
from pidgan.refinement import RefinedModel
from pidgan.typing import FloatArray

OPSET = 17
IR_VERSION = 8
PARITY_ROWS = 10_000
SELF_TEST_ROWS = 64
# Agreement of keras and ONNX: |difference| <= this times max(1, |y|), except in rows
# where rounding carries a discrete choice across an edge, fewer than one in 10^4.
PARITY_TOLERANCE = 1e-4
PARITY_EXCUSED = 1e-4
PARITY_SEED = 20_240_501


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parity:
    """Comparison of two evaluations of the same rows.

    Attributes:
        rows: compared.
        differing: rows beyond the tolerance.
        largest: largest |difference| / max(1, |y|) among the other rows.
    """

    rows: int
    differing: int
    largest: float


def export_bundle(
    model: Model | RefinedModel,
    path: str | Path,
    *,
    report: Any = None,
    reference: pd.DataFrame | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a model as a bundle, with its reference file beside it.

    Args:
        model: from `train` or `refine`.
        path: of the bundle, ending in ".onnx"; the reference file is named
            "<stem>.reference.parquet".
        report: from `validate`; its headline figures go onto the card.
        reference: rows never trained on; those of the model by default.
        overwrite: whether existing files are replaced.

    Returns:
        The path of the bundle.

    Raises:
        BundleError: a file exists, or the ONNX graph does not agree with keras.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise BundleError(f"{path}: the name of a bundle ends in .onnx")
    reference_path = path.with_name(f"{path.stem}.reference.parquet")
    for existing in (path, reference_path):
        if existing.exists() and not overwrite:
            raise BundleError(f"{existing} exists already; use --overwrite")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.writing.onnx")
    temporary_reference = path.with_name(f".{path.stem}.writing.parquet")
    frame = model.reference() if reference is None else reference
    try:
        write_table(temporary_reference, frame, overwrite=True)
        conditions, noise = _test_rows(model, frame)
        targets = model.generate(conditions, noise)
        first = slice(0, SELF_TEST_ROWS)
        card = model.card.model_copy(
            update={
                "schema_version": SCHEMA_VERSION,
                "validation": {} if report is None else report.headline(),
                "reference": {
                    "file": reference_path.name,
                    "sha256": hashlib.sha256(
                        temporary_reference.read_bytes()
                    ).hexdigest(),
                    "rows": len(frame),
                },
                "self_test": {
                    "conditions": conditions[first].tolist(),
                    "noise": noise[first].tolist(),
                    "targets": targets[first].tolist(),
                },
            }
        )
        graph = build_graph(model)
        onnx.helper.set_model_props(graph, {CARD_KEY: card.to_json()})
        onnx.checker.check_model(graph, full_check=True)
        temporary.write_bytes(seal(graph.SerializeToString()))
        bundle = open_bundle(temporary)
        found = compare(targets, bundle.generate(conditions, noise))
        if found.differing > PARITY_EXCUSED * found.rows:
            raise BundleError(
                f"{path}: ONNX and keras differ in {found.differing} of {found.rows} "
                f"rows, expected at most {PARITY_EXCUSED * found.rows:.0f}"
            )
        os.replace(temporary_reference, reference_path)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        temporary_reference.unlink(missing_ok=True)
    return path


def check_parity(
    model: Model | RefinedModel, bundle: Bundle, *, rows: int = PARITY_ROWS
) -> Parity:
    """Compare a bundle with the keras model that it came from, on reference rows."""
    conditions, noise = _test_rows(model, model.reference(), rows=rows)
    return compare(
        model.generate(conditions, noise), bundle.generate(conditions, noise)
    )


def compare(expected: FloatArray, got: FloatArray) -> Parity:
    """Compare two evaluations, (n, n_targets) each, row by row."""
    distance = np.abs(got - expected) / np.maximum(1, np.abs(expected))
    worst = distance.max(axis=1)
    agree = worst <= PARITY_TOLERANCE
    largest = float(worst[agree].max()) if agree.any() else 0.0
    return Parity(rows=len(worst), differing=int((~agree).sum()), largest=largest)


def build_graph(model: Model | RefinedModel) -> onnx.ModelProto:
    """Return the ONNX graph (conditions, noise) -> targets of a model."""
    graph = _Graph()
    base = model.base if isinstance(model, RefinedModel) else model
    x = _scale_conditions(graph, base)
    if isinstance(model, RefinedModel):
        one_hot, z = _add_refined(graph, model, x)
    else:
        one_hot, z = _add_generator(graph, model, x, "noise")
    y = _invert_targets(graph, z, one_hot, base.targets)
    graph.nodes.append(helper.make_node("Identity", [y], ["targets"]))
    card = model.card
    ports = {
        "conditions": len(card.conditions),
        "noise": card.n_noise,
        "targets": len(card.targets),
    }
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])
        for name, width in ports.items()
    }
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "generator",
            [values["conditions"], values["noise"]],
            [values["targets"]],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="pidgan",
        producer_version=card.versions.get("pidgan", ""),
    )


def _add_generator(
    graph: "_Graph", model: Model, x: str, noise: str
) -> tuple[str | None, str]:
    """Append pattern and coordinates of a model: their names."""
    inputs = {"conditions": x, "noise": noise}
    one_hot = None
    if model.patterns is not None:
        logits = _add_network(graph, model.patterns, {"conditions": x})
        n_noise = model.card.n_noise
        first = graph.columns(noise, 0, 1)
        one_hot = _pick(graph, logits, first, model.targets.n_patterns)
        inputs["pattern"] = one_hot
        inputs["noise"] = graph.columns(noise, 1, n_noise)
    return one_hot, _add_network(graph, model.generator, inputs)


def _add_refined(
    graph: "_Graph", model: RefinedModel, x: str
) -> tuple[str | None, str]:
    """Append candidates and the choice among them: names as of `_add_generator`."""
    n, count = model.base.card.n_noise, model.candidates
    transform = model.base.targets
    patterns: list[str] = []
    coordinates, ratios = [], []
    for k in range(count):
        noise = graph.columns("noise", k * n, (k + 1) * n)
        one_hot, z = _add_generator(graph, model.base, x, noise)
        inputs = {"conditions": x, "targets": z}
        if one_hot is not None:
            free = graph.constant(transform.patterns.astype(np.float32))
            inputs["targets"] = graph.add("Mul", z, graph.add("MatMul", one_hot, free))
            inputs["pattern"] = one_hot
            patterns.append(one_hot)
        coordinates.append(z)
        ratios.append(_add_network(graph, model.ratio, inputs))
    logits = graph.add("Concat", *ratios, axis=1)
    chosen = _pick(
        graph, logits, graph.columns("noise", count * n, count * n + 1), count
    )
    half = graph.constant(0.5)

    def choose(values: list[str]) -> str:
        found = values[0]
        for k in range(1, count):
            take = graph.add("Greater", graph.columns(chosen, k, k + 1), half)
            found = graph.add("Where", take, values[k], found)
        return found

    return (choose(patterns) if patterns else None), choose(coordinates)


class _Graph:
    """Nodes and constants of a graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output and return the output's name."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, value: Any, dtype: type = np.float32) -> str:
        """Append a constant, unless it is there already, and return its name."""
        array: Any = np.ascontiguousarray(np.asarray(value, dtype=dtype))
        content = (str(array.dtype), np.shape(value), array.tobytes())
        if content in self._known:
            return self._known[content]
        name = self._known[content] = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def ints(self, value: Any) -> str:
        """Append a constant of int64 and return its name."""
        return self.constant(value, np.int64)

    def columns(self, value: str, start: int, stop: int) -> str:
        """Append the columns from start to stop of a matrix and return their name."""
        return self.add("Slice", value, *(self.ints([i]) for i in (start, stop, 1)))

    def network(self, network: Any, inputs: dict[str, str]) -> str:
        """Append a keras network, or what writes itself, and return its output."""
        return _add_network(self, network, inputs)


def _scale_conditions(graph: _Graph, model: Model) -> str:
    """log(x / centre) / scale in some columns, (x - centre) / scale in the others."""
    transform, x = model.conditions, "conditions"
    centre = graph.constant(transform.centre)
    centred = graph.add("Sub", x, centre)
    if transform.log.any():
        is_log = graph.constant(transform.log.astype(bool), np.bool_)
        # Columns without logarithm may be <= 0: they pass through it as 1.
        ratio = graph.add("Div", x, centre)
        safe = graph.add("Where", is_log, ratio, graph.constant(1.0))
        centred = graph.add("Where", is_log, graph.add("Log", safe), centred)
    return graph.add("Div", centred, graph.constant(transform.scale))


def _add_network(graph: _Graph, network: Any, inputs: dict[str, str]) -> str:
    """Append what writes itself, or the layers of a keras model, each used once."""
    if hasattr(network, "write_onnx"):
        return str(network.write_onnx(graph, inputs))
    names: dict[int, str] = {}
    for layer in network.layers:
        kind = type(layer).__name__
        if kind == "InputLayer":
            names[id(layer.output)] = inputs[layer.name]
            continue
        entries = layer.input if isinstance(layer.input, list) else [layer.input]
        sources = [names[id(entry)] for entry in entries]
        names[id(layer.output)] = _add_layer(graph, kind, layer, sources)
    return names[id(network.outputs[0])]


def _add_layer(graph: _Graph, kind: str, layer: Any, sources: list[str]) -> str:
    if kind == "Dense":
        kernel, bias = (graph.constant(v.numpy()) for v in (layer.kernel, layer.bias))
        return graph.add("Gemm", sources[0], kernel, bias)
    if kind == "Concatenate":
        return graph.add("Concat", *sources, axis=1)
    if kind == "Add":
        return graph.add("Add", *sources)
    function = layer.activation.__name__ if kind == "Activation" else kind
    if function == "silu":
        return graph.add("Mul", sources[0], graph.add("Sigmoid", sources[0]))
    if function == "relu":
        return graph.add("Relu", sources[0])
    raise BundleError(f"layer {layer.name!r} ({function}) has no ONNX translation")


def _pick(graph: _Graph, logits: str, z: str, n_patterns: int) -> str:
    """One-hot code of the class that Phi(z) picks from softmax(logits)."""
    erf = graph.add("Erf", graph.add("Mul", z, graph.constant(np.sqrt(0.5))))
    half = graph.constant(0.5)
    uniform = graph.add("Add", graph.add("Mul", erf, half), half)
    probabilities = graph.add("Softmax", logits, axis=1)
    cumulated = graph.add("CumSum", probabilities, graph.ints(1))
    edges = graph.add("Slice", cumulated, *(graph.ints([i]) for i in (0, -1, 1)))
    above = graph.add(
        "Cast", graph.add("Greater", uniform, edges), to=TensorProto.FLOAT
    )
    # above is 1...1 0...0; pattern k has k ones: column k is above[k-1] - above[k].
    difference = np.zeros((n_patterns - 1, n_patterns))
    for k in range(n_patterns - 1):
        difference[k, k], difference[k, k + 1] = -1, 1
    first = np.eye(n_patterns)[0]
    return graph.add("Gemm", above, graph.constant(difference), graph.constant(first))


def _invert_targets(
    graph: _Graph, y: str, one_hot: str | None, transform: TargetTransform
) -> str:
    """Mixing, quantile transforms, atoms and sums of `TargetTransform.inverse`."""
    d = transform.n_targets
    if one_hot is None:
        z = graph.add("MatMul", y, graph.constant(transform.mixing[0]))
    else:
        # Every product y_i mixing_ij in a column of its own, then the sums over i.
        flat = graph.constant(transform.mixing.reshape(-1, d * d))
        repeated = graph.add("Gather", y, graph.ints(np.repeat(range(d), d)), axis=1)
        products = graph.add("Mul", repeated, graph.add("MatMul", one_hot, flat))
        z = graph.add("MatMul", products, graph.constant(np.tile(np.eye(d), (d, 1))))
    z_max = transform.z_max.astype(np.float32)
    shifted = graph.add("Add", z, graph.constant(z_max))
    position = graph.add("Mul", shifted, graph.constant((N_KNOTS - 1) / (2 * z_max)))
    last = graph.constant(N_KNOTS - 1)
    position = graph.add("Clip", position, graph.constant(0.0), last)
    left = graph.add("Floor", position)
    left = graph.add("Min", left, graph.constant(N_KNOTS - 2))
    fraction = graph.add("Sub", position, left)
    column = graph.ints(np.arange(transform.n_targets) * N_KNOTS)
    # NaN, of the logarithm of a negative condition say, is no place in the table. It
    # looks up the first knot, and its fraction stays NaN.
    zero = graph.constant(0.0)
    knot = graph.add("Where", graph.add("Greater", left, zero), left, zero)
    index = graph.add("Add", graph.add("Cast", knot, to=TensorProto.INT64), column)
    low = graph.add("Gather", graph.constant(transform.knots.ravel()), index)
    # The same table, one knot further: saves an addition on the index.
    ahead = np.append(transform.knots.ravel()[1:], transform.knots[-1, -1])
    high = graph.add("Gather", graph.constant(ahead), index)
    step = graph.add("Mul", fraction, graph.add("Sub", high, low))
    value = graph.add("Add", low, step)
    if one_hot is not None:
        mask = graph.add(
            "MatMul", one_hot, graph.constant(transform.patterns.astype(np.float32))
        )
        atoms = graph.add("MatMul", one_hot, graph.constant(transform.atoms))
        is_continuous = graph.add("Greater", mask, graph.constant(0.5))
        value = graph.add("Where", is_continuous, value, atoms)
    has_base = graph.constant((transform.base >= 0).astype(np.float32))
    base = graph.ints(np.maximum(transform.base, 0))
    y = value
    for _ in range(transform.depth):
        added = graph.add("Mul", graph.add("Gather", y, base, axis=1), has_base)
        y = graph.add("Add", value, added)
    return y


def _test_rows(
    model: Model | RefinedModel, frame: pd.DataFrame, *, rows: int = PARITY_ROWS
) -> tuple[FloatArray, FloatArray]:
    """Return conditions spread over the reference rows, and noise."""
    names = list(model.card.condition_names)
    index = np.linspace(0, len(frame) - 1, rows).astype(np.int64)
    conditions = frame[names].to_numpy(dtype=np.float32)[index]
    keys = entry_keys(seed=PARITY_SEED, track="", start=0, stop=rows)
    return conditions, keyed_normal(keys, n_noise=model.card.n_noise)
