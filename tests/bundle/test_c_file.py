"""The C file is the bundle: every operator, every row, and nothing else is needed."""

import ctypes
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
import onnxruntime
from onnx import NodeProto, TensorProto, helper
from onnx.numpy_helper import from_array
from toy_generator import make_card, make_sample, toy_onnx, with_self_test

from pidgan.bundle.bundle import Bundle, open_bundle
from pidgan.bundle.bundle_file import CARD_KEY, seal
from pidgan.bundle.c_file import c_source, export_c
from pidgan.bundle.c_operators import TRANSLATIONS
from pidgan.bundle.c_writer import number_text
from pidgan.bundle.card import CardVariable
from pidgan.bundle.onnx_operators import OPERATORS
from pidgan.errors import BundleError, NtupleError

CC = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-O1")
N_CONDITIONS, N_NOISE = 3, 4
TOLERANCE = 1e-4
EDGE = 1e-5
# No rounding is this large: the row has another discrete outcome.
JUMP = 1e-2

needs_compiler = pytest.mark.skipif(CC is None, reason="needs a C compiler")
node = helper.make_node


def compiled(source: str, path: Path, *flags: str) -> Path:
    """The compiled source: a program, or with -shared a library."""
    file = path.with_suffix(".c")
    file.write_text(source)
    assert CC is not None
    command = [CC, *flags, str(file), "-o", str(path), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return path


class Compiled:
    """The functions of a compiled C file on arrays."""

    def __init__(self, bundle: Bundle, path: Path, *flags: str) -> None:
        source = c_source(bundle, "generator")
        path = compiled(source, path, *(flags or STRICT), "-shared", "-fPIC")
        self.library = ctypes.CDLL(str(path))
        self.library.generator.restype = ctypes.c_void_p
        self.n_targets = len(bundle.card.targets)

    def batch(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        y = np.empty((len(x), self.n_targets), np.float32)
        pointers = (ctypes.c_void_p(a.ctypes.data) for a in (y, x, z))
        self.library.generator_batch(*pointers, ctypes.c_size_t(len(x)))
        return y

    def rows(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        y = np.empty((len(x), self.n_targets), np.float32)
        for row in zip(y, x, z, strict=True):
            out, *_ = pointers = [ctypes.c_void_p(a.ctypes.data) for a in row]
            assert self.library.generator(*pointers) == out.value
        return y


def relative(got: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Largest |difference| / max(1, |y|) of each row."""
    return (np.abs(got - expected) / np.maximum(1, np.abs(expected))).max(axis=1)


def draws(n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.2, 3, (n, N_CONDITIONS)).astype(np.float32)
    return x, rng.standard_normal((n, N_NOISE)).astype(np.float32)


def bundle_of(
    path: Path, nodes: list[NodeProto], constants: dict[str, Any], width: int
) -> Bundle:
    """A bundle of a graph from conditions (n, 3) and noise (n, 4) to targets."""
    widths = {"conditions": N_CONDITIONS, "noise": N_NOISE, "targets": width}
    ports = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])
        for name, size in widths.items()
    }
    graph = helper.make_graph(
        nodes,
        "graph",
        [ports["conditions"], ports["noise"]],
        [ports["targets"]],
        [from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    x, z = draws(40, seed=2)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (y,) = session.run(None, {"conditions": x, "noise": z})
    test = {"conditions": x.tolist(), "noise": z.tolist(), "targets": y.tolist()}

    def variables(letter: str, n: int) -> tuple[CardVariable, ...]:
        return tuple(
            CardVariable(name=f"{letter}{i}", unit="1", range=(0, 1)) for i in range(n)
        )

    card = make_card(
        conditions=variables("x", N_CONDITIONS),
        targets=variables("y", width),
        n_noise=N_NOISE,
        self_test=test,
    )
    onnx.helper.set_model_props(model, {CARD_KEY: card.to_json()})
    path.write_bytes(seal(model.SerializeToString()))
    return open_bundle(path, threads=1)


def f4(*values: Any) -> np.ndarray:
    return np.array(values, np.float32)


def i8(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def unary(operator: str, source: str = "noise", **attributes: Any) -> Any:
    return [node(operator, [source], ["targets"], **attributes)], {}, N_NOISE


def compared(operator: str) -> Any:
    """noise rounded to halves, so that equality happens, against a constant."""
    return (
        [
            node("Mul", ["noise", "two"], ["v"]),
            node("Floor", ["v"], ["rounded"]),
            node(operator, ["rounded", "zero"], ["b"]),
            node("Cast", ["b"], ["targets"], to=TensorProto.FLOAT),
        ],
        {"two": f4(2), "zero": f4(0)},
        N_NOISE,
    )


def logical(operator: str) -> Any:
    return (
        [
            node("Greater", ["noise", "zero"], ["a"]),
            node("Less", ["noise", "one"], ["b"]),
            node(operator, ["a", "b"], ["c"]),
            node("Where", ["c", "noise", "one"], ["targets"]),
        ],
        {"zero": f4(0), "one": f4(1)},
        N_NOISE,
    )


def reduction(operator: str, axes: list[int], keepdims: int) -> Any:
    """Over axes of noise as (n, 2, 2) with its negative, (n, 2, 2, 2)."""
    nodes = [
        node("Neg", ["noise"], ["negative"]),
        node("Concat", ["noise", "negative"], ["v"], axis=-1),
        node("Reshape", ["v", "shape"], ["cube"]),
    ]
    attributes: dict[str, Any] = {"keepdims": keepdims}
    inputs, constants = ["cube"], {"shape": i8(-1, 2, 2, 2)}
    if operator == "ReduceSum":
        inputs, constants = ["cube", "axes"], constants | {"axes": i8(*axes)}
    else:
        attributes["axes"] = axes
    nodes.append(node(operator, inputs, ["r"], **attributes))
    width = 2 ** (3 - len(axes))
    nodes.append(node("Reshape", ["r", "flat"], ["targets"]))
    return nodes, constants | {"flat": i8(0, width)}, width


def table(indices: str) -> Any:
    """Look up in a constant table, negative indices included."""
    values = np.arange(24, dtype=np.float32).reshape(12, 2)
    return (
        [
            node("Mul", [indices, "scale"], ["v"]),
            node("Clip", ["v", "low", "high"], ["w"]),
            node("Cast", ["w"], ["i"], to=TensorProto.INT64),
            node("Gather", ["table", "i"], ["t"]),
            node("Reshape", ["t", "flat"], ["targets"]),
        ],
        {
            "scale": f4(5),
            "low": f4(-12),
            "high": f4(11),
            "table": values,
            "flat": i8(0, -1),
        },
        2 * N_NOISE,
    )


def integers(operator: str) -> Any:
    return (
        [
            node("Cast", ["noise"], ["a"], to=TensorProto.INT64),
            node(operator, ["a", "b"], ["c"]),
            node("Cast", ["c"], ["targets"], to=TensorProto.FLOAT),
        ],
        {"b": i8(-1, 0, 1, 2)},
        N_NOISE,
    )


def product(operator: str, rank: int = 1) -> Any:
    """A product with 11 columns: one tile and three more."""
    rng = np.random.default_rng(3)
    w = rng.standard_normal((N_NOISE // rank, 11)).astype(np.float32)
    if operator == "Gemm":
        nodes = [node("Gemm", ["noise", "w", "b"], ["targets"])]
        return nodes, {"w": w, "b": w.reshape(1, -1)[:, :11]}, 11
    nodes = [
        node("Reshape", ["noise", "shape"], ["v"]),
        node("MatMul", ["v", "w"], ["u"]),
        node("Reshape", ["u", "flat"], ["targets"]),
    ]
    shape_of = i8(-1, N_NOISE) if rank == 1 else i8(-1, rank, N_NOISE // rank)
    return nodes, {"w": w, "shape": shape_of, "flat": i8(0, 11 * rank)}, 11 * rank


def cubes(operator: str, **attributes: Any) -> Any:
    """Along an axis of noise as (n, 2, 2)."""
    constants = {"shape": i8(0, 2, 2), "flat": i8(0, 4)}
    inputs = ["cube"]
    if operator == "CumSum":
        inputs, constants = ["cube", "axis"], constants | {"axis": i8(1)}
    nodes = [
        node("Reshape", ["noise", "shape"], ["cube"]),
        node(operator, inputs, ["v"], **attributes),
        node("Reshape", ["v", "flat"], ["targets"]),
    ]
    return nodes, constants, N_NOISE


def turned(nodes: list[NodeProto], **constants: np.ndarray) -> Any:
    """Noise v (2, 2, n), with the rows on the last axis, through nodes to u (m, n)."""
    ends = [
        node("Transpose", ["noise"], ["t"], perm=[1, 0]),
        node("Reshape", ["t", "cube"], ["v"]),
    ]
    last = node("Transpose", ["u"], ["targets"], perm=[1, 0])
    given = {"cube": i8(2, 2, -1), **constants}
    return [*ends, *nodes, last], given, N_NOISE


CASES: dict[str, list[Any]] = {
    name: [unary(name)]
    for name in ("Abs", "Neg", "Exp", "Floor", "Erf", "Tanh", "Sigmoid")
}
CASES |= {
    name: [unary(name)] for name in ("Relu", "Softplus", "Identity", "Sin", "Cos")
}
CASES["Asin"] = [
    (
        [node("Tanh", ["noise"], ["v"]), node("Asin", ["v"], ["targets"])],
        {},
        N_NOISE,
    )
]
CASES |= {
    name: [([node(name, ["conditions"], ["targets"])], {}, N_CONDITIONS)]
    for name in ("Log", "Sqrt")
}
CASES |= {
    name: [compared(name)]
    for name in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal")
}
CASES |= {name: [logical(name)] for name in ("And", "Or")}
CASES |= {
    name: [reduction(name, [1, 3], 1), reduction(name, [-1], 0)]
    for name in ("ReduceSum", "ReduceMax")
}
CASES |= {
    name: [
        ([node(name, ["noise", "c"], ["targets"])], {"c": f4(0.5, 2, 3, -1)}, N_NOISE),
        (
            [
                node("Reshape", ["conditions", "last"], ["a"]),
                node("Reshape", ["noise", "first"], ["b"]),
                node(name, ["a", "b"], ["v"]),
                node("Reshape", ["v", "flat"], ["targets"]),
            ],
            {"last": i8(0, -1, 1), "first": i8(0, 1, -1), "flat": i8(0, -1)},
            N_CONDITIONS * N_NOISE,
        ),
    ]
    for name in ("Add", "Sub", "Mul", "Div", "Min", "Max")
}
for name in ("Add", "Sub", "Mul", "Min", "Max"):
    CASES[name].append(integers(name))
CASES["Max"].append(
    ([node("Max", ["noise", "a", "b"], ["targets"])], {"a": f4(0), "b": f4(1)}, N_NOISE)
)
CASES |= {
    "Where": [logical("And")],
    "Clip": [
        (
            [node("Clip", ["noise", "a", "b"], ["targets"])],
            {"a": np.float32(-1), "b": f4(0.5)},
            N_NOISE,
        ),
        (
            [node("Clip", ["noise", "", "b"], ["targets"])],
            {"b": f4(0.5)},
            N_NOISE,
        ),
    ],
    "Cast": [integers("Add"), compared("Greater")],
    "Concat": [
        (
            [
                node(
                    "Concat", ["conditions", "noise", "conditions"], ["targets"], axis=1
                )
            ],
            {},
            2 * N_CONDITIONS + N_NOISE,
        )
    ],
    "Slice": [
        (
            [node("Slice", ["noise", "a", "b", "axes", "steps"], ["targets"])],
            {"a": i8(start), "b": i8(stop), "axes": i8(-1), "steps": i8(step)},
            width,
        )
        for start, stop, step, width in ((1, 2**31, 1, 3), (-1, -9, -2, 2))
    ],
    "Gather": [
        table("noise"),
        (
            [node("Gather", ["noise", "i"], ["targets"], axis=1)],
            {"i": i8(3, 0, -1, 2, 0)},
            5,
        ),
    ],
    "GatherElements": [
        (
            [
                node("Abs", ["noise"], ["a"]),
                node("Clip", ["a", "", "most"], ["b"]),
                node("Cast", ["b"], ["i"], to=TensorProto.INT64),
                node("GatherElements", ["conditions", "j"], ["targets"], axis=1),
            ],
            {"most": f4(2), "begin": i8(0), "end": i8(3), "axis": i8(1)},
            N_CONDITIONS,
        )
    ],
    "Reshape": [cubes("Abs")],
    "Gemm": [product("Gemm")],
    "MatMul": [product("MatMul"), product("MatMul", rank=2)],
    "Softmax": [unary("Softmax", axis=-1), cubes("Softmax", axis=1)],
    "CumSum": [cubes("CumSum"), cubes("CumSum", exclusive=1)],
}
FLAT = node("Reshape", ["w", "square"], ["u"])
CASES["Transpose"] = [
    cubes("Transpose", perm=[0, 2, 1]),
    turned([node("Tanh", ["v"], ["w"]), FLAT], square=i8(4, -1)),
    turned([node("Transpose", ["v"], ["w"], perm=[1, 0, 2]), FLAT], square=i8(4, -1)),
]
CASES["Add"] += [
    turned([node("Add", ["v", "c"], ["w"]), FLAT], square=i8(4, -1), c=c)
    for c in (np.float32([[1], [2]]), np.float32([[[1]], [[2]]]))
]
CASES["MatMul"].append(
    turned(
        [node("MatMul", ["c", "v"], ["w"]), FLAT],
        square=i8(4, -1),
        c=np.float32([[1, 2], [3, -4]]),
    )
)
CASES["Gather"].append(
    turned(
        [node("Gather", ["v", "c"], ["w"], axis=1), FLAT],
        square=i8(4, -1),
        c=i8(1, 0),
    )
)
CASES["Concat"].append(
    turned(
        [
            node("Gather", ["v", "first"], ["a"], axis=0),
            node("Gather", ["v", "second"], ["b"], axis=0),
            node("Concat", ["b", "a"], ["w"], axis=0),
            FLAT,
        ],
        square=i8(4, -1),
        first=i8(0),
        second=i8(1),
    )
)
gather_elements = CASES["GatherElements"][0][0]
gather_elements.insert(3, node("Slice", ["i", "begin", "end", "axis"], ["j"]))


def test_every_operator_is_tested() -> None:
    assert set(CASES) == set(TRANSLATIONS) <= set(OPERATORS)
    for name, cases in CASES.items():
        for nodes, *_ in cases:
            assert name in {n.op_type for n in nodes}


@needs_compiler
@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name in CASES for case in CASES[name]]
)
def test_operator_in_c_equals_onnxruntime(name: str, case: Any, tmp_path: Path) -> None:
    nodes, constants, width = case
    bundle = bundle_of(tmp_path / "toy.onnx", nodes, constants, width)
    library = Compiled(bundle, tmp_path / "toy")
    # 1, 32 and 33: less than a block, one, and more.
    for n in (1, 32, 33, 200):
        x, z = draws(n)
        expected = bundle.generate(x, z)
        assert relative(library.batch(x, z), expected).max() < TOLERANCE
        assert relative(library.rows(x, z), expected).max() < TOLERANCE


def margins(bundle: Bundle, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Distance of each row's uniform number to the nearest edge of a choice."""
    model = onnx.load(str(bundle.path))
    values = bundle.graph.values
    (choice,) = (
        n
        for n in model.graph.node
        if n.op_type == "Greater" and values[n.input[1]].constant is None
    )
    for name in choice.input:
        model.graph.output.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", None])
        )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    uniform, edges = session.run(list(choice.input), {"conditions": x, "noise": z})
    return np.abs(uniform - edges).min(axis=1)


@needs_compiler
@pytest.mark.parametrize("flags", [("-O3", "-march=native"), STRICT])
def test_trained_generator_in_c_equals_onnxruntime(
    kaon_bundle: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    n = 100_000
    bundle = open_bundle(kaon_bundle)
    library = Compiled(bundle, tmp_path / "kaon", *flags)
    frame = bundle.reference()
    assert frame is not None
    rows = frame[list(bundle.card.condition_names)].to_numpy(np.float32)
    rng = np.random.default_rng(4)
    x = np.ascontiguousarray(rows[rng.integers(0, len(rows), n)])
    z = rng.standard_normal((n, bundle.card.n_noise)).astype(np.float32)
    expected = bundle.generate(x, z)
    difference = relative(library.batch(x, z), expected)
    differing, other = difference > TOLERANCE, difference > JUMP
    assert differing.sum() < 1e-4 * n
    if other.any():
        assert margins(bundle, x[other], z[other]).max() < EDGE
    # Where a quantile transform is steep, rounding may grow a little more.
    assert (differing & ~other).sum() <= 1e-5 * n
    some = slice(0, 2000)
    single = relative(library.rows(x[some], z[some]), expected[some])
    assert (single[~differing[some]] <= TOLERANCE).all()


@pytest.fixture
def toy(tmp_path: Path) -> Bundle:
    path = tmp_path / "toy.onnx"
    path.write_bytes(toy_onnx(with_self_test(make_card(), n=64)))
    return open_bundle(path)


@needs_compiler
def test_rows_that_are_not_finite_give_nan(toy: Bundle, tmp_path: Path) -> None:
    library = Compiled(toy, tmp_path / "toy")
    x = np.array([[2e4, 3]] * 40, np.float32)
    z = np.zeros((40, 3), np.float32)
    x[3, 1], z[5, 2], x[39, 0] = np.nan, np.inf, -np.inf
    for y in (library.batch(x, z), library.rows(x, z)):
        bad = np.isnan(y).all(axis=1)
        assert np.flatnonzero(bad).tolist() == [3, 5, 39]
        assert np.isfinite(y[~bad]).all()


@needs_compiler
def test_self_test_of_the_c_file(toy: Bundle, tmp_path: Path) -> None:
    source = c_source(toy, "toy")
    program = compiled(source, tmp_path / "good", *STRICT, "-DPIDGAN_SELF_TEST")
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("toy: of 64 rows, 0 differ in the batch function")
    weight = number_text(np.float32(-5e-5))
    assert source.count(weight) == 1
    wrong = source.replace(weight, number_text(np.float32(-5.1e-5)))
    program = compiled(wrong, tmp_path / "bad", *STRICT, "-DPIDGAN_SELF_TEST")
    assert subprocess.run([str(program)], capture_output=True).returncode == 1


@needs_compiler
def test_only_the_math_library_is_needed(toy: Bundle, tmp_path: Path) -> None:
    path = compiled(c_source(toy, "toy"), tmp_path / "toy.o", *STRICT, "-c")
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("needs nm")
    symbols = subprocess.run([nm, str(path)], capture_output=True, text=True).stdout
    kinds: dict[str, set[str]] = {}
    for line in symbols.splitlines():
        *_, kind, name = line.split()
        kinds.setdefault(kind, set()).add(name)
    functions = {"toy", "toy_row", "toy_batch"}
    sizes = {"toy_n_conditions", "toy_n_noise", "toy_n_targets"}
    assert kinds["T"] == functions
    assert kinds["R"] == sizes
    assert kinds.get("U", set()) <= {
        "_GLOBAL_OFFSET_TABLE_",
        "fmaf",
        "__stack_chk_fail",
    }
    # No variable: B and D are writable memory.
    assert not {"B", "b", "D", "d", "C"} & set(kinds)


@needs_compiler
def test_card_stays_inside_its_comment(tmp_path: Path) -> None:
    title = "*/ int evil; /* ??/ // \\"
    card = make_card(sample=make_sample(title=title))
    path = tmp_path / "toy.onnx"
    path.write_bytes(toy_onnx(with_self_test(card)))
    bundle = open_bundle(path)
    source = c_source(bundle, "toy")
    compiled(source, tmp_path / "toy.o", *STRICT, "-c")
    comment = source[2 : source.index("*/")]
    content = json.loads(comment[comment.index("{") : comment.rindex("}") + 1])
    expected = json.loads(bundle.card.to_json())
    del expected["self_test"]
    assert content == expected
    assert bundle.sha256 in comment


def test_numbers_are_read_back_exactly() -> None:
    bits = np.random.default_rng(1).integers(0, 2**32, 5000, dtype=np.uint32)
    special = f4(0, -0.0, 1, 1e-45, -1.17e-38, 3.4028235e38)
    for value in (*bits.view(np.float32), *special):
        text = number_text(value)
        if np.isfinite(value):
            assert re.fullmatch(r"-?0x[01]\.[0-9a-f]+p[+-]\d+f", text)
            assert np.float32(float.fromhex(text[:-1])) == value
            assert math.copysign(1, float.fromhex(text[:-1])) == np.copysign(1, value)
        else:
            assert text in ("NAN", "INFINITY", "-INFINITY")


@pytest.mark.parametrize(
    "name", ["3d", "", "a-b", "for", "rows", "fmaf", "c0", "__x", "é", "x\n"]
)
def test_names_that_c_cannot_have(toy: Bundle, tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="no name for a C function"):
        export_c(toy, tmp_path / "toy.c", name=name)
    assert not (tmp_path / "toy.c").exists()


def test_file_is_written_once(toy: Bundle, tmp_path: Path) -> None:
    path = export_c(toy, tmp_path / "new" / "kaon-2016.c")
    assert "float *kaon_2016(float *output" in path.read_text()
    with pytest.raises(NtupleError, match="exists; choose another name"):
        export_c(toy, path)
    export_c(toy, path, name="kaon", overwrite=True)
    assert "float *kaon(float *output" in path.read_text()
    with pytest.raises(BundleError, match=r"ends in \.c"):
        export_c(toy, tmp_path / "kaon.cpp")
    names = sorted(p.name for p in path.parent.iterdir())
    assert names == [path.name, path.with_suffix(".h").name]


@needs_compiler
def test_sqlamarr_calls_the_compiled_generator(toy: Bundle, tmp_path: Path) -> None:
    """LHCb's stand-alone simulation draws the noise; a wrapper records it."""
    sqlamarr = pytest.importorskip("SQLamarr")
    recorder = """
    float *recorded(float *output, const float *input, const float *noise)
    {
        for (int i = 0; i < N_NOISE; ++i)
            output[N_TARGETS + i] = noise[i];
        return toy(output, input, noise);
    }
    """
    source = c_source(toy, "toy") + recorder
    library = compiled(source, tmp_path / "toy.so", "-O2", "-shared", "-fPIC")
    database = sqlamarr.SQLite3DB(str(tmp_path / "events.db")).seed(42)
    rng = np.random.default_rng(3)
    x = rng.uniform((3e3, 1.5), (1e5, 5), (50, 2)).astype(np.float32)
    with database.connect() as connection:
        connection.execute("CREATE TABLE tracks (id INTEGER, p REAL, eta REAL)")
        rows = [(i, float(p), float(eta)) for i, (p, eta) in enumerate(x)]
        connection.executemany("INSERT INTO tracks VALUES (?, ?, ?)", rows)
        connection.commit()
    targets, noise = list(toy.card.target_names), ["z0", "z1", "z2"]
    plugins: list[Callable[..., Any]] = [
        sqlamarr.GenerativePlugin(
            database,
            library_path=str(library),
            function_name=function,
            query="SELECT id, p, eta FROM tracks",
            output_table=function,
            outputs=outputs,
            nRandom=3,
            references=["id"],
        )
        for function, outputs in (("recorded", targets + noise), ("toy", targets))
    ]
    kept = [
        sqlamarr.TemporaryTable(
            database,
            output_table=f"{function}_kept",
            outputs=["id", *outputs],
            query=f"SELECT id, {', '.join(outputs)} FROM {function} ORDER BY id",
            make_persistent=True,
        )
        for function, outputs in (("recorded", targets + noise), ("toy", targets))
    ]
    sqlamarr.Pipeline([*plugins, *kept]).execute()
    with database.connect() as connection:
        recorded = np.array(
            connection.execute("SELECT * FROM recorded_kept").fetchall(), np.float64
        )
        plain = connection.execute("SELECT * FROM toy_kept").fetchall()
    assert recorded[:, 0].tolist() == list(range(50))
    y, z = recorded[:, 1:3], np.ascontiguousarray(recorded[:, 3:], np.float32)
    assert 0.7 < z.std() < 1.3
    assert relative(y, toy.generate(x, z)).max() < TOLERANCE
    assert np.isfinite(np.array(plain, np.float64)).all()
    assert len(plain) == 50
