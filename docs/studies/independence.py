"""Rates of the test of independence of discriminant and response, on toys.

    python docs/studies/independence.py -o FOLDER [--toys 1000] [--minutes 60]

A toy has signal and background in a mass. Purity, background shape and the responses of
signal and background depend on two conditions. In some toys the response also depends
on the mass, within the background or within the signal. How visible that is does not
depend on the test: the *significance* is that of the best possible test of this one
dependence, for which all shapes are known, and the responses but for their size. A toy
is *visible* if this best test sees three standard deviations in it. What is counted is
kept in FOLDER, and another call goes on from there. At the end the script writes
`docs/explanation/independence.inc`. It takes twenty minutes on one core.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
from scipy.stats import chi2, ncx2, norm

from pidgan.sample.definition import Discriminant
from pidgan.sample.independence import DIRECTIONS, check_independence

EXPLANATION = Path(__file__).resolve().parents[1] / "explanation"
SHAPE = Discriminant(branch="m", range=(0.0, 1.0), unit="1", signal="gauss")
MEAN, WIDTH = 0.45, 0.08
ROWS = 12_000
SIGNIFICANCE = 3.0
"""Expected significance of a dependence, and from which on one is visible."""
LEVEL = 0.05
BATCH = 50


def background_density(m: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Return the density of an exponential between 0 and 1."""
    return np.asarray(-rate * np.exp(-rate * m) / np.expm1(-rate))


def draw(
    seed: list[int], kind: str = "", significance: float = 0.0
) -> tuple[np.ndarray, float]:
    """Return mass, response and two conditions (n, 4) of a toy, and its best test.

    That is the significance, in this toy, of the test that knows everything.
    """
    rng = np.random.default_rng(seed)
    x = rng.random((ROWS, 2))
    purity, rate = 0.5 + 0.4 * x[:, 0], 0.5 + 2.5 * x[:, 1]
    is_signal = rng.random(ROWS) < purity
    m = -np.log1p(rng.random(ROWS) * np.expm1(-rate)) / rate
    m[is_signal] = MEAN + WIDTH * rng.normal(size=is_signal.sum())
    signal = 1 / (1 + np.exp(-(2.5 - 3 * x[:, 0] + x[:, 1])))
    background = 1 / (1 + np.exp(1 - 2 * x[:, 1]))
    t, u = (m - MEAN) / WIDTH, 2 * m - 1
    p = purity * norm.pdf(m, MEAN, WIDTH)
    q = (1 - purity) * background_density(m, rate)
    share = p / (p + q)
    functions = (share * t, share * (t * t - 1), (1 - share) * u)
    shapes = dict(zip(DIRECTIONS, functions, strict=False))
    shapes[DIRECTIONS[3]] = (1 - share) * (3 * u * u - 1) / 2
    inside = (m > 0) & (m < 1)
    mean = share * signal + (1 - share) * background
    spread = np.sqrt(mean * (1 - mean))[:, np.newaxis]
    seen = np.zeros((ROWS, 1))
    if kind:
        h = shapes[kind]
        products = [a * b for a in (1, share) for b in (1, *x.T, x[:, 0] * x[:, 1])]
        basis = np.column_stack([np.broadcast_to(one, h.shape) for one in products])
        known = np.linalg.lstsq(basis / spread, h / spread[:, 0], rcond=None)[0]
        seen = ((h - basis @ known) / spread[:, 0] * inside)[:, np.newaxis]
        size = significance / math.sqrt(np.sum(seen**2))
        if kind in DIRECTIONS[:2]:
            signal = signal + size * h / share
        else:
            background = background + size * h / (1 - share)
    passed = rng.random(ROWS) < np.where(is_signal, signal, background)
    pulls = (passed - mean) / spread[:, 0]
    best = float(seen[:, 0] @ pulls / math.sqrt(max(np.sum(seen**2), 1e-300)))
    return np.column_stack([m, passed, x])[inside], best


def rejected(numbers: range, seed: int, kind: str, significance: float) -> np.ndarray:
    """Return the numbers of toys rejected at 5 %, visible, and visible and rejected."""
    found = np.zeros(3, dtype=int)
    for number in numbers:
        rows, best = draw([seed, number], kind, significance)
        one = check_independence(rows[:, 0], {"r": rows[:, 1]}, rows[:, 2:], SHAPE)
        is_found, is_visible = one["r"].p_value < LEVEL, abs(best) >= SIGNIFICANCE
        found += np.array([is_found, is_visible, is_found and is_visible])
    return found


def share_text(found: int, n: int) -> str:
    """Return a share with its error in per cent."""
    share = found / n
    error = math.sqrt(max(share * (1 - share), 0.5 / n) / n)
    return f"{100 * share:.1f} ± {100 * error:.1f} %"


def line(label: str, significance: float, counts: list[int]) -> str:
    """Return a line of the table."""
    toys, found, visible, both = counts
    z = norm.isf(LEVEL / 2)
    best = norm.cdf(significance - z) + norm.cdf(-significance - z)
    four = ncx2.sf(chi2.isf(LEVEL, len(DIRECTIONS)), len(DIRECTIONS), significance**2)
    seen = [str(visible), share_text(both, visible)] if significance else ["", ""]
    return (
        f"| {label} | {significance:.1f} | {toys} | {share_text(found, toys)} | "
        f"{100 * best:.1f} % | {100 * four:.1f} % | {' | '.join(seen)} |"
    )


def main() -> None:
    """Run the toys that are missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--toys", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    file, end = arguments.output / "counts.json", time.time() + 60 * arguments.minutes
    known = json.loads(file.read_text()) if file.is_file() else {}
    wanted = {"none": ("", 0.0, arguments.toys)}
    for kind in DIRECTIONS:
        wanted[kind] = (kind, SIGNIFICANCE, arguments.toys * 2 // 5)
    for number, (key, (kind, significance, toys)) in enumerate(wanted.items()):
        done, *found = known.get(key, (0, 0, 0, 0))
        while done < toys:
            if time.time() > end:
                return
            numbers = range(done, min(done + BATCH, toys))
            more = rejected(numbers, arguments.seed + number, kind, significance)
            done, found = numbers.stop, (np.array(found) + more).tolist()
            known[key] = (done, *found)
            file.write_text(json.dumps(known))
            print(key, done, found, flush=True)
    lines = [
        "| dependence | significance | toys | rejected | best test of this direction "
        "| best of four directions | visible toys | rejected of these |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key, (kind, significance, _) in wanted.items():
        lines.append(line(kind or "none", significance, known[key]))
    (EXPLANATION / "independence.inc").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
