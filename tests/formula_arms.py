"""Evaluates a formula of two inputs on every kind of value that the language has."""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from toy_generator import make_card

from pidgan.bundle.bundle import open_bundle
from pidgan.bundle.bundle_file import CARD_KEY, seal
from pidgan.bundle.c_file import c_source
from pidgan.bundle.card import CardVariable
from pidgan.training.backend import tf
from pidgan.training.export_graph import OnnxGraph

Formula = Callable[[Any, Any], Any]

CC = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def on_every_arm(
    formula: Formula, x: np.ndarray, z: np.ndarray, *, path: Path, c: bool = True
) -> dict[str, np.ndarray]:
    """Return what numpy, tensorflow, ONNX Runtime and C compute.

    Args:
        formula: function of (n, k) and (n, m) to (n, width), float32.
        x, z: inputs, float32.
        path: folder to write to.
        c: whether there is a C file.
    """
    found = {
        "numpy": np.asarray(formula(x, z)),
        "tensorflow": np.asarray(formula(tf.constant(x), tf.constant(z))),
    }
    model = graph_of(formula, x.shape[1], z.shape[1])
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found["onnx"],) = session.run(None, {"conditions": x, "noise": z})
    if c and CC:
        found["c"] = in_c(model, x, z, found["onnx"], path)
    return found


def graph_of(
    formula: Formula, n_conditions: int, n_noise: int, *, double: bool = False
) -> onnx.ModelProto:
    """Return the ONNX graph of a formula."""
    graph = OnnxGraph(double=double)
    inputs = [graph.value("conditions", n_conditions), graph.value("noise", n_noise)]
    return graph.finish(inputs, {"targets": formula(*inputs)}, version="")


def in_c(
    model: onnx.ModelProto, x: np.ndarray, z: np.ndarray, y: np.ndarray, path: Path
) -> np.ndarray:
    """Return what the C file of a graph computes; y are its first rows' targets."""

    def variables(letter: str, n: int) -> tuple[CardVariable, ...]:
        return tuple(
            CardVariable(name=f"{letter}{i}", unit="1", range=(0, 1)) for i in range(n)
        )

    arrays = {"conditions": x[:8], "noise": z[:8], "targets": y[:8]}
    card = make_card(
        conditions=variables("x", x.shape[1]),
        targets=variables("y", y.shape[1]),
        n_noise=z.shape[1],
        self_test={name: values.tolist() for name, values in arrays.items()},
    )
    onnx.helper.set_model_props(model, {CARD_KEY: card.to_json()})
    (path / "law.onnx").write_bytes(seal(model.SerializeToString()))
    source, library = path / "law.c", path / "law.so"
    source.write_text(c_source(open_bundle(path / "law.onnx", threads=1), "law"))
    command = [str(CC), "-std=c99", "-O1", "-shared", "-fPIC", str(source)]
    subprocess.run([*command, "-o", str(library), "-lm"], check=True)
    made = np.empty(y.shape, np.float32)
    pointers = (ctypes.c_void_p(a.ctypes.data) for a in (made, x, z))
    ctypes.CDLL(str(library)).law_batch(*pointers, ctypes.c_size_t(len(x)))
    return made


def assert_equal_on_every_arm(
    formula: Formula,
    x: np.ndarray,
    z: np.ndarray,
    *,
    path: Path,
    c: bool = True,
    tolerance: float = 1e-5,
) -> np.ndarray:
    """Check that all arms agree and return what numpy computes."""
    found = on_every_arm(formula, x, z, path=path, c=c)
    for arm, values in found.items():
        np.testing.assert_allclose(
            values,
            found["numpy"],
            rtol=tolerance,
            atol=tolerance,
            err_msg=f"{arm} is not numpy",
        )
    return found["numpy"]
