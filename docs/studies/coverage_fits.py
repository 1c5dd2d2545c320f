"""Coverage of ratios of cuts, of small references, of events and of products.

    python docs/studies/coverage_fits.py -o FOLDER [--experiments 1200] [--only NAME]

This completes `coverage.py` with toys whose efficiency is known exactly, so that a
pseudo-experiment takes a tenth of a second. Each one has its own calibration sample
with background and sWeights, an imperfect generator, three cuts and an analysis sample
with other kinematics. Every quoted number is compared with the truth:

- `cut`: the efficiency of a cut, as in `coverage.py`;
- `ratio`: the ratio of the efficiencies of two cuts on the same tracks;
- `product`: two tracks of a candidate, with one map;
- `small`: references of 5,000 to 20,000 candidates with a default of 720 bins, which
  are merged where they hold too few rows; one cut;
- `events`: several candidates of an event share their response, in the calibration
  sample and in the analysis sample.

References have 5,000 to 60,000 candidates. The ideal uncertainty is that which the rows
of the two samples allow without any smoothing and systematic effect. The script writes
`docs/explanation/coverage_fits.inc`.
"""

import argparse
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr

from pidgan.efficiency.analysis_rows import Rows, TrackRows
from pidgan.efficiency.binning import bin_index, merge_bins
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.events import find_events
from pidgan.efficiency.pid_efficiency import combine
from pidgan.efficiency.real_vs_generated import ComparedRows
from pidgan.efficiency.selections import Selection
from pidgan.efficiency.systematics import map_from_rows
from pidgan.sample.weights import n_eff

EXPLANATION = Path(__file__).resolve().parents[1] / "explanation"

EDGES = {
    "P": (3.0, 8.0, 12.0, 17.0, 23.0, 30.0, 40.0, 60.0, 100.0),
    "ETA": (1.5, 2.5, 3.2, 3.9, 5.0),
    "nTracks": (0.0, 120.0, 220.0, 800.0),
}
FINE = {
    "P": tuple(np.geomspace(3.0, 100.0, 17).tolist()),
    "ETA": tuple(np.linspace(1.5, 5.0, 10).tolist()),
    "nTracks": (0.0, 100.0, 160.0, 220.0, 300.0, 800.0),
}
"""As many bins as those of hadrons in PIDCalib, 720."""

THRESHOLDS = (0.0, 0.8, 1.6)
CUTS = tuple(f"score > {threshold:g}" for threshold in THRESHOLDS)
RATIOS = ((1, 0), (2, 1), (2, 0))
REFERENCE_ROWS = (5_000, 10_000, 20_000, 60_000)
ANALYSIS_ROWS = (2_000, 20_000)
REPEATS = 8
SIGNAL_SHARE = 0.6
DISTORTIONS = ("none", "shift", "tilt", "width", "leak", "occupancy")
METADATA = {
    "conditions": [{"name": name, "unit": "1"} for name in EDGES],
    "targets": [{"name": "score"}],
}


@dataclass(frozen=True, kw_only=True)
class Response:
    """A normal score: its mean and width at given conditions, and lost tracks.

    Attributes:
        kind: One of `DISTORTIONS`.
        size: How large the distortion is; 0 is the truth.
    """

    kind: str = "none"
    size: float = 0.0

    def parameters(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return mean, width and share of tracks without signal, (n,) each."""
        p, eta, n_tracks = x
        of = {kind: self.size * (kind == self.kind) for kind in DISTORTIONS}
        slope = (0.004 + 0.002 * of["occupancy"]) * (n_tracks - 180.0)
        mean = 2.6 - 1.2 * np.log(p / 20.0) ** 2 + 0.3 * (eta - 3.3) - slope
        mean = mean + 0.25 * of["shift"] + 0.3 * of["tilt"] * np.log(p / 20.0)
        width = 1.0 + 0.2 * of["width"] * np.ones_like(p)
        return mean, width, 0.02 + 0.03 * of["leak"] * (p > 30.0)

    def draw(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw a score (n,) at conditions (3, n)."""
        mean, width, lost = self.parameters(x)
        z, u = rng.standard_normal(len(mean)), rng.random(len(mean))
        return np.where(u < lost, -1.0 + z, mean + width * z)

    def efficiency(self, x: np.ndarray) -> np.ndarray:
        """Return the exact efficiency of every cut, (n_cuts, n)."""
        mean, width, lost = self.parameters(x)
        return np.array(
            [
                (1 - lost) * ndtr((mean - t) / width) + lost * ndtr(-1.0 - t)
                for t in THRESHOLDS
            ]
        )


def draw_conditions(n: int, rng: np.random.Generator, *, moved: float) -> np.ndarray:
    """Draw momentum, pseudorapidity and occupancy (3, n); `moved` changes spectra."""
    p = np.clip(np.exp(rng.normal(3.0 + 0.3 * moved, 0.6, n)), 3.01, 99.9)
    eta = np.clip(rng.normal(3.2 - 0.2 * moved, 0.6, n), 1.51, 4.99)
    n_tracks = np.clip(rng.gamma(5.0, 36.0 * (1 + 0.2 * moved), n), 1.0, 799.0)
    return np.stack([p, eta, n_tracks])


def draw_weights(
    is_signal: np.ndarray, rng: np.random.Generator, events: np.ndarray
) -> np.ndarray:
    """Return sWeights (n,) of a peak over a flat background; an event has one mass."""
    first = np.unique(events, return_index=True, return_inverse=True)[1:]
    n = len(first[0])
    mass = np.where(is_signal[first[0]], rng.normal(0, 1, n), rng.uniform(-5, 5, n))
    signal = np.exp(-(mass**2) / 2) / math.sqrt(2 * math.pi)
    background, share = np.full(n, 0.1), SIGNAL_SHARE
    for _ in range(20):  # expectation maximisation
        share = np.mean(share * signal / (share * signal + (1 - share) * background))
    total = share * signal + (1 - share) * background
    pdfs = np.stack([signal, background]) / total
    # The sPlot weight V_ss f_s + V_sb f_b over the sum of yields times densities.
    inverse = np.linalg.inv(pdfs @ pdfs.T)
    weights = inverse[0] @ pdfs
    return np.asarray(weights[first[1]])


def group(n: int, size: float, rng: np.random.Generator) -> np.ndarray:
    """Return the event (n,) of each candidate; events have `size` on average."""
    if size <= 1:
        return np.arange(n)
    counts = 1 + rng.poisson(size - 1, n)
    return np.repeat(np.arange(n), counts)[:n]


def draw_reference(
    truth: Response,
    wrong: Response,
    n: int,
    *,
    size: float,
    rng: np.random.Generator,
) -> ComparedRows:
    """Return n candidates with sWeights, of which an event has `size` on average."""
    events = group(n, size, rng)
    n_events = int(events[-1]) + 1
    is_signal = rng.random(n_events) < SIGNAL_SHARE
    x = draw_conditions(n_events, rng, moved=0.0)
    score = np.where(is_signal, truth.draw(x, rng), rng.normal(-0.5, 1.5, n_events))
    # Candidates of an event share its probe, and so its response and its mass.
    x, score, is_signal = x[:, events], score[events], is_signal[events]
    weights = draw_weights(is_signal, rng, events)
    counts = np.zeros((len(CUTS), n), dtype=np.int64)
    for _ in range(REPEATS):
        # Draws of a generator depend on the conditions, which are the same.
        drawn = wrong.draw(x[:, np.searchsorted(events, np.arange(n_events))], rng)
        counts += drawn[events] > np.array(THRESHOLDS)[:, np.newaxis]
    return ComparedRows(
        species="K+",
        cuts=CUTS,
        columns=dict(zip(EDGES, x, strict=True)),
        weights=weights,
        real=score > np.array(THRESHOLDS)[:, np.newaxis],
        generated=counts,
        repeats=REPEATS,
        **({"events": events} if size > 1 else {}),
    )


def take_cuts(rows: ComparedRows, cuts: list[int]) -> ComparedRows:
    """Return rows with some of their cuts alone."""
    return replace(
        rows,
        cuts=tuple(rows.cuts[i] for i in cuts),
        real=rows.real[cuts],
        generated=rows.generated[cuts],
    )


def make_map(
    rows: ComparedRows, wrong: Response, edges: dict[str, tuple[float, ...]]
) -> EfficiencyMap:
    """Return the map of a reference, with bins merged where it has few rows."""
    edges = merge_bins(edges, n_eff(rows.weights))
    centres = np.stack(
        np.meshgrid(
            *[np.convolve(e, [0.5, 0.5], "valid") for e in edges.values()],
            indexing="ij",
        )
    )
    chosen = [CUTS.index(cut) for cut in rows.cuts]
    known = wrong.efficiency(centres.reshape(3, -1))[chosen]
    return map_from_rows(
        rows, edges=edges, empty_bins=lambda b: known[:, b], metadata=METADATA
    )


def experiment(kind: str, number: int, *, seed: int) -> Iterator[dict[str, Any]]:
    """Yield what is quoted in a pseudo-experiment, and the truth."""
    rng = np.random.default_rng([seed, number])
    truth = Response()
    wrong = Response(kind=str(rng.choice(DISTORTIONS)), size=float(rng.normal()))
    edges: dict[str, tuple[float, ...]] = FINE if kind == "small" else EDGES
    sizes = REFERENCE_ROWS[:3] if kind == "small" else REFERENCE_ROWS
    n_reference = int(rng.choice(sizes))
    n_analysis = int(rng.choice(ANALYSIS_ROWS))
    size = 2.0 if kind == "events" else 1.0
    reference = draw_reference(truth, wrong, n_reference, size=size, rng=rng)
    cuts = [*range(len(CUTS))]
    if kind == "small":
        cuts = [int(rng.integers(len(CUTS)))]
        reference = take_cuts(reference, cuts)
    found_map = make_map(reference, wrong, edges)
    tracks = ("first", "second") if kind == "product" else ("first",)
    events = group(n_analysis, size, rng)
    n_events = int(events[-1]) + 1
    moved = float(rng.uniform(-1, 1))
    own = {}
    big = np.random.default_rng([seed, number, 1])
    x_many = [draw_conditions(200_000, big, moved=moved) for _ in tracks]
    expected = np.prod([truth.efficiency(x).mean(axis=1) for x in x_many], axis=0)
    expected = expected[cuts]
    for track in tracks:
        x = draw_conditions(n_events, rng, moved=moved)
        drawn = wrong.draw(x, rng)[events]
        columns = dict(zip(EDGES, x[:, events], strict=True))
        place = bin_index(columns, found_map.binning)
        passed = {i: drawn > THRESHOLDS[cut] for i, cut in enumerate(cuts)}
        own[track] = TrackRows(place=place, passed=passed)
    rows = Rows(
        tracks=own,
        weights=np.ones(n_analysis),
        cell=np.zeros(n_analysis, dtype=np.int64),
        events=find_events(events.astype(np.uint64)) if size > 1 else None,
    )
    selections = [
        Selection(text=CUTS[cut], cuts=dict.fromkeys(tracks, i))
        for i, cut in enumerate(cuts)
    ]
    found = combine(selections, rows, dict.fromkeys(tracks, found_map))
    ideal = found.covariances["stat"] + least(found_map, own, expected, len(tracks))
    about = {
        "kind": kind,
        "experiment": number,
        "generator": wrong.kind,
        "n_reference": n_reference,
        "n_analysis": n_analysis,
    }
    for i, one in enumerate(found):
        yield {
            **about,
            "what": CUTS[cuts[i]],
            **numbers(one),
            "truth": expected[i],
            "ideal": math.sqrt(ideal[i, i]),
        }
    for a, b in RATIOS if len(cuts) > 1 else ():
        (one,) = found.estimates[a] / found.estimates[b]
        j = np.zeros(len(CUTS))
        j[[a, b]] = 1 / expected[b], -expected[a] / expected[b] ** 2
        yield {
            **about,
            "kind": f"{kind} ratio",
            "what": f"{CUTS[a]} / {CUTS[b]}",
            **numbers(one),
            "truth": expected[a] / expected[b],
            "ideal": math.sqrt(j @ ideal @ j),
        }


def numbers(one: Any) -> dict[str, float]:
    """Return value and uncertainties of an estimate."""
    return {"value": one.value, "stat": one.stat, "total": one.total, **one.syst}


def least(
    found: EfficiencyMap, own: dict[str, TrackRows], expected: np.ndarray, n: int
) -> np.ndarray:
    """Return the covariance (n_cuts, n_cuts) that the reference's rows alone leave."""
    share = np.zeros(len(found.n_eff))
    for track in own.values():
        share += np.bincount(track.place, minlength=len(share)) / len(track.place)
    # n tracks of the efficiency e: the derivative of e^n by e is n e^(n - 1).
    slope = expected ** ((n - 1) / n)
    raw = np.einsum("b,ijb,b->ij", share, found.raw_covariance, share)
    return np.asarray(slope[:, np.newaxis] * raw * slope)


def summarise(frame: pd.DataFrame) -> str:
    """Return the Markdown table of the documentation."""
    lines = [
        "| | candidates | results | within 1 sigma (68.3 %) "
        "| within 1.96 sigma (95 %) | ratio to the ideal error |",
        "|---|---|---|---|---|---|",
    ]
    for kind, part in frame.groupby("kind", sort=False):
        by_size = [("all", part), *part.groupby("n_reference")]
        for size, own in by_size:
            pull = (own["value"] - own["truth"]).abs() / own["total"]
            ratio = float((own["total"] / own["ideal"]).median())
            name = kind if size == "all" else "—"
            lines.append(
                f"| {name} | {size} | {len(own)} | {100 * (pull < 1).mean():.1f} % "
                f"| {100 * (pull < 1.96).mean():.1f} % | {ratio:.2f} |"
            )
    return "\n".join(lines)


KINDS = ("cut", "small", "product", "events")


def run_missing(
    text: str | None,
    kinds: Sequence[str],
    experiment: Callable[..., Iterable[dict[str, Any]]],
    summarise: Callable[[pd.DataFrame], str],
    file: Path,
    *,
    experiments: int,
) -> None:
    """Run the experiments of each kind that are missing, and write the table.

    Arguments of the command line say how many, where and for how long.
    """
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--experiments", type=int, default=experiments)
    parser.add_argument("--only", choices=kinds)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e9)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    folder: Path = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    limit = time.monotonic() + 60 * arguments.minutes
    frames = []
    for kind in [arguments.only] if arguments.only else kinds:
        path = folder / f"{kind}.parquet"
        done = pd.read_parquet(path) if path.exists() else pd.DataFrame()
        first = int(done["experiment"].max()) + 1 if len(done) else 0
        records: list[dict[str, Any]] = []
        for number in range(first, arguments.experiments):
            if time.monotonic() > limit:
                break
            records += experiment(kind, number, seed=arguments.seed)
        frame = pd.concat([done, pd.DataFrame(records)], ignore_index=True)
        frame.to_parquet(path)
        frames.append(frame)
    table = summarise(pd.concat(frames))
    print(table)
    if not arguments.only:
        file.write_text(table + "\n")


def main() -> None:
    """Run the experiments that are missing, and write the table."""
    file = EXPLANATION / "coverage_fits.inc"
    run_missing(__doc__, KINDS, experiment, summarise, file, experiments=1200)


if __name__ == "__main__":
    main()
