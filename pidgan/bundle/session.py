"""A session of onnxruntime, which computes blocks of rows.

On the processor, the graph runs rearranged (`pidgan.bundle.rearranged`) where it can.
"""

import functools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pidgan.bundle import devices
from pidgan.bundle.bundle_file import Graph
from pidgan.bundle.card import SIMULATED
from pidgan.bundle.devices import Device
from pidgan.bundle.onnx_bytes import Node
from pidgan.bundle.onnx_check import Skeleton
from pidgan.bundle.onnx_writing import model_bytes, node_bytes, port_bytes
from pidgan.bundle.rearranged import BLOCKED, Rearranged, rearrange
from pidgan.errors import BundleError

Float32Array = npt.NDArray[np.float32]

BLOCKS = (16, 8)
"""Numbers of channels that a processor may take at once."""


REMEMBERED = 32
"""Number of sessions that are kept for other bundles of the kind: two for each kind."""

FEW_ROWS = 512
"""Number of rows in a small block, for the last rows and for self-tests."""

MOST_SMALL = 2
"""Most small blocks that are faster than a whole one."""

_starting = threading.Lock()


class Session:
    """A session of onnxruntime, started by whoever needs it first.

    Attributes:
        is_tested: Whether the self-test has passed.
    """

    def __init__(
        self, path: Path, data: bytes, graph: Graph, device: Device = "cpu"
    ) -> None:
        self.is_tested = False
        self._device = device
        self._path, self._data, self._graph = path, data, graph
        self._size = graph.block_rows
        self._lock = threading.Lock()
        self._started: Any = None
        self._inputs: dict[str, npt.NDArray[Any]] = {}
        self._shared: dict[int, _Shared] = {}  # by rows
        self._bindings: dict[int, list[Any]] = {FEW_ROWS: [], self._size: []}

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
            if isinstance(session, _Shared):
                found = self._run_shared(x, z)
            else:
                feed = self._ports(x, z)
                feed = {k: _padded(v, self._size) for k, v in feed.items()}
                (found,) = session.run(["targets"], feed)
        # onnxruntime's exceptions have no common class but Exception.
        except Exception as error:
            raise BundleError(
                f"{self._path}: the graph cannot be run ({_one_line(error)})"
            ) from error
        targets: Float32Array = found[: len(x)]
        return targets

    def _ports(self, x: Float32Array, z: Float32Array) -> dict[str, Float32Array]:
        """Return the inputs of the graph by name; x is all but the noise."""
        n = self._graph.values["conditions"].shape[0]
        simulated = {SIMULATED: x[:, n:]} if x.shape[1] > n else {}
        return {"conditions": x[:, :n] if simulated else x, **simulated, "noise": z}

    def _start(self) -> Any:
        if self._device != "cpu":
            found = _start_on_gpu(self._path, self._data, self._device)
            if found is not None:
                return found
        rows = min(FEW_ROWS, self._size)
        shared = _share(self._graph.skeleton, rows)
        if shared is None:
            return _start_session(self._path, self._data)
        self._shared[rows] = shared
        self._inputs = shared.arranged.inputs(self._graph.constants)
        return shared

    def _run_shared(self, x: Float32Array, z: Float32Array) -> Float32Array:
        """Return the targets of a block, in small blocks if it has few rows.

        A row does not depend on the size of its block.
        """
        rows = self._size
        if len(x) <= MOST_SMALL * FEW_ROWS < rows:
            rows = FEW_ROWS
        # Kept here: a binding belongs to one session, and others may be forgotten.
        if rows not in self._shared and (made := _share(self._graph.skeleton, rows)):
            self._shared.setdefault(rows, made)
        shared = self._shared[rows]
        firsts = range(0, len(x), rows)
        parts = [slice(first, first + rows) for first in firsts]
        found = [self._run_bound(shared, x[part], z[part]) for part in parts]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _run_bound(
        self, shared: "_Shared", x: Float32Array, z: Float32Array
    ) -> Float32Array:
        idle = self._bindings[shared.rows]
        try:
            # A binding is used by one thread at a time.
            binding = idle.pop()
        except IndexError:
            binding = shared.session.io_binding()
            for name, array in self._inputs.items():
                binding.bind_cpu_input(name, array)
            binding.bind_output("targets")
        # The binding has the address of the columns only.
        ports = self._ports(x, z)
        columns = {k: _padded_columns(v, shared.rows) for k, v in ports.items()}
        for name, values in columns.items():
            binding.bind_cpu_input(name, values)
        shared.session.run_with_iobinding(binding)
        (targets,) = binding.copy_outputs_to_cpu()
        idle.append(binding)
        found: Float32Array = targets
        return found


class _Shared(NamedTuple):
    """A session for all bundles of a kind, whose real numbers are inputs."""

    rows: int
    session: Any
    arranged: Rearranged


def _share(skeleton: Skeleton, rows: int) -> _Shared | None:
    """Return the session of a kind; None for a graph that cannot be rearranged."""
    channels = channels_at_once()
    if channels is None:
        return None
    with _starting:
        return _shared(skeleton, rows, channels)


@functools.lru_cache(maxsize=REMEMBERED)
def _shared(skeleton: Skeleton, rows: int, channels: int) -> _Shared | None:
    made = rearrange(skeleton, rows, channels)
    if made is None:
        return None
    try:
        # The graph is what an optimiser would make of it.
        session = _started(made.data, optimise=False)
    except Exception:
        return None
    return _Shared(rows=rows, session=session, arranged=made)


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


def _start_on_gpu(path: Path, data: bytes, device: Device) -> Any:
    """Return a session on a GPU; None where "auto" finds none.

    Where its libraries are missing, onnxruntime goes on without the GPU.
    """
    if device == "auto" and not devices.has_cuda():
        return None
    devices.check_cuda()
    problem = "no GPU, no driver, or no libraries of CUDA"
    try:
        session = _started(data, optimise=True, providers=[devices.CUDA, devices.CPU])
        if devices.CUDA in session.get_providers():
            return session
    # onnxruntime's exceptions have no common class but Exception.
    except Exception as error:
        problem = _one_line(error)
    if device == "auto":
        return None
    raise BundleError(f"{path}: device cuda cannot be used: {problem}; {devices.HINT}")


def _started(
    data: bytes, *, optimise: bool, providers: Sequence[str] = (devices.CPU,)
) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Level 4 prints fatal messages only: others come back as exceptions.
    options.log_severity_level = 4
    if not optimise:
        none = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = none
    return onnxruntime.InferenceSession(data, options, providers=list(providers))


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


def open_function(path: Path) -> Callable[[Float32Array], npt.NDArray[Any]]:
    """Return the function (n, k) -> (n,) of an ONNX file; the last of its outputs.

    A classifier gives the probability of its last class.
    """
    try:
        session = _start_session(path, path.read_bytes())
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error})") from None
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise BundleError(f"{path}: {len(inputs)} inputs, expected one of shape (n, k)")

    def evaluate(x: Float32Array) -> npt.NDArray[Any]:
        try:
            found = np.asarray(session.run(None, {inputs[0].name: x})[-1])
        except Exception as error:
            text = f"{path}: the graph cannot be run ({_one_line(error)})"
            raise BundleError(text) from error
        return found.reshape(len(x), -1)[:, -1]

    return evaluate
