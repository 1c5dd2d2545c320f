"""Write a trained model as one ONNX file in physical units.

A model is a formula in the language of `pidgan.bundle.formulas`, `evaluate(conditions,
noise)`; given values of a graph it appends standard operators to it. Before the file
gets its name, its output is compared with the model's own; the card goes into the
file's metadata.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias
from warnings import warn

import numpy as np
import onnx
import pandas as pd

from pidgan.arguments import checked
from pidgan.arrays import FloatArray
from pidgan.bundle import formulas as f
from pidgan.bundle.agreement import TOLERANCE, distances
from pidgan.bundle.bundle import Bundle, open_bundle
from pidgan.bundle.bundle_file import CARD_KEY, seal
from pidgan.bundle.card import CORRECTOR_VERSION, SCHEMA_VERSION, SIMULATED, Card
from pidgan.bundle.noise import entry_keys, keyed_normal
from pidgan.errors import BundleError, PidganWarning
from pidgan.files.seals import file_sha256
from pidgan.files.tables import write_table
from pidgan.files.writing import writing_set
from pidgan.progress import Bar
from pidgan.training.chain import Chain
from pidgan.training.classical.fit import Parametrised
from pidgan.training.corrector import Corrector
from pidgan.training.export_graph import OnnxGraph
from pidgan.training.hybrid import HybridModel
from pidgan.training.mending import MendedModel
from pidgan.training.model import Model, open_model
from pidgan.training.refinement import RefinedModel

Exported: TypeAlias = (
    Model | RefinedModel | MendedModel | HybridModel | Parametrised | Chain | Corrector
)
"""What can be written as a bundle."""

PARITY_ROWS, LEAST_PARITY_ROWS = 10_000, 100
PARITY_NUMBERS = 2**21  # most targets in all rows that are compared, of large showers
SELF_TEST_ROWS = 64
# Agreement of keras and ONNX is that of `agreement`, except in rows where rounding
# carries a discrete choice across an edge, fewer than one in 10^4.
PARITY_EXCUSED = 1e-4
# A step of a grid below this times max(1, |y|) is crossed by rounding more often.
FINE_STEP = 1e-3
PARITY_SEED = 20_240_501


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parity:
    """Comparison of two evaluations of the same rows.

    Of all `rows`, `differing` are beyond the tolerance; `largest` is the largest
    difference among the others, in the units of the tolerance.
    """

    rows: int
    differing: int
    largest: float


@checked
def export_bundle(
    model: Exported | str | Path,
    path: str | Path,
    *,
    report: Any = None,
    reference: pd.DataFrame | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Write a model as a bundle, with its reference file beside it.

    Args:
        model: Result of `train`, `refine` or `fit_parametrisation`, or the folder of a
            model.
        path: Path of the bundle, ending in ".onnx"; the reference file is named
            "<stem>.reference.parquet".
        report: Result of `validate`, whose headline figures go onto the card.
        reference: Rows never trained on; those of the model by default.
        overwrite: Whether existing files are replaced.
        progress: Whether a bar, or a line of a log, is shown.

    Returns:
        The path of the bundle.

    Raises:
        BundleError: The ONNX graph does not agree with keras.
        NtupleError: A file exists, or it cannot be written.

    Example:
        >>> export_bundle(model, "kaon.onnx", report=report)      # doctest: +SKIP
        PosixPath('kaon.onnx')
    """
    if isinstance(model, str | Path):
        model = open_model(model)
    path = Path(path)
    if path.suffix != ".onnx":
        raise BundleError(f"{path}: the name of a bundle ends in .onnx")
    reference_path = path.with_name(f"{path.stem}.reference.parquet")
    frame = model.reference() if reference is None else reference
    parity = partial(_compare_targets, model.card)
    paths = path, reference_path
    is_whole = set(model.card.target_names) <= set(frame.columns)
    if not is_whole:
        warn(
            f"{path}: written without a reference file, as no rows have all targets; "
            "systematics then needs a dataset",
            PidganWarning,
            stacklevel=2,
        )
    with (
        writing_set(*paths, overwrite=overwrite) as (temporary, temporary_reference),
        Bar("export", show=progress),
    ):
        conditions, noise = _test_rows(model, frame)
        targets = model.generate(conditions, noise)
        first = slice(0, SELF_TEST_ROWS)
        file = None
        if is_whole:
            write_table(temporary_reference, frame, overwrite=True)
            digest = file_sha256(temporary_reference)
            file = {"file": reference_path.name, "sha256": digest, "rows": len(frame)}
        arrays = {"conditions": conditions, "noise": noise, "targets": targets}
        update = {
            "schema_version": CORRECTOR_VERSION
            if model.card.is_corrector
            else SCHEMA_VERSION,
            "validation": {} if report is None else report.headline(),
            "reference": file,
            "self_test": {name: v[first].tolist() for name, v in arrays.items()},
        }
        card = model.card.model_copy(update=update)

        def write(*, double: bool) -> FloatArray:
            graph = build_graph(model, double=double)
            onnx.helper.set_model_props(graph, {CARD_KEY: card.to_json()})
            onnx.checker.check_model(graph, full_check=True)
            temporary.write_bytes(seal(graph.SerializeToString()))
            bundle = open_bundle(temporary, verify=False)
            return bundle.generate(conditions, noise)

        def agrees(got: FloatArray) -> bool:
            # Of the rows of the self-test, which every user repeats, none is excused.
            found = parity(targets, got)
            of_test = parity(targets[first], got[first])
            return found.differing <= most_differing and not of_test.differing

        most_differing = PARITY_EXCUSED * len(targets)
        got = write(double=False)
        if not agrees(got):
            # Rounding grows in steep networks: not in double precision.
            in_single = parity(targets, got).differing
            got = write(double=True)
            if not agrees(got):
                raise BundleError(
                    f"{path}: ONNX and keras differ in "
                    f"{parity(targets, got).differing} of {len(targets)} rows, "
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


def check_parity(model: Exported, bundle: Bundle, *, rows: int | None = None) -> Parity:
    """Compare a bundle with the keras model that it came from, on reference rows.

    These are `PARITY_ROWS` by default, and fewer if a row has many targets.
    """
    conditions, noise = _test_rows(model, model.reference(), rows=rows)
    expected = model.generate(conditions, noise)
    got = bundle.generate(conditions, noise)
    return _compare_targets(model.card, expected, got)


def _compare_targets(card: Card, expected: FloatArray, got: FloatArray) -> Parity:
    """Compare two evaluations of the targets of a card."""
    steps = [target.step for target in card.targets]
    return compare(expected, got, steps, cells=card.has_cells)


def compare(
    expected: FloatArray,
    got: FloatArray,
    steps: Sequence[float | None] = (),
    *,
    cells: bool = False,
) -> Parity:
    """Compare two evaluations, (n, n_targets) each, row by row.

    Of targets on a fine grid, whose steps are given, one step is no difference.
    """
    scale = np.maximum(1, np.abs(expected))
    distance = distances(expected, got, cells=cells)
    allowed = np.full_like(distance, TOLERANCE)
    for j, step in enumerate(steps):
        one = 1.001 * (step or 0.0) / scale[:, j]
        allowed[one < FINE_STEP, j] = np.maximum(one, TOLERANCE)[one < FINE_STEP]
    worst = distance.max(axis=1)
    agree = (distance <= allowed).all(axis=1)
    largest = float(worst[agree].max()) if agree.any() else 0.0
    return Parity(rows=len(worst), differing=int((~agree).sum()), largest=largest)


def build_graph(model: Exported, *, double: bool = False) -> onnx.ModelProto:
    """Return the graph (conditions, noise) -> targets, perhaps in double precision.

    That of a corrector has the simulated targets as an input of its own.
    """
    graph = OnnxGraph(double=double)
    ports = {name: graph.value(name, n) for name, n in model.card.ports.items()}
    *known, noise = ports.values()
    targets = model.evaluate(f.concatenate(known), noise)
    return graph.finish(
        [*ports.values()],
        {"targets": targets},
        version=model.card.versions.get("pidgan", ""),
    )


def _test_rows(
    model: Exported, frame: pd.DataFrame, *, rows: int | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return conditions spread over the reference rows, and noise."""
    if rows is None:
        most = max(PARITY_NUMBERS // len(model.card.targets), LEAST_PARITY_ROWS)
        rows = min(PARITY_ROWS, most)
    names = list(model.card.input_names)
    if model.card.is_corrector:
        frame = frame[frame[SIMULATED] == 1]
    index = np.linspace(0, len(frame) - 1, rows).astype(np.int64)
    conditions = frame[names].to_numpy(dtype=np.float32)[index]
    keys = entry_keys(seed=PARITY_SEED, track="", start=0, stop=rows)
    return conditions, keyed_normal(keys, n_noise=model.card.n_noise)
