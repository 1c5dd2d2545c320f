"""RICH generators against millions of simulated rows they have never seen.

    python docs/studies/rich_detectors.py sample dstar_k -o kaon
    pidgan train kaon -o kaon-model --steps 24000
    pidgan export kaon-model -o kaon.onnx
    python docs/studies/rich_detectors.py judge kaon kaon.onnx
    python docs/studies/rich_detectors.py separate kaon kaon.onnx pion pion.onnx

`sample` makes a dataset of pure signal, from truth with weights 1, of which 300,000
rows train. `judge` simulates rows of the same mode, generates as many at their
conditions, and prints the classifier two-sample test, shares of ties and atoms, and
efficiencies in PIDCalib's bins. `separate` prints the area under the curve of K/pi
separation. Shares, efficiencies and areas stand beside those of the training sample
taken as a generator. -n is the number of fresh rows.

Pulls hold the statistics of the judging rows, of the generated ones and of the training
sample. These are tables of docs/explanation/recipe.md.
"""

import argparse
import itertools
import tempfile
from pathlib import Path

import numpy as np
from scipy.stats import chi2

import pidgan
from pidgan.bundle.card import sample_targets
from pidgan.efficiency.binning import bin_index
from pidgan.files.tables import write_trees
from pidgan.report.metrics import c2st, weighted_auc
from pidgan.sample.building import build_dataset
from pidgan.sample.dataset import Dataset
from pidgan.sample.loading import load_sample
from pidgan.sample.weights import with_differences
from pidgan.simulation import simulate_calibration

TRAINING_ROWS = 300_000
SHARES = (0.94, 0.05, 0.01)
"""Shares of the rows of `sample`: train, validation, test."""

CANDIDATES = 500_000
"""Number of fresh rows in a chunk; the seeds of chunks count from FIRST_SEED."""

FIRST_SEED = 1000
CUT_ON = {
    "sim_lambda_p": "RichDLLp",
    "sim_jpsi_mu": "RichDLLmu",
    "sim_jpsi_e": "RichDLLe",
}
"""Target of the cuts by mode; other modes use RichDLLk."""

N_CUTS = 20
C2ST_ROWS = 200_000
LEAST_TRAINING_ROWS = 100
"""Bins with fewer rows are left out."""

LEAST_SHARE = 0.002
"""Smallest share of rows that are tied or at an atom."""


def main() -> None:
    """Run one part of the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    sample = parts.add_parser("sample")
    sample.add_argument("mode")
    sample.add_argument("-o", "--output", type=Path, required=True)
    sample.add_argument("--seed", type=int, default=1)
    judge = parts.add_parser("judge")
    judge.add_argument("dataset", type=Path)
    judge.add_argument("bundle", type=Path)
    separate = parts.add_parser("separate")
    separate.add_argument("kaons", type=Path, nargs=2, metavar="KAONS")
    separate.add_argument("pions", type=Path, nargs=2, metavar="PIONS")
    for part in (judge, separate):
        part.add_argument("-n", type=int, default=5_000_000)
    arguments = parser.parse_args()
    if arguments.part == "sample":
        n = int(TRAINING_ROWS / SHARES[0])
        pure = _simulate(arguments.mode, n, first_seed=arguments.seed, shares=SHARES)
        pure.save(arguments.output)
    elif arguments.part == "judge":
        _judge(Dataset.open(arguments.dataset), arguments.bundle, arguments.n)
    else:
        _separate(arguments.kaons, arguments.pions, arguments.n)


def _simulate(mode, n, *, first_seed, shares):
    """Return n rows of true signal, less the few that the definition leaves out."""
    bare = load_sample(f"sim_{mode}").model_copy(
        update={"discriminant": None, "unweighted": True}
    )
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for seed in itertools.count(first_seed):
            trees = simulate_calibration(mode, min(CANDIDATES, 2 * n), seed=seed)
            signal = {tree: b["probe_TRUE_SIGNAL"] == 1 for tree, b in trees.items()}
            kept = min(1.0, n / sum(rows.sum() for rows in signal.values()))
            first = {
                k: v.nonzero()[0][: int(kept * v.sum())] for k, v in signal.items()
            }
            chosen = {
                tree: {name: values[first[tree]] for name, values in branches.items()}
                for tree, branches in trees.items()
            }
            files.append(Path(folder) / f"{seed}.root")
            write_trees(files[-1], chosen)
            n -= sum(len(rows) for rows in first.values())
            if kept < 1:
                return build_dataset(bare, files, shares=shares)


def _fresh(dataset, n):
    """Return conditions and targets, (n, ...), of rows that nothing was trained on."""
    mode = dataset.sample.name.removeprefix("sim_")
    rows = _simulate(mode, n, first_seed=FIRST_SEED, shares=(0.01, 0.01, 0.98))
    return np.asarray(rows.conditions[:n]), np.asarray(rows.targets[:n])


def _judge(dataset, path, n):
    """Print the figures of one generator."""
    train = dataset.part("train")
    x, y = _fresh(dataset, n)
    generated = sample_targets(pidgan.open_bundle(path), x, seed=1).astype(np.float64)
    names = dataset.sample.target_names
    print(f"{path}: {len(train.targets)} training rows, judged on {len(y)}")
    picked = np.random.default_rng(1).permutation(len(y))[: 2 * C2ST_ROWS]
    first, second = np.array_split(picked, 2)
    real = with_differences(x[first], y[first])
    for what, other in (
        ("generated", with_differences(x[first], generated[first])),
        ("real", with_differences(x[second], y[second])),
    ):
        found = c2st(real, other, max_rows=C2ST_ROWS, paired=what == "generated")
        print(
            f"C2ST of real and {what} rows: trees {found.auc_trees:.4f}, network "
            f"{found.auc_network:.4f} +- {found.error:.4f}"
        )
    _ties_and_atoms(names, train, x, y, generated)
    cut_on = names.index(CUT_ON.get(dataset.sample.name, "RichDLLk"))
    cuts = np.quantile(y[:, cut_on], np.linspace(0.05, 0.95, N_CUTS))
    _efficiencies(
        dataset, cuts, *(v[:, cut_on] for v in (train.targets, y, generated)), x
    )


def _ties_and_atoms(names, train, x, y, generated):
    """Print chi2 probability and largest pull of the shares in 8 x 6 bins of P, ETA."""
    edges = [_quantiles(x[:, j], number) for j, number in ((0, 8), (1, 6))]
    places = [_place(edges, v) for v in (train.conditions, x)]
    structure = {}
    for i, j in itertools.combinations(range(len(names)), 2):
        structure[f"{names[i]} = {names[j]}"] = lambda v, i=i, j=j: v[:, i] == v[:, j]
    for i, name in enumerate(names):
        values, counts = np.unique(y[:, i], return_counts=True)
        for value in values[counts > LEAST_SHARE * len(y)]:
            structure[f"{name} = {value:g}"] = lambda v, i=i, at=value: v[:, i] == at
    for what, has in structure.items():
        if has(y).mean() < LEAST_SHARE:
            continue
        shares, errors = _shares(
            (train.targets, y, generated), (places[0], places[1], places[1]), has
        )
        pulls = [
            _pulls(shares[which] - shares[1], total)
            for which, total in (
                (2, np.linalg.norm(errors, axis=0)),
                (0, np.hypot(errors[0], errors[1])),
            )
        ]
        found = [
            f"chi2 probability {chi2.sf(np.sum(p**2), len(p)):.3f}, largest pull "
            f"{np.abs(p).max():.2f}"
            for p in pulls
        ]
        print(f"{what}: {found[0]} of {len(pulls[0])}; training sample {found[1]}")


def _pulls(difference, error):
    """Return differences over errors, if there is an error."""
    return difference[error > 0] / error[error > 0]


def _shares(samples, places, has):
    """Return shares and binomial errors of each sample in each bin, (3, bins)."""
    n_bins = max(place.max() for place in places) + 1
    rows = np.array([np.bincount(p, minlength=n_bins) for p in places])
    hits = np.array(
        [
            np.bincount(p, has(v), minlength=n_bins)
            for v, p in zip(samples, places, strict=True)
        ]
    )
    rows = np.maximum(rows, 1)
    share = hits / rows
    # The variance is that of the judging rows' share, for all three alike.
    return share, np.sqrt(share[1] * (1 - share[1]) / rows)


def _efficiencies(dataset, cuts, trained, real, generated, x):
    """Print pulls of efficiencies of cuts, and how many agree within 1 %."""
    binning = dataset.sample.binning
    places = [
        bin_index(dict(zip(dataset.sample.condition_names, c.T, strict=True)), binning)
        for c in (dataset.part("train").conditions, x)
    ]
    places = [places[0], places[1], places[1]]
    inside = [place >= 0 for place in places]
    samples = [v[ok] for v, ok in zip((trained, real, generated), inside, strict=True)]
    places = [place[ok] for place, ok in zip(places, inside, strict=True)]
    found = [_shares(samples, places, lambda v, cut=cut: v > cut) for cut in cuts]
    enough = np.bincount(places[0], minlength=found[0][0].shape[1])
    enough = enough >= LEAST_TRAINING_ROWS
    share, error = (
        np.concatenate([pair[k][:, enough] for pair in found], axis=1) for k in (0, 1)
    )
    ok = (share[1] > 0) & (share[1] < 1)
    share, error = share[:, ok], error[:, ok]
    for source, which in (("generated", 2), ("training sample", 0)):
        total = np.linalg.norm(error if which == 2 else error[:2], axis=0)
        difference = share[which] - share[1]
        print(
            f"efficiencies, {source}: {len(total)} in {enough.sum()} bins, pull rms "
            f"{np.sqrt(np.mean((difference / total) ** 2)):.2f}; within 1 % where the "
            "error is below 0.3 %:",
            ", ".join(
                f"{100 * np.mean(np.abs(difference[of < 0.003]) < 0.01):.1f} % ({name})"
                for name, of in {
                    "real": error[1],
                    "real and compared": np.hypot(error[1], error[which]),
                    "total": total,
                }.items()
                if np.any(of < 0.003)
            ),
        )


def _separate(kaons, pions, n):
    """Print AUC(generated) - AUC(real) of RichDLLk in 6 x 6 quantile bins."""
    samples = []
    for folder, path in (kaons, pions):
        dataset = Dataset.open(folder)
        column = dataset.sample.target_names.index("RichDLLk")
        train = dataset.part("train")
        x, y = _fresh(dataset, n)
        generated = sample_targets(pidgan.open_bundle(path), x, seed=1)
        conditions = [train.conditions, x, x]
        targets = [v[:, column] for v in (train.targets, y, generated)]
        samples.append((conditions, targets))
    (x_k, y_k), (x_pi, y_pi) = samples
    for name, of in {
        "kaons": x_k[1],
        "pions": x_pi[1],
        "both": np.concatenate([x_k[1], x_pi[1]]),
    }.items():
        edges = [_quantiles(of[:, j], 6) for j in (0, 1)]
        places = [[_place(edges, v) for v in x] for x in (x_k, x_pi)]
        areas = np.array(
            [
                [
                    weighted_auc(y_pi[s][places[1][s] == i], y_k[s][places[0][s] == i])
                    for i in range(36)
                ]
                for s in range(3)
            ]
        )
        difference = areas[2, :, 0] - areas[1, :, 0]
        total = np.linalg.norm(areas[:, :, 1], axis=0)
        print(
            f"bins of {name}: largest {np.abs(difference).max():.4f}, 90 % within "
            f"{np.quantile(np.abs(difference), 0.9):.4f}, pull rms "
            f"{np.sqrt(np.mean((difference / total) ** 2)):.2f}"
        )
        of_training = np.abs(areas[0, :, 0] - areas[1, :, 0])
        print(
            f"  the training samples: largest {of_training.max():.4f}, 90 % within "
            f"{np.quantile(of_training, 0.9):.4f}"
        )


def _quantiles(values, number):
    """Return inner edges of bins with equal numbers of rows."""
    return np.quantile(values, np.arange(1, number) / number)


def _place(edges, x):
    """Return the flat bin of each row in the first two conditions."""
    first, second = (np.searchsorted(e, x[:, j]) for j, e in enumerate(edges))
    return first * (len(edges[1]) + 1) + second


if __name__ == "__main__":
    main()
