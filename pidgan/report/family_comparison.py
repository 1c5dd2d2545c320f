"""Families trained on the same rows for the same time, judged by the same figures."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pidgan.arguments import checked
from pidgan.bundle.bundle import Bundle, open_bundle
from pidgan.bundle.noise import entry_keys, keyed_normal
from pidgan.errors import PidganError, TrainingError, nearest
from pidgan.files.writing import refuse_existing
from pidgan.notebook import Facts, listed, shown
from pidgan.progress import training_progress
from pidgan.report.index_page import refresh_index
from pidgan.report.page import Picture, Section, Table, write_page
from pidgan.report.plots import Figure, png
from pidgan.report.plots.samples import plot_families
from pidgan.report.report import plain
from pidgan.report.shower_comparison import (
    SHOWER_TEXT,
    ShowerFigures,
    judge_shower_family,
)
from pidgan.report.validation import validate
from pidgan.sample.dataset import Dataset
from pidgan.training.export import export_bundle
from pidgan.training.families import CLASSICAL, FAMILIES, RECIPES, SHOWER_FAMILIES
from pidgan.training.loop import train
from pidgan.training.record import Progress

SPEED_ROWS, SPEED_REPETITIONS = 2**17, 3  # one timing takes some 0.1 to 1 s
JSON_NAME, FIGURE_NAME = "comparison.json", "comparison.png"
TEXT = (
    "All families were trained on the same rows for the same time, and judged by the "
    "same figures, each with its floor in brackets: the same figure for real rows "
    "against real rows. C2ST is the AUC of the better of two classifiers, KS the "
    "weighted distance averaged over the targets, max |de| the largest difference "
    "between generated and real efficiency of any cut, and pull rms that of the "
    "differences in bins over their uncertainties, averaged over the cuts."
)
COLUMNS = ("C2ST", "KS", "max |de|", "pull rms", "steps", "train", "rows/s")
WIDTHS = dict(zip(COLUMNS, (15, 15, 9, 11, 8, 7, 7), strict=True))  # as text


@dataclass(frozen=True, kw_only=True)
class FamilyFigures:
    """The figures that one family reached.

    Attributes:
        family: Name of the family, or of a recipe.
        steps: Number of updates.
        training_seconds: Wall-clock time of the training.
        c2st, c2st_error, c2st_floor: AUC of the better of two classifiers.
        ks, ks_floor: Weighted KS distance, averaged over the targets.
        difference, difference_cut: Largest |generated - real| efficiency of the cuts,
            and the cut it belongs to.
        pull_rms, pull_floor: Rms of the pulls in bins, averaged over the cuts.
        rows_per_second: Rows that ONNX Runtime generates per second from given noise.
        bundle: Path of the bundle, None if the training failed.
        problem: Reason why the training failed.
    """

    columns: ClassVar[dict[str, int]] = WIDTHS

    family: str
    steps: int = 0
    training_seconds: float = math.nan
    c2st: float = math.nan
    c2st_error: float = math.nan
    c2st_floor: float = math.nan
    ks: float = math.nan
    ks_floor: float = math.nan
    difference: float = math.nan
    difference_cut: str = ""
    pull_rms: float = math.nan
    pull_floor: float = math.nan
    rows_per_second: float = math.nan
    bundle: str | None = None
    problem: str = ""

    def row(self) -> dict[str, str]:
        """Return the cells of the table, figures with their floors in brackets."""
        if self.problem:
            return {"family": self.family, "remark": f"failed: {self.problem}"}
        return {
            "family": self.family,
            "C2ST": f"{self.c2st:.3f} ({self.c2st_floor:.3f})",
            "KS": f"{self.ks:.4f} ({self.ks_floor:.4f})",
            "max |de|": f"{self.difference:.4f}",
            "pull rms": f"{self.pull_rms:.2f} ({self.pull_floor:.2f})",
            "steps": f"{self.steps}",
            "train": f"{self.training_seconds:.0f} s",
            "rows/s": f"{self.rows_per_second / 1e6:.2f}M",
        }

    @staticmethod
    def panels(
        done: "list[FamilyFigures]",
    ) -> dict[str, tuple[list[float], list[float] | None]]:
        """Return the values and floors that are drawn."""
        return {
            "C2ST AUC": ([f.c2st for f in done], [f.c2st_floor for f in done]),
            "mean KS distance": ([f.ks for f in done], [f.ks_floor for f in done]),
            "pull rms": ([f.pull_rms for f in done], [f.pull_floor for f in done]),
            "million rows/s": ([f.rows_per_second / 1e6 for f in done], None),
        }


@shown
@dataclass(frozen=True, kw_only=True)
class FamilyComparison:
    """The figures of several families, in the order they were asked for.

    Attributes:
        sample: Name of the calibration sample.
        training_rows: Number of rows the families were trained on.
        test_rows: Number of rows they were judged by.
        families: Figures of each family.
    """

    sample: str
    training_rows: int
    test_rows: int
    families: tuple[FamilyFigures, ...] | tuple[ShowerFigures, ...]

    def to_json(self) -> str:
        """Return all figures as JSON; a missing number is null."""
        return json.dumps(plain(asdict(self)), indent=1, allow_nan=False)

    def text(self) -> str:
        """Return a table with a line for each family."""
        widths, first = self.families[0].columns, 15 if self._has_showers else 13
        lines = [
            f"{self.sample}: {self.training_rows} training rows, {self.test_rows} test "
            "rows; in brackets the floor",
            f"{'family':{first}} "
            + " ".join(f"{name:>{n}}" for name, n in widths.items()),
        ]
        for row in (figures.row() for figures in self.families):
            cells = [f"{row.get(name, ''):>{n}}" for name, n in widths.items()]
            lines.append(
                f"{row['family']:{first}} {row.get('remark', ' '.join(cells))}"
            )
        return "\n".join(lines)

    def save(self, directory: str | Path, *, overwrite: bool = False) -> Path:
        """Write "comparison.json", "comparison.png" and report.html; return its path.

        Files of an existing directory are replaced where `overwrite` is set.
        """
        figure = self._draw()
        section = Section(
            title="Families",
            text=SHOWER_TEXT if self._has_showers else TEXT,
            tables=[Table([one.row() for one in self.families])],
            pictures=[Picture(figure, "Families (points) and floors (grey).")],
        )
        path = write_page(
            directory,
            f"Families on {self.sample}",
            [section],
            lead=f"{self.training_rows} training rows, {self.test_rows} test rows.",
            beside={JSON_NAME: self.to_json(), FIGURE_NAME: png(figure)},
            overwrite=overwrite,
        )
        refresh_index(path)
        return path

    def _draw(self) -> Figure:
        done: list[Any] = [f for f in self.families if not f.problem]
        panels = type(self.families[0]).panels(done)
        return plot_families([f.family for f in done], panels)

    @property
    def _has_showers(self) -> bool:
        return isinstance(self.families[0], ShowerFigures)

    def _facts(self) -> Facts:
        rows = [figures.row() for figures in self.families]
        return Facts(
            f"{self.sample}, {listed([row['family'] for row in rows])}",
            {
                "training rows": f"{self.training_rows:,}",
                "test rows": f"{self.test_rows:,}",
                **{
                    row.pop("family"): listed([f"{k} {v}" for k, v in row.items()])
                    for row in rows
                },
            },
        )


@checked
def compare_families(
    dataset: Dataset | str | Path,
    directory: str | Path,
    *,
    families: Sequence[str] | None = None,
    budget: str | float | None = None,
    steps: int | str | None = None,
    seed: int = 1,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    c2st_rows: int = 20_000,
    overwrite: bool = False,
    progress: Callable[[str, Progress], None] | bool | None = True,
) -> FamilyComparison:
    """Train several families on a dataset, each for the same budget, and judge them.

    Writes the bundle of each family with its reference file. Whenever a family is
    finished, "comparison.json", the figure "comparison.png" and report.html are written
    for all families so far. A family whose training diverges is listed with the reason.

    Args:
        dataset: Dataset from `build_dataset`, or its folder.
        directory: Directory to write into.
        families: Names of families and of recipes; of a dataset of showers also
            "gflash" and "pca", which are fitted. The default is every family for the
            dataset.
        budget: Wall-clock time of each training, "10m" or seconds.
        steps: Number of updates instead of a budget, or a plan, see `train`.
        seed: Seed of training, generated rows and classifiers.
        settings: Settings that differ from the defaults, by family.
        c2st_rows: Number of rows of each sample that the classifiers see.
        overwrite: Whether existing files are replaced.
        progress: Whether bars, or lines of a log, are shown; or a function that is
            called with the name of the family and its progress after about every
            second of training.

    Returns:
        The figures.

    Raises:
        PidganError: There is no such family or setting, or a bundle exists.

    Example:
        >>> found = compare_families(dataset, "families")         # doctest: +SKIP
        >>> print(found.text())                                   # doctest: +SKIP
    """
    dataset = Dataset.open(dataset)
    showers = dataset.sample.cells is not None
    known = (*CLASSICAL, *SHOWER_FAMILIES) if showers else (*FAMILIES, *RECIPES)
    if families is None:
        families = known if showers else FAMILIES
    for name in (*families, *(settings or {})):
        if name not in known:
            raise PidganError(
                f"no family {name!r}; there are {', '.join(known)}"
                + nearest(name, known)
            )
    if not families or len(set(families)) < len(families):
        given = ", ".join(families) or "none"
        raise PidganError(f"families are {given}, expected each once")
    folder = Path(directory)
    for path in (folder / f"{name}.onnx" for name in families):
        refuse_existing(path, overwrite=overwrite)
    found: list[Any] = []
    for name in families:
        own = {"settings": (settings or {}).get(name)}
        options = {"budget": budget, "steps": steps, "seed": seed, **own}
        with training_progress(progress, named=True) as told:
            judged: FamilyFigures | ShowerFigures = (
                judge_shower_family(dataset, name, folder, options, progress=told)
                if showers
                else _train_and_judge(
                    dataset, name, folder, options, c2st_rows=c2st_rows, progress=told
                )
            )
        found.append(judged)
        comparison = FamilyComparison(
            sample=dataset.sample.name,
            training_rows=len(dataset.part("train").weights),
            test_rows=len(dataset.part("test").weights),
            families=tuple(found),
        )
        comparison.save(folder, overwrite=True)
    return comparison


def measure_speed(bundle: Bundle) -> float:
    """Return the rows per second that a bundle generates at its own reference rows.

    The noise is given, and the fastest of some repetitions counts.
    """
    frame = bundle.reference()
    assert frame is not None
    rows = frame[list(bundle.card.condition_names)].to_numpy(dtype=np.float32)
    conditions = rows[np.arange(SPEED_ROWS) % len(rows)]
    keys = entry_keys(seed=1, track="", start=0, stop=SPEED_ROWS)
    noise = keyed_normal(keys, n_noise=bundle.card.n_noise)
    seconds = []
    for _ in range(SPEED_REPETITIONS):
        start = time.perf_counter()
        bundle.generate(conditions, noise)
        seconds.append(time.perf_counter() - start)
    return SPEED_ROWS / min(seconds)


def _train_and_judge(
    dataset: Dataset,
    name: str,
    folder: Path,
    options: Mapping[str, Any],
    *,
    c2st_rows: int,
    progress: Callable[[str, Progress], None] | None,
) -> FamilyFigures:
    show = progress and partial(progress, name)
    start = time.perf_counter()
    try:
        model = train(dataset, family=name, progress=show, **options)
    except TrainingError as error:
        return FamilyFigures(family=name, problem=str(error))
    seconds = time.perf_counter() - start
    given = {"seed": options["seed"], "c2st_rows": c2st_rows}
    report = validate(model, dataset, progress=False, **given)
    path = folder / f"{name}.onnx"
    export_bundle(model, path, report=report, overwrite=True, progress=False)
    return FamilyFigures(
        family=name,
        steps=model.card.steps,
        training_seconds=seconds,
        rows_per_second=measure_speed(open_bundle(path)),
        bundle=str(path),
        **_fidelity(report.numbers),
    )


def _fidelity(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that are compared, from those of a report."""
    cuts = figures["efficiency"]
    c2st = [figures["c2st"]]
    ks = [target["ks"] for target in figures["targets"].values()]
    pulls = [cut["pull_rms"] for cut in cuts.values()]
    differences = {
        cut: abs(found["overall"]["difference"]["value"]) for cut, found in cuts.items()
    }
    worst = max(differences, key=lambda cut: differences[cut])
    return {
        "c2st": _mean(c2st, "value"),
        "c2st_error": _mean(c2st, "error"),
        "c2st_floor": _mean(c2st, "floor"),
        "ks": _mean(ks, "value"),
        "ks_floor": _mean(ks, "floor"),
        "difference": differences[worst],
        "difference_cut": worst,
        "pull_rms": _mean(pulls, "value"),
        "pull_floor": _mean(pulls, "floor"),
    }


def _mean(figures: Sequence[Mapping[str, Any]], name: str) -> float:
    present = [figure[name] for figure in figures if figure[name] is not None]
    return float(np.mean(present)) if present else math.nan
