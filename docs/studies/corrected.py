"""Simulation corrected to data: detectors that differ, an event that knows more.

    python docs/studies/corrected.py sample -o FOLDER
    pidgan train-corrector FOLDER/data FOLDER/simulation -o FOLDER/corrector
    pidgan export FOLDER/corrector -o FOLDER/corrector.onnx
    pidgan train FOLDER/data -o FOLDER/generator
    pidgan export FOLDER/generator -o FOLDER/generator.onnx
    python docs/studies/corrected.py judge FOLDER

Data are kaons in the project's RICH detectors with their background and sWeights;
simulation is the same with more photons, a better resolution, less background, other
alignment and another threshold. In both, the photon yield depends on a variable that is
no condition, and another branch of the event, `isolation`, depends on it too. `judge`
simulates fresh rows of both, corrects those of simulation, and prints

- the classifier two-sample test of simulation and data before and after;
- shares of atoms and ties;
- rank correlations of corrected and simulated targets among rows of like conditions;
- the correlation of targets and `isolation`, corrected and generated;
- the same for a correction of one variable at a time, which is written here in a few
  lines: ranks among the rows of data and of simulation in bins of the conditions, as
  PIDGen2's `correct` takes them from kernel densities.
"""

from dataclasses import replace

import numpy as np
from scipy.stats import rankdata, spearmanr

import pidgan
from pidgan.simulation import tracks as toy
from pidgan.simulation.calibration import MODES, calibration_trees, draw_probes
from pidgan.simulation.detector import DATA, MONTE_CARLO
from pidgan.simulation.rich import draw_rings, simulate_rich
from pidgan.simulation.tracks import SPECTRA, Tracks

MODE = "dstar_k"
SIMULATION = replace(MONTE_CARLO, rich1=replace(MONTE_CARLO.rich1, index=1.00135))
"""Detector of the simulation: `MONTE_CARLO`, with a threshold that is off by 2 %."""

HIDDEN_YIELD = 0.25
"""Change of the logarithm of the photon yield per unit of the hidden variable."""

CANDIDATES, SIMULATED, FRESH = 500_000, 400_000, 150_000
CONDITIONS = ("P", "ETA", "nTracks")
TARGETS = ("RichDLLk", "RichDLLp", "RichDLLmu", "RichDLLe", "RichDLLbt")
C2ST_ROWS = 100_000
NEIGHBOUR_BINS = (12, 6, 4)


def draw(detector, n, *, seed, signal_only):
    """Return trees of n candidates, with the branches `hidden` and `isolation`."""
    rng = np.random.default_rng([seed, 22])
    settings = MODES[MODE]
    if signal_only:
        mass = replace(settings.mass, signal_fraction=1.0)
        settings = replace(settings, mass=mass)
    probes = draw_probes(settings, SPECTRA[MODE], n, rng=rng)
    hidden = rng.standard_normal(n)

    def respond(*columns):
        chunk, own = Tracks(*columns[:-1]), columns[-1]
        rings = draw_rings(chunk, detector, rng)
        rings = replace(rings, scale=rings.scale * np.exp(HIDDEN_YIELD * own))
        return simulate_rich(chunk, detector=detector, rng=rng, rings=rings)

    columns = [*vars(probes.tracks).values(), hidden]
    response = toy.in_chunks(respond, columns, size=8192)
    response |= {"isolation": hidden + rng.standard_normal(n)}
    momentum = toy.momentum_components(probes.tracks.p, probes.tracks.eta, rng=rng)
    return calibration_trees(settings, probes, momentum, response, rng=rng)


def joined(trees):
    """Return the columns of all trees."""
    first = next(iter(trees.values()))
    return {n: np.concatenate([b[n] for b in trees.values()]) for n in first}


def make_samples(folder, *, seed=1):
    """Write the datasets of data, with background and sWeights, and of simulation."""
    import awkward as ak

    folder.mkdir(parents=True, exist_ok=True)
    definition = pidgan.load_sample(f"sim_{MODE}")
    bare = definition.model_copy(update={"discriminant": None, "unweighted": True})
    bare = bare.model_copy(update={"name": "sim_dstar_k_mc"})
    parts = {
        "data": (definition, DATA, CANDIDATES, False),
        "simulation": (bare, SIMULATION, SIMULATED, True),
    }
    for k, (name, (sample, detector, n, is_signal)) in enumerate(parts.items()):
        trees = draw(detector, n, seed=seed + k, signal_only=is_signal)
        rows = ak.Array(joined(trees))
        dataset = pidgan.build_dataset(sample, rows, seed=seed)
        dataset.save(folder / name)
        print(f"{folder / name}: {dataset.text()}", flush=True)


def fresh(detector, n, *, seed):
    """Return conditions, targets and `isolation` of signal that nothing has seen."""
    rows = joined(draw(detector, n, seed=seed, signal_only=True))
    x = np.stack([rows["probe_P"], rows["probe_ETA"], rows["nTracks"]], axis=1)
    y = np.stack([rows[f"probe_Brunel_{name}"] for name in TARGETS], axis=1)
    inside = (x[:, 0] > 3e3) & (x[:, 0] < 200e3) & (x[:, 1] > 1.8) & (x[:, 1] < 5.5)
    usual = (np.abs(y) < 150) | (y == -999)
    inside &= usual.all(axis=1)
    return (v[inside].astype(np.float32) for v in (x, y, rows["probe_isolation"]))


def corrected(model, x, y, *, seed):
    """Return the targets that a corrector makes of simulated ones."""
    from pidgan.bundle.card import sample_targets

    return sample_targets(model, np.hstack([x, y]), seed=seed)


def cells(x):
    """Return the number of a cell of like conditions of each row."""
    index = np.zeros(len(x), dtype=np.int64)
    for values, n in zip(x.T, NEIGHBOUR_BINS, strict=True):
        edges = np.quantile(values, np.linspace(0, 1, n + 1)[1:-1])
        index = index * n + np.searchsorted(edges, values)
    return index


def ranks_in(index, values):
    """Return ranks of values among the rows of a cell, from 0 to 1."""
    found = np.empty(len(values))
    order = np.argsort(index, kind="stable")
    starts = np.flatnonzero(np.diff(index[order], prepend=-1))
    for rows in np.split(order, starts[1:]):
        found[rows] = (rankdata(values[rows]) - 0.5) / len(rows)
    return found


def rank_correlation(index, first, second):
    """Return Spearman's correlation of two variables among rows of like conditions."""
    return spearmanr(ranks_in(index, first), ranks_in(index, second)).statistic
