"""The whole chain on simulated calibration samples, compared with the truth.

A generator for kaons and one for pions are applied to an analysis ntuple with other
kinematics and occupancy, and the quoted efficiency is compared with the true response.
Both are made side by side, in a process each, where there are two cores: the results
are the same as one after the other.
"""

import contextlib
import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import pidgan
from pidgan import simulation
from pidgan.arguments import checked
from pidgan.bundle.card import trained_text
from pidgan.errors import NtupleError
from pidgan.files.documents import read_json
from pidgan.files.machine import available_cores
from pidgan.files.processes import Processes, may_start_processes
from pidgan.files.tables import find_sources, read_columns, write_trees
from pidgan.files.writing import (
    refuse_existing,
    refuse_foreign,
    writing_file,
    writing_folder,
)
from pidgan.sample.cuts import parse_cut
from pidgan.sample.species import pdg_id

CALIBRATION_TRACKS = 200_000
ANALYSIS_ENTRIES = 50_000
# A number of steps: the generators are as good on a machine that is busy, and the same
# seed gives the same demo.
STEPS = 5000
# Independent responses of the analysis tracks that are averaged for the truth: its own
# statistical error is then far below the quoted one.
TRUTH_REPEATS = 10
# Calibration decay, track in the analysis ntuple, and species.
SPECIES = {"kaon": ("dstar_k", "Kplus", "K+"), "pion": ("dstar_pi", "piminus", "pi+")}
CUTS = ("RichDLLk > 0", "RichDLLk > 5", "RichDLLk - RichDLLp > 0")
# Files that say which demo a folder holds, and that it is finished.
REQUEST, DONE = "demo-request.json", "demo.json"


@checked
def run_demo(
    output: str | Path,
    *,
    seed: int = 1,
    budget: str | float | None = None,
    overwrite: bool = False,
    workers: int | None = None,
    progress: bool = True,
    echo: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Run everything, print a table and write report.html.

    Whatever is finished stays in the folder when the demo is stopped. A second call
    with the same arguments continues after it.

    Args:
        output: Folder for all files that are made.
        seed: Seed of simulation, training and generation.
        budget: Time of each of the two trainings, with the preparation of their rows,
            as in `train`; 5,000 steps by default.
        overwrite: Replace the folder of an earlier demo.
        workers: Number of generators that are made at the same time; 2 by default, or 1
            where there is one core, or a script that new processes cannot import.
        progress: Whether bars, or lines of a log, are shown.
        echo: Function that is called with a line of text for each stage.

    Returns:
        Quoted and true efficiencies, a row for each species and cut: value, stat, syst
        and total as quoted, generated before the correction, truth, and
        pull = (value - truth) / total.

    Raises:
        NtupleError: The folder holds a finished demo, another one, or other files.

    Example:
        >>> run_demo("demo", seed=1)                              # doctest: +SKIP
    """
    # What needs the training dependencies fails before the work. Other processes may do
    # it, and tensorflow takes seconds to load.
    if importlib.util.find_spec("tensorflow") is None:
        _ = pidgan.train
    from pidgan.report.index_page import INDEX_NAME
    from pidgan.report.page import HTML_NAME
    from pidgan.training.budget import Duration

    work = Path(output)
    length: Any = {"steps": STEPS}
    if budget is not None:
        length = {"budget": Duration.parse(budget).stored}
    _begin(work, {"seed": seed, **length, **_sizes()}, overwrite=overwrite)
    stages = _Stages(echo, 4)
    given: dict[str, Any] = {"seed": seed, "progress": progress}
    analysis, replaced = work / "analysis.root", work / "analysis-pid.root"
    if not analysis.exists():
        branches = simulation.simulate_analysis(ANALYSIS_ENTRIES, seed=seed)
        write_trees(analysis, {simulation.ANALYSIS_TREE: branches})
    both = " and ".join(SPECIES)
    with _makers(workers, progress=progress) as make:
        tracks = CALIBRATION_TRACKS
        stages.begin(f"{both}: {tracks} simulated tracks each, sWeights, training")
        make(partial(_train, work, length=length, tracks=tracks, **given))
        stages.begin(
            f"{both}: validation on rows never trained on, export, systematics"
        )
        make(partial(_judge, work, **given))
    stages.begin("apply: generators replace the simulated response of the ntuple")
    bundles = {track: work / f"{n}.onnx" for n, (_, track, _) in SPECIES.items()}
    replace: Any = {"mode": "replace", "species_from": "TRUEID", **given}
    pidgan.apply(bundles, [analysis], replaced, **replace)
    stages.begin(
        "efficiency: quoted from the calibration sample, compared with the truth"
    )
    found = pd.DataFrame(
        row
        for name, (_, track, species) in SPECIES.items()
        for row in _quote(
            {track: work / f"{name}-map.json"},
            replaced,
            species=species,
            truth=true_efficiencies(analysis, track, species, seed=seed),
        )
    )
    within = [int((found["pull"].abs() <= n).sum()) for n in (1, 3)]
    echo(
        f"{_shown(found).to_string(index=False)}\n"
        f"within 1 total sigma: {within[0]} of {len(found)}; within 3: {within[1]}"
    )
    _write_summary(work, found)
    for name in SPECIES:
        trained_in = trained_text(pidgan.open_bundle(work / f"{name}.onnx").card)
        if "poor" in trained_in:
            echo(f"{name}: {trained_in}; --overwrite --budget 10m gives it more time")
    reports = [f"{name}-report/{HTML_NAME}" for name in SPECIES]
    for page in (HTML_NAME, *reports, INDEX_NAME):
        echo((work / page).resolve().as_uri())
    return found


class _Stages:
    """Lines that say which of all stages begins, and when the demo began."""

    def __init__(self, echo: Callable[[str], None], total: int) -> None:
        self._echo, self._total, self._number = echo, total, 0

    def begin(self, text: str) -> None:
        """Say that a stage begins."""
        self._number += 1
        self._echo(f"{self._number}/{self._total}  {text}")


@contextlib.contextmanager
def _makers(
    workers: int | None, *, progress: bool
) -> Iterator[Callable[[Callable[[str], None]], None]]:
    """Give the function that calls another one for each species, perhaps side by side.

    Each has a process with one thread for linear algebra: sums with more threads differ
    in their last digits, and side by side these would wait for each other.
    """
    names = list(SPECIES)
    if not may_start_processes():

        def make_here(make: Callable[[str], None]) -> None:
            for name in names:
                make(name)

        yield make_here
        return
    side_by_side = (workers or min(available_cores(), len(names))) > 1
    with Processes(names, show=progress, threads=1) as them:

        def make_there(make: Callable[[str], None]) -> None:
            for group in [names] if side_by_side else [[name] for name in names]:
                them.call({name: partial(make, name) for name in group})

        yield make_there


def _sizes() -> dict[str, int]:
    return {"tracks": CALIBRATION_TRACKS, "entries": ANALYSIS_ENTRIES}


def _begin(work: Path, asked: Mapping[str, Any], *, overwrite: bool) -> None:
    """Prepare the folder of a demo: a new one, or one that was stopped.

    The file REQUEST says which demo it is, and demo.json that it is finished.
    """
    request = work / REQUEST
    if overwrite and os.path.lexists(work):
        mark = REQUEST if request.is_file() else DONE
        refuse_foreign(work, mark)
        _remove(work, last=mark)
    if request.is_file() and not (work / DONE).exists():
        found = read_json(request, error=NtupleError)
        for name, value in asked.items():
            if not isinstance(found, dict) or found.get(name) != value:
                old = found.get(name) if isinstance(found, dict) else None
                raise NtupleError(
                    f"{work} holds a demo that was stopped, with {name} = {old!r}, now "
                    f"{value!r}: give the same, another folder, or --overwrite"
                )
        return
    refuse_existing(work, overwrite=False)
    with writing_folder(work) as folder:
        (folder / REQUEST).write_text(json.dumps(dict(asked)), encoding="utf-8")


def _remove(folder: Path, *, last: str) -> None:
    """Remove a folder, the file that says what it is at the end."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != last:
            path.unlink()
    shutil.rmtree(folder)


def _train(
    work: Path,
    name: str,
    *,
    seed: int,
    length: Mapping[str, Any],
    tracks: int,
    progress: bool,
) -> None:
    """Simulate a calibration sample, and train a generator on it."""
    decay = SPECIES[name][0]
    calibration = work / f"calibration-{name}.root"
    if not calibration.exists():
        # Distinct seeds: the two samples and the analysis ntuple must be independent.
        own = seed + 1000 * (1 + list(SPECIES).index(name))
        trees = simulation.simulate_calibration(decay, tracks, seed=own)
        write_trees(calibration, trees)
    place = work / f"{name}-dataset"
    if not place.exists():
        given: Any = {"seed": seed, "progress": progress}
        made = pidgan.build_dataset(f"sim_{decay}", [calibration], **given)
        # The mass fit is drawn beside the dataset, as `pidgan prepare` does.
        drawn = made.plot().only("mass fit")
        made.save(place, mass_fit=drawn.content(".png"))
    folder = work / f"{name}-model"
    if not (folder / "model.json").exists():
        given = {"seed": seed, "progress": progress, **length}
        model = pidgan.train(place, directory=folder, resume=True, **given)
        model.save(folder)


def _judge(work: Path, name: str, *, seed: int, progress: bool) -> None:
    """Validate a model, export it, and measure its efficiency map."""
    path, found = work / f"{name}.onnx", work / f"{name}-map.json"
    given: dict[str, Any] = {"cuts": CUTS, "seed": seed, "progress": progress}
    # The figures of the report go onto the card: both are made again, or none.
    if not path.exists() or not (work / f"{name}-report").exists():
        model, dataset = _trained(work, name)
        others = [_trained(work, other) for other in SPECIES if other != name]
        report = pidgan.validate(model, dataset, misid=others, **given)
        report.save(work / f"{name}-report", overwrite=True)
        pidgan.export_bundle(
            model, path, report=report, overwrite=True, progress=progress
        )
        found.unlink(missing_ok=True)
    if not found.exists():
        measured = pidgan.run_systematics(pidgan.open_bundle(path), **given)
        measured.save(found, overwrite=True)


def _trained(work: Path, name: str) -> tuple[Any, Any]:
    """Open a model and its dataset."""
    from pidgan.training.model import open_model

    model = open_model(work / f"{name}-model")
    return model, pidgan.Dataset.open(work / f"{name}-dataset")


def _quote(
    maps: Mapping[str, Path], path: Path, *, species: str, truth: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    """Yield the efficiencies of an ntuple beside the true ones."""
    given: Any = {"cuts": CUTS, "species_from": "TRUEID", "progress": False}
    for row in pidgan.pid_efficiency(maps, path, **given):
        true = truth[row.cut]
        yield {
            "species": species,
            "cut": row.cut,
            "value": row.value,
            "stat": row.stat,
            "syst": float(np.sqrt(sum(v**2 for v in row.syst.values()))),
            "total": row.total,
            "generated": row.generated,
            "truth": true,
            "pull": (row.value - true) / row.total,
        }


def true_efficiencies(
    path: Path, track: str, species: str, *, seed: int
) -> Mapping[str, float]:
    """Return the true efficiency of each cut for the tracks of a simulated ntuple.

    The response of the same tracks is simulated several times, independently of the
    response in the file.
    """
    (source,) = find_sources([path])
    kinematics = [f"{track}_P", f"{track}_ETA", "nTracks"]
    frame = read_columns(source, [*kinematics, f"{track}_TRUEID"])
    frame = frame[frame[f"{track}_TRUEID"].abs() == abs(pdg_id(species))]
    p, eta, n_tracks = (frame[name].to_numpy() for name in kinematics)
    shares = []
    for repeat in range(TRUTH_REPEATS):
        columns = simulation.simulate_response(
            species, p, eta, n_tracks, seed=seed + 1_000_000 * (1 + repeat)
        )
        sentinels = dict.fromkeys(columns, (-999.0, -1000.0))
        cuts = [parse_cut(cut, names=columns) for cut in CUTS]
        shares.append([cut.passes(columns, sentinels).mean() for cut in cuts])
    means = [float(np.mean(found)) for found in zip(*shares, strict=True)]
    return dict(zip(CUTS, means, strict=True))


def _shown(found: pd.DataFrame) -> pd.DataFrame:
    """Return the comparison as texts, efficiencies in per cent."""
    numbers = found[["value", "stat", "syst", "truth", "generated"]]
    percent = (100 * numbers).map("{:.2f}".format)
    columns = {
        "quoted +- stat +- syst [%]": percent[["value", "stat", "syst"]].agg(
            " +- ".join, axis=1
        ),
        "truth [%]": percent["truth"],
        "pull": found["pull"].map("{:.2f}".format),
        "generated [%]": percent["generated"],
    }
    return found[["species", "cut"]].assign(**columns)


def _write_summary(work: Path, found: pd.DataFrame) -> None:
    """Write demo.json, report.html and the index, which lead to both validations."""
    from pidgan.report.index_page import write_index
    from pidgan.report.page import Cell, Picture, Section, Table, write_page
    from pidgan.report.plots.efficiencies import plot_comparison

    figure = plot_comparison(
        list(found["species"] + ": " + found["cut"]),
        found["value"].tolist(),
        found["total"].tolist(),
        reference=found["truth"].tolist(),
    )
    shown = _shown(found)
    shown.columns = shown.columns.str.replace("+-", "±", regex=False)
    texts: Any = shown.replace(r"\+-", "±", regex=True).to_dict("records")
    rows = [row | {"cut": Cell(text=row["cut"], level="text")} for row in texts]
    table = Table(title="Efficiencies on the analysis ntuple", rows=rows)
    caption = "Quoted minus true efficiency with the total uncertainty."
    sections = [
        Section(
            title="Quoted and true efficiency",
            text="The quoted efficiency is the generated one on the analysis ntuple "
            "plus the correction measured on the calibration sample. The true one is "
            "that of the simulated detector for the same tracks. The pull is their "
            "difference over the total uncertainty.",
            tables=[table],
            pictures=[Picture(figure, caption)],
        ),
        Section(
            title="Files",
            text="The bundles are kaon.onnx and pion.onnx, the maps are kaon-map.json "
            "and pion-map.json. The analysis ntuple before and after is analysis.root "
            "and analysis-pid.root.",
            links=[
                ("Validation of kaons", "kaon-report/report.html"),
                ("Validation of pions", "pion-report/report.html"),
                ("All reports, the worst figures first", "index.html"),
            ],
        ),
    ]
    lead = "Simulated calibration samples, generators, analysis ntuple and truth."
    write_page(work, "pidgan demo", sections, lead=lead, overwrite=True)
    write_index(work)
    with writing_file(work / DONE) as temporary:
        text = json.dumps(found.to_dict("records"), indent=1)
        temporary.write_text(text, encoding="utf-8")
