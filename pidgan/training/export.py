"""Write a trained model as one ONNX file in physical units.

The graph is built from standard operators: the keras layers of `models.networks`, and
the transforms of `preprocessing` around them. Keras' own exporter knows only the
networks and needs a converter that does not follow current releases, so the few layers
are written here. Before the file gets its name, its output is compared with the keras
model's; the card goes into the file's metadata.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, helper, numpy_helper

from pidgan.arrays import FloatArray
from pidgan.bundle.bundle import CARD_KEY, Bundle, open_bundle, seal
from pidgan.bundle.card import SCHEMA_VERSION, Card
from pidgan.bundle.noise import entry_keys, keyed_normal
from pidgan.errors import BundleError, PidganWarning
from pidgan.files.tables import write_table
from pidgan.files.writing import writing_files
from pidgan.training.classical.fit import Parametrised
from pidgan.training.conditions import COS, EQUAL, FRACTION, LOG, SIN, WHOLE
from pidgan.training.model import Model
from pidgan.training.networks.nodes import uniform
from pidgan.training.refinement import RefinedModel
from pidgan.training.targets.cells import ALONE, CellTransform
from pidgan.training.targets.cells import N_KNOTS as CELL_KNOTS
from pidgan.training.targets.physical import PhysicalTransform
from pidgan.training.targets.tracks import N_KNOTS, TargetTransform

Exported = Model | RefinedModel | Parametrised
"""What can be written as a bundle."""

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
    model: Exported,
    path: str | Path,
    *,
    report: Any = None,
    reference: pd.DataFrame | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a model as a bundle, with its reference file beside it.

    Args:
        model: from `train`, `refine` or `fit_parametrisation`.
        path: of the bundle, ending in ".onnx"; the reference file is named
            "<stem>.reference.parquet".
        report: from `validate`; its headline figures go onto the card.
        reference: rows never trained on; those of the model by default.
        overwrite: whether existing files are replaced.

    Returns:
        The path of the bundle.

    Raises:
        BundleError: The ONNX graph does not agree with keras.
        NtupleError: A file exists, or it cannot be written.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise BundleError(f"{path}: the name of a bundle ends in .onnx")
    reference_path = path.with_name(f"{path.stem}.reference.parquet")
    frame = model.reference() if reference is None else reference
    paths = path, reference_path
    with writing_files(paths, overwrite=overwrite) as (temporary, temporary_reference):
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

        def write(*, double: bool) -> FloatArray:
            graph = build_graph(model, double=double)
            onnx.helper.set_model_props(graph, {CARD_KEY: card.to_json()})
            onnx.checker.check_model(graph, full_check=True)
            temporary.write_bytes(seal(graph.SerializeToString()))
            bundle = open_bundle(temporary, verify=False)
            return bundle.generate(conditions, noise)

        def agrees(got: FloatArray) -> bool:
            # Of the rows of the self-test, which every user repeats, none is excused.
            found, of_test = compare(targets, got), compare(targets[first], got[first])
            return found.differing <= most_differing and not of_test.differing

        most_differing = PARITY_EXCUSED * len(targets)
        got = write(double=False)
        if not agrees(got):
            # Rounding grows in steep networks: not in double precision.
            in_single = compare(targets, got).differing
            got = write(double=True)
            if not agrees(got):
                raise BundleError(
                    f"{path}: ONNX and keras differ in "
                    f"{compare(targets, got).differing} of {len(targets)} rows, "
                    f"expected at most {most_differing:.0f}"
                )
            warn(
                f"{path}: written in double precision, which is slower and has no C "
                f"file; in single precision {in_single} of {len(targets)} rows differ "
                "from keras",
                PidganWarning,
                stacklevel=2,
            )
    return path


def check_parity(model: Exported, bundle: Bundle, *, rows: int = PARITY_ROWS) -> Parity:
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


def build_graph(model: Exported, *, double: bool = False) -> onnx.ModelProto:
    """Return the ONNX graph (conditions, noise) -> targets of a model.

    Args:
        model: what to write.
        double: whether a generator that can computes in double precision.
    """
    graph = _Graph(double=double)
    if isinstance(model, Parametrised):
        y = model.write_onnx(graph, {"conditions": "conditions", "noise": "noise"})
        return _finish(graph, y, model.card)
    base = model.base if isinstance(model, RefinedModel) else model
    x = _scale_conditions(graph, base)
    if isinstance(model, RefinedModel):
        one_hot, z = _add_refined(graph, model, x)
    else:
        one_hot, z = _add_generator(graph, model, x, "noise")
    if isinstance(base.targets, CellTransform):
        y = _invert_cells(graph, z, base.targets)
    elif isinstance(base.targets, PhysicalTransform):
        y = z
    else:
        assert isinstance(base.targets, TargetTransform)
        y = _invert_targets(graph, z, one_hot, base.targets)
    return _finish(graph, y, model.card)


def _finish(graph: "_Graph", y: str, card: Card) -> onnx.ModelProto:
    """Return a graph with its inputs and its output, as the card has them."""
    graph.nodes.append(helper.make_node("Identity", [y], ["targets"]))
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
    transform = model.base.track_targets
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

    def __init__(self, *, double: bool = False) -> None:
        self.double = double
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
        array: Any = np.asarray(value, dtype=dtype, order="C")
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
    """Add what `ConditionTransform.forward` computes."""
    transform = model.conditions
    x, code = "conditions", transform.code
    identity = np.arange(len(model.card.conditions))
    if not np.array_equal(transform.source, identity):
        x = graph.add("Gather", x, graph.ints(transform.source), axis=1)
    centre = graph.constant(transform.centre)

    def where(codes: Sequence[int], value: str, otherwise: str) -> str:
        mask = graph.constant(np.isin(code, codes), np.bool_)
        return graph.add("Where", mask, value, otherwise)

    value = x
    for trigonometric, operator in ((SIN, "Sin"), (COS, "Cos")):
        if (code == trigonometric).any():
            value = where([trigonometric], graph.add(operator, x), value)
    if np.isin(code, [WHOLE, FRACTION]).any():
        floor = graph.add("Floor", x)
        value = where([WHOLE], floor, value)
        value = where([FRACTION], graph.add("Sub", x, floor), value)
    centred = graph.add("Sub", value, centre)
    if (code == LOG).any():
        # Columns without logarithm may be <= 0: they pass through it as 1.
        ratio = graph.add("Div", x, centre)
        safe = where([LOG], ratio, graph.constant(1.0))
        centred = where([LOG], graph.add("Log", safe), centred)
    if (code == EQUAL).any():
        same = graph.add("Cast", graph.add("Equal", x, centre), to=TensorProto.FLOAT)
        centred = where([EQUAL], same, centred)
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
        grid = graph.add("Reshape", sources[0], graph.ints([0, *shape]))
        n = len(shape)
        return graph.add("Transpose", grid, perm=[0, n, *range(1, n)])
    if kind == "Flatten":
        n = len(layer.input.shape) - 1
        last = graph.add("Transpose", sources[0], perm=[0, *range(2, n + 1), 1])
        return graph.add("Reshape", last, graph.ints([0, -1]))
    if kind in ("FromPlanes", "ToPlanes"):  # planes have the channels first, as ONNX
        return graph.add("Reshape", sources[0], graph.ints([0, *layer.planes]))
    if kind == "GRU":
        return _add_recurrent(graph, layer, sources[0])
    if kind == "Take":
        bounds = (graph.ints([n]) for n in (layer.start, layer.stop, 1))
        return graph.add("Slice", sources[0], *bounds)
    function = layer.activation.__name__ if kind == "Activation" else kind
    if function == "silu":
        return graph.add("Mul", sources[0], graph.add("Sigmoid", sources[0]))
    operators = {"relu": "Relu", "exponential": "Exp", "tanh": "Tanh"}
    if function in operators:
        return graph.add(operators[function], sources[0])
    raise BundleError(f"layer {layer.name!r} ({function}) has no ONNX translation")


def _add_to_grid(graph: _Graph, kind: str, layer: Any, source: str) -> str:
    """Append a layer that works on (n, channels, ...)."""
    if kind.startswith("UpSampling"):
        grid = source
        for axis, factor in enumerate(layer.size):
            if factor > 1:
                index = np.repeat(np.arange(layer.input.shape[1 + axis]), factor)
                grid = graph.add("Gather", grid, graph.ints(index), axis=2 + axis)
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


def _add_recurrent(graph: _Graph, layer: Any, source: str) -> str:
    """Append a gated recurrent unit, place after place (n, channels, places).

    The operator GRU of ONNX has its rows on the second axis; bundles have them first.
    """
    kernel, recurrent, bias = (v.numpy() for v in layer.cell.weights)
    width, places = layer.units, layer.input.shape[1]
    last = graph.add("Transpose", source, perm=[0, 2, 1])
    # What goes in does not depend on the state: all places at once.
    entry = graph.add("MatMul", last, graph.constant(kernel))
    entry = graph.add("Reshape", entry, graph.ints([0, 3 * places * width]))
    gate_bias = bias[1] + np.where(np.arange(3 * width) < 2 * width, bias[0], 0)
    weights = graph.constant(recurrent), graph.constant(gate_bias)
    new_bias = graph.constant(bias[0, 2 * width :])
    zero = graph.columns(entry, 0, width)
    state = graph.add("Mul", zero, graph.constant(0.0))
    states = []
    for place in range(places):
        start = 3 * width * place
        known = graph.add("Gemm", state, *weights)
        both = graph.add(
            "Add",
            graph.columns(entry, start, start + 2 * width),
            graph.columns(known, 0, 2 * width),
        )
        gates = graph.add("Sigmoid", both)
        kept = graph.add(
            "Mul",
            graph.columns(gates, width, 2 * width),
            graph.columns(known, 2 * width, 3 * width),
        )
        fresh = graph.columns(entry, start + 2 * width, start + 3 * width)
        total = graph.add("Add", graph.add("Add", fresh, kept), new_bias)
        new = graph.add("Tanh", total)
        move = graph.add("Sub", state, new)
        held = graph.add("Mul", graph.columns(gates, 0, width), move)
        state = graph.add("Add", new, held)
        states.append(state)
    joined = graph.add("Concat", *states, axis=1)
    rows = graph.add("Reshape", joined, graph.ints([0, places, width]))
    return graph.add("Transpose", rows, perm=[0, 2, 1])


def _pick(graph: _Graph, logits: str, z: str, n_patterns: int) -> str:
    """One-hot code of the class that Phi(z) picks from softmax(logits)."""
    drawn = uniform(graph, z)
    probabilities = graph.add("Softmax", logits, axis=1)
    cumulated = graph.add("CumSum", probabilities, graph.ints(1))
    edges = graph.add("Slice", cumulated, *(graph.ints([i]) for i in (0, -1, 1)))
    above = graph.add("Cast", graph.add("Greater", drawn, edges), to=TensorProto.FLOAT)
    # above is 1...1 0...0; pattern k has k ones: column k is above[k-1] - above[k].
    difference = np.zeros((n_patterns - 1, n_patterns))
    for k in range(n_patterns - 1):
        difference[k, k], difference[k, k + 1] = -1, 1
    first = np.eye(n_patterns)[0]
    return graph.add("Gemm", above, graph.constant(difference), graph.constant(first))


def _invert_targets(
    graph: _Graph,
    y: str,
    one_hot: str | None,
    transform: TargetTransform,
) -> str:
    """Mixing, quantile transforms, atoms and sums of `TargetTransform.inverse`."""
    d = transform.n_targets
    if one_hot is None:
        z = graph.add("MatMul", y, graph.constant(transform.mixing[0]))
        first = graph.constant((transform.table[0] * N_KNOTS).astype(np.float32))
    else:
        # What each pattern brings, looked up at once.
        i, j = np.nonzero(transform.mixing.any(axis=0))
        n = len(i)
        first_knot = transform.table * N_KNOTS
        brought = (
            transform.mixing[:, i, j],
            transform.patterns,
            transform.atoms,
            first_knot,
        )
        table = np.hstack(brought).astype(np.float32)
        found = graph.add("MatMul", one_hot, graph.constant(table))
        mixing = graph.columns(found, 0, n)
        mask, atoms, first = (
            graph.columns(found, n + k * d, n + (k + 1) * d) for k in range(3)
        )
        # Every product y_i mixing_ij in a column of its own, then the sums over i.
        repeated = graph.add("MatMul", y, graph.constant(np.eye(d)[:, i]))
        products = graph.add("Mul", repeated, mixing)
        z = graph.add("MatMul", products, graph.constant(np.eye(d)[j]))
    z_max = transform.z_max.astype(np.float32)
    shifted = graph.add("Add", z, graph.constant(z_max))
    position = graph.add("Mul", shifted, graph.constant((N_KNOTS - 1) / (2 * z_max)))
    last = graph.constant(N_KNOTS - 1)
    position = graph.add("Clip", position, graph.constant(0.0), last)
    left = graph.add("Floor", position)
    left = graph.add("Min", left, graph.constant(N_KNOTS - 2))
    fraction = graph.add("Sub", position, left)
    # NaN, of the logarithm of a negative condition say, is no place in the table. It
    # looks up the first knot, and its fraction stays NaN.
    zero = graph.constant(0.0)
    knot = graph.add("Where", graph.add("Greater", left, zero), left, zero)
    index = graph.add("Cast", graph.add("Add", knot, first), to=TensorProto.INT64)
    low = graph.add("Gather", graph.constant(transform.knots.ravel()), index)
    # The same table, one knot further: saves an addition on the index.
    ahead = np.append(transform.knots.ravel()[1:], transform.knots[-1, -1])
    high = graph.add("Gather", graph.constant(ahead), index)
    step = graph.add("Mul", fraction, graph.add("Sub", high, low))
    value = graph.add("Add", low, step)
    if one_hot is not None:
        value = graph.add("Add", graph.add("Mul", value, mask), atoms)
    # Copying a column is much slower than multiplying by a matrix of zeros and ones.
    is_base = graph.constant(np.eye(d)[:, transform.base] * (transform.base >= 0))
    y = value
    for _ in range(transform.depth):
        added = graph.add("MatMul", y, is_base)
        y = graph.add("Add", value, added)
    return y


def _invert_cells(graph: _Graph, z: str, transform: CellTransform) -> str:
    """Quantiles, shares, products and threshold of `CellTransform.inverse`.

    The rows are on the last axis: looking up a column then copies one piece of memory.
    """
    group, indicator = transform.group, transform.indicator

    def column(values: Any, dtype: type = np.float32) -> str:
        return graph.constant(np.asarray(values)[:, None], dtype)

    z = graph.add("Transpose", z, perm=[1, 0])
    shifted = graph.add("Sub", z, column(transform.z_min))
    position = graph.add("Mul", shifted, column(transform.steps))
    zero, last = graph.constant(0.0), graph.constant(CELL_KNOTS - 1)
    position = graph.add("Clip", position, zero, last)
    left = graph.add("Floor", position)
    left = graph.add("Min", left, graph.constant(CELL_KNOTS - 2))
    fraction = graph.add("Sub", position, left)
    knot = graph.add("Where", graph.add("Greater", left, zero), left, zero)
    places = column(np.arange(transform.n_coordinates) * CELL_KNOTS, np.int64)
    index = graph.add("Add", graph.add("Cast", knot, to=TensorProto.INT64), places)
    knots = transform.knots.ravel()
    low = graph.add("Gather", graph.constant(knots), index)
    rises = graph.constant(np.diff(knots, append=knots[-1]))
    rise = graph.add("Gather", rises, index)
    value = graph.add("Add", low, graph.add("Mul", fraction, rise))
    quantity = graph.add("Exp", value)
    if transform.has_logit.any():
        mask = column(transform.has_logit, np.bool_)
        share = graph.add("Sigmoid", value)
        quantity = graph.add("Where", mask, share, quantity)
    margin = graph.add("Sub", z, column(transform.edge))
    is_zero = graph.add("LessOrEqual", margin, zero)
    is_alone = group == ALONE
    if not is_alone.all():
        table = graph.add("Gather", margin, graph.ints(transform.members), axis=0)
        largest = graph.add("ReduceMax", table, axes=[1], keepdims=0)
        of = graph.ints(np.maximum(group, 0))
        largest = graph.add("Gather", largest, of, axis=0)
        smaller = graph.add("Less", margin, largest)
        alone = column(is_alone, np.bool_)
        is_zero = graph.add("And", is_zero, graph.add("Or", smaller, alone))
    quantity = graph.add("Where", is_zero, zero, quantity)
    if not is_alone.all():
        sums = graph.add("MatMul", graph.constant(indicator.T), quantity)
        sums = graph.add("MatMul", graph.constant(indicator), sums)
        whole = graph.add("Add", sums, column(is_alone))
        quantity = graph.add("Div", quantity, whole)
    return _multiply_factors(graph, quantity, transform)


def _multiply_factors(graph: _Graph, quantity: str, transform: CellTransform) -> str:
    """Cells as products of quantities and the incident energy, cut at the threshold."""
    n = transform.n_coordinates
    zero, cells = graph.constant(0.0), ""
    for factor in transform.factors:
        # 1 and 0, beyond the coordinates, are put in place after the lookup.
        found = graph.add("Gather", quantity, graph.ints(factor % n), axis=0)
        if (factor >= n).any():
            constant = graph.constant((factor == n)[:, None])
            mask = graph.constant((factor < n)[:, None], np.bool_)
            found = graph.add("Where", mask, found, constant)
        cells = graph.add("Mul", cells, found) if cells else found
    if transform.incident >= 0:
        index = graph.ints([transform.incident])
        incident = graph.add("Gather", "conditions", index, axis=1)
        incident = graph.add("Transpose", incident, perm=[1, 0])
        cells = graph.add("Mul", cells, incident)
    threshold = graph.constant(transform.threshold)
    kept = graph.add("GreaterOrEqual", cells, threshold)
    cells = graph.add("Where", kept, cells, zero)
    return graph.add("Transpose", cells, perm=[1, 0])


def _test_rows(
    model: Exported, frame: pd.DataFrame, *, rows: int = PARITY_ROWS
) -> tuple[FloatArray, FloatArray]:
    """Return conditions spread over the reference rows, and noise."""
    names = list(model.card.condition_names)
    index = np.linspace(0, len(frame) - 1, rows).astype(np.int64)
    conditions = frame[names].to_numpy(dtype=np.float32)[index]
    keys = entry_keys(seed=PARITY_SEED, track="", start=0, stop=rows)
    return conditions, keyed_normal(keys, n_noise=model.card.n_noise)
