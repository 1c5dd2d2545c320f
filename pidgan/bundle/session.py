"""A session of onnxruntime, which computes blocks of rows.

The graph runs rearranged (`pidgan.bundle.rearranged`) where it can.
"""

import functools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.bundle.bundle_file import Graph
from pidgan.bundle.onnx_bytes import Node
from pidgan.bundle.onnx_check import Skeleton
from pidgan.bundle.onnx_writing import model_bytes, node_bytes, port_bytes
from pidgan.bundle.rearranged import BLOCKED, Rearranged, rearrange
from pidgan.errors import BundleError

Float32Array = npt.NDArray[np.float32]

BLOCKS = (16, 8)
"""Numbers of channels that a processor may take at once."""


REMEMBERED = 16
"""Number of kinds of generators whose sessions are kept for other bundles."""

_starting = threading.Lock()


class Session:
    """A session of onnxruntime, started by whoever needs it first.

    Attributes:
        is_tested: Whether the self-test has passed.
    """

    def __init__(self, path: Path, data: bytes, graph: Graph) -> None:
        self.is_tested = False
        self._path, self._data, self._graph = path, data, graph
        self._size = graph.block_rows
        self._lock = threading.Lock()
        self._started: Any = None
        self._arranged: Rearranged | None = None
        self._inputs: dict[str, npt.NDArray[Any]] = {}
        self._bindings: list[Any] = []

    def start(self) -> Any:
        """Return the session; a BundleError if onnxruntime cannot load it."""
        with self._lock:
            if self._started is None:
                self._started = self._start()
                self._data = b""
            return self._started

    def run(self, x: Float32Array, z: Float32Array) -> Float32Array:
        """Return the targets of at most a block of rows."""
        session = self._started or self.start()
        try:
            if self._arranged is None:
                feed = {"conditions": x, "noise": z}
                feed = {k: _padded(v, self._size) for k, v in feed.items()}
                (targets,) = session.run(["targets"], feed)
            else:
                targets = self._run_bound(session, x, z)
        # onnxruntime's exceptions have no common class but Exception.
        except Exception as error:
            raise BundleError(
                f"{self._path}: the graph cannot be run ({_one_line(error)})"
            ) from error
        found: Float32Array = targets[: len(x)]
        return found

    def _start(self) -> Any:
        channels = channels_at_once()
        skeleton = self._graph.skeleton
        with _starting:
            shared = channels and _shared(skeleton, self._size, channels)
        if not shared:
            return _start_session(self._path, self._data)
        session, self._arranged = shared
        self._inputs = self._arranged.inputs(self._graph.constants)
        return session

    def _run_bound(self, session: Any, x: Float32Array, z: Float32Array) -> Any:
        """Return the targets of the session that bundles of one kind share."""
        try:
            # A binding is used by one thread at a time.
            binding = self._bindings.pop()
        except IndexError:
            binding = session.io_binding()
            for name, array in self._inputs.items():
                binding.bind_cpu_input(name, array)
            binding.bind_output("targets")
        # The binding has the address of the columns only.
        columns = [_padded_columns(rows, self._size) for rows in (x, z)]
        binding.bind_cpu_input("conditions", columns[0])
        binding.bind_cpu_input("noise", columns[1])
        session.run_with_iobinding(binding)
        (targets,) = binding.copy_outputs_to_cpu()
        self._bindings.append(binding)
        return targets


@functools.lru_cache(maxsize=REMEMBERED)
def _shared(
    skeleton: Skeleton, rows: int, channels: int
) -> tuple[Any, Rearranged] | None:
    """Return a session for all bundles of a kind: their real numbers are inputs.

    None stands for a graph that cannot be rearranged.
    """
    made = rearrange(skeleton, rows, channels)
    if made is None:
        return None
    try:
        # The graph is what an optimiser would make of it.
        return _started(made.data, optimise=False), made
    except Exception:
        return None


@functools.cache
def channels_at_once() -> int | None:
    """Return the number of channels in a block on this processor, None without blocks.

    It is found from the order in which numbers come out of a block.
    """
    most, pixels = BLOCKS[0], 2
    node = Node(
        operator="ReorderInput",
        domain=BLOCKED,
        inputs=("x",),
        outputs=("y",),
        attributes={},
    )
    shape = (1, most, 1, pixels)
    parts = [
        node_bytes(node),
        *(port_bytes(k, name, "float32", shape) for k, name in ((11, "x"), (12, "y"))),
    ]
    x = np.arange(most * pixels, dtype=np.float32).reshape(shape)
    try:
        session = _started(model_bytes(parts, {"": 17, BLOCKED: 1}), optimise=False)
        (got,) = session.run(["y"], {"x": x})
    except Exception:
        return None
    for block in BLOCKS:
        expected = x.reshape(most // block, block, pixels).transpose(0, 2, 1)
        if np.array_equal(got.ravel(), expected.ravel()):
            return block
    return None


def _start_session(path: Path, data: bytes) -> Any:
    import onnxruntime

    try:
        return _started(data, optimise=True)
    except Exception as error:
        # onnxruntime's exceptions have no common class but Exception.
        raise BundleError(
            f"{path}: onnxruntime {onnxruntime.__version__} cannot load the graph "
            f"({_one_line(error)})"
        ) from error


def _started(data: bytes, *, optimise: bool) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Level 4 prints fatal messages only: others come back as exceptions.
    options.log_severity_level = 4
    if not optimise:
        none = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = none
    return onnxruntime.InferenceSession(
        data, options, providers=["CPUExecutionProvider"]
    )


def _padded(rows: Float32Array, size: int) -> Float32Array:
    """Repeat the last row up to a full block."""
    if len(rows) == size:
        return np.ascontiguousarray(rows)
    return np.pad(rows, ((0, size - len(rows)), (0, 0)), mode="edge")


def _padded_columns(rows: Float32Array, size: int) -> Float32Array:
    """Return the columns (k, size) of a full block, whose last row is repeated."""
    if len(rows) == size:
        return np.ascontiguousarray(rows.T)
    block = np.empty((rows.shape[1], size), np.float32)
    block[:, : len(rows)] = rows.T
    block[:, len(rows) :] = rows[-1:].T
    return block


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
