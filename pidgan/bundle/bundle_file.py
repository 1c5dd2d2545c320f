"""The file of a bundle: card, checksum, graph and self-test, and their checks."""

import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.bundle.agreement import beyond
from pidgan.bundle.card import Card
from pidgan.bundle.onnx_bytes import Node, OnnxStructure, Port, read_onnx_structure
from pidgan.bundle.onnx_check import Skeleton, check_graph
from pidgan.bundle.onnx_values import Value
from pidgan.bundle.shipped import shipped_names
from pidgan.errors import BundleError, nearest
from pidgan.files.documents import read_bytes
from pidgan.files.places import file_problem
from pidgan.files.recognition import refuse_other

CARD_KEY = "pidgan_card"  # key of the card in the metadata of the ONNX file
CHECKSUM_KEY = "pidgan_sha256"  # key of the checksum of graph and card in the metadata
CHECKSUM_SCHEMA = 2  # first version of the schema with a checksum
MAX_BYTES = 256 * 2**20  # largest size of a bundle; a generator has 100 kB to 10 MB
BLOCK_ROWS = 2048  # most rows in a call, which fit in the cache of a core
BLOCK_NUMBERS = 2**30  # most numbers in all values of a call: 4 GiB
BLOCK_OPERATIONS = 2**36  # most multiplications in a call: some seconds
TEST_BLOCKS = 2  # most calls of this cost in a self-test, which runs on each opening

# Share of rows, rounded up, that may differ more. Rounding on another type of CPU can
# carry a row at the edge of a discrete choice across it.
EXCUSED = 0.01
FEW = 32  # number of rows below which no row may differ more


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Operators in the order of computation, and the type and shape of each value.

    `operations` is what a row costs, in multiplications. `skeleton` is equal for graphs
    that differ in real numbers only.
    """

    nodes: tuple[Node, ...]
    values: dict[str, Value]
    operations: int
    skeleton: Skeleton

    @property
    def constants(self) -> dict[str, npt.NDArray[Any]]:
        """The constants of the graph."""
        found = ((name, value.constant) for name, value in self.values.items())
        return {name: array for name, array in found if array is not None}

    @functools.cached_property
    def block_rows(self) -> int:
        """Number of rows in a call: as many as fit in memory and in a few seconds."""
        per_row = (value.size for value in self.values.values() if value.per_row)
        by_memory, by_time = BLOCK_NUMBERS // sum(per_row), BLOCK_OPERATIONS
        return max(1, min(BLOCK_ROWS, by_memory, by_time // max(1, self.operations)))


@dataclass(frozen=True, kw_only=True)
class BundleFile:
    """The bytes of a file that is a bundle, its card and its graph."""

    data: bytes
    card: Card
    graph: Graph

    @property
    def sha256(self) -> str:
        """Hash of the file."""
        return hashlib.sha256(self.data).hexdigest()


def read_bundle_file(path: Path) -> BundleFile:
    """Read a bundle and check size, card, checksum, ports and graph."""
    data = _read(path)
    try:
        structure = read_onnx_structure(data)
    except ValueError as error:
        refuse_other(path, "bundle", error=BundleError)
        raise BundleError(
            f"{path}: damaged or not an ONNX file ({error}), expected a bundle"
        ) from error
    card = _read_card(path, structure)
    _check_ports(path, "inputs", structure.inputs, card.ports)
    _check_ports(path, "outputs", structure.outputs, {"targets": len(card.targets)})
    try:
        values, cost, skeleton = check_graph(structure)
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from error
    graph = Graph(
        nodes=structure.nodes, values=values, operations=cost, skeleton=skeleton
    )
    return BundleFile(data=data, card=card, graph=graph)


def seal(data: bytes) -> bytes:
    """Return the bytes of an ONNX file with a checksum of its graph and card added.

    A ValueError says that there is a checksum already, or no ONNX file with a card.
    """
    structure = read_onnx_structure(data)
    if CHECKSUM_KEY in structure.metadata or CARD_KEY not in structure.metadata:
        raise ValueError("expected an ONNX file with a card and without a checksum")
    # Fields of a protocol-buffer message may be appended: here field 14 of the model,
    # metadata, whose fields 1 and 2 are key and value.
    key, value = CHECKSUM_KEY.encode(), _checksum(structure).encode()
    entry = bytes([1 << 3 | 2, len(key), *key, 2 << 3 | 2, len(value), *value])
    return data + bytes([14 << 3 | 2, len(entry)]) + entry


def _read(path: Path) -> bytes:
    problem = file_problem(path)
    if problem:
        refuse_other(path, "bundle", error=BundleError)
        siblings = sorted(p.name for p in path.parent.glob("*.onnx"))
        siblings += shipped_names()
        raise BundleError(
            f"{path}: {problem}, expected a bundle (.onnx)"
            f"{nearest(path.name, siblings)}"
        )
    return read_bytes(path, error=BundleError, most=MAX_BYTES)


def _checksum(structure: OnnxStructure) -> str:
    """Return the sha256 of everything that targets and card depend on."""
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


def _check_ports(
    path: Path, kind: str, ports: tuple[Port, ...], widths: dict[str, int]
) -> None:
    names = sorted(port.name for port in ports)
    if names != sorted(widths):
        raise BundleError(
            f"{path}: the graph's {kind} are {names}, expected {sorted(widths)}"
        )
    for port in ports:
        width = widths[port.name]
        if port.shape[1:] != (width,) or isinstance(port.shape[0], int):
            raise BundleError(
                f"{path}: {port.name} has shape {port.shape}, expected (n, {width}) by "
                "the card"
            )
        if port.dtype != "float32":
            raise BundleError(f"{path}: {port.name} is {port.dtype}, expected float32")


@dataclass(frozen=True, kw_only=True)
class SelfTest:
    """Rows of conditions, noise and the targets that they must give, float32.

    `cells` says whether these targets are the cells of showers.
    """

    conditions: npt.NDArray[np.float32]
    noise: npt.NDArray[np.float32]
    targets: npt.NDArray[np.float32]
    cells: bool = False

    @property
    def excused(self) -> int:
        """Number of rows that may differ by more than others."""
        rows = len(self.targets)
        return math.ceil(EXCUSED * rows) if rows >= FEW else 0

    def check(
        self, got: npt.NDArray[np.float32], names: tuple[str, ...], where: str
    ) -> None:
        """Raise a BundleError if targets differ in too many rows."""
        wrong = beyond(self.targets, got, cells=self.cells)
        n_wrong = int(wrong.any(axis=1).sum())
        if n_wrong > self.excused:
            row, column = (int(i) for i in np.argwhere(wrong)[0])
            raise BundleError(
                f"{where}: self-test failed in {n_wrong} of {len(got)} rows; row "
                f"{row}, {names[column]}: got {got[row, column]:.6g}, expected "
                f"{self.targets[row, column]:.6g}"
            )


def read_self_test(card: Card, graph: Graph, where: str) -> SelfTest:
    """Return the self-test of a card, or raise a BundleError if it is damaged.

    One that takes longer than opening may is refused too.
    """
    test = card.self_test
    if test is None:
        raise BundleError(f"{where}: the card has no self-test, expected one")
    widths = {
        "conditions": len(card.inputs),
        "noise": card.n_noise,
        "targets": len(card.targets),
    }
    try:
        parts = {n: as_rows(test[n], n, width) for n, width in widths.items()}
        x, z, y = (len(part) for part in parts.values())
        if not 0 < x == z == y:
            raise ValueError(f"{x}, {z} and {y} rows")
        if not all(np.isfinite(values).all() for values in parts.values()):
            raise ValueError("not every number is finite")
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{where}: the self-test is damaged ({error})") from error
    rows = -(-x // graph.block_rows) * graph.block_rows
    most = TEST_BLOCKS * BLOCK_OPERATIONS
    if rows * graph.operations > most:
        raise BundleError(
            f"{where}: the self-test needs {rows * graph.operations:.2g} operations "
            f"for {x} rows, expected at most {most:.2g}"
        )
    return SelfTest(**parts, cells=card.has_cells)


def as_rows(
    values: Any, name: str, width: int, *, names: Sequence[str] = ()
) -> npt.NDArray[np.float32]:
    """Return rows (n, width) as float32, or raise a ValueError for another shape.

    Columns that have names must have these `names`, in this order.
    """
    found = _column_names(values)
    if names and found is not None:
        _check_order(found, names, name)
        if not hasattr(values, "iloc"):
            values = np.stack([np.asarray(values[column]) for column in names], axis=-1)
    try:
        array = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} is no array (n, {width}): {error}") from None
    if array.ndim != 2 or array.shape[1] != width:
        raise ValueError(f"{name} has shape {array.shape}, expected (n, {width})")
    return array


def _column_names(values: Any) -> list[Any] | None:
    """Return the names of columns, None for an array of numbers alone."""
    if isinstance(values, Mapping):
        return list(values)
    if hasattr(values, "columns"):
        # A DataFrame of an array has numbers in place of names.
        listed = list(values.columns)
        return None if listed == list(range(len(listed))) else listed
    found = getattr(getattr(values, "dtype", None), "names", None)
    return list(found or getattr(values, "fields", None) or ()) or None


def _check_order(found: Sequence[Any], names: Sequence[str], what: str) -> None:
    """Raise a ValueError unless columns are these, in this order."""
    if list(found) == list(names):
        return
    hint = "`sample` finds columns by their names, in any order"
    for name in names:
        if name not in found:
            close = nearest(name, map(str, found))
            raise ValueError(f"{what} has no column {name!r}{close}; {hint}")
    raise ValueError(
        f"{what} has the columns {', '.join(map(str, found[:20]))}, expected "
        f"{', '.join(names)} in this order; {hint}"
    )
