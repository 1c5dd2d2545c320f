"""Open a bundle, verify it and sample from it.

A bundle is one ONNX file: `conditions` (n, n_conditions) and `noise` (n, n_noise) in,
`targets` (n, n_targets) out, all float32 and in physical units, with a JSON card in its
metadata. Nothing here needs the libraries that trained it.
"""

import hashlib
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from warnings import warn

import numpy as np
import numpy.typing as npt

from pidgan.card import Card
from pidgan.errors import BundleError, PidganWarning, nearest
from pidgan.onnx_structure import OnnxStructure, read_onnx_structure

if TYPE_CHECKING:
    import pandas as pd

Float32Array = npt.NDArray[np.float32]

CARD_KEY = "pidgan_card"
"""Key of the card in the metadata of the ONNX file."""

MAX_BYTES = 256 * 2**20
"""Largest bundle that is opened; a generator has some 100 kB to 10 MB."""

BLOCK_ROWS = 2048
"""Rows per call of the network; their activations fit in the cache of one core."""

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
"""Names of the standard operator set; everything else is a custom operator."""

SELF_TEST_TOLERANCE = 1e-4
"""A target y of the self-test may differ by this times max(1, |y|)."""

SELF_TEST_EXCUSED = 0.01
"""Share of self-test rows, rounded up, that may differ more: rounding can carry a row
that lies at the edge of a discrete choice across it on another type of CPU. No row is
excused of fewer than `SELF_TEST_FEW`."""

SELF_TEST_FEW = 32

_INPUTS = ("conditions", "noise")
_OUTPUTS = ("targets",)


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A generator read from a file; made by `open_bundle`.

    Attributes:
        card: what the generator is.
        sha256: hash of the file.
        path: where it was opened.
    """

    card: Card
    sha256: str
    path: Path
    _session: Any = field(repr=False, compare=False)
    _threads: int = field(repr=False, compare=False)

    def generate(self, conditions: Float32Array, noise: Float32Array) -> Float32Array:
        """Return targets for conditions and standard normal noise.

        The network always sees blocks of `BLOCK_ROWS` rows, the last one padded, and
        each block runs on one thread: a row's result depends neither on how many rows
        come with it nor on the number of threads. Rows with a condition that is not
        finite never reach the network; their targets are NaN.

        Args:
            conditions: (n, n_conditions), in the units of the card.
            noise: (n, n_noise), standard normal.

        Returns:
            (n, n_targets), in the units of the card.
        """
        x = _checked(conditions, "conditions", len(self.card.conditions))
        z = _checked(noise, "noise", self.card.n_noise)
        if len(x) != len(z):
            raise ValueError(f"{len(x)} rows of conditions but {len(z)} of noise")
        y = np.full((len(x), len(self.card.targets)), np.nan, dtype=np.float32)
        finite = np.isfinite(x).all(axis=1)
        y[finite] = self._run(x[finite], z[finite])
        n_bad = int((~np.isfinite(y[finite]).all(axis=1)).sum())
        if n_bad:
            warn(
                f"{self.path}: {n_bad} of {len(x)} rows have targets that are not "
                "finite although their conditions are",
                PidganWarning,
                stacklevel=2,
            )
        return y

    def reference(self) -> "pd.DataFrame | None":
        """Return rows of the calibration sample that were never trained on.

        They lie in `<stem>.reference.parquet` beside the bundle: a column for each
        condition and target, in the units of the card, and `weight`. Without that file,
        or for a bundle exported without one, the answer is None.

        Raises:
            BundleError: the file is not the one that was exported with the bundle.
        """
        from pidgan.ntuple import read_table

        if self.card.reference is None:
            return None
        stored = Path(str(self.card.reference.get("file", ""))).name
        names = (f"{self.path.stem}.reference.parquet", stored)
        paths = [self.path.with_name(name) for name in names if name]
        path = next((p for p in paths if p.is_file()), None)
        if path is None:
            return None
        expected = self.card.reference.get("sha256")
        got = hashlib.sha256(path.read_bytes()).hexdigest()
        if got != expected:
            raise BundleError(
                f"{path}: not the reference file of {self.path.name}: sha256 is {got}, "
                f"expected {expected}"
            )
        frame = read_table(path)
        columns = [*self.card.condition_names, *self.card.target_names, "weight"]
        for name in columns:
            if name not in frame.columns:
                raise BundleError(
                    f"{path}: no column {name!r}{nearest(name, map(str, frame))}"
                )
        return frame[columns]

    def _run(self, x: Float32Array, z: Float32Array) -> Float32Array:
        y = np.empty((len(x), len(self.card.targets)), dtype=np.float32)
        starts = range(0, len(x), BLOCK_ROWS)

        def run_block(start: int) -> None:
            block = slice(start, min(start + BLOCK_ROWS, len(x)))
            feed = {"conditions": _padded(x[block]), "noise": _padded(z[block])}
            (targets,) = self._session.run(["targets"], feed)
            y[block] = targets[: block.stop - block.start]

        if self._threads == 1 or len(starts) <= 1:
            for start in starts:
                run_block(start)
        else:
            with ThreadPoolExecutor(self._threads) as pool:
                for _ in pool.map(run_block, starts):
                    pass
        return y


def open_bundle(
    path: str | Path, *, verify: bool = True, threads: int | None = None
) -> Bundle:
    """Open a bundle and check that it is what it says it is.

    Refused are files that are damaged, larger than `MAX_BYTES`, without a card, with a
    card of a newer schema, with inputs or outputs that contradict the card, with data
    outside the file, or with operators outside the ONNX standard. The self-test then
    compares stored targets with those generated here: |difference| <= 1e-4 max(1, |y|).

    Args:
        path: the `.onnx` file.
        verify: whether to run the self-test.
        threads: how many threads to use; the default is every core this process may
            use. The results do not depend on it.

    Returns:
        The bundle.

    Raises:
        BundleError: the file is refused.

    Example:
        >>> bundle = open_bundle("kaon.onnx")                       # doctest: +SKIP
        >>> bundle.card.species                                     # doctest: +SKIP
        'K+'
    """
    path = Path(path)
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}, expected at least 1")
    data = _read(path)
    card = _read_card(path, data)
    session = _start_session(path, data)
    _check_ports(path, card, session)
    bundle = Bundle(
        card=card,
        sha256=hashlib.sha256(data).hexdigest(),
        path=path,
        _session=session,
        _threads=threads or _available_cores(),
    )
    if verify:
        _run_self_test(bundle)
    return bundle


def _read(path: Path) -> bytes:
    if not path.is_file():
        siblings = sorted(p.name for p in path.parent.glob("*.onnx"))
        kind = "a directory" if path.is_dir() else "no such file"
        raise BundleError(
            f"{path}: {kind}, expected a bundle (.onnx){nearest(path.name, siblings)}"
        )
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise BundleError(
            f"{path}: {size / 2**20:.0f} MiB, expected at most {MAX_BYTES // 2**20} MiB"
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error


def _read_card(path: Path, data: bytes) -> Card:
    try:
        structure = read_onnx_structure(data)
    except ValueError as error:
        raise BundleError(
            f"{path}: damaged or not an ONNX file ({error}), expected a bundle"
        ) from error
    if not structure.has_graph:
        raise BundleError(f"{path}: not an ONNX file (no graph), expected a bundle")
    _check_structure(path, structure)
    if CARD_KEY not in structure.metadata:
        keys = sorted(structure.metadata) or "none"
        raise BundleError(
            f"{path}: an ONNX file but not a pidgan bundle: its metadata have no "
            f"{CARD_KEY!r} (got: {keys})"
        )
    return Card.from_json(structure.metadata[CARD_KEY], where=str(path))


def _check_structure(path: Path, structure: OnnxStructure) -> None:
    if structure.has_external_data:
        raise BundleError(
            f"{path}: refers to data in another file, expected all data inside"
        )
    custom = sorted(structure.domains - STANDARD_DOMAINS)
    if custom:
        raise BundleError(
            f"{path}: has operators of {', '.join(custom)}, expected only the ONNX "
            "standard operator set"
        )


def _start_session(path: Path, data: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # 4: only fatal messages. What matters comes back as an exception.
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(
            data, options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        # onnxruntime's exceptions have no common class but Exception.
        raise BundleError(
            f"{path}: onnxruntime {onnxruntime.__version__} cannot load the graph "
            f"({_one_line(error)})"
        ) from error


def _check_ports(path: Path, card: Card, session: Any) -> None:
    widths = {
        "conditions": len(card.conditions),
        "noise": card.n_noise,
        "targets": len(card.targets),
    }
    for kind, ports, expected in (
        ("inputs", session.get_inputs(), _INPUTS),
        ("outputs", session.get_outputs(), _OUTPUTS),
    ):
        names = sorted(port.name for port in ports)
        if names != sorted(expected):
            raise BundleError(
                f"{path}: the graph's {kind} are {names}, expected {sorted(expected)}"
            )
        for port in ports:
            shape, width = port.shape, widths[port.name]
            rows_fixed = len(shape) == 2 and isinstance(shape[0], int)
            if len(shape) != 2 or shape[1] != width or rows_fixed:
                raise BundleError(
                    f"{path}: {port.name} has shape {tuple(shape)}, expected "
                    f"(n, {width}) by the card"
                )
            if port.type != "tensor(float)":
                raise BundleError(
                    f"{path}: {port.name} is {port.type}, expected tensor(float)"
                )


def _run_self_test(bundle: Bundle) -> None:
    path, test = bundle.path, bundle.card.self_test
    if test is None:
        raise BundleError(f"{path}: the card has no self-test, expected one")
    try:
        x, z, expected = (
            np.array(test[name], dtype=np.float32) for name in (*_INPUTS, *_OUTPUTS)
        )
        x = _checked(x, "conditions", len(bundle.card.conditions))
        z = _checked(z, "noise", bundle.card.n_noise)
        expected = _checked(expected, "targets", len(bundle.card.targets))
        if not 0 < len(x) == len(z) == len(expected):
            raise ValueError(f"{len(x)}, {len(z)} and {len(expected)} rows")
        if not all(np.isfinite(values).all() for values in (x, z, expected)):
            raise ValueError("not every number is finite")
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path}: the self-test is damaged ({error})") from error
    try:
        got = bundle._run(x, z)
    except Exception as error:
        # As above: onnxruntime has no class of its own for what went wrong.
        raise BundleError(
            f"{path}: the graph cannot be run ({_one_line(error)})"
        ) from error
    scale = np.maximum(1.0, np.abs(expected))
    # The comparison is this way round because NaN is never <=.
    wrong = ~(np.abs(got - expected) <= SELF_TEST_TOLERANCE * scale)
    n_wrong = int(wrong.any(axis=1).sum())
    excused = math.ceil(SELF_TEST_EXCUSED * len(x)) if len(x) >= SELF_TEST_FEW else 0
    if n_wrong > excused:
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        raise BundleError(
            f"{path}: self-test failed in {n_wrong} of {len(x)} rows; row {row}, "
            f"{bundle.card.target_names[column]}: got {got[row, column]:.6g}, expected "
            f"{expected[row, column]:.6g}"
        )


def _checked(values: npt.ArrayLike, name: str, width: int) -> Float32Array:
    array = np.asarray(values, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != width:
        raise ValueError(f"{name} has shape {array.shape}, expected (n, {width})")
    return array


def _padded(rows: Float32Array) -> Float32Array:
    """Repeat the last row up to a full block."""
    if len(rows) == BLOCK_ROWS:
        return np.ascontiguousarray(rows)
    return np.pad(rows, ((0, BLOCK_ROWS - len(rows)), (0, 0)), mode="edge")


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
