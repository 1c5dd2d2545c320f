"""The whole chain on simulated data, compared with the truth.

Kaon and pion calibration samples, with background under the mass peak, are turned into
datasets with sWeights. A generator is trained, judged and exported for each species,
and applied to the tracks of an analysis ntuple with other kinematics and occupancy.
The efficiency that is quoted there is then compared with the true response.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import pidgan
from pidgan.files.tables import find_sources, read_columns, write_trees
from pidgan.files.writing import writing_folder
from pidgan.sample.cuts import parse_cut
from pidgan.sample.species import pdg_id
from pidgan.simulation import (
    ANALYSIS_TREE,
    simulate_analysis,
    simulate_calibration,
    simulate_response,
)

CALIBRATION_TRACKS = 200_000
ANALYSIS_ENTRIES = 50_000
BUDGET = "75s"
# Independent responses of the analysis tracks that are averaged for the truth: its own
# statistical error is then far below the quoted one.
TRUTH_REPEATS = 10
# Calibration decay, track in the analysis ntuple, and species.
SPECIES = {"kaon": ("dstar_k", "Kplus", "K+"), "pion": ("dstar_pi", "piminus", "pi+")}
CUTS = ("RichDLLk > 0", "RichDLLk > 5", "RichDLLk - RichDLLp > 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuotedVsTrue:
    """Efficiency quoted for an analysis ntuple, and the true one of the simulation.

    Attributes:
        species: Species of the tracks.
        cut: PID cut.
        value: Quoted efficiency, with the correction.
        stat: Statistical uncertainty of the quoted efficiency.
        syst: Systematic uncertainty of the quoted efficiency.
        total: Both uncertainties in quadrature.
        generated: Efficiency without the correction.
        truth: True efficiency of the simulated response.
    """

    species: str
    cut: str
    value: float
    stat: float
    syst: float
    total: float
    generated: float
    truth: float

    @property
    def pull(self) -> float:
        """(value - truth) / total."""
        return (self.value - self.truth) / self.total


def run_demo(
    output: str | Path,
    *,
    seed: int = 1,
    budget: str | float | None = None,
    overwrite: bool = False,
    echo: Callable[[str], None] = print,
) -> list[QuotedVsTrue]:
    """Run everything, print a table and write report.html.

    Args:
        output: Folder for all files that are made.
        seed: Seed of simulation, training and generation.
        budget: Wall-clock time of each of the two trainings; 75 seconds by default.
        overwrite: Replace the folder of an earlier demo.
        echo: Function that is called with a line of text for each stage.

    Returns:
        Quoted and true efficiencies of three cuts, for kaons and for pions.

    Raises:
        NtupleError: The folder exists.
    """
    with writing_folder(output, mark="demo.json", overwrite=overwrite) as work:
        analysis = work / "analysis.root"
        branches = simulate_analysis(ANALYSIS_ENTRIES, seed=seed)
        write_trees(analysis, {ANALYSIS_TREE: branches})
        trained = {}
        for name in SPECIES:
            echo(f"{name}: {CALIBRATION_TRACKS} simulated tracks, sWeights, training")
            trained[name] = _train(work, name, seed=seed, budget=budget or BUDGET)
        for name in SPECIES:
            echo(f"{name}: validation on rows never trained on, export, systematics")
            _judge(work, name, trained, seed=seed)
        echo("apply: generators replace the simulated response of the analysis ntuple")
        replaced = work / "analysis-pid.root"
        tracks = {track: work / f"{n}.onnx" for n, (_, track, _) in SPECIES.items()}
        pidgan.apply(
            tracks,
            [analysis],
            replaced,
            mode="replace",
            species_from="TRUEID",
            seed=seed,
        )
        echo("efficiency: quoted from the calibration sample, compared with the truth")
        found = [
            row
            for name, (_, track, species) in SPECIES.items()
            for row in _quote(
                replaced,
                track,
                work / f"{name}-map.json",
                species=species,
                truth=true_efficiencies(analysis, track, species, seed=seed),
            )
        ]
        echo(format_table(found))
        _write_summary(work, found)
    echo(f"{Path(output) / 'report.html'}")
    return found


def _train(work: Path, name: str, *, seed: int, budget: str | float) -> tuple[Any, Any]:
    """Simulate a calibration sample; return a model and its dataset."""
    decay = SPECIES[name][0]
    calibration = work / f"calibration-{name}.root"
    # Distinct seeds: the two samples and the analysis ntuple must be independent.
    sample_seed = seed + 1000 * (1 + list(SPECIES).index(name))
    trees = simulate_calibration(decay, CALIBRATION_TRACKS, seed=sample_seed)
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
    path: Path, track: str, efficiency_map: Path, *, species: str, truth: Any
) -> list[QuotedVsTrue]:
    """Return the efficiencies of an ntuple beside the true ones."""
    found = pidgan.pid_efficiency(
        {track: efficiency_map}, path, cuts=CUTS, species_from="TRUEID"
    )
    return [
        QuotedVsTrue(
            species=species,
            cut=row.cut,
            value=row.value,
            stat=row.stat,
            syst=float(np.sqrt(sum(v**2 for v in row.syst.values()))),
            total=row.total,
            generated=row.generated,
            truth=truth[row.cut],
        )
        for row in found
    ]


def true_efficiencies(
    path: Path, track: str, species: str, *, seed: int
) -> Mapping[str, float]:
    """Return the true efficiency of each cut for the tracks of a simulated ntuple.

    The response of the same tracks is simulated several times, independently of the
    response in the file.

    Args:
        path: Analysis ntuple.
        track: Prefix of the track.
        species: Species of the tracks that are used.
        seed: Seed of the responses.
    """
    (source,) = find_sources([path])
    kinematics = [f"{track}_P", f"{track}_ETA", "nTracks"]
    frame = read_columns(source, [*kinematics, f"{track}_TRUEID"])
    frame = frame[frame[f"{track}_TRUEID"].abs() == abs(pdg_id(species))]
    p, eta, n_tracks = (frame[name].to_numpy() for name in kinematics)
    shares = []
    for repeat in range(TRUTH_REPEATS):
        columns = simulate_response(
            species, p, eta, n_tracks, seed=seed + 1_000_000 * (1 + repeat)
        )
        sentinels = dict.fromkeys(columns, (-999.0, -1000.0))
        cuts = [parse_cut(cut, names=columns) for cut in CUTS]
        shares.append([cut.passes(columns, sentinels).mean() for cut in cuts])
    means = [float(np.mean(found)) for found in zip(*shares, strict=True)]
    return dict(zip(CUTS, means, strict=True))


def format_table(found: Sequence[QuotedVsTrue]) -> str:
    """Return the comparison as text, efficiencies in per cent."""
    lines = [
        f"{'species':8} {'cut':24} {'quoted +- stat +- syst [%]':28} "
        f"{'truth [%]':>10} {'pull':>6}"
    ]
    for row in found:
        quoted = " +- ".join(f"{100 * v:.2f}" for v in (row.value, row.stat, row.syst))
        lines.append(
            f"{row.species:8} {row.cut:24} {quoted:>27}  "
            f"{100 * row.truth:10.2f} {row.pull:6.2f}"
        )
    within = [sum(abs(row.pull) <= n for row in found) for n in (1, 3)]
    lines.append(
        f"within 1 total sigma: {within[0]} of {len(found)}; within 3: {within[1]}"
    )
    return "\n".join(lines)


def _write_summary(work: Path, found: Sequence[QuotedVsTrue]) -> None:
    """Write demo.json and report.html, which leads to the two validation reports."""
    from pidgan.report.page import Picture, Section, Table, with_error, write_page
    from pidgan.report.plots.efficiencies import plot_comparison

    content = [{**dataclasses.asdict(row), "pull": row.pull} for row in found]
    (work / "demo.json").write_text(json.dumps(content, indent=1))
    figure = plot_comparison(
        [f"{row.species}: {row.cut}" for row in found],
        [row.value for row in found],
        [row.total for row in found],
        reference=[row.truth for row in found],
    )
    table = Table(
        title="Efficiencies on the analysis ntuple",
        rows=[
            {
                "species": row.species,
                "cut": row.cut,
                "quoted": with_error(row.value, row.total, unit="%"),
                "statistical": f"{row.stat:.2%}",
                "systematic": f"{row.syst:.2%}",
                "true": f"{row.truth:.2%}",
                "pull": f"{row.pull:.2f}",
                "generated": f"{row.generated:.2%}",
            }
            for row in found
        ],
    )
    sections = [
        Section(
            title="Quoted and true efficiency",
            text="The quoted efficiency is the generated one on the analysis ntuple "
            "plus the correction measured on the calibration sample. The true one is "
            "that of the simulated detector for the same tracks. The pull is their "
            "difference over the total uncertainty.",
            tables=[table],
            pictures=[
                Picture(
                    figure=figure,
                    caption="Quoted minus true efficiency with the total uncertainty.",
                )
            ],
        ),
        Section(
            title="Files",
            text="The validation is in kaon-report/report.html and "
            "pion-report/report.html, the bundles are kaon.onnx and pion.onnx, the "
            "maps are kaon-map.json and pion-map.json. The analysis ntuple before and "
            "after is analysis.root and analysis-pid.root.",
        ),
    ]
    lead = "Simulated calibration samples, generators, analysis ntuple and truth."
    write_page(work, "pidgan demo", sections, lead=lead, overwrite=True)
