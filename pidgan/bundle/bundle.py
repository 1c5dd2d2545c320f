"""Open a bundle, verify it and sample from it.

A bundle is one ONNX file: `conditions` (n, n_conditions) and `noise` (n, n_noise) in,
`targets` (n, n_targets) out, all float32 and in physical units, with a JSON card in its
metadata. Nothing here needs the libraries that trained it.
"""

import hashlib
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from warnings import warn

import numpy as np
import numpy.typing as npt

from pidgan.bundle.card import Card
from pidgan.bundle.noise import UInt64Array, keyed_normal
from pidgan.bundle.onnx_bytes import OnnxStructure, Port, read_onnx_structure
from pidgan.bundle.onnx_check import check_graph
from pidgan.bundle.onnx_values import Value
from pidgan.errors import BundleError, PidganWarning, nearest
from pidgan.files.machine import available_cores
from pidgan.sample.dataset import ALTERNATIVE_WEIGHT

if TYPE_CHECKING:
    import pandas as pd

Float32Array = npt.NDArray[np.float32]
NoiseOf = Callable[[Any], Float32Array]
"""Noise of some rows, given as an index of the rows."""

CARD_KEY = "pidgan_card"
"""Key of the card in the metadata of the ONNX file."""

CHECKSUM_KEY = "pidgan_sha256"
"""Key of the checksum of graph and card, which `seal` writes."""

CHECKSUM_SCHEMA = 2
"""First version of the card's schema whose bundles all have a checksum."""

MAX_BYTES = 256 * 2**20
"""Largest bundle that is opened; a generator has some 100 kB to 10 MB."""

BLOCK_ROWS = 2048
"""Rows per call of the network; their activations fit in the cache of one core."""

BLOCK_NUMBERS = 2**30
"""Most numbers that the values of these rows may have together, 4 GiB if nothing were
freed: of larger graphs fewer rows are computed at a time."""

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
class Graph:
    """What a bundle computes: its operators and constants, and each value's shape."""

    structure: OnnxStructure
    values: dict[str, Value]

    @property
    def block_rows(self) -> int:
        """Return the rows of one call."""
        numbers = sum(value.size for value in self.values.values() if value.per_row)
        return max(1, min(BLOCK_ROWS, BLOCK_NUMBERS // numbers))


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
    _graph: "Graph" = field(repr=False, compare=False)
    _session: Any = field(repr=False, compare=False)
    _threads: int = field(repr=False, compare=False)

    def generate(self, conditions: Float32Array, noise: Float32Array) -> Float32Array:
        """Return targets for conditions and standard normal noise.

        The network always sees blocks of the same size, the last one padded, and each
        block runs on one thread: a row's result depends neither on how many rows
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
        return self._generate(x, lambda rows: z[rows])

    def generate_keyed(
        self, conditions: Float32Array, keys: UInt64Array
    ) -> Float32Array:
        """Return what `generate` does with the noise `keyed_normal` makes of keys.

        The thread that runs a block of rows makes its noise, too.

        Args:
            conditions: (n, n_conditions), in the units of the card.
            keys: (n,), of the noise.

        Returns:
            (n, n_targets), in the units of the card.
        """
        x = _checked(conditions, "conditions", len(self.card.conditions))
        if keys.shape != (len(x),):
            raise ValueError(f"keys have shape {keys.shape}, expected ({len(x)},)")
        n_noise = self.card.n_noise
        return self._generate(x, lambda rows: keyed_normal(keys[rows], n_noise=n_noise))

    @property
    def graph(self) -> Graph:
        """Return what the bundle computes."""
        return self._graph

    def text(self) -> str:
        """Return the card as text, with the file and its hash."""
        card = self.card
        lines = [
            f"{self.path}: {card.sample.title}",
            f"species       {card.species}",
            f"detector      {card.detector}",
            f"sample        {card.sample.name}",
            f"family        {card.family}, {card.steps} steps, seed {card.seed}",
            f"noise         {card.n_noise}",
            f"sha256        {self.sha256}",
        ]
        for kind in ("condition", "target"):
            for variable in getattr(card, f"{kind}s"):
                low, high = variable.range
                unit = "" if variable.unit == "1" else f" {variable.unit}"
                lines.append(
                    f"{kind:13} {variable.name}: trained {low:g} to {high:g}{unit}"
                )
        if card.reference:
            file, rows = card.reference["file"], card.reference["rows"]
            lines.append(f"reference     {file}, {rows} rows")
        lines += [f"validation    {name}: {v}" for name, v in card.validation.items()]
        return "\n".join(lines)

    def reference(self) -> "pd.DataFrame | None":
        """Return rows of the calibration sample that were never trained on.

        They lie in `<stem>.reference.parquet` beside the bundle: a column for each
        condition and target, in the units of the card, `weight`, and `weight_<name>` of
        other mass fits. Without that file, or for a bundle exported without one, the
        answer is None.

        Raises:
            BundleError: the file is not the one that was exported with the bundle.
        """
        from pidgan.files.tables import read_table

        if self.card.reference is None:
            return None
        stored = Path(str(self.card.reference.get("file", ""))).name
        names = (f"{self.path.stem}.reference.parquet", stored)
        paths = [self.path.with_name(name) for name in names if name]
        # Unlike Path.is_file, this is False for a name that is too long.
        path = next((p for p in paths if os.path.isfile(p)), None)
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
        others = [n for n in map(str, frame) if n.startswith(ALTERNATIVE_WEIGHT)]
        return frame[[*columns, *others]]

    def _generate(self, x: Float32Array, noise: NoiseOf) -> Float32Array:
        """Return targets, NaN where a condition is not finite."""
        if np.isfinite(x).all():
            y = known = self._run(x, noise)
        else:
            finite = np.flatnonzero(np.isfinite(x).all(axis=1))
            known = self._run(x[finite], lambda rows: noise(finite[rows]))
            y = np.full((len(x), len(self.card.targets)), np.nan, dtype=np.float32)
            y[finite] = known
        if not np.isfinite(known).all():
            n_bad = int((~np.isfinite(known).all(axis=1)).sum())
            warn(
                f"{self.path}: {n_bad} of {len(x)} rows have targets that are not "
                "finite although their conditions are",
                PidganWarning,
                stacklevel=3,
            )
        return y

    def _run(self, x: Float32Array, noise: NoiseOf) -> Float32Array:
        """Return targets of finite conditions, block by block."""
        y = np.empty((len(x), len(self.card.targets)), dtype=np.float32)
        size = self._graph.block_rows
        starts = range(0, len(x), size)

        def run_block(start: int) -> None:
            block = slice(start, min(start + size, len(x)))
            feed = {
                "conditions": _padded(x[block], size),
                "noise": _padded(noise(block), size),
            }
            try:
                (targets,) = self._session.run(["targets"], feed)
            # onnxruntime's exceptions have no common class but Exception.
            except Exception as error:
                raise BundleError(
                    f"{self.path}: the graph cannot be run ({_one_line(error)})"
                ) from error
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

    Refused, before anything is run, are files that are damaged, larger than
    `MAX_BYTES`, without a card, with a card of a newer schema, whose checksum differs,
    with inputs or outputs that contradict the card, with data outside the file, or with
    a graph that `pidgan.bundle.onnx_check` does not accept. The self-test then compares
    stored targets with those generated here: |difference| <= 1e-4 max(1, |y|).

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
    structure = _read_structure(path, data)
    card = _read_card(path, structure)
    _check_ports(path, card, structure)
    graph = _read_graph(path, structure)
    bundle = Bundle(
        card=card,
        sha256=hashlib.sha256(data).hexdigest(),
        path=path,
        _graph=graph,
        _session=_start_session(path, data),
        _threads=threads or available_cores(),
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


def seal(data: bytes) -> bytes:
    """Return the bytes of an ONNX file with a checksum of its graph and card added.

    Raises:
        ValueError: it has a checksum already, or is no ONNX file with a card.
    """
    structure = read_onnx_structure(data)
    if CHECKSUM_KEY in structure.metadata or CARD_KEY not in structure.metadata:
        raise ValueError("expected an ONNX file with a card and without a checksum")
    # Fields of a protocol-buffer message may be appended: here field 14 of the model,
    # metadata, whose fields 1 and 2 are key and value.
    key, value = CHECKSUM_KEY.encode(), _checksum(structure).encode()
    entry = bytes([1 << 3 | 2, len(key), *key, 2 << 3 | 2, len(value), *value])
    return data + bytes([14 << 3 | 2, len(entry)]) + entry


def _checksum(structure: OnnxStructure) -> str:
    """Return the sha256 of everything that the targets and the card depend on."""
    parts = (
        repr(sorted(structure.opsets.items())).encode(),
        structure.metadata[CARD_KEY].encode(),
        structure.graph,
    )
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _read_structure(path: Path, data: bytes) -> OnnxStructure:
    try:
        return read_onnx_structure(data)
    except ValueError as error:
        raise BundleError(
            f"{path}: damaged or not an ONNX file ({error}), expected a bundle"
        ) from error


def _read_card(path: Path, structure: OnnxStructure) -> Card:
    if CARD_KEY not in structure.metadata:
        keys = sorted(structure.metadata) or "none"
        raise BundleError(
            f"{path}: an ONNX file but not a pidgan bundle: its metadata have no "
            f"{CARD_KEY!r} (got: {keys})"
        )
    card = Card.from_json(structure.metadata[CARD_KEY], where=str(path))
    stated = structure.metadata.get(CHECKSUM_KEY)
    if stated is None and card.schema_version >= CHECKSUM_SCHEMA:
        raise BundleError(f"{path}: has no checksum, expected {CHECKSUM_KEY!r}")
    if stated is not None and stated != _checksum(structure):
        raise BundleError(
            f"{path}: damaged: the checksum of its graph and card is "
            f"{_checksum(structure)}, expected {stated[:64]!r}"
        )
    return card


def _read_graph(path: Path, structure: OnnxStructure) -> Graph:
    try:
        return Graph(structure=structure, values=check_graph(structure))
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from error


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


def _check_ports(path: Path, card: Card, structure: OnnxStructure) -> None:
    widths = {
        "conditions": len(card.conditions),
        "noise": card.n_noise,
        "targets": len(card.targets),
    }
    ports: tuple[Port, ...]
    for kind, ports, expected in (
        ("inputs", structure.inputs, _INPUTS),
        ("outputs", structure.outputs, _OUTPUTS),
    ):
        names = sorted(port.name for port in ports)
        if names != sorted(expected):
            raise BundleError(
                f"{path}: the graph's {kind} are {names}, expected {sorted(expected)}"
            )
        for port in ports:
            width = widths[port.name]
            if port.shape[1:] != (width,) or isinstance(port.shape[0], int):
                raise BundleError(
                    f"{path}: {port.name} has shape {port.shape}, expected "
                    f"(n, {width}) by the card"
                )
            if port.dtype != "float32":
                raise BundleError(
                    f"{path}: {port.name} is {port.dtype}, expected float32"
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
    got = bundle._run(x, lambda rows: z[rows])
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


def _padded(rows: Float32Array, size: int) -> Float32Array:
    """Repeat the last row up to a full block."""
    if len(rows) == size:
        return np.ascontiguousarray(rows)
    return np.pad(rows, ((0, size - len(rows)), (0, 0)), mode="edge")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
