"""A chain: RICH, calorimeter, muon stations, combined DLLs and ProbNN, with its truth.

    python docs/studies/chain.py -o FOLDER [--species mu] [--budget 28m]
    python docs/studies/chain.py -o FOLDER --candidates 20000 --steps 500 --rows 4000

The calibration sample has background and sWeights. The chain `sim_chain_SPECIES` is
trained on it, and for comparison a generator of ProbNN that knows nothing of the DLLs.
Both are judged on signal from truth that nothing was trained on:

- the classifier two-sample test (C2ST) of each link, given the real targets of earlier
  links and given generated ones; the last of these is that of all targets together.
  The floor is that of another real draw at the same conditions;
- the C2ST of the DLLs and ProbNN together, with both generators of ProbNN;
- keras, ONNX and C for the same conditions and noise;
- pseudo-experiments: how often the quoted efficiency of a cut on several links is
  within its uncertainty of the truth.

What exists in FOLDER is not made again. The Markdown tables are printed and written to
FOLDER/chain.md.
"""

import argparse
import ctypes
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

import pidgan
from pidgan.bundle.c_file import export_c
from pidgan.bundle.card import Card, Generator, sample_targets
from pidgan.efficiency.analysis_rows import Rows, TrackRows
from pidgan.efficiency.binning import bin_index, count_bins, default_binning
from pidgan.efficiency.pid_efficiency import combine
from pidgan.efficiency.real_vs_generated import ComparedRows
from pidgan.efficiency.selections import Selection
from pidgan.efficiency.systematics import generated_in_bins, map_from_rows
from pidgan.files.tables import write_trees
from pidgan.report.metrics import c2st
from pidgan.sample.building import build_dataset
from pidgan.sample.cuts import parse_cut
from pidgan.sample.dataset import Dataset
from pidgan.sample.definition import Sample
from pidgan.sample.loading import load_sample
from pidgan.sample.sweights import compute_sweights
from pidgan.sample.weights import with_differences
from pidgan.simulation import (
    DIMUON_TRACKS,
    simulate_dimuons,
    simulate_spectrometer,
    simulate_spectrometer_response,
)
from pidgan.simulation.tracks import SPECTRA, draw_charges, draw_occupancy, draw_p_eta
from pidgan.training.chain import Length, link_shares
from pidgan.training.model import open_model

DECAYS = {"mu": ("jpsi_mu", "mu+"), "k": ("dstar_k", "K+"), "pi": ("dstar_pi", "pi+")}
CUTS = {
    "mu": ("isMuon & DLLmu > 0", "isMuon", "DLLmu > 0", "isMuon & ProbNNmu > 0.5"),
    "k": ("DLLK > 0", "isMuon & DLLmu > 0", "DLLK > 0 & ProbNNk > 0.2"),
    "pi": ("DLLK > 0", "isMuon & DLLmu > 0", "DLLK < 0 & ProbNNpi > 0.5"),
}
"""Cuts of the pseudo-experiments; the first one first in the tables."""

CHUNK = 200_000
"""Candidates of a file. Seeds of fresh rows count from FRESH_SEED."""

FRESH_SEED, POOL_SEED = 5_000, 7_000
JUDGED, C2ST_ROWS = 120_000, 100_000
COMPARED_ROWS = 20_000
TOLERANCE = 1e-4
"""Of max(1, |y|), between keras, ONNX and C."""

POOL, POPULATION = 300_000, 150_000
"""Candidates and tracks that pseudo-experiments draw from."""

REFERENCE_ROWS = (40_000, 80_000)
ANALYSIS_ROWS = (2_000, 20_000)
REPEATS = 4


def main() -> None:
    """Make what is missing, judge it, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--species", choices=list(DECAYS), default="mu")
    parser.add_argument("--candidates", type=int, default=600_000)
    parser.add_argument("--budget", default="28m", help="of the chain")
    parser.add_argument("--steps", type=int, help="of the chain, not a budget")
    parser.add_argument("--rows", type=int, default=JUDGED)
    parser.add_argument("--experiments", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    folder, species = given.output, given.species
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"## Chain of {species}, {given.candidates} candidates", ""]
    length = {"steps": given.steps} if given.steps else {"budget": given.budget}
    for name in ("chain", "alone"):
        make(folder, name, species, n=given.candidates, length=length, seed=given.seed)
    lines += judge(folder, species, given.rows)
    lines += compare_exports(folder)
    lines += experiments(folder, species, given.experiments, seed=given.seed)
    (folder / "chain.md").write_text("\n".join(lines) + "\n")


def say(lines: Sequence[str]) -> list[str]:
    """Print lines as soon as they are known."""
    print("\n".join(lines), flush=True)
    return list(lines)


def probnn_alone(sample: Sample) -> Sample:
    """Return the sample of ProbNN without the links before."""
    last = sample.of_link(len(sample.links) - 1)
    own = tuple(sample.conditions)
    return last.model_copy(update={"conditions": own, "name": f"{sample.name}_alone"})


def make(
    folder: Path,
    name: str,
    species: str,
    *,
    n: int,
    length: dict[str, Any],
    seed: int,
) -> None:
    """Simulate, prepare, train and export one generator, where it is missing.

    ProbNN alone has the length that the link of ProbNN has.
    """
    sample = load_sample(f"sim_chain_{species}")
    if name == "alone":
        shares = link_shares(sample)
        budget, steps = length.get("budget"), length.get("steps")
        *_, length = Length.of(budget, steps, links=len(shares)).parts(shares)
        sample = probnn_alone(sample)
    if not (folder / name).exists():
        with tempfile.TemporaryDirectory() as temporary:
            files = write_candidates(Path(temporary), species, n, first_seed=seed)
            build_dataset(sample, files, seed=seed).save(folder / name)
    if not (folder / f"{name}-model").exists():
        dataset = Dataset.open(folder / name)
        started = monotonic()
        model = pidgan.train(dataset, **length, seed=seed)
        print(
            f"{name}: {len(dataset.part('train').weights)} training rows, "
            f"{model.card.steps} steps in {monotonic() - started:.0f} s",
            flush=True,
        )
        model.save(folder / f"{name}-model")
    if not (folder / f"{name}.onnx").exists():
        model = open_model(folder / f"{name}-model")
        pidgan.export_bundle(model, folder / f"{name}.onnx")


def write_candidates(
    folder: Path, species: str, n: int, *, first_seed: int, signal: bool = False
) -> list[Path]:
    """Write n candidates, or those of them that are true signal."""
    files = []
    for number, start in enumerate(range(0, n, CHUNK)):
        count = min(CHUNK, n - start)
        trees = simulate_spectrometer(
            DECAYS[species][0], count, seed=first_seed + 100 * number
        )
        if signal:
            trees = {
                tree: {k: v[b["probe_TRUE_SIGNAL"] == 1] for k, v in b.items()}
                for tree, b in trees.items()
            }
        files.append(folder / f"{number}.root")
        write_trees(files[-1], trees)
    return files


def fresh_rows(species: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return conditions and targets, (n, ...), of true signal."""
    bare = load_sample(f"sim_chain_{species}").model_copy(
        update={"discriminant": None, "unweighted": True}
    )
    with tempfile.TemporaryDirectory() as temporary:
        files = write_candidates(
            Path(temporary), species, int(1.5 * n), first_seed=FRESH_SEED, signal=True
        )
        part = build_dataset(bare, files, shares=(0.01, 0.01, 0.98)).part("test")
    return part.conditions[:n], part.targets[:n]


def respond(species: str, x: np.ndarray, sample: Sample, *, seed: int) -> np.ndarray:
    """Return a true response (n, n_targets) at conditions (n, 4)."""
    p, eta, n_tracks, charge = np.asarray(x, dtype=np.float64).T
    found = simulate_spectrometer_response(
        DECAYS[species][1], p, eta, n_tracks, charge=charge, seed=seed
    )
    return np.stack([found[name] for name in sample.target_names], axis=1).astype(float)


def judge(folder: Path, species: str, n: int) -> list[str]:
    """Return the table of the C2ST of links and of all targets together."""
    chain = open_model(folder / "chain-model")
    sample = chain.card.sample
    x, real = fresh_rows(species, n)
    again = respond(species, x, sample, seed=FRESH_SEED)
    inside = within_ranges(sample, again)
    made = sample_targets(chain, x, seed=1).astype(np.float64)
    lines = say(
        [
            f"Judged on {len(x)} rows of true signal. C2ST: trees, network ± error.",
            "",
            "| link | given real | given generated | floor of the latter |",
            "|---|---|---|---|",
        ]
    )
    start = 0
    for number, link in enumerate(sample.links):
        stop = start + len(link.targets)
        known = np.column_stack([x, real[:, :start]])
        own = sample_targets(chain.links[number], known, seed=2)
        cells = [
            test(x, real[:, :stop], np.column_stack([real[:, :start], own])),
            test(x, real[:, :stop], made[:, :stop]),
            test(x[inside], real[inside, :stop], again[inside, :stop]),
        ]
        lines += say([f"| {link.name} | {' | '.join(cells)} |"])
        start = stop
    alone = sample_targets(open_model(folder / "alone-model"), x, seed=3)
    rows = [
        ("DLLs, ProbNN given the DLLs", made),
        ("DLLs, ProbNN alone", np.column_stack([made[:, : -alone.shape[1]], alone])),
    ]
    first = next(j for j, t in enumerate(sample.target_names) if t.startswith("PID"))
    lines += say(["", "| | C2ST |", "|---|---|"])
    for name, targets in rows:
        lines += say([f"| {name} | {test(x, real[:, first:], targets[:, first:])} |"])
    return [*lines, ""]


def within_ranges(sample: Sample, targets: np.ndarray) -> np.ndarray:
    """Return which rows the sample keeps: it drops those outside a range."""
    keep = np.ones(len(targets), dtype=bool)
    for variable, column in zip(sample.targets, targets.T, strict=True):
        low, high = variable.range
        inside = (column >= low) & (column <= high)
        keep &= inside | np.isin(column, variable.sentinels)
    return keep


def test(x: np.ndarray, real: np.ndarray, other: np.ndarray) -> str:
    """Return the C2ST of targets at the same conditions as a cell of a table."""
    found = c2st(
        with_differences(x, real),
        with_differences(x, other),
        max_rows=C2ST_ROWS,
        paired=True,
    )
    return f"{found.auc_trees:.3f}, {found.auc_network:.3f} ± {found.error:.3f}"


def compare_exports(folder: Path) -> list[str]:
    """Return how keras, ONNX and C agree on the rows of the reference."""
    model = open_model(folder / "chain-model")
    bundle = pidgan.open_bundle(folder / "chain.onnx")
    frame = model.reference()[list(bundle.card.condition_names)]
    x = frame.to_numpy(np.float32)[:COMPARED_ROWS]
    rng = np.random.default_rng(1)
    z = rng.standard_normal((len(x), bundle.card.n_noise)).astype(np.float32)
    made = {"keras": model.generate(x, z), "ONNX": bundle.generate(x, z)}
    with tempfile.TemporaryDirectory() as temporary:
        source, library = Path(temporary) / "chain.c", Path(temporary) / "chain.so"
        export_c(bundle, source, name="chain")
        command = ["cc", "-O2", "-shared", "-fPIC", str(source), "-o", str(library)]
        subprocess.run([*command, "-lm"], check=True)
        made["C"] = run_c(library, x, z, made["ONNX"].shape[1])
    lines = say(["| | largest difference | rows with another discrete outcome |"])
    lines += say(["|---|---|---|"])
    onnx = made["ONNX"].astype(np.float64)
    for name in ("keras", "C"):
        distance = np.abs(made[name] - onnx) / np.maximum(1, np.abs(onnx))
        largest = distance.max(axis=1)
        same = largest <= 100 * TOLERANCE
        lines += say(
            [f"| {name}, ONNX | {largest[same].max():.1e} | {(~same).mean():.1e} |"]
        )
    return [*lines, ""]


def run_c(library: Path, x: np.ndarray, z: np.ndarray, n_targets: int) -> np.ndarray:
    """Return the targets of a compiled generator."""
    function = ctypes.CDLL(str(library)).chain_batch
    x, z = np.ascontiguousarray(x), np.ascontiguousarray(z)
    y = np.empty((len(x), n_targets), np.float32)
    pointers = (ctypes.c_void_p(a.ctypes.data) for a in (y, x, z))
    function(*pointers, ctypes.c_size_t(len(x)))
    return y


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Rows that pseudo-experiments draw from; cuts are in the first dimension.

    Attributes:
        x: Conditions (n, 4).
        real: Whether a row passes, or in a population the share of true draws.
        generated: Number of generated draws that pass.
        mass: Mass in MeV, (n,); empty for a population.
    """

    x: np.ndarray
    real: np.ndarray
    generated: np.ndarray
    mass: np.ndarray


def passes(generator: Generator, cuts: Sequence[str], y: np.ndarray) -> np.ndarray:
    """Return which rows (n_cuts, n) pass."""
    card = generator.card
    columns = dict(zip(card.target_names, np.asarray(y).T, strict=True))
    sentinels = {v.name: v.sentinels for v in card.targets}
    parsed = [parse_cut(text, names=card.target_names) for text in cuts]
    return np.array([cut.passes(columns, sentinels) for cut in parsed])


def calibration_pool(
    generator: Generator, species: str, cuts: Sequence[str], *, seed: int
) -> Pool:
    """Return candidates, signal and background, with generated draws."""
    sample = generator.card.sample
    trees = simulate_spectrometer(DECAYS[species][0], POOL, seed=seed).values()

    def stacked(branches: Sequence[str | None]) -> np.ndarray:
        columns = [np.concatenate([tree[b] for tree in trees]) for b in branches]
        return np.stack(columns, axis=1).astype(np.float64)

    x = stacked([v.branch for v in sample.conditions])
    y = stacked([v.branch for v in sample.targets])
    keep = within_ranges(sample, y) & inside_conditions(generator, x)
    x, y = x[keep], y[keep]
    draws = (
        passes(
            generator, cuts, sample_targets(generator, x, seed=seed, track=f"draw {k}")
        ).astype(np.int64)
        for k in range(REPEATS)
    )
    return Pool(
        x=x,
        real=passes(generator, cuts, y),
        generated=np.sum(list(draws), axis=0),
        mass=stacked([sample.discriminant.branch])[keep, 0],
    )


def inside_conditions(generator: Generator, x: np.ndarray) -> np.ndarray:
    """Return which rows have conditions within the trained ranges."""
    low, high = np.array([v.range for v in generator.card.conditions]).T
    return np.asarray(((x >= low) & (x <= high)).all(axis=1))


def populations(
    generator: Generator, species: str, cuts: Sequence[str], *, seed: int
) -> dict[str, Pool]:
    """Return tracks of analyses with other kinematics, and the truth."""
    found = {}
    for name, x in population_conditions(species, seed=seed):
        x = x[inside_conditions(generator, x)]
        sample = generator.card.sample
        truth = np.zeros((len(cuts), len(x)))
        for repeat in range(REPEATS):
            y = respond(species, x, sample, seed=seed + repeat)
            truth += passes(generator, cuts, y) / REPEATS
        made = sample_targets(generator, x, seed=seed, track=name)
        generated = passes(generator, cuts, made).astype(np.int64)
        found[name] = Pool(x=x, real=truth, generated=generated, mass=np.empty(0))
    return found


def population_conditions(
    species: str, *, seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield conditions (n, 4) of the tracks of an analysis by name."""
    rng = np.random.default_rng(seed)
    decay = DECAYS[species][0]
    if species == "mu":
        branches = simulate_dimuons(POPULATION // 2, seed=seed)
        columns = ("P", "ETA", "trackcharge", "TRUEID")
        p, eta, charge, ids = (
            np.concatenate([branches[f"{track}_{c}"] for track in DIMUON_TRACKS])
            for c in columns
        )
        n_tracks = np.tile(branches["nTracks"], 2)
        x = np.stack([p, eta, n_tracks, charge], axis=1).astype(np.float64)
        yield "dimuons", x[np.abs(ids) == 13]
    for kind, factor, mean, scale in (("hard", 1.5, 3.1, 1.3), ("soft", 0.8, 3.5, 0.8)):
        moved = replace(
            SPECTRA[decay],
            pt_median=factor * SPECTRA[decay].pt_median,
            eta_mean=mean,
        )
        p, eta = draw_p_eta(moved, POPULATION, rng=rng)
        n_tracks, _ = draw_occupancy(POPULATION, scale=scale, rng=rng)
        charge = draw_charges(POPULATION, rng=rng)
        yield kind, np.stack([p, eta, n_tracks, charge], axis=1).astype(np.float64)


def experiments(folder: Path, species: str, n: int, *, seed: int) -> list[str]:
    """Return the coverage of each cut in n pseudo-experiments."""
    bundle = pidgan.open_bundle(folder / "chain.onnx")
    cuts = CUTS[species]
    pool = calibration_pool(bundle, species, cuts, seed=POOL_SEED + seed)
    analyses = populations(bundle, species, cuts, seed=POOL_SEED + 10 + seed)
    edges = default_binning(bundle.card)
    parsed = [parse_cut(text, names=bundle.card.target_names) for text in cuts]
    places = np.arange(count_bins(edges))
    bins = generated_in_bins(bundle, places, edges, parsed, seed)
    found = np.array(
        [
            quote(
                bundle.card,
                cuts,
                pool,
                analyses,
                bins=bins,
                rng=np.random.default_rng([seed, k]),
            )
            for k in range(n)
        ]
    )
    lines = say(
        [
            f"{n} pseudo-experiments with analyses {', '.join(analyses)}.",
            "",
            "| cut | truth | within 1 sigma | within 1.96 sigma | median error "
            "| generated alone within its statistical error |",
            "|---|---|---|---|---|---|",
        ]
    )
    for number, cut in enumerate(cuts):
        value, total, generated, stat, truth = found[:, number].T
        off = np.abs(value - truth)
        lines += say(
            [
                f"| `{cut}` | {100 * truth.min():.1f} to {100 * truth.max():.1f} % "
                f"| {100 * np.mean(off <= total):.1f} % "
                f"| {100 * np.mean(off <= 1.96 * total):.1f} % "
                f"| {100 * np.median(total):.2f} % "
                f"| {100 * np.mean(np.abs(generated - truth) <= stat):.1f} % |"
            ]
        )
    return lines


def quote(
    card: Card,
    cuts: Sequence[str],
    pool: Pool,
    analyses: dict[str, Pool],
    *,
    bins: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return value, total, generated, stat and truth, (n_cuts, 5), of one experiment.

    The map of systematics comes from candidates that nothing was trained on, with
    sWeights fitted to these candidates. `bins` are generated efficiencies in all bins,
    for those without candidates.
    """
    chosen = rng.choice(len(pool.x), int(rng.choice(REFERENCE_ROWS)), replace=False)
    target = analyses[str(rng.choice(list(analyses)))]
    here = rng.choice(len(target.x), int(rng.choice(ANALYSIS_ROWS)), replace=False)
    weights = compute_sweights(pool.mass[chosen], card.sample.discriminant).weights
    edges = default_binning(card)
    names = card.condition_names
    rows = ComparedRows(
        species=card.species,
        cuts=tuple(cuts),
        columns=dict(zip(names, pool.x[chosen].T, strict=True)),
        weights=weights,
        real=pool.real[:, chosen],
        generated=pool.generated[:, chosen],
        repeats=REPEATS,
    )
    found = map_from_rows(
        rows,
        edges=edges,
        empty_bins=lambda empty: bins[:, empty],
        metadata=card.model_dump(include={"conditions", "targets"}),
    )
    place = bin_index(dict(zip(names, target.x[here].T, strict=True)), edges)
    passed = target.generated[:, here] > 0
    analysed = Rows(
        tracks={"track": TrackRows(place=place, passed=dict(enumerate(passed)))},
        weights=np.ones(len(here)),
        cell=np.zeros(len(here), dtype=np.int64),
    )
    selections = [
        Selection(text=text, cuts={"track": k}) for k, text in enumerate(found.cuts)
    ]
    results = combine(selections, analysed, {"track": found})
    truth = target.real.mean(axis=1)
    return np.array(
        [
            (r.value, r.total, r.generated, r.stat, t)
            for r, t in zip(results, truth, strict=True)
        ]
    )


if __name__ == "__main__":
    main()
