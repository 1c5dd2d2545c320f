"""Simulation corrected to data: detectors that differ, an event that knows more.

    python docs/studies/corrected.py sample FOLDER
    pidgan train-corrector FOLDER/data FOLDER/simulation -o FOLDER/corrector
    pidgan export FOLDER/corrector -o FOLDER/corrector.onnx
    python docs/studies/corrected.py judge FOLDER [-n 60000]
    python docs/studies/corrected.py draw FOLDER [-n 60000]

Data are kaons in the project's RICH detectors with their background and sWeights;
simulation is the same with more photons, a better resolution, less background, other
alignment and another threshold. In both, the photon yield depends on a variable that is
no condition, and another branch of the event, `isolation`, depends on it too. `judge`
simulates fresh rows of both, corrects those of simulation, and prints

- the classifier two-sample test of simulation and data before and after, in which
  missing values are those of the simulation;
- shares of atoms and ties, those of data at the momenta of the simulated rows;
- rank correlations of corrected and simulated targets among rows of like conditions;
- rank correlations of targets and `isolation` among rows of like conditions;
- how much all targets together tell of `isolation`: the correlation of boosted trees
  that predict it from conditions and targets, less those of conditions alone, with it,
  in rows that they have not seen. A map that can be undone leaves it as it is.

Beside the corrector stand targets of data taken at random among rows of like
conditions, as a perfect generator would give them, and, where PIDGen2 is installed
(`pip install pidgen2`), the correction of one variable at a time: its functions for
densities with its settings for combined DLLs and its conditions pT, eta and number of
tracks, on the same rows of training.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from scipy.stats import rankdata, spearmanr
from sklearn.ensemble import HistGradientBoostingRegressor

import pidgan
from pidgan.bundle.card import sample_targets
from pidgan.report.metrics import c2st
from pidgan.sample.weights import with_differences
from pidgan.simulation import tracks as toy
from pidgan.simulation.calibration import MODES, calibration_trees, draw_probes
from pidgan.simulation.detector import DATA, MONTE_CARLO
from pidgan.simulation.rich import draw_rings, simulate_rich
from pidgan.simulation.tracks import SPECTRA, Tracks

PICTURE = Path(__file__).resolve().parents[1] / "how-to/application/corrected.png"
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


def generated(x, data_x, data_y, *, seed):
    """Return targets of data at like conditions, as a perfect generator makes them."""
    scaled = [
        np.hstack([np.log(v[:, :1] / 1e4) / 0.6, v[:, 1:2] / 0.6, v[:, 2:] / 90])
        for v in (x, data_x)
    ]
    rng = np.random.default_rng(seed)
    tree = cKDTree(scaled[1] + 0.01 * rng.standard_normal(scaled[1].shape))
    _, near = tree.query(scaled[0], k=8)
    return data_y[near[np.arange(len(x)), rng.integers(8, size=len(x))]]


def one_at_a_time(x, y, data, simulation):
    """Return targets corrected by PIDGen2, each alone; None where it is not there."""
    try:
        from pidgen2 import density_estimation as de
    except ModuleNotFoundError:
        return None

    def transformed(conditions, target):
        p, eta, n = conditions.astype(np.float64).T
        return np.stack([target, np.log10(p / np.cosh(eta)), eta, np.log10(n)], axis=1)

    ranges = [(-150.0, 150.0), (2.4, 4.4), (1.9, 5.0), (0.7, 3.1)]
    methods, bins = ["gauss", "scale", "scale", "flatten"], [70, 70, 70, 20]
    inside = [(-2.5, 2.5), (0.0, 1.0), (0.0, 1.0), (0.0, 1.0)]
    found = y.astype(np.float64)
    for j in range(y.shape[1]):
        templates, normaliser = [], None
        for part in (data, simulation):
            rows = transformed(part.conditions, part.targets[:, j])
            kept = np.abs(rows[:, 0]) < 150  # sentinels have no density
            w = part.weights[kept]
            if normaliser is None:
                normaliser = de.create_normaliser(
                    rows[kept], ranges, [1000, 100, 100, 100], weights=w
                )
            rows = de.normalise(rows[kept], normaliser, methods)
            counts, edges = np.histogramdd(rows, bins=bins, range=inside, weights=w)
            templates.append((gaussian_filter(counts, [2.0, 2.0, 4.0, 4.0]), edges))
        own = np.abs(y[:, j]) < 150
        rows = de.normalise(transformed(x, y[:, j])[own], normaliser, methods)
        (real, edges), (made, _) = templates
        span = {"range": inside[0], "bins": 200}
        rank, _ = de.batch_cdf(made, edges, rows[:, 1:], rows[:, 0], **span)
        value, _ = de.resample(real, edges, rows[:, 1:], rnd=rank, **span)
        found[own, j] = de.unnormalise(value, normaliser[:1], methods[:1])[:, 0]
    return found.astype(np.float32)


def corrected(model, x, y, *, seed):
    """Return the targets that a corrector makes of simulated ones."""
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


def told_of_event(x, y, event, *, seed):
    """Return the correlation of an event's variable with what targets tell of it."""
    y = np.where(np.isnan(y), -2000.0, y)
    pairs = [y[:, :1] - y[:, 1:2], y[:, :1] - y[:, 4:], y[:, 1:2] - y[:, 4:]]
    known = np.hstack([x, y, *pairs])
    half, found = np.arange(len(x)) < len(x) // 2, []
    for own in (half, ~half):
        predicted = []
        for columns, leaf in ((x, 200), (known, 100)):
            trees = HistGradientBoostingRegressor(
                max_iter=150,
                learning_rate=0.08,
                min_samples_leaf=leaf,
                random_state=seed,
            )
            trees.fit(columns[own], event[own])
            predicted.append(trees.predict(columns[~own]))
        rest = [value - predicted[0] for value in (predicted[1], event[~own])]
        found.append(np.corrcoef(*rest)[0, 1])
    return np.mean(found), np.std(found) / np.sqrt(2)


def like(x, real_x):
    """Return weights that give rows of data the momenta of simulated rows."""
    edges = np.quantile(np.concatenate([x, real_x])[:, 0], np.linspace(0, 1, 41)[1:-1])
    mine, its = (np.searchsorted(edges, v[:, 0]) for v in (x, real_x))
    counts, real = (np.bincount(place, minlength=40) for place in (mine, its))
    return (counts / real)[its] * len(real_x) / len(x)


def shares(y, weights=None):
    """Return shares of rows that are lost, at zero, and tied in two pairs."""
    w = np.ones(len(y)) if weights is None else weights
    k, p, _, _, bt = y.T
    lost, zero = k == -999, (k == 0) & (p == 0)
    free = ~lost & ~zero
    return {
        "-999": np.average(lost, weights=w),
        "0": np.average(zero, weights=w),
        "k = bt": np.average(free & (k == bt), weights=w),
        "p = bt": np.average(free & (p == bt), weights=w),
    }


def judge(folder, n, *, seed=77):
    """Print the figures of a corrector on fresh rows."""
    model = pidgan.open_bundle(folder / "corrector.onnx")
    x, y, isolation = fresh(SIMULATION, n, seed=seed)
    real_x, real_y, real_isolation = fresh(DATA, n, seed=seed + 1)
    other_x, other_y, _ = fresh(DATA, n, seed=seed + 2)
    training = [
        pidgan.Dataset.open(folder / name).part("train")
        for name in ("data", "simulation")
    ]
    made = {
        "simulation": y,
        "corrected": corrected(model, x, y, seed=seed),
        "generated": generated(x, other_x, other_y, seed=seed),
        "one variable at a time": one_at_a_time(x, y, *training),
    }
    made = {name: values for name, values in made.items() if values is not None}
    own, real = cells(x), cells(real_x)
    rows = min(len(x), len(real_x), C2ST_ROWS)
    data = with_differences(real_x[:rows], real_y[:rows])
    half = c2st(data[: rows // 2], data[rows // 2 :])
    print(f"floor of the C2ST {half.auc:.3f} +- {half.error:.3f}")
    for name, values in {**made, "data": real_y}.items():
        print(f"{name}: {np.isnan(values).any(axis=1).sum()} rows without values")
        is_data = name == "data"
        # Ties come with the momentum: data count as if they had that of simulation.
        found = shares(values, like(x, real_x) if is_data else None)
        print("  shares", {k: f"{v:.4f}" for k, v in found.items()})
        index, event = (real, real_isolation) if is_data else (own, isolation)
        for j, target in enumerate(TARGETS):
            kept = 1.0 if is_data else rank_correlation(own, y[:, j], values[:, j])
            shared = rank_correlation(index, values[:, j], event)
            print(f"  {target}: with y {kept:.3f}, with the event {shared:.3f}")
        conditions = real_x if is_data else x
        told, error = told_of_event(conditions, values, event, seed=seed)
        print(f"  all targets, with the event {told:.4f} +- {error:.4f}")
        if not is_data:
            filled = np.where(np.isnan(values), y, values)[:rows]
            found = c2st(data, with_differences(x[:rows], filled))
            print(f"  C2ST {found.auc:.3f} +- {found.error:.3f}", flush=True)


def draw_picture(folder, n, *, seed=77):
    """Draw one target, and what it shares with the event, in three ways and in data."""
    model = pidgan.open_bundle(folder / "corrector.onnx")
    x, y, isolation = fresh(SIMULATION, n, seed=seed)
    _, real_y, real_isolation = fresh(DATA, n, seed=seed + 1)
    other_x, other_y, _ = fresh(DATA, n, seed=seed + 2)
    shown = {
        "simulation": (y, isolation),
        "generated": (generated(x, other_x, other_y, seed=seed), isolation),
        "corrected": (corrected(model, x, y, seed=seed), isolation),
        "data": (real_y, real_isolation),
    }
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    edges = np.linspace(-40, 120, 65)
    for name, (values, event) in shown.items():
        k = values[:, 0]
        style = {"color": "black", "lw": 1.6} if name == "data" else {"lw": 1.2}
        left.stairs(np.histogram(k, edges, density=True)[0], edges, label=name, **style)
        bins = np.linspace(-20, 100, 13)
        place = np.digitize(k, bins)
        mean = [event[place == b].mean() for b in range(1, len(bins))]
        right.plot(0.5 * (bins[1:] + bins[:-1]), mean, label=name, **style)
    left.set(xlabel="RichDLLk", ylabel="share of tracks per unit", yscale="log")
    right.set(xlabel="RichDLLk", ylabel="mean of a variable of the event")
    left.legend()
    figure.savefig(PICTURE, dpi=130)
    print(PICTURE)


def main():
    """Run one part of the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["sample", "judge", "draw"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("-n", type=int, default=FRESH)
    given = parser.parse_args()
    if given.part == "sample":
        make_samples(given.folder)
    elif given.part == "draw":
        draw_picture(given.folder, given.n)
    else:
        judge(given.folder, given.n)


if __name__ == "__main__":
    main()
