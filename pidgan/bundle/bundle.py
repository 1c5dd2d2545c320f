"""Open a bundle, verify it and sample from it.

A bundle is one ONNX file with inputs `conditions` (n, n_conditions) and `noise`
(n, n_noise) and with the output `targets` (n, n_targets), all float32 and in physical
units, and with a JSON card in its metadata. No library of the training is needed.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload
from warnings import warn

import numpy as np
import numpy.typing as npt

from pidgan import higher
from pidgan.arguments import checked
from pidgan.bundle.bundle_file import Graph, as_rows, read_bundle_file, read_self_test
from pidgan.bundle.card import (
    CORRECTOR_TEXT,
    SIMULATED,
    Card,
    card_rows,
    sample_targets,
    structure_text,
    trained_text,
)
from pidgan.bundle.devices import Device, chosen_device
from pidgan.bundle.noise import UInt64Array, keyed_normal
from pidgan.bundle.session import Session
from pidgan.bundle.shipped import shipped_path
from pidgan.bundle.validation_text import sentences
from pidgan.errors import BundleError, NtupleError, PidganWarning, nearest
from pidgan.files.machine import available_cores
from pidgan.files.seals import part_of, reason, waiting_parts
from pidgan.notebook import Facts, shown
from pidgan.sample.built_in import sample_terms
from pidgan.sample.dataset import is_of_weights

if TYPE_CHECKING:
    import pandas as pd

    from pidgan.files.frames import Frame

Float32Array = npt.NDArray[np.float32]
NoiseOf = Callable[[Any], Float32Array]  # function from an index of rows to their noise


@shown
@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A generator read from a file; made by `open_bundle`.

    Attributes:
        card: Description of the generator.
        sha256: Hash of the file.
        path: Path of the file.
        graph: Operators of the generator, with types and shapes of their values.
        address: Where the file was fetched from, None for one that lies here.
    """

    card: Card
    sha256: str
    path: Path
    graph: Graph = field(repr=False, compare=False)
    _session: Session = field(repr=False, compare=False)
    _threads: int = field(repr=False, compare=False)
    address: str | None = field(default=None, compare=False)

    plot = higher.plot

    @property
    def block_rows(self) -> int:
        """Number of rows in a call of the network."""
        return self.graph.block_rows

    @checked
    def sample(
        self,
        frame: "Frame",
        *,
        seed: int = 1,
        track: str = "",
        columns: Mapping[str, str] | None = None,
        units: Mapping[str, str] | None = None,
        scales: Mapping[str, float] | None = None,
        quantile_maps: Mapping[str, Any] | None = None,
        key: Sequence[str] = (),
        start: int = 0,
        threads: int | None = None,
    ) -> "pd.DataFrame":
        """Return generated targets of rows in memory, with their status.

        Columns are found by name, as `apply` finds branches: `{track}_P`, `P` or what
        the card says, or derived from others, such as P from PX, PY and PZ. Their
        order does not matter, and other columns may be there. Units and ranges are
        checked as `apply` does: a median that looks like GeV instead of MeV raises,
        and many rows outside of the trained range warn.

        The noise of a row depends on the seed, the track and the number of the row,
        counted from `start`, or on the columns of `key`. The result is then what
        `apply` writes for the same rows, seed, track and key; it does not depend on
        other rows nor on threads. Parts of a sample need their `start`, or a `key`:
        without, they have the same noise.

        Args:
            frame: A DataFrame, a dict of arrays, an awkward array of records, or a
                structured array of numpy.
            seed: Seed of the noise.
            track: Prefix of the columns of the track, such as "Kplus"; the names of the
                new columns have it too.
            columns: Column that holds a condition, by its name, where it has another.
            units: Unit of a column, by condition: {"P": "GeV"}.
            scales: Known ratio of data to simulation, by condition.
            quantile_maps: Map of a condition from simulation to data, or its file.
            key: Columns, or named levels of the index, that identify an event, as in
                `apply`.
            start: Number of the first row.
            threads: Number of threads; the result does not depend on it.

        Returns:
            A column for each target, in the units of the card, and `pidgan_status`,
            whose bits are those of `apply`: 0 where all is well. The index is that of
            the frame. Rows without a usable condition have NaN. Tracks in nested arrays
            have a row each, and the numbers of entry and track as index.

        Raises:
            NtupleError: A column is missing, holds no numbers, or has another unit.

        Example:
            >>> bundle = pidgan.open_bundle("kaon.onnx")  # doctest: +SKIP
            >>> bundle.sample(frame, track="Kplus", units={"P": "GeV"})
            ... # doctest: +SKIP
        """
        made: pd.DataFrame = higher.function("application.in_memory", "sample")(
            self,
            frame,
            seed=seed,
            track=track,
            columns=columns,
            units=units,
            scales=scales,
            quantile_maps=quantile_maps,
            key=key,
            start=start,
            threads=threads,
        )
        return made

    @overload
    def generate(
        self, conditions: "pd.DataFrame", *, seed: int = 1
    ) -> "pd.DataFrame": ...

    @overload
    def generate(
        self, conditions: Float32Array, noise: Float32Array
    ) -> Float32Array: ...

    def generate(
        self,
        conditions: "Float32Array | pd.DataFrame",
        noise: Float32Array | None = None,
        *,
        seed: int = 1,
    ) -> "Float32Array | pd.DataFrame":
        """Return targets for conditions, as a table or as an array.

        The network always sees blocks of one size, the last one padded, and each block
        runs on one thread: the result of a row depends neither on other rows nor on the
        number of threads. Rows with a condition that is not finite never reach the
        network; their targets are NaN.

        Args:
            conditions: Table with a column for each condition, in the units of the
                card; or an array (n, n_conditions), with noise. With noise, columns
                that have names must be the conditions in the order of the card.
            noise: Standard normal numbers (n, n_noise), for an array of conditions.
            seed: Seed of the noise, for a table of conditions.

        Returns:
            Table of targets with the index of the conditions; or an array
            (n, n_targets). Both are in the units of the card.

        Raises:
            ValueError: A condition is missing, or shapes do not fit.
            TypeError: An array of conditions has no noise.

        Example:
            >>> bundle = open_bundle("kaon.onnx")                   # doctest: +SKIP
            >>> bundle.generate(frame, seed=1)["RichDLLk"].mean()   # doctest: +SKIP
        """
        if noise is None:
            return self._generate_table(conditions, seed)
        names = self.card.input_names
        x = as_rows(conditions, "conditions", len(names), names=names)
        z = as_rows(noise, "noise", self.card.n_noise)
        if len(x) != len(z):
            raise ValueError(f"{len(x)} rows of conditions but {len(z)} of noise")
        return self._generate(x, lambda rows: z[rows])

    def generate_keyed(
        self, conditions: Float32Array, keys: UInt64Array
    ) -> Float32Array:
        """Return targets for conditions and keys (n,) for `keyed_normal`."""
        x = as_rows(conditions, "conditions", len(self.card.inputs))
        if keys.shape != (len(x),):
            raise ValueError(f"keys have shape {keys.shape}, expected ({len(x)},)")
        n_noise = self.card.n_noise
        return self._generate(x, lambda rows: keyed_normal(keys[rows], n_noise=n_noise))

    def run_self_test(self) -> None:
        """Run the self-test, unless it has passed before; a BundleError if it fails."""
        if self._session.is_tested:
            return
        test = read_self_test(self.card, self.graph, str(self.path))
        got = self._run(test.conditions, lambda rows: test.noise[rows])
        test.check(got, self.card.target_names, str(self.path))
        self._session.is_tested = True

    def text(self) -> str:
        """Return the card as text, with the file and its hash."""
        card = self.card
        lines = [
            f"{self.path}: {card.sample.title}",
            f"species       {card.species}",
            f"detector      {card.detector}",
            f"sample        {card.sample.name}",
            f"source        {card.sample.source}",
            f"family        {trained_text(card)}",
            f"noise         {card.n_noise}",
            f"sha256        {self.sha256}",
        ]
        if card.is_corrector:
            lines.append(f"kind          {CORRECTOR_TEXT}")
        own = {"condition": card.conditions, SIMULATED: card.simulated}
        for kind, variables in {**own, "target": card.targets}.items():
            for variable in variables:
                low, high = variable.range
                unit = "" if variable.unit == "1" else f" {variable.unit}"
                lines.append(
                    f"{kind:13} {variable.name}: trained {low:g} to {high:g}{unit}"
                    f"{structure_text(variable)}"
                )
        lines += [
            f"{'link':13} {link.name}: {', '.join(link.targets)}; {link.family}, "
            f"{link.steps} steps, seed {link.seed}"
            for link in card.links
        ]
        for term in sample_terms(card.sample, card.dataset):
            kind = "probe cut" if term.prefix else "sample cut"
            lines.append(f"{kind:13} {term.brief}")
        if card.plan:
            lines.append(f"plan          {card.plan}")
        if card.reference:
            file, rows = card.reference["file"], card.reference["rows"]
            lines.append(f"reference     {file}, {rows} rows")
        lines += [f"validation    {text}" for text in sentences(card.validation)]
        return "\n".join(lines)

    def reference(self) -> "pd.DataFrame | None":
        """Return rows of the calibration sample that no training saw.

        The file `<stem>.reference.parquet` beside the bundle has a column for each
        condition and target, in the units of the card, `weight`, and `weight_<name>`
        for other mass fits. `sweight_discriminant` is the variable that the sWeights
        are fitted in, where the dataset had it. The file is fetched if the bundle was.
        None stands for a bundle without this file.

        Raises:
            BundleError: The file does not belong to the bundle, or cannot be fetched.
        """
        from pidgan.files.tables import read_table

        if self.card.reference is None:
            return None
        stored = Path(str(self.card.reference.get("file", ""))).name
        names = (f"{self.path.stem}.reference.parquet", stored)
        paths = [self.path.with_name(name) for name in names if name]
        if self.address is not None:
            self._fetch_reference(names)
        # Unlike Path.is_file, this is False for a name that is too long.
        found = [p for p in paths if os.path.isfile(p) or waiting_parts(p)]
        if not found:
            return None
        try:
            path = part_of(found[0], self.card.reference.get("sha256"))
        except (ValueError, OSError) as error:
            raise BundleError(f"{self.path}: {reason(error)}") from None
        frame = read_table(path)
        columns = [*self.card.condition_names, *self.card.target_names, "weight"]
        for name in columns:
            if name not in frame.columns:
                raise BundleError(
                    f"{path}: no column {name!r}{nearest(name, map(str, frame))}"
                )
        others = [name for name in map(str, frame) if is_of_weights(name)]
        others += [n for n in (SIMULATED,) if self.card.is_corrector and n in frame]
        return frame[[*columns, *others]]

    def _fetch_reference(self, names: Sequence[str]) -> None:
        """Fetch the reference file from beside the bundle; raise if that fails."""
        from pidgan.files.fetching import fetch, neighbour

        stated, address = self.card.reference or {}, str(self.address)
        sha256, problems = str(stated.get("sha256", "")), []
        for name in dict.fromkeys(filter(None, names)):
            try:
                fetch(neighbour(address, name), sha256, beside=self.path)
                return
            except NtupleError as error:
                problems.append(str(error))
        raise BundleError(f"{address}: no reference file: {problems[0]}")

    def _generate_table(self, frame: Any, seed: int) -> "pd.DataFrame":
        """Return a table of targets for a table of conditions."""
        import pandas as pd

        if not isinstance(frame, pd.DataFrame):
            raise TypeError(
                f"conditions without noise are {type(frame).__name__}, expected a table"
            )
        for name in self.card.input_names:
            if name not in frame.columns:
                raise ValueError(
                    f"the table has no condition {name!r}"
                    f"{nearest(name, map(str, frame.columns))}"
                )
        x = frame[list(self.card.input_names)].to_numpy(dtype=np.float32)
        y = sample_targets(self, x, seed=seed)
        return pd.DataFrame(y, columns=list(self.card.target_names), index=frame.index)

    def _generate(self, x: Float32Array, noise: NoiseOf) -> Float32Array:
        """Return targets, NaN where a condition is not finite."""
        if np.isfinite(x).all():
            y = known = self._run(x, noise)
        else:
            finite = np.flatnonzero(np.isfinite(x).all(axis=1))
            known = self._run(x[finite], lambda rows: noise(finite[rows]))
            y = np.full((len(x), len(self.card.targets)), np.nan, dtype=np.float32)
            y[finite] = known
        # A corrector says so of targets that are unlike those of its training.
        if not (self.card.is_corrector or np.isfinite(known).all()):
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
        size = self.block_rows
        starts = range(0, len(x), size)

        def run_block(start: int) -> None:
            block = slice(start, min(start + size, len(x)))
            y[block] = self._session.run(x[block], noise(block))

        if self._threads == 1 or len(starts) <= 1:
            for start in starts:
                run_block(start)
        else:
            with ThreadPoolExecutor(self._threads) as pool:
                for _ in pool.map(run_block, starts):
                    pass
        return y

    def _facts(self) -> Facts:
        card = self.card
        return Facts(
            f"{self.path.name}, {card.species} of {card.sample.name}: "
            f"{len(card.conditions)} conditions, {len(card.targets)} targets",
            {"path": self.path, **card_rows(card), "sha256": self.sha256[:16]},
        )


@checked
def open_bundle(
    path: str | Path | Bundle,
    *,
    verify: bool = True,
    threads: int | None = None,
    device: Device | None = None,
) -> Bundle:
    """Open a bundle and check it.

    A file is refused before anything is run if it is damaged or too large, has no card
    or a card with a newer schema, if its checksum differs, if inputs or outputs
    contradict the card, or if the graph has data outside the file or an operator that
    `pidgan.bundle.onnx_check` does not accept. The self-test then compares stored
    targets y with generated ones: |difference| <= 1e-4 max(1, |y|).

    Args:
        path: Path of the `.onnx` file, or "demo-kaon" for the one that ships; a bundle
            is returned unchanged.
        verify: Whether the self-test runs.
        threads: Number of threads; the default is the number of cores of this process.
            Results do not depend on it.
        device: "cpu", "cuda" for a GPU, or "auto" for a GPU where there is one; the
            default is that of the environment variable PIDGAN_DEVICE, else "cpu".

    Returns:
        The bundle.

    Raises:
        BundleError: The file is refused.

    Example:
        >>> bundle = open_bundle("kaon.onnx")                       # doctest: +SKIP
        >>> bundle.card.species                                     # doctest: +SKIP
        'K+'
    """
    if isinstance(path, Bundle):
        return path
    bundle = read_bundle(Path(path), threads=threads, device=device)
    bundle._session.start()
    if verify:
        bundle.run_self_test()
    return bundle


def read_bundle(
    path: Path, *, threads: int | None = None, device: Device | None = None
) -> Bundle:
    """Return a bundle whose network starts when it is first used.

    Everything is checked but that onnxruntime knows it, and the self-test.
    """
    path = shipped_path(path, ".onnx")
    file = read_bundle_file(path)
    return Bundle(
        card=file.card,
        sha256=file.sha256,
        path=path,
        graph=file.graph,
        _session=Session(path, file.data, file.graph, chosen_device(device)),
        _threads=threads or available_cores(),
    )
