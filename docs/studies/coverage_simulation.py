"""Coverage of maps of simulation, as it is and corrected to data.

    python docs/studies/coverage_simulation.py -o FOLDER [--experiments 1000]
        [--only NAME] [--minutes 60]

The response is that of `coverage_fits.py`, whose efficiency is known exactly. Each
pseudo-experiment has its own calibration sample with background and sWeights, its own
simulated rows with another response and other kinematics, a map that compares both, and
an analysis sample of simulation with kinematics of its own.

- `plain`: the simulation as it is, `pidgan systematics --simulation`;
- `corrected`: the simulation after a corrector that has not learnt all: it moves and
  scales the score at given conditions to a response that is still wrong.

A simulation of a few thousand rows limits the result as the data do. The truth is the
mean efficiency of the kinematics of the analysis, of which its rows are a sample. The
ideal uncertainty is that of the rows of data, simulation and analysis without any
smoothing and systematic effect. What is found is kept in FOLDER, and another call goes
on from there. The script writes `docs/explanation/coverage_simulation.inc`.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from coverage_fits import (
    ANALYSIS_ROWS,
    CUTS,
    DISTORTIONS,
    EDGES,
    EXPLANATION,
    SIGNAL_SHARE,
    THRESHOLDS,
    Response,
    draw_conditions,
    draw_weights,
    least,
    numbers,
    run_missing,
)

from pidgan.bundle.card import SIMULATED, Card, CardVariable
from pidgan.efficiency.analysis_rows import Rows, TrackRows
from pidgan.efficiency.binning import bin_index
from pidgan.efficiency.pid_efficiency import combine
from pidgan.efficiency.selections import Selection
from pidgan.efficiency.simulated_rows import FAMILY, simulated_rows
from pidgan.efficiency.systematics import run_systematics
from pidgan.sample.definition import Sample

DATA_ROWS = (3_000, 10_000, 30_000)
SIMULATED_ROWS = (2_000, 10_000, 30_000)
LEFT = 0.4
"""Size of what a corrector has not learnt, in units of the distortions."""

KINDS = ("plain", "corrected")


def describe(*, is_corrector: bool) -> Card:
    """Return the card of a generator of the score."""
    spans = {name: (edges[0], edges[-1]) for name, edges in EDGES.items()}
    score = {"name": "score", "range": (-20.0, 20.0)}
    sample = {
        "schema": 1,
        "name": "score",
        "title": "A score",
        "detector": "toy",
        "species": "K+",
        "source": "none",
        "unweighted": True,
        "conditions": [{"name": name, "range": span} for name, span in spans.items()],
        "targets": [score],
        "binning": EDGES,
    }
    sample["conditions"][0]["transform"] = "log"
    target = CardVariable(unit="1", **score)
    return Card(
        detector="toy",
        species="K+",
        conditions=tuple(
            CardVariable(name=name, unit="1", range=span)
            for name, span in spans.items()
        ),
        targets=(target,),
        n_noise=1 if is_corrector else 1 + len(spans),
        sample=Sample.model_validate(sample),
        family="toy" if is_corrector else FAMILY,
        seed=1,
        steps=0,
        simulated=(target,) if is_corrector else (),
    )


@dataclass(frozen=True, kw_only=True)
class Known:
    """A corrector from one response to another, with the rows to judge it by."""

    card: Card
    before: Response
    after: Response
    rows: pd.DataFrame

    def reference(self) -> pd.DataFrame:
        """Return rows of data and of simulation."""
        return self.rows

    def generate(self, conditions: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Return corrected scores (n, 1)."""
        x = np.asarray(conditions, dtype=np.float64).T
        mean, width, _ = self.before.parameters(x[:3])
        new_mean, new_width, _ = self.after.parameters(x[:3])
        moved = new_mean + new_width * (x[3] - mean) / width
        return moved[:, np.newaxis].astype(np.float32)


def frame_of(x: np.ndarray, score: np.ndarray, weights: np.ndarray) -> pd.DataFrame:
    """Return rows as a table."""
    columns = dict(zip(EDGES, x, strict=True))
    return pd.DataFrame({**columns, "score": score, "weight": weights})


def draw_data(n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return candidates of a calibration sample with sWeights."""
    is_signal = rng.random(n) < SIGNAL_SHARE
    x = draw_conditions(n, rng, moved=0.0)
    score = np.where(is_signal, Response().draw(x, rng), rng.normal(-0.5, 1.5, n))
    return frame_of(x, score, draw_weights(is_signal, rng, np.arange(n)))


def experiment(kind: str, number: int, *, seed: int) -> dict[str, Any]:
    """Return what is quoted in a pseudo-experiment, and the truth."""
    rng = np.random.default_rng([seed, number, KINDS.index(kind)])
    wrong = Response(kind=str(rng.choice(DISTORTIONS)), size=float(rng.normal()))
    left = Response(kind=str(rng.choice(DISTORTIONS)), size=LEFT * float(rng.normal()))
    n_data, n_simulated = int(rng.choice(DATA_ROWS)), int(rng.choice(SIMULATED_ROWS))
    data = draw_data(n_data, rng)
    x = draw_conditions(n_simulated, rng, moved=0.2)
    simulation = frame_of(x, wrong.draw(x, rng), np.ones(n_simulated))
    parts = [part.assign(**{SIMULATED: k}) for k, part in enumerate((data, simulation))]
    corrector = Known(
        card=describe(is_corrector=True),
        before=wrong,
        after=left,
        rows=pd.concat(parts, ignore_index=True),
    )
    generator: Any = corrector
    if kind == "plain":
        generator = simulated_rows(
            describe(is_corrector=False),
            x.T.astype(np.float32),
            simulation[["score"]].to_numpy(np.float32),
            np.ones(n_simulated),
            sha256="0" * 64,
            data=data,
            seed=1,
        )
    cut = int(rng.integers(len(CUTS)))
    found = run_systematics(
        generator, cuts=CUTS[cut], binning=EDGES, seed=number, progress=False
    )
    n_analysis, moved = int(rng.choice(ANALYSIS_ROWS)), float(rng.uniform(-1, 1))
    x = draw_conditions(n_analysis, rng, moved=moved)
    score = wrong.draw(x, rng)
    if kind == "corrected":
        score = corrector.generate(np.vstack([x, score]).T, np.empty(0))[:, 0]
    track = TrackRows(
        place=bin_index(dict(zip(EDGES, x, strict=True)), found.binning),
        passed={0: score > THRESHOLDS[cut]},
    )
    rows = Rows(
        tracks={"t": track},
        weights=np.ones(n_analysis),
        cell=np.zeros(n_analysis, dtype=np.int64),
    )
    selection = Selection(text=CUTS[cut], cuts={"t": 0})
    (one,) = results = combine([selection], rows, {"t": found})
    big = np.random.default_rng([seed, number, 9])
    expected = Response().efficiency(draw_conditions(200_000, big, moved=moved))
    expected = expected[[cut]].mean(axis=1)
    ideal = results.covariances["stat"] + least(found, {"t": track}, expected, 1)
    return {
        "kind": kind,
        "experiment": number,
        "simulation": wrong.kind,
        "n_data": n_data,
        "n_simulated": n_simulated,
        "n_analysis": n_analysis,
        "what": CUTS[cut],
        **numbers(one),
        "generated": one.generated,
        "truth": float(expected[0]),
        "ideal": math.sqrt(ideal[0, 0]),
    }


def summarise(frame: pd.DataFrame) -> str:
    """Return the Markdown table of the documentation."""
    lines = [
        "| | simulated rows | experiments | within 1 sigma (68.3 %) "
        "| within 1.96 sigma (95 %) | median error | ratio to the ideal error "
        "| not corrected, statistical error only, 1 sigma |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, part in frame.groupby("kind", sort=False):
        for size, own in [("all", part), *part.groupby("n_simulated")]:
            pull = (own["value"] - own["truth"]).abs() / own["total"]
            bare = (own["generated"] - own["truth"]).abs() / own["stat"]
            ratio = float((own["total"] / own["ideal"]).median())
            lines.append(
                f"| {f'{kind} simulation' if size == 'all' else '—'} | {size} "
                f"| {own['experiment'].nunique()} | {100 * (pull < 1).mean():.1f} % "
                f"| {100 * (pull < 1.96).mean():.1f} % "
                f"| {100 * own['total'].median():.2f} % | {ratio:.2f} "
                f"| {100 * (bare < 1).mean():.1f} % |"
            )
    return "\n".join(lines)


def main() -> None:
    """Run the experiments that are missing, and write the table."""
    file = EXPLANATION / "coverage_simulation.inc"

    def records(kind: str, number: int, *, seed: int) -> list[dict[str, Any]]:
        return [experiment(kind, number, seed=seed)]

    run_missing(__doc__, KINDS, records, summarise, file, experiments=1000)


if __name__ == "__main__":
    main()
