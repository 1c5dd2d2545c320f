"""Coverage of the factor of a control channel, and of mass fits beside sWeights.

    python docs/studies/control.py -o FOLDER [--experiments 1000] [--minutes 60]

Efficiencies are functions of a momentum, so that everything is fast and the truth is
known. Each pseudo-experiment has its own calibration sample with background and
sWeights, a generator with another efficiency, a map, and an analysis sample.

- "control": control channel and analysis have the efficiency of the calibration sample
  times a factor, which is drawn for each experiment. The map gets the factor that the
  control sample measures.
- "fit_and_count": the background passes more often at some masses than at others, by an
  amount that is drawn for each experiment. sWeights are then biased by about their
  statistical error. The map has the variation.

The ideal error is that of the samples alone: of the analysis, and of the control sample
or of the signal of the calibration sample. What is found is kept in FOLDER, and another
call goes on from there. At the end the script writes `docs/explanation/control.inc`.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from pidgan.efficiency.analysis_rows import Rows, TrackRows
from pidgan.efficiency.control import compare_control
from pidgan.efficiency.control_rows import ControlRows
from pidgan.efficiency.counted import add_counted
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.pid_efficiency import combine
from pidgan.efficiency.real_vs_generated import ComparedRows
from pidgan.efficiency.selections import Selection
from pidgan.efficiency.systematics import map_from_rows
from pidgan.efficiency.transfer import transfer
from pidgan.sample.definition import Discriminant
from pidgan.sample.sweights import compute_sweights

EXPLANATION = Path(__file__).resolve().parents[1] / "explanation"
SHAPE = Discriminant(branch="m", range=(0.0, 1.0), unit="1", signal="gauss")
CUT = "y > 0"
EDGES = {"P": tuple(np.linspace(0.0, 1.0, 7))}
CALIBRATION, CONTROL, ANALYSIS = 12_000, 6_000, 10_000
REPEATS = 4
SIGNAL_SHARE = 0.7
BIAS = 0.5
"""Spread of the curvature of the share of background that passes, against the mass."""


def real_efficiency(p: np.ndarray) -> np.ndarray:
    """Return the efficiency of the calibration sample."""
    return np.asarray(0.92 - 0.25 * p**2)


def generated_efficiency(p: np.ndarray) -> np.ndarray:
    """Return that of the generator, which is wrong by some per cent."""
    return np.asarray(0.90 - 0.18 * p**2 - 0.03 * np.sin(6 * p))


def known_weights(m: np.ndarray, is_signal: np.ndarray) -> np.ndarray:
    """Return the sWeights of the true shapes and yields."""
    pair = np.array([norm.pdf(m, 0.5, 0.07), np.ones_like(m)])
    yields = np.array([is_signal.sum(), (~is_signal).sum()])
    total = yields @ pair
    inverse = np.linalg.inv((pair / total**2) @ pair.T)
    return np.asarray(inverse[0] @ pair / total)


def calibration(
    rng: np.random.Generator, bias: float, *, is_fitted: bool
) -> tuple[ComparedRows, float]:
    """Return reference rows with sWeights, and their rows of signal."""
    n = CALIBRATION
    is_signal = rng.random(n) < SIGNAL_SHARE
    p = rng.beta(1.5, 2.0, n)
    m = rng.random(n)
    m[is_signal] = 0.5 + 0.07 * rng.normal(size=is_signal.sum())
    # The mass of the background has the same mean response with and without a bias.
    of_background = 0.4 + bias * ((m - 0.5) ** 2 - 1 / 12)
    e = np.where(is_signal, real_efficiency(p), of_background)
    inside = (m > 0) & (m < 1)
    p, m, e, is_signal = p[inside], m[inside], e[inside], is_signal[inside]
    weights = known_weights(m, is_signal)
    if is_fitted:
        weights = compute_sweights(m, SHAPE).weights
    made = rng.binomial(REPEATS, generated_efficiency(p))
    rows = ComparedRows(
        species="K+",
        cuts=(CUT,),
        columns={"P": p},
        weights=weights,
        real=(rng.random(len(p)) < e)[np.newaxis],
        generated=made[np.newaxis],
        repeats=REPEATS,
        discriminant=m,
    )
    return rows, float(is_signal.sum())


def make_map(rows: ComparedRows) -> EfficiencyMap:
    """Return the efficiency map of reference rows."""
    condition = {"name": "P", "unit": "1", "range": [0, 1]}
    metadata = {
        "species": "K+",
        "pdgid": 321,
        "conditions": [condition],
        "targets": [{"name": "y", "sentinels": []}],
    }

    def empty(bins: np.ndarray) -> np.ndarray:
        middle = (np.array(EDGES["P"])[:-1] + 0.5 / 6)[bins]
        return generated_efficiency(middle)[np.newaxis]

    return map_from_rows(rows, edges=EDGES, empty_bins=empty, metadata=metadata)


def control_rows(rng: np.random.Generator, factor: float) -> ControlRows:
    """Return a control sample with other kinematics, and weights for its background."""
    n = CONTROL
    is_signal = rng.random(n) < 0.8
    p = rng.beta(2.0, 1.5, n)
    e = np.where(is_signal, factor * real_efficiency(p), 0.5)
    return ControlRows(
        source="control",
        species="K+",
        columns={"P": p},
        passed=(rng.random(n) < e)[np.newaxis],
        weights=np.where(is_signal, 1.0, rng.choice([1.0, -1.0], n)),
        position=None,
        shape=None,
        dropped={},
    )


def experiment(kind: str, number: int, seed: int) -> dict[str, Any]:
    """Run one pseudo-experiment."""
    rng = np.random.default_rng([seed, number, kind == "control"])
    bias = 0.0 if kind == "control" else BIAS * rng.normal()
    factor = rng.uniform(0.92, 1.04) if kind == "control" else 1.0
    rows, n_signal = calibration(rng, bias, is_fitted=kind != "control")
    known = make_map(rows)
    if kind == "control":
        found = compare_control(control_rows(rng, factor), known, [0])
        known = transfer(known, found)
    else:
        add_counted(known, rows, SHAPE, is_asked=True)
    p = rng.beta(2.5, 1.8, ANALYSIS)
    passed = rng.random(ANALYSIS) < generated_efficiency(p)
    place = known.place({"P": p})
    track = TrackRows(place=place, passed={0: passed})
    analysis = Rows(
        tracks={"t": track}, weights=np.ones(ANALYSIS), cell=np.zeros(ANALYSIS, int)
    )
    selection = Selection(text=CUT, cuts={"t": 0})
    (one,) = combine([selection], analysis, {"t": known})
    shares = np.bincount(place, minlength=len(known.n_eff)) / ANALYSIS
    truth = factor * float(real_efficiency(rng.beta(2.5, 1.8, 400_000)).mean())
    if kind == "control":
        # With the factor, a calibration sample of any size gives this at best.
        least = found[0].control_error / found[0].control * one.value
    else:
        least = math.sqrt(shares**2 @ known.raw_covariance[0, 0])
    return {
        "value": one.value,
        "total": one.total,
        "stat": one.stat,
        "part": one.syst[kind],
        "ideal": math.hypot(one.stat, least),
        "truth": truth,
        "n_signal": n_signal,
    }


def summarise(found: dict[str, list[dict[str, Any]]]) -> str:
    """Return the Markdown table of the documentation."""
    lines = [
        "| | results | within 1 sigma (68.3 %) | within 1.96 sigma (95 %) "
        "| median error | ratio to the ideal error | without this part, 1 sigma |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, records in found.items():
        columns = {k: np.array([r[k] for r in records]) for k in records[0]}
        distance = np.abs(columns["value"] - columns["truth"])
        total = columns["total"]
        less = np.sqrt(np.maximum(total**2 - columns["part"] ** 2, 0))
        lines.append(
            f"| `{kind}` | {len(total)} | {100 * np.mean(distance <= total):.1f} % "
            f"| {100 * np.mean(distance <= 1.96 * total):.1f} % "
            f"| {100 * np.median(total):.2f} % "
            f"| {np.median(total / columns['ideal']):.2f} "
            f"| {100 * np.mean(distance <= less):.1f} % |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the experiments that are missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--experiments", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    end = time.time() + 60 * arguments.minutes
    found = {}
    for kind in ("control", "fit_and_count"):
        file = arguments.output / f"{kind}.json"
        records = json.loads(file.read_text()) if file.is_file() else []
        while len(records) < arguments.experiments and time.time() < end:
            records.append(experiment(kind, len(records), arguments.seed))
            if len(records) % 50 == 0:
                file.write_text(json.dumps(records))
        file.write_text(json.dumps(records))
        found[kind] = records
    print(summarise({kind: records for kind, records in found.items() if records}))
    if all(len(r) >= arguments.experiments for r in found.values()):
        text = summarise(found) + "\n"
        (EXPLANATION / "control.inc").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
