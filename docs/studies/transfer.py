"""Trainings that start from the generator of a neighbouring sample, and those without.

    python docs/studies/transfer.py -o transfer --minutes 60

Two periods of data taking are simulated that differ in photon yields, resolutions,
backgrounds and occupancy. A generator of kaons of the first is trained on 300,000
rows. Then the second period is learnt, from 300,000 rows and from 5,000, with and
without this start. All are judged on rows of the second period that nothing was trained
on, by the classifier two-sample test of real and generated rows at the same conditions.

The rows are true signal with weights 1. Whatever is done stays in the folder: the same
command goes on. `results.json` has all figures; a table is printed, and a figure drawn.
These are the figures of docs/how-to/training/start-from-a-neighbour.md.
"""

import argparse
import itertools
import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import pidgan
from pidgan.bundle.card import sample_targets
from pidgan.files.tables import write_trees
from pidgan.report.metrics import c2st
from pidgan.sample.building import build_dataset
from pidgan.sample.dataset import Dataset
from pidgan.sample.loading import load_sample
from pidgan.sample.weights import with_differences
from pidgan.simulation import calibration
from pidgan.simulation import tracks as toy
from pidgan.simulation.detector import DATA
from pidgan.simulation.rich import respond
from pidgan.training.model import open_model

DECAY = "dstar_k"
OTHER_PERIOD = replace(
    DATA,
    rich1=replace(DATA.rich1, photons=18.0, resolution=1.75e-3, background=18.0),
    rich2=replace(DATA.rich2, photons=14.2, resolution=0.74e-3, background=20.0),
    index_offset=0.05e-3,
    weak_fraction=0.09,
)
PERIODS = {"first": (DATA, 1.0), "second": (OTHER_PERIOD, 1.25)}
"""Detector, and factor of the number of tracks in an event."""

CHUNK = 250_000
C2ST_ROWS = 30_000


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A dataset: its period, its rows, the first of its seeds and its parts."""

    period: str
    n: int
    seed: int
    shares: tuple[float, float, float]


MANY, FEW = (0.94, 0.05, 0.01), (0.85, 0.14, 0.01)
DATASETS = {
    "first": Rows(period="first", n=319_000, seed=1, shares=MANY),
    "many": Rows(period="second", n=319_000, seed=100, shares=MANY),
    "few-1": Rows(period="second", n=5_890, seed=200, shares=FEW),
    "few-2": Rows(period="second", n=5_890, seed=300, shares=FEW),
    "fresh": Rows(period="second", n=250_000, seed=1000, shares=(0.01, 0.01, 0.98)),
}
BEFORE, FULL = 12_000, 6_000
"""Steps of the training on the first period, and of a full one on the second."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training, and whether it starts from the generator of the first period."""

    rows: str
    steps: int
    seed: int = 1
    start: bool = False

    @property
    def name(self) -> str:
        """Name of its folder."""
        how = "started" if self.start else "cold"
        return f"{self.rows}-{how}-{self.steps}-{self.seed}"


NEIGHBOUR = Job(rows="first", steps=BEFORE)
JOBS = (
    NEIGHBOUR,
    *(
        Job(rows=f"few-{k}", steps=steps, seed=k, start=start)
        for k in (1, 2)
        for steps, start in ((488, True), (488, False), (1500, False))
    ),
    Job(rows="many", steps=1200, start=True),
    Job(rows="many", steps=FULL),
    Job(rows="many", steps=1200),
    *(Job(rows="many", steps=n, start=True) for n in (600, 2400)),
    Job(rows="many", steps=1200, start=True, seed=2),
    Job(rows="many", steps=FULL, seed=2),
)


def main() -> None:
    """Do what is left, as far as the time allows, and show what is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60.0)
    arguments = parser.parse_args()
    folder, end = arguments.output, time.monotonic() + 60 * arguments.minutes
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    try:
        for job in JOBS:
            if job.name not in results:
                results[job.name] = _do(job, folder, end)
                path.write_text(json.dumps(results, indent=1))
        if "floor" not in results:
            results["floor"] = _floor(folder)
            path.write_text(json.dumps(results, indent=1))
    except KeyboardInterrupt:
        print("there is more to do: the same command goes on")
    _show(results)
    _draw(results, folder / "transfer.png")


def _do(job, folder, end):
    """Train, judge, and return the figures."""
    place = folder / job.name

    def look(_):
        if time.monotonic() > end:
            raise KeyboardInterrupt

    look(None)
    model = place
    if not (place / "model.json").is_file():
        start = folder / NEIGHBOUR.name if job.start else None
        options = {"steps": job.steps, "seed": job.seed, "from_model": start}
        trained = pidgan.train(
            _dataset(folder, job.rows),
            directory=place,
            resume=True,
            progress=look,
            **options,
        )
        trained.save(place)
    model = open_model(place)
    figures = {"c2st": _c2st(folder, model)}
    print(job.name, *figures["c2st"], flush=True)
    return figures


def _dataset(folder, name):
    """Return a dataset, which is made if it is not there."""
    path = folder / f"{name}-data"
    if not path.is_dir():
        _pure(DATASETS[name]).save(path)
    return Dataset.open(path)


def _pure(rows):
    """Return rows of true signal of a period."""
    bare = load_sample(f"sim_{DECAY}").model_copy(
        update={"discriminant": None, "unweighted": True}
    )
    left = rows.n
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for seed in itertools.count(rows.seed):
            trees = _simulate(rows.period, min(CHUNK, 2 * left), seed)
            signal = {tree: b["probe_TRUE_SIGNAL"] == 1 for tree, b in trees.items()}
            kept = min(1.0, left / sum(v.sum() for v in signal.values()))
            first = {
                tree: v.nonzero()[0][: int(np.ceil(kept * v.sum()))]
                for tree, v in signal.items()
            }
            files.append(Path(folder) / f"{seed}.root")
            chosen = {
                tree: {name: values[first[tree]] for name, values in branches.items()}
                for tree, branches in trees.items()
            }
            write_trees(files[-1], chosen)
            left -= sum(len(v) for v in first.values())
            if left <= 0:
                return build_dataset(bare, files, shares=rows.shares, progress=False)


def _simulate(period, n, seed):
    """Return trees of n candidates of a period."""
    detector, busy = PERIODS[period]
    mode, rng = calibration.MODES[DECAY], np.random.default_rng([seed, 17])
    probes = calibration.draw_probes(mode, calibration.SPECTRA[DECAY], n, rng=rng)
    n_tracks = np.rint(probes.tracks.n_tracks * busy).astype(np.int32)
    probes = replace(probes, tracks=replace(probes.tracks, n_tracks=n_tracks))
    response = respond(probes.tracks, detector=detector, rng=rng)
    momentum = toy.momentum_components(probes.tracks.p, probes.tracks.eta, rng=rng)
    return calibration.calibration_trees(mode, probes, momentum, response, rng=rng)


def _fresh(folder):
    """Return conditions and targets of rows that nothing was trained on."""
    part = _dataset(folder, "fresh").part("test")
    return np.asarray(part.conditions), np.asarray(part.targets)


def _c2st(folder, model):
    """Return areas of trees and of a network, and their error."""
    x, y = (v[:C2ST_ROWS] for v in _fresh(folder))
    generated = sample_targets(model, x, seed=1).astype(np.float64)
    found = c2st(
        with_differences(x, y),
        with_differences(x, generated),
        max_rows=C2ST_ROWS,
        paired=True,
    )
    return [round(v, 4) for v in (found.auc_trees, found.auc_network, found.error)]


def _floor(folder):
    """Return what real rows show against others, and the start as it is."""
    x, y = _fresh(folder)
    halves = [with_differences(x[k::2], y[k::2])[:C2ST_ROWS] for k in (0, 1)]
    found = c2st(*halves, max_rows=C2ST_ROWS)
    start = open_model(folder / NEIGHBOUR.name)
    figures = (found.auc_trees, found.auc_network, found.error)
    return {"c2st": [round(v, 4) for v in figures], "start": _c2st(folder, start)}


def _show(results):
    """Print a table."""
    print(f"{'rows':6} {'steps':>6} {'start':5} seed  trees   network error")
    for job in JOBS[1:]:
        if job.name in results:
            trees, network, error = results[job.name]["c2st"]
            print(
                f"{job.rows:6} {job.steps:6} {'yes' if job.start else 'no':5} "
                f"{job.seed:4}  {trees:.4f}  {network:.4f}  {error:.4f}"
            )
    if "floor" in results:
        print(f"real rows {results['floor']['c2st']}")
        print(f"the start as it is {results['floor']['start']}")


def _draw(results, path):
    """Draw quality against steps."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for start, label in ((False, "from scratch"), (True, "from the neighbour")):
        for rows, style in (("many", "-o"), ("few-1", "--s")):
            known = sorted(
                (job.steps, max(results[job.name]["c2st"][:2]))
                for job in JOBS
                if job.name in results
                and (job.rows, job.start, job.seed) == (rows, start, 1)
            )
            if known:
                n = "300,000" if rows == "many" else "5,000"
                axes.plot(
                    *zip(*known, strict=True),
                    style,
                    color="tab:orange" if start else "tab:blue",
                    label=f"{label}, {n} rows",
                )
    axes.set(xscale="log", xlabel="steps", ylabel="C2ST (larger of two classifiers)")
    axes.axhline(0.5, color="black", linewidth=0.8)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
