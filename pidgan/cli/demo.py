"""The whole chain on simulated calibration samples, compared with the truth.

A generator for kaons and one for pions are applied to an analysis ntuple with other
kinematics and occupancy, and the quoted efficiency is compared with the true response.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import pidgan
from pidgan import simulation
from pidgan.arguments import checked
from pidgan.files.tables import find_sources, read_columns, write_trees
from pidgan.files.writing import writing_folder
from pidgan.sample.cuts import parse_cut
from pidgan.sample.species import pdg_id

CALIBRATION_TRACKS = 200_000
ANALYSIS_ENTRIES = 50_000
BUDGET = "90s"
# Independent responses of the analysis tracks that are averaged for the truth: its own
# statistical error is then far below the quoted one.
TRUTH_REPEATS = 10
# Calibration decay, track in the analysis ntuple, and species.
SPECIES = {"kaon": ("dstar_k", "Kplus", "K+"), "pion": ("dstar_pi", "piminus", "pi+")}
CUTS = ("RichDLLk > 0", "RichDLLk > 5", "RichDLLk - RichDLLp > 0")


@checked
def run_demo(
    output: str | Path,
    *,
    seed: int = 1,
    budget: str | float | None = None,
    overwrite: bool = False,
    echo: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Run everything, print a table and write report.html.

    Args:
        output: Folder for all files that are made.
        seed: Seed of simulation, training and generation.
        budget: Wall-clock time of each of the two trainings, with the preparation of
            their rows; 90 seconds by default.
        overwrite: Replace the folder of an earlier demo.
        echo: Function that is called with a line of text for each stage.

    Returns:
        Quoted and true efficiencies, a row for each species and cut: value, stat, syst
        and total as quoted, generated before the correction, truth, and
        pull = (value - truth) / total.

    Raises:
        NtupleError: The folder exists.

    Example:
        >>> run_demo("demo", seed=1)                              # doctest: +SKIP
    """
    # What needs the training dependencies fails before the work.
    _ = pidgan.train, pidgan.validate, pidgan.export_bundle
    with writing_folder(output, mark="demo.json", overwrite=overwrite) as work:
        analysis, replaced = work / "analysis.root", work / "analysis-pid.root"
        branches = simulation.simulate_analysis(ANALYSIS_ENTRIES, seed=seed)
        write_trees(analysis, {simulation.ANALYSIS_TREE: branches})
        trained = {}
        for name in SPECIES:
            echo(f"{name}: {CALIBRATION_TRACKS} simulated tracks, sWeights, training")
            trained[name] = _train(work, name, seed=seed, budget=budget or BUDGET)
        for name in SPECIES:
            echo(f"{name}: validation on rows never trained on, export, systematics")
            _judge(work, name, trained, seed=seed)
        echo("apply: generators replace the simulated response of the analysis ntuple")
        tracks = {track: work / f"{n}.onnx" for n, (_, track, _) in SPECIES.items()}
        given: Any = {"mode": "replace", "species_from": "TRUEID", "seed": seed}
        pidgan.apply(tracks, [analysis], replaced, **given)
        echo("efficiency: quoted from the calibration sample, compared with the truth")
        found = pd.DataFrame(
            row
            for name, (_, track, species) in SPECIES.items()
            for row in _quote(
                {track: work / f"{name}-map.json"},
                replaced,
                species=species,
                truth=true_efficiencies(analysis, track, species, seed=seed),
            )
        )
        within = [int((found["pull"].abs() <= n).sum()) for n in (1, 3)]
        echo(
            f"{_shown(found).to_string(index=False)}\n"
            f"within 1 total sigma: {within[0]} of {len(found)}; within 3: {within[1]}"
        )
        _write_summary(work, found)
    echo(f"{Path(output) / 'report.html'}")
    return found


def _train(work: Path, name: str, *, seed: int, budget: str | float) -> tuple[Any, Any]:
    """Simulate a calibration sample; return a model and its dataset."""
    decay = SPECIES[name][0]
    calibration = work / f"calibration-{name}.root"
    # Distinct seeds: the two samples and the analysis ntuple must be independent.
    sample_seed = seed + 1000 * (1 + list(SPECIES).index(name))
    trees = simulation.simulate_calibration(decay, CALIBRATION_TRACKS, seed=sample_seed)
    write_trees(calibration, trees)
    dataset = pidgan.build_dataset(f"sim_{decay}", [calibration], seed=seed)
    dataset.save(work / f"{name}-dataset")
    model = pidgan.train(dataset, budget=budget, seed=seed)
    model.save(work / f"{name}-model")
    return model, dataset


def _judge(
    work: Path, name: str, trained: Mapping[str, tuple[Any, Any]], *, seed: int
) -> None:
    """Validate a model, export it, and measure its efficiency map."""
    model, dataset = trained[name]
    others = [pair for other, pair in trained.items() if other != name]
    report = pidgan.validate(model, dataset, cuts=CUTS, seed=seed, misid=others)
    report.save(work / f"{name}-report")
    bundle = pidgan.export_bundle(model, work / f"{name}.onnx", report=report)
    found = pidgan.run_systematics(pidgan.open_bundle(bundle), cuts=CUTS, seed=seed)
    found.save(work / f"{name}-map.json")


def _quote(
    maps: Mapping[str, Path], path: Path, *, species: str, truth: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    """Yield the efficiencies of an ntuple beside the true ones."""
    for row in pidgan.pid_efficiency(maps, path, cuts=CUTS, species_from="TRUEID"):
        true = truth[row.cut]
        yield {
            "species": species,
            "cut": row.cut,
            "value": row.value,
            "stat": row.stat,
            "syst": float(np.sqrt(sum(v**2 for v in row.syst.values()))),
            "total": row.total,
            "generated": row.generated,
            "truth": true,
            "pull": (row.value - true) / row.total,
        }


def true_efficiencies(
    path: Path, track: str, species: str, *, seed: int
) -> Mapping[str, float]:
    """Return the true efficiency of each cut for the tracks of a simulated ntuple.

    The response of the same tracks is simulated several times, independently of the
    response in the file.
    """
    (source,) = find_sources([path])
    kinematics = [f"{track}_P", f"{track}_ETA", "nTracks"]
    frame = read_columns(source, [*kinematics, f"{track}_TRUEID"])
    frame = frame[frame[f"{track}_TRUEID"].abs() == abs(pdg_id(species))]
    p, eta, n_tracks = (frame[name].to_numpy() for name in kinematics)
    shares = []
    for repeat in range(TRUTH_REPEATS):
        columns = simulation.simulate_response(
            species, p, eta, n_tracks, seed=seed + 1_000_000 * (1 + repeat)
        )
        sentinels = dict.fromkeys(columns, (-999.0, -1000.0))
        cuts = [parse_cut(cut, names=columns) for cut in CUTS]
        shares.append([cut.passes(columns, sentinels).mean() for cut in cuts])
    means = [float(np.mean(found)) for found in zip(*shares, strict=True)]
    return dict(zip(CUTS, means, strict=True))


def _shown(found: pd.DataFrame) -> pd.DataFrame:
    """Return the comparison as texts, efficiencies in per cent."""
    numbers = found[["value", "stat", "syst", "truth", "generated"]]
    percent = (100 * numbers).map("{:.2f}".format)
    columns = {
        "quoted +- stat +- syst [%]": percent[["value", "stat", "syst"]].agg(
            " +- ".join, axis=1
        ),
        "truth [%]": percent["truth"],
        "pull": found["pull"].map("{:.2f}".format),
        "generated [%]": percent["generated"],
    }
    return found[["species", "cut"]].assign(**columns)


def _write_summary(work: Path, found: pd.DataFrame) -> None:
    """Write demo.json, report.html and the index, which lead to both validations."""
    from pidgan.report.index_page import write_index
    from pidgan.report.page import Picture, Section, Table, write_page
    from pidgan.report.plots.efficiencies import plot_comparison

    (work / "demo.json").write_text(json.dumps(found.to_dict("records"), indent=1))
    figure = plot_comparison(
        list(found["species"] + ": " + found["cut"]),
        found["value"].tolist(),
        found["total"].tolist(),
        reference=found["truth"].tolist(),
    )
    rows: Any = _shown(found).to_dict("records")
    table = Table(title="Efficiencies on the analysis ntuple", rows=rows)
    caption = "Quoted minus true efficiency with the total uncertainty."
    sections = [
        Section(
            title="Quoted and true efficiency",
            text="The quoted efficiency is the generated one on the analysis ntuple "
            "plus the correction measured on the calibration sample. The true one is "
            "that of the simulated detector for the same tracks. The pull is their "
            "difference over the total uncertainty.",
            tables=[table],
            pictures=[Picture(figure=figure, caption=caption)],
        ),
        Section(
            title="Files",
            text="The bundles are kaon.onnx and pion.onnx, the maps are kaon-map.json "
            "and pion-map.json. The analysis ntuple before and after is analysis.root "
            "and analysis-pid.root.",
            links=[
                ("Validation of kaons", "kaon-report/report.html"),
                ("Validation of pions", "pion-report/report.html"),
                ("All reports, the worst figures first", "index.html"),
            ],
        ),
    ]
    lead = "Simulated calibration samples, generators, analysis ntuple and truth."
    write_page(work, "pidgan demo", sections, lead=lead, overwrite=True)
    write_index(work)
