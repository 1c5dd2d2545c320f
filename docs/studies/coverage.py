"""Coverage of quoted PID efficiencies: pseudo-experiments on the simulation.

    python docs/studies/coverage.py -o FOLDER [--experiments 1200] [--jobs 2]

Each pseudo-experiment has its own calibration sample with background and sWeights, an
imperfect generator (the simulation with a known distortion, or a trained network), a
cut, and an analysis sample with other kinematics and occupancy. The quoted efficiency
and its uncertainty are compared with the true one, for the whole sample and in bins of
its momentum. The ideal uncertainty is the one that the rows of the two samples allow
without any smoothing and without any systematic effect. Everything that does not depend
on the experiment is made once and kept in FOLDER. This takes about half an hour on two
cores. The script writes the files
`docs/explanation/coverage.png` and `coverage.inc`.
"""

import argparse
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pidgan.bundle.card import Card, CardVariable, Generator, sample_targets
from pidgan.efficiency.analysis_rows import Rows, TrackRows
from pidgan.efficiency.binning import bin_index, count_bins, default_binning
from pidgan.efficiency.pid_efficiency import combine
from pidgan.efficiency.real_vs_generated import ComparedRows
from pidgan.efficiency.selections import Selection
from pidgan.efficiency.systematics import generated_in_bins, map_from_rows
from pidgan.files.tables import write_trees
from pidgan.sample.cuts import parse_cut
from pidgan.sample.loading import load_sample
from pidgan.sample.sweights import compute_sweights
from pidgan.simulation import simulate_analysis, simulate_calibration, simulate_response
from pidgan.simulation.tracks import SPECTRA, draw_occupancy, draw_p_eta

EXPLANATION = Path(__file__).resolve().parents[1] / "explanation"

CUTS = {
    "K+": (
        "RichDLLk > 0",
        "RichDLLk > 5",
        "RichDLLk > 10",
        "RichDLLk - RichDLLp > 0",
        "RichDLLk > 2 & RichDLLp < 10",
    ),
    "pi+": (
        "RichDLLk > 0",
        "RichDLLk > 5",
        "RichDLLk < -3",
        "RichDLLk - RichDLLp > 0",
        "RichDLLp < 0 & RichDLLk < 5",
    ),
}
MODES = {"K+": "dstar_k", "pi+": "dstar_pi"}
TRACKS = {"K+": ("Kplus", 321), "pi+": ("piminus", 211)}
CONDITIONS = ("P", "ETA", "nTracks")

CANDIDATES = 1_000_000
"""Candidates of the pool from which calibration samples are drawn, with background."""

POPULATION = 300_000
"""Tracks of the pool from which analysis samples are drawn."""

REFERENCE_ROWS = (20_000, 60_000)
ANALYSIS_ROWS = (2_000, 20_000)
REPEATS = 4
"""Generated draws per row of the pool."""

TRUTH_REPEATS = 4
MOMENTUM_BINS = 4
NETWORKS_PER_SPECIES = 3
NETWORK_SHARE = 0.5
TRAINING_CANDIDATES = 200_000
NETWORK_STEPS = (3000, 1000, 2000)
"""Short trainings, of a minute or less each."""

POPULATIONS = ("decay", "hard", "soft")


@dataclass(frozen=True, kw_only=True)
class Distorted:
    """The simulated response with a known error, as a generator.

    Attributes:
        card: Conditions and targets, the same as those of a network.
        kind: One of `DISTORTIONS`.
    """

    card: Card
    kind: str

    def generate(self, conditions: np.ndarray, noise: np.ndarray) -> np.ndarray:
        x = np.asarray(conditions, dtype=np.float64)
        # The noise says which draw: the same noise, the same targets.
        bits = np.frombuffer(np.ascontiguousarray(noise).tobytes(), dtype=np.uint32)
        rng = np.random.default_rng(int(bits.sum(dtype=np.uint64)))
        seed = int(rng.integers(2**31))
        p, eta, n_tracks = x.T
        species = self.card.species
        if self.kind == "momentum":
            p = 1.06 * p
        if self.kind == "occupancy":
            n_tracks = np.maximum(1.0, 180.0 * (n_tracks / 180.0) ** 0.6)
        y = _response(species, self.card, p, eta, n_tracks, seed)
        measured = y > -900.0
        if self.kind == "shift":
            wave = np.sin(2.0 * np.log(p / 2e4)) + 0.5 * (eta - 3.3)
            y = np.where(measured, y + 1.5 * wave[:, np.newaxis], y)
        if self.kind == "resolution":
            y = np.where(measured, y * (1.0 + 0.12 * (eta - 2.8))[:, np.newaxis], y)
        if self.kind == "leak":
            other = "pi+" if species == "K+" else "K+"
            leaked = _response(other, self.card, p, eta, n_tracks, seed + 1)
            chosen = rng.random(len(y)) < 0.01 + 0.02 * (p > 4e4)
            y = np.where(chosen[:, np.newaxis], leaked, y)
        return y.astype(np.float32)


DISTORTIONS = ("none", "shift", "resolution", "leak", "momentum", "occupancy")


def _response(
    species: str,
    card: Card,
    p: np.ndarray,
    eta: np.ndarray,
    n_tracks: np.ndarray,
    seed: int,
) -> np.ndarray:
    columns = simulate_response(species, p, eta, n_tracks, seed=seed)
    return np.stack([columns[name] for name in card.target_names], axis=1)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Rows to draw from. Calibration has masses; a population has the true efficiency.

    Attributes:
        conditions: Values of `CONDITIONS`, (n, 3).
        real: Share of real draws that pass, (n_cuts, n); a single draw for calibration.
        mass: Mass in MeV, (n,); empty for a population.
    """

    conditions: np.ndarray
    real: np.ndarray
    mass: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Outcomes of one generator.

    Attributes:
        calibration: Number of the `REPEATS` draws that pass, (n_cuts, n).
        populations: Whether one draw passes, (n_cuts, n), by name.
        bins: Efficiency in evenly filled bins, (n_cuts, n_bins).
    """

    calibration: np.ndarray
    populations: dict[str, np.ndarray]
    bins: np.ndarray


def flags(species: str, card: Card, targets: np.ndarray) -> np.ndarray:
    """Return which rows pass each cut of the species, (n_cuts, n)."""
    columns = dict(zip(card.target_names, np.asarray(targets).T, strict=True))
    sentinels = {v.name: v.sentinels for v in card.targets}
    cuts = [parse_cut(text, names=card.target_names) for text in CUTS[species]]
    return np.array([cut.passes(columns, sentinels) for cut in cuts])


def train_networks(folder: Path, *, seed: int) -> None:
    """Train the networks that are missing, each on a calibration sample of its own."""
    import pidgan

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(NETWORKS_PER_SPECIES):
        for species, mode in MODES.items():
            path = folder / f"{mode}-{number}.onnx"
            if path.exists():
                continue
            own = seed + 100 * (1 + number) + list(MODES).index(species)
            trees = simulate_calibration(mode, TRAINING_CANDIDATES, seed=own)
            with tempfile.TemporaryDirectory() as temporary:
                file = Path(temporary) / "calibration.root"
                write_trees(file, trees)
                dataset = pidgan.build_dataset(f"sim_{mode}", [file], seed=own)
            steps = NETWORK_STEPS[number % len(NETWORK_STEPS)]
            model = pidgan.train(dataset, steps=steps, seed=own)
            pidgan.export_bundle(model, path)
            print(f"{path}: {species}, {steps} steps", flush=True)


def generators(folder: Path, species: str) -> dict[str, Generator]:
    """Return the imperfect generators of a species by name."""
    import pidgan

    networks: dict[str, Generator] = {
        f"network {number}": pidgan.open_bundle(
            folder / f"{MODES[species]}-{number}.onnx"
        )
        for number in range(NETWORKS_PER_SPECIES)
    }
    card = make_card(species)
    distorted = {kind: Distorted(card=card, kind=kind) for kind in DISTORTIONS}
    return {**distorted, **networks}


def make_card(species: str) -> Card:
    """Return a card with the conditions and targets of the simulated sample."""
    sample = load_sample(f"sim_{MODES[species]}")
    conditions, targets = (
        tuple(
            CardVariable(
                name=v.name,
                unit=v.package_unit,
                range=v.range or (-math.inf, math.inf),
                integer=v.integer,
                sentinels=v.sentinels,
                patterns=v.patterns,
            )
            for v in variables
        )
        for variables in (sample.conditions, sample.targets)
    )
    return Card(
        detector=sample.detector,
        species=sample.species,
        conditions=conditions,
        targets=targets,
        n_noise=2,
        sample=sample,
        family="simulation",
        seed=0,
        steps=0,
    )


def calibration_pool(species: str, card: Card, *, seed: int) -> Pool:
    """Simulate candidates, signal and background."""
    trees = simulate_calibration(MODES[species], CANDIDATES, seed=seed).values()

    def stacked(names: Sequence[str]) -> np.ndarray:
        columns = [np.concatenate([tree[name] for tree in trees]) for name in names]
        return np.stack(columns, axis=1).astype(np.float64)

    targets = stacked([f"probe_Brunel_{name}" for name in card.target_names])
    return Pool(
        conditions=stacked(["probe_P", "probe_ETA", "nTracks"]),
        real=flags(species, card, targets).astype(np.float64),
        mass=stacked(["D0_M"])[:, 0],
    )


def population_pool(species: str, name: str, card: Card, *, seed: int) -> Pool:
    """Draw tracks of an analysis, with the truth of each."""
    rng = np.random.default_rng([seed, POPULATIONS.index(name)])
    if name == "decay":
        track, pdg_id = TRACKS[species]
        branches = simulate_analysis(int(1.3 * POPULATION), seed=seed)
        own = np.flatnonzero(np.abs(branches[f"{track}_TRUEID"]) == pdg_id)[:POPULATION]
        names = (f"{track}_P", f"{track}_ETA", "nTracks")
        x = np.stack([branches[n][own] for n in names], axis=1).astype(np.float64)
    else:
        spectrum = SPECTRA[MODES[species]]
        pt, eta_mean, occupancy = (1.5, 3.1, 1.3) if name == "hard" else (0.8, 3.5, 0.8)
        moved = replace(spectrum, pt_median=pt * spectrum.pt_median, eta_mean=eta_mean)
        p, eta = draw_p_eta(moved, POPULATION, rng=rng)
        n_tracks, _ = draw_occupancy(POPULATION, scale=occupancy, rng=rng)
        x = np.stack([p, eta, n_tracks.astype(np.float64)], axis=1)
    real = np.zeros((len(CUTS[species]), len(x)))
    for repeat in range(TRUTH_REPEATS):
        y = _response(species, card, *x.T, seed=seed + 1000 * (1 + repeat))
        real += flags(species, card, y) / TRUTH_REPEATS
    return Pool(conditions=x, real=real, mass=np.empty(0))


def draw_outcomes(
    species: str, generator: Generator, pools: Mapping[str, Pool], *, seed: int
) -> Drawn:
    """Draw from a generator for every row of the pools."""
    card = generator.card

    def passed(x: np.ndarray, track: str) -> np.ndarray:
        y = sample_targets(generator, x, seed=seed, track=track)
        return flags(species, card, y)

    x = pools["calibration"].conditions
    counts = sum(passed(x, f"draw {k}").astype(np.uint8) for k in range(REPEATS))
    edges = default_binning(card)
    cuts = [parse_cut(text, names=card.target_names) for text in CUTS[species]]
    bins = np.arange(count_bins(edges))
    return Drawn(
        calibration=np.asarray(counts),
        populations={
            name: passed(pools[name].conditions, name) for name in POPULATIONS
        },
        bins=generated_in_bins(generator, bins, edges, cuts, seed),
    )


def prepare(folder: Path, species: str, *, seed: int) -> None:
    """Make the pools of a species and the outcomes of its generators, where missing."""
    found = generators(folder / "networks", species)
    card = found["none"].card
    # Seeds far from those of the networks' samples.
    seed += 50_000
    makers: dict[str, Callable[[], Pool]] = {
        "calibration": lambda: calibration_pool(species, card, seed=seed)
    }
    for name in POPULATIONS:
        makers[name] = partial(population_pool, species, name, card, seed=seed)
    pools = {}
    for name, make in makers.items():
        path = folder / f"{MODES[species]}-{name}.npz"
        if not path.exists():
            save_arrays(path, **vars(make()))
        pools[name] = Pool(**load_arrays(path))
    for name, generator in found.items():
        path = folder / f"{MODES[species]}-drawn-{name}.npz"
        if not path.exists():
            drawn = draw_outcomes(species, generator, pools, seed=seed)
            save_arrays(
                path,
                calibration=drawn.calibration,
                bins=drawn.bins,
                **drawn.populations,
            )
            print(f"{path}", flush=True)


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write an .npz that is complete once it has its name."""
    temporary = path.with_suffix(".part.npz")
    np.savez(temporary, **arrays)
    temporary.rename(path)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read an .npz."""
    with np.load(path) as file:
        return dict(file)


@dataclass(frozen=True, kw_only=True)
class World:
    """The pools from which the pseudo-experiments of one species draw."""

    card: Card
    edges: dict[str, tuple[float, ...]]
    pools: dict[str, Pool]
    drawn: dict[str, Drawn]


@cache
def open_world(folder: Path, species: str) -> World:
    """Read what `prepare` made."""
    found = generators(folder / "networks", species)
    mode = MODES[species]
    drawn = {}
    for name in found:
        arrays = load_arrays(folder / f"{mode}-drawn-{name}.npz")
        drawn[name] = Drawn(
            calibration=arrays["calibration"],
            bins=arrays["bins"],
            populations={name: arrays[name] for name in POPULATIONS},
        )
    card = found["none"].card
    return World(
        card=card,
        edges=default_binning(card),
        pools={
            name: Pool(**load_arrays(folder / f"{mode}-{name}.npz"))
            for name in ("calibration", *POPULATIONS)
        },
        drawn=drawn,
    )


def experiment(folder: Path, number: int, *, seed: int) -> list[dict[str, Any]]:
    """Run one pseudo-experiment; return a record for the sample and for each bin."""
    rng = np.random.default_rng([seed, number])
    species = str(rng.choice(list(MODES)))
    world = open_world(folder, species)
    # Half of the experiments with a network, half with a distortion.
    name = str(rng.choice(list(DISTORTIONS)))
    if rng.random() < NETWORK_SHARE:
        name = f"network {rng.integers(NETWORKS_PER_SPECIES)}"
    cut = int(rng.integers(len(CUTS[species])))
    population = str(rng.choice(POPULATIONS))
    n_reference = int(rng.choice(REFERENCE_ROWS))
    n_analysis = int(rng.choice(ANALYSIS_ROWS))
    found = quote(
        world,
        name,
        cut,
        population,
        calibration=rng.choice(CANDIDATES, n_reference, replace=False),
        analysis=rng.choice(POPULATION, n_analysis, replace=False),
    )
    about = {
        "experiment": number,
        "species": species,
        "cut": CUTS[species][cut],
        "generator": name,
        "population": population,
        "n_reference": n_reference,
        "n_analysis": n_analysis,
    }
    return [{**about, **record} for record in found]


def quote(
    world: World,
    generator: str,
    cut: int,
    population: str,
    *,
    calibration: np.ndarray,
    analysis: np.ndarray,
) -> Iterator[dict[str, Any]]:
    """Yield what is quoted, and the truth, for the sample and in bins of momentum."""
    card, pool, drawn = world.card, world.pools["calibration"], world.drawn[generator]
    assert card.sample.discriminant is not None
    weights = compute_sweights(pool.mass[calibration], card.sample.discriminant).weights
    rows = ComparedRows(
        species=card.species,
        cuts=(CUTS[card.species][cut],),
        columns=dict(zip(CONDITIONS, pool.conditions[calibration].T, strict=True)),
        weights=weights,
        real=pool.real[[cut]][:, calibration] > 0.5,
        generated=drawn.calibration[[cut]][:, calibration].astype(np.int64),
        repeats=REPEATS,
    )
    efficiency_map = map_from_rows(
        rows,
        edges=world.edges,
        empty_bins=lambda bins: drawn.bins[[cut]][:, bins],
        metadata=card.model_dump(include={"conditions", "targets"}),
    )
    target = world.pools[population]
    p = target.conditions[:, 0]
    limits = np.quantile(p, np.linspace(0, 1, MOMENTUM_BINS + 1)[1:-1])
    in_bin = np.searchsorted(limits, p, side="right")
    place = bin_index(
        dict(zip(CONDITIONS, target.conditions[analysis].T, strict=True)), world.edges
    )
    passed = drawn.populations[population][[cut]][:, analysis]
    for number in range(-1, MOMENTUM_BINS):
        own = np.ones(len(p), dtype=bool) if number < 0 else in_bin == number
        here = own[analysis]
        rows = Rows(
            tracks={"track": TrackRows(place=place[here], passed={0: passed[0, here]})},
            weights=np.ones(int(here.sum())),
            cell=np.zeros(int(here.sum()), dtype=np.int64),
        )
        selection = Selection(text=efficiency_map.cuts[0], cuts={"track": 0})
        (result,) = combine([selection], rows, {"track": efficiency_map})
        # What remains with a perfect generator: the two samples' statistics.
        inside = place[here][place[here] >= 0]
        share = np.bincount(inside, minlength=len(efficiency_map.n_eff)) / here.sum()
        least = share**2 @ efficiency_map.raw_covariance[0, 0]
        yield {
            "bin": number,
            "ideal": math.hypot(result.stat, math.sqrt(least)),
            "value": result.value,
            "stat": result.stat,
            "total": result.total,
            **result.syst,
            "generated": result.generated,
            "truth": float(target.real[cut][own].mean()),
        }


def run_experiments(
    folder: Path, n: int, *, jobs: int, seed: int
) -> list[dict[str, Any]]:
    """Run pseudo-experiments in several processes; the order does not matter."""
    records: list[dict[str, Any]] = []
    run = partial(experiment, folder, seed=seed)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as executor:
        for number, found in enumerate(executor.map(run, range(n), chunksize=4)):
            records += found
            if number % 100 == 99:
                print(f"{number + 1} of {n} experiments", flush=True)
    return records


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Shares of results whose quoted interval contains the truth.

    Attributes:
        n: Number of results.
        one, two: Shares within 1 and 1.96 quoted errors.
        median: Median of the quoted error.
    """

    n: int
    one: float
    two: float
    median: float


def coverage(frame: pd.DataFrame, *, value: str, error: str) -> Coverage:
    """Return the coverage of a column by another."""
    distance = (frame[value] - frame["truth"]).abs()
    return Coverage(
        n=len(frame),
        one=float((distance <= frame[error]).mean()),
        two=float((distance <= 1.96 * frame[error]).mean()),
        median=float(frame[error].median()),
    )


def summarise(frame: pd.DataFrame) -> str:
    """Return the Markdown table of the documentation."""
    whole, bins = frame[frame["bin"] < 0], frame[frame["bin"] >= 0]
    network = whole["generator"].str.startswith("network")
    parts = {
        "whole sample": whole,
        "— trained networks": whole[network],
        "— known distortions": whole[~network],
        **{
            f"— analysis kinematics: {name}": whole[whole["population"] == name]
            for name in POPULATIONS
        },
        "momentum bins": bins,
        **{f"— bin {b + 1}": bins[bins["bin"] == b] for b in range(MOMENTUM_BINS)},
    }
    lines = [
        "| | results | within 1 sigma (68.3 %) | within 1.96 sigma (95 %) "
        "| median error | ratio to the ideal error | statistical error only, 1 sigma |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, part in parts.items():
        full = coverage(part, value="value", error="total")
        off = coverage(part, value="generated", error="stat")
        ratio = float((part["total"] / part["ideal"]).median())
        lines.append(
            f"| {name} | {full.n} | {100 * full.one:.1f} % | {100 * full.two:.1f} % "
            f"| {100 * full.median:.2f} % | {ratio:.2f} | {100 * off.one:.1f} % |"
        )
    return "\n".join(lines)


def draw(frame: pd.DataFrame) -> Figure:
    """Draw the pulls with and without systematics, and the coverage by group."""
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    edges = np.linspace(-5, 5, 41)
    whole = frame[frame["bin"] < 0]
    for value, error, label, colour in (
        ("value", "total", "corrected, total uncertainty", "C0"),
        ("generated", "stat", "generated, statistical only", "C1"),
    ):
        pull = ((whole[value] - whole["truth"]) / whole[error]).to_numpy()
        left.hist(
            np.clip(pull, -4.99, 4.99),
            edges,
            density=True,
            histtype="step",
            color=colour,
            label=label,
        )
    x = np.linspace(-5, 5, 201)
    left.plot(x, np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi), "k--", label="normal")
    left.set_xlabel("(quoted - true efficiency) / uncertainty")
    left.set_ylabel("density; ends hold all beyond")
    left.set_ylim(0, 0.6)  # room for the legend above the curves
    left.legend(fontsize=8, loc="upper left")
    groups = {
        **{name: whole["generator"] == name for name in DISTORTIONS},
        "networks": whole["generator"].str.startswith("network"),
        **{name: whole["population"] == name for name in POPULATIONS},
        **{f"P bin {b + 1}": None for b in range(MOMENTUM_BINS)},
    }
    for y, (name, chosen) in enumerate(reversed(groups.items())):
        part = whole[chosen] if chosen is not None else frame
        if chosen is None:
            part = frame[frame["bin"] == int(name[-1]) - 1]
        share = coverage(part, value="value", error="total").one
        width = math.sqrt(share * (1 - share) / len(part))
        right.errorbar(share, y, xerr=width, fmt="o", color="C0")
    right.axvspan(0.64, 0.74, color="0.85")
    right.axvline(0.6827, color="k", linestyle="--")
    right.set_yticks(range(len(groups)), list(reversed(groups)))
    right.set_xlim(0.4, 1.0)
    right.set_xlabel("share within one quoted uncertainty")
    return figure


def main() -> None:
    """Prepare what is missing, run the experiments, write figure and table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--experiments", type=int, default=1200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    folder: Path = arguments.output
    train_networks(folder / "networks", seed=arguments.seed)
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as jobs:
        list(jobs.map(partial(prepare, folder, seed=arguments.seed), MODES))
    records = run_experiments(
        folder, arguments.experiments, jobs=arguments.jobs, seed=arguments.seed
    )
    frame = pd.DataFrame(records)
    frame.to_parquet(folder / "experiments.parquet")
    print(summarise(frame))
    (EXPLANATION / "coverage.inc").write_text(summarise(frame) + "\n")
    draw(frame).savefig(EXPLANATION / "coverage.png", dpi=150)


if __name__ == "__main__":
    main()
