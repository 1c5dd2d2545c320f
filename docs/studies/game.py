"""Background in a calibration sample: what of it is left in weights and generators.

    python docs/studies/game.py weights --samples 10
    python docs/studies/game.py closure --samples 4 --steps 24000 -o FOLDER
    python docs/studies/game.py closure --families cramer --settings play=0.4 -o FOLDER

Calibration samples of kaons are simulated with 30 and with 60 % of background, whose
sWeights are computed. `weights` judges ways to count their rows: sWeights as they are,
E[w | x, y] as it is regressed, and the same balanced, as trainings use it. `closure`
trains generators on the last two, and judges what they make at the conditions of fresh
signal.

The figures are efficiencies of 20 cuts on RichDLLk from 5 to 95 %, less those of fresh
signal from truth, for all rows and in fifths of momentum. "mean" is that over samples,
of which the mean absolute value is shown; "one" is the root mean square of a single
sample. The error is that of the mean over samples and cuts, from its spread. `closure`
adds the classifier two-sample test (C2ST), averaged over the samples.

What exists in FOLDER is not made again: more samples continue the same table. The
figure is FOLDER/weights.png or FOLDER/closure.png.
"""

import argparse
import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
from matplotlib.figure import Figure

import pidgan
from pidgan.bundle.card import sample_targets
from pidgan.files.tables import write_trees
from pidgan.report.metrics import c2st
from pidgan.report.plots.canvas import SOURCES, png, style
from pidgan.sample import weights as positive
from pidgan.sample.building import build_dataset
from pidgan.sample.dataset import Dataset, Part
from pidgan.sample.loading import load_sample
from pidgan.sample.weights import positive_weights, with_differences
from pidgan.simulation import MODES, simulate_calibration
from pidgan.training.model import open_model

MODE, CUT_ON = "dstar_k", "RichDLLk"
N_CUTS = 20
FIRST_SEED, FRESH_SEED = 101, 5001
MOST_CANDIDATES = 500_000
"""Number of fresh candidates in a chunk."""

MARGIN = 1.02
"""More candidates are simulated by this factor than are needed on average."""

Rates = dict[str, np.ndarray]
"""Efficiencies of the cuts: "all" (N_CUTS,), and "momentum" (5, N_CUTS)."""


def main() -> None:
    """Run one part of the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("weights", "closure"))
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--candidates", type=int, default=200_000)
    parser.add_argument("--background", type=float, nargs="+", default=[0.3, 0.6])
    parser.add_argument("--families", nargs="+", default=["distilled"])
    parser.add_argument("--settings", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--steps", type=int, default=24_000)
    parser.add_argument("--fresh", type=int, default=1_000_000)
    parser.add_argument("-o", "--output", type=Path, default=Path("game"))
    a = parser.parse_args()
    a.output.mkdir(exist_ok=True)
    fresh = _fresh(a.fresh, a.output / f"fresh-{a.fresh}.npz")
    truth = Truth(*fresh)
    shares: dict[str, dict[str, list[Rates]]] = {}
    columns = "background, rows, all: mean, one, momentum: mean, one, error, C2ST"
    print(f"| {columns.replace(',', ' |')} |")
    print("|---" * len(columns.split(",")) + "|")
    for background in a.background:
        found: dict[str, list[Rates]] = {}
        for seed in range(FIRST_SEED, FIRST_SEED + a.samples):
            name = f"{100 * background:.0f}-{a.candidates}-{seed}"
            dataset = _sample(background, a.candidates, seed, a.output / name)
            if a.part == "weights":
                new = _of_weights(dataset.part("train"), truth)
            else:
                new = _of_generators(a, dataset, truth, a.output / name)
            for what, rates in new.items():
                found.setdefault(what, []).append(rates)
        shares[f"{100 * background:.0f} % background"] = found
        for what, each in found.items():
            print(_line(f"{100 * background:.0f} %", what, each, truth), flush=True)
    (a.output / f"{a.part}.png").write_bytes(png(_draw(shares, truth)))


class Truth:
    """Fresh signal, and the cuts and their efficiencies."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = x, y
        names = load_sample(f"sim_{MODE}").target_names
        self.column = names.index(CUT_ON)
        self.cuts = np.quantile(y[:, self.column], np.linspace(0.05, 0.95, N_CUTS))
        self.edges = np.quantile(x[:, 0], (0.2, 0.4, 0.6, 0.8))
        self.rates = self.pass_rates(x, y, np.ones(len(x)))

    def pass_rates(self, x: np.ndarray, y: np.ndarray, w: np.ndarray) -> Rates:
        """Return the efficiencies of rows with weights."""
        passed = y[:, [self.column]] > self.cuts
        place = np.searchsorted(self.edges, x[:, 0])
        fifths = [
            w[place == k] @ passed[place == k] / w[place == k].sum() for k in range(5)
        ]
        return {"all": w @ passed / w.sum(), "momentum": np.array(fifths)}


def _fresh(n: int, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return conditions and targets of n rows of signal from truth."""
    if not path.is_file():
        bare = load_sample(f"sim_{MODE}").model_copy(
            update={"discriminant": None, "unweighted": True}
        )
        parts, seed = [], FRESH_SEED
        while sum(map(len, parts)) < n:
            trees = simulate_calibration(MODE, min(2 * n, MOST_CANDIDATES), seed=seed)
            signal = {tree: b["probe_TRUE_SIGNAL"] == 1 for tree, b in trees.items()}
            parts.append(_built(bare, _rows_of(trees, signal)))
            seed += 1
        x, y = (
            np.concatenate([getattr(p, name) for p in parts])[:n]
            for name in ("conditions", "targets")
        )
        np.savez(path, x=x, y=y)
    found = np.load(path)
    return found["x"], found["y"]


def _sample(background: float, n: int, seed: int, path: Path) -> Dataset:
    """Return the dataset of n candidates with such a share of background."""
    if not path.is_dir():
        share = MODES[MODE].mass.signal_fraction
        enough = max(background / (1 - share), (1 - background) / share)
        trees = simulate_calibration(MODE, int(MARGIN * enough * n), seed=seed)
        rng = np.random.default_rng(seed)
        is_signal = {tree: b["probe_TRUE_SIGNAL"] == 1 for tree, b in trees.items()}
        total = sum(v.sum() for v in is_signal.values())
        of_signal = n * (1 - background) / total
        of_background = n * background / (sum(map(len, is_signal.values())) - total)
        kept = {
            tree: rng.random(len(v)) < np.where(v, of_signal, of_background)
            for tree, v in is_signal.items()
        }
        _built(f"sim_{MODE}", _rows_of(trees, kept)).save(path)
    return Dataset.open(path)


def _rows_of(trees, kept):
    """Return some rows of each tree."""
    return {
        tree: {name: values[kept[tree]] for name, values in branches.items()}
        for tree, branches in trees.items()
    }


def _built(sample, trees) -> Dataset:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "all.root"
        write_trees(path, trees)
        return build_dataset(sample, path, seed=1)


@contextlib.contextmanager
def _not_balanced() -> Iterator[None]:
    """Take regressed weights as they are."""
    with mock.patch.object(positive, "balance", lambda x, w, g, *, size: g):
        yield


def _of_weights(part: Part, truth: Truth) -> dict[str, Rates]:
    """Return the efficiencies of a sample's rows, counted in three ways."""
    x, y, w = part.conditions, part.targets, part.weights
    features = with_differences(x, y)
    with _not_balanced():
        regressed = positive_weights(features, w, 1)
    size = positive.n_eff(w)
    balanced = positive.balance(features, w, regressed, size=size)
    ways = {"sWeights": w, "regressed": regressed, "balanced": balanced}
    return {name: truth.pass_rates(x, y, weights) for name, weights in ways.items()}


def _of_generators(a, dataset, truth: Truth, folder: Path) -> dict[str, Rates]:
    """Return the efficiencies of generators, trained if they are not there yet."""
    settings = dict(text.split("=", 1) for text in a.settings)
    found = {}
    for family in a.families:
        for what in ("regressed", "balanced"):
            name = "-".join([family, what, str(a.steps), *a.settings])
            path = folder.with_name(f"{folder.name}-{name}")
            if not path.is_dir():
                balanced = what == "balanced"
                with contextlib.nullcontext() if balanced else _not_balanced():
                    model = pidgan.train(
                        dataset, family=family, settings=settings, steps=a.steps
                    )
                model.save(path)
            found[f"{family}, {what}"] = _generated(path, truth)
    return found


def _generated(path: Path, truth: Truth) -> Rates:
    """Return the efficiencies of a trained generator, and its C2ST."""
    kept = path.with_suffix(".json")
    if not kept.is_file():
        model = open_model(path)
        y = sample_targets(model, truth.x, seed=1).astype(np.float64)
        rates = truth.pass_rates(truth.x, y, np.ones(len(y)))
        some = slice(100_000)
        real, made = (with_differences(truth.x[some], v[some]) for v in (truth.y, y))
        test = c2st(real, made, max_rows=len(real), paired=True)
        rows = {name: v.tolist() for name, v in rates.items()}
        rows["c2st"] = [test.auc_trees, test.auc_network, test.error]
        kept.write_text(json.dumps(rows), encoding="utf-8")
    content = json.loads(kept.read_text(encoding="utf-8"))
    return {name: np.array(v) for name, v in content.items()}


def _line(background: str, what: str, each: list[Rates], truth: Truth) -> str:
    """Return the line of the table of one way, in percent."""
    cells = [background, what]
    for name in ("all", "momentum"):
        off = 100 * np.array([rates[name] - truth.rates[name] for rates in each])
        mean, one = np.abs(off.mean(axis=0)).mean(), np.sqrt(np.mean(off**2))
        cells += [f"{mean:.3f}", f"{one:.3f}"]
    over = [100 * np.mean(rates["all"] - truth.rates["all"]) for rates in each]
    spread = np.std(over, ddof=1) / np.sqrt(len(over)) if len(over) > 1 else np.nan
    cells.append(f"{spread:.3f}")
    tests = [rates["c2st"] for rates in each if "c2st" in rates]
    cells.append(
        ", ".join(f"{v:.4f}" for v in np.mean(tests, axis=0)[:2]) if tests else ""
    )
    return f"| {' | '.join(cells)} |"


def _draw(shares: dict[str, dict[str, list[Rates]]], truth: Truth) -> Figure:
    """Draw the root mean square deviation of a sample in fifths of momentum."""
    with style():
        figure = Figure(figsize=(4.5 * len(shares), 3.6), layout="constrained")
        axes = figure.subplots(1, len(shares), sharey=True, squeeze=False)[0]
        for axis, (title, found) in zip(axes, shares.items(), strict=True):
            for (what, each), colour in zip(found.items(), SOURCES, strict=False):
                off = [100 * (r["momentum"] - truth.rates["momentum"]) for r in each]
                spread = np.sqrt(np.mean(np.square(off), axis=(0, 1)))
                axis.plot(100 * truth.rates["all"], spread, label=what, color=colour)
            axis.set_title(title)
            axis.set_xlabel("efficiency (%)")
        axes[0].set_ylabel("rms deviation in fifths of P (%)")
        axes[0].set_ylim(0, max(axis.get_ylim()[1] for axis in axes))
        axes[0].legend(loc="lower right")
    return figure


if __name__ == "__main__":
    main()
