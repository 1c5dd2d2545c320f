"""Figures of a family of showers, as a table of families has them.

Parametrisations that are fitted in seconds stand beside the families that are trained,
judged by the same showers: what a network has to beat.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

from pidgan.bundle.bundle import Bundle, open_bundle
from pidgan.bundle.noise import entry_keys, keyed_normal
from pidgan.errors import PidganError
from pidgan.report.validation import validate
from pidgan.sample.dataset import Dataset
from pidgan.training.export import export_bundle
from pidgan.training.families import CLASSICAL
from pidgan.training.loop import train
from pidgan.training.record import Progress

SPEED_CELLS = 2**21  # cells of the showers of a timing, some 0.1 to 10 s

SHOWER_TEXT = (
    "All families were trained on the same showers for the same time, and the "
    "parametrisations gflash and pca were fitted to them; all were judged by the same "
    "figures, each with its floor in brackets: the same figure for real showers "
    "against real showers. C2ST is the AUC of the better of two classifiers, on "
    "observables and on cells; separation is the mean separation power of the "
    "observables; mean and width are the largest differences of the response and of "
    "its resolution in bins of the energy; flags is the number of figures that chance "
    "does not explain."
)


@dataclass(frozen=True, kw_only=True)
class ShowerFigures:
    """The figures that one family of showers reached.

    Attributes:
        family: Name of the family, or of a parametrisation.
        steps: Number of updates; 0 for a parametrisation.
        training_seconds: Wall-clock time of the training or of the fit.
        c2st_high, c2st_low: AUC of classifiers on observables and on cells.
        c2st_high_floor, c2st_low_floor: Their floors.
        separation, separation_floor: Mean separation power of the observables.
        mean, mean_floor: Largest difference of the mean response in a bin.
        width, width_floor: Largest difference of the resolution in a bin.
        flags: Number of figures that chance does not explain.
        showers_per_second: Showers that ONNX Runtime generates per second.
        bundle: Path of the bundle, None if the training failed.
        problem: Reason why the training failed.
    """

    columns: ClassVar[dict[str, int]] = {
        "C2ST high": 15,
        "C2ST low": 15,
        "separation": 15,
        "mean": 15,
        "width": 15,
        "flags": 6,
        "steps": 8,
        "train": 7,
        "showers/s": 10,
    }

    family: str
    steps: int = 0
    training_seconds: float = math.nan
    c2st_high: float = math.nan
    c2st_high_floor: float = math.nan
    c2st_low: float = math.nan
    c2st_low_floor: float = math.nan
    separation: float = math.nan
    separation_floor: float = math.nan
    mean: float = math.nan
    mean_floor: float = math.nan
    width: float = math.nan
    width_floor: float = math.nan
    flags: int = 0
    showers_per_second: float = math.nan
    bundle: str | None = None
    problem: str = ""

    def row(self) -> dict[str, str]:
        """Return the cells of the table, figures with their floors in brackets."""
        if self.problem:
            return {"family": self.family, "remark": f"failed: {self.problem}"}
        return {
            "family": self.family,
            "C2ST high": f"{self.c2st_high:.3f} ({self.c2st_high_floor:.3f})",
            "C2ST low": f"{self.c2st_low:.3f} ({self.c2st_low_floor:.3f})",
            "separation": f"{self.separation:.4f} ({self.separation_floor:.4f})",
            "mean": f"{self.mean:.1%} ({self.mean_floor:.1%})",
            "width": f"{self.width:.0%} ({self.width_floor:.0%})",
            "flags": f"{self.flags}",
            "steps": f"{self.steps}" if self.steps else "fit",
            "train": f"{self.training_seconds:.0f} s",
            "showers/s": f"{self.showers_per_second:.0f}",
        }

    @staticmethod
    def panels(
        done: "list[ShowerFigures]",
    ) -> dict[str, tuple[list[float], list[float] | None]]:
        """Return the values and floors that are drawn."""
        return {
            "C2ST on observables": (
                [f.c2st_high for f in done],
                [f.c2st_high_floor for f in done],
            ),
            "C2ST on cells": (
                [f.c2st_low for f in done],
                [f.c2st_low_floor for f in done],
            ),
            "mean separation": (
                [f.separation for f in done],
                [f.separation_floor for f in done],
            ),
            "showers/s": ([f.showers_per_second for f in done], None),
        }


def judge_shower_family(
    dataset: Dataset,
    name: str,
    folder: Path,
    options: Mapping[str, Any],
    *,
    progress: Callable[[str, Progress], None] | None,
) -> ShowerFigures:
    """Train a family of showers or fit a parametrisation, judge it and write it."""
    start = time.perf_counter()
    seed = options["seed"]
    model: Any
    try:
        if name in CLASSICAL:
            from pidgan.training.classical.fit import fit_parametrisation

            model = fit_parametrisation(dataset, cast(Any, name), seed=seed)
        else:
            show = progress and partial(progress, name)
            model = train(dataset, family=name, progress=show, **options)
    except PidganError as error:
        return ShowerFigures(family=name, problem=str(error))
    seconds = time.perf_counter() - start
    report = validate(model, dataset, progress=False, seed=seed)
    path = folder / f"{name}.onnx"
    export_bundle(model, path, report=report, overwrite=True, progress=False)
    f = report.numbers
    worst = f["response"]["all"]["worst"]
    figures: dict[str, Any] = {
        "c2st_high": f["c2st"]["high"],
        "c2st_low": f["c2st"]["low"],
        "separation": f["separation_mean"],
        "mean": worst["linearity"],
        "width": worst["resolution"],
    }
    values: dict[str, Any] = {
        f"{key}{end}": _number(one[kind])
        for key, one in figures.items()
        for end, kind in (("", "value"), ("_floor", "floor"))
    }
    return ShowerFigures(
        family=name,
        steps=model.card.steps,
        training_seconds=seconds,
        flags=len(f["flags"]),
        showers_per_second=shower_speed(open_bundle(path)),
        bundle=str(path),
        **values,
    )


def shower_speed(bundle: Bundle) -> float:
    """Return the showers per second that a bundle generates from given noise."""
    frame = bundle.reference()
    assert frame is not None
    n = max(1, min(len(frame), SPEED_CELLS // len(bundle.card.targets)))
    rows = frame[list(bundle.card.condition_names)].to_numpy(dtype="float32")[:n]
    keys = entry_keys(seed=1, track="", start=0, stop=n)
    noise = keyed_normal(keys, n_noise=bundle.card.n_noise)
    bundle.generate(rows[:1], noise[:1])
    start = time.perf_counter()
    bundle.generate(rows, noise)
    return n / (time.perf_counter() - start)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
