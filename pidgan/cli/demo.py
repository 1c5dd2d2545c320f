"""The whole chain on simulated data, compared with the truth.

Kaon and pion calibration samples, with background under the mass peak, are turned into
datasets with sWeights; a generator is trained, judged and exported for each species,
and applied to the tracks of an analysis ntuple with other kinematics and occupancy.
The efficiency that is quoted there is then compared with the true response.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.files.tables import find_sources, read_columns, write_trees
from pidgan.files.writing import writing_folder
from pidgan.sample.cuts import parse_cut
from pidgan.sample.species import pdg_id

CALIBRATION_TRACKS = 200_000
ANALYSIS_ENTRIES = 50_000
# Independent responses of the analysis tracks that are averaged for the truth: its own
# statistical error is then far below the quoted one.
TRUTH_REPEATS = 10
# Species, calibration mode and track in the analysis ntuple.
SPECIES = {"kaon": ("dstar_k", "Kplus", "K+"), "pion": ("dstar_pi", "piminus", "pi+")}
CUTS = ("RichDLLk > 0", "RichDLLk > 5", "RichDLLk - RichDLLp > 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuotedVsTrue:
    """Efficiency quoted for an analysis ntuple, and the true one of the simulation.

    Attributes:
        species: Species of the tracks.
        cut: The cut.
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
    directory: str | Path,
    *,
    seed: int = 1,
    budget: str | float = "75s",
    overwrite: bool = False,
    echo: Callable[[str], None] = print,
) -> list[QuotedVsTrue]:
    """Run everything, print a table and write report.html.

    Args:
        directory: for all files that are made; it must not exist.
        seed: of simulation, training and generation.
        budget: training time of each of the two generators.
        overwrite: replace the directory of an earlier demo.
        echo: called with a line of text for each stage.

    Returns:
        Quoted and true efficiencies, three cuts for each of kaons and pions.

    Raises:
        NtupleError: The directory exists.
    """
    directory = Path(directory)
    with writing_folder(directory, mark="demo.json", overwrite=overwrite) as work:
        comparisons = _run(work, seed=seed, budget=budget, echo=echo)
    echo(f"{directory / 'report.html'}")
    return comparisons


def _run(
    work: Path, *, seed: int, budget: str | float, echo: Callable[[str], None]
) -> list[QuotedVsTrue]:
    """Do every stage in a directory."""
    import pidgan
    from pidgan.simulation import ANALYSIS_TREE, simulate_analysis

    analysis = work / "analysis.root"
    write_trees(
        analysis, {ANALYSIS_TREE: simulate_analysis(ANALYSIS_ENTRIES, seed=seed)}
    )
    trained = {
        name: _train(work, name, seed=seed, budget=budget, echo=echo)
        for name in SPECIES
    }
    for name in SPECIES:
        _judge(work, name, trained, seed=seed, echo=echo)
    echo("apply: the generators replace the simulated response of the analysis ntuple")
    output = work / "analysis-pid.root"
    tracks = {track: work / f"{name}.onnx" for name, (_, track, _) in SPECIES.items()}
    pidgan.apply(
        tracks,
        [analysis],
        output,
        mode="replace",
        species_from="TRUEID",
        seed=seed,
    )
    echo("efficiency: quoted from the calibration sample, compared with the truth")
    comparisons = []
    for name, (_, track, species) in SPECIES.items():
        truth = true_efficiencies(analysis, track, species, seed=seed)
        found = pidgan.pid_efficiency(
            output,
            track=track,
            cuts=CUTS,
            map=work / f"{name}-map.json",
            species_from="TRUEID",
        )
        comparisons += [
            QuotedVsTrue(
                species=species,
                cut=result.cut,
                value=result.value,
                stat=result.stat,
                syst=float(np.sqrt(sum(v**2 for v in result.syst.values()))),
                total=result.total,
                generated=result.generated,
                truth=truth[result.cut],
            )
            for result in found
        ]
    echo(format_table(comparisons))
    _write_summary(work, comparisons)
    return comparisons


def _train(
    work: Path,
    name: str,
    *,
    seed: int,
    budget: str | float,
    echo: Callable[[str], None],
) -> tuple[Any, Any]:
    """Simulate a calibration sample; return a model and its dataset."""
    import pidgan
    from pidgan.simulation import simulate_calibration

    mode = SPECIES[name][0]
    echo(f"{name}: {CALIBRATION_TRACKS} simulated calibration tracks, sWeights")
    calibration = work / f"calibration-{name}.root"
    # Distinct seeds: the two samples and the analysis ntuple must be independent.
    sample_seed = seed + 1000 * (1 + list(SPECIES).index(name))
    trees = simulate_calibration(mode, CALIBRATION_TRACKS, seed=sample_seed)
    write_trees(calibration, trees)
    dataset = pidgan.build_dataset(f"sim_{mode}", [calibration], seed=seed)
    dataset.save(work / f"{name}-dataset")
    echo(f"{name}: training")
    model = pidgan.train(dataset, budget=budget, seed=seed)
    model.save(work / f"{name}-model")
    return model, dataset


def _judge(
    work: Path,
    name: str,
    trained: Mapping[str, tuple[Any, Any]],
    *,
    seed: int,
    echo: Callable[[str], None],
) -> None:
    """Validate a model, export it, and measure its efficiency map."""
    import pidgan

    echo(f"{name}: validation on rows never trained on, export, systematics")
    model, dataset = trained[name]
    report = pidgan.validate(
        model,
        dataset,
        cuts=CUTS,
        seed=seed,
        misid=[pair for other, pair in trained.items() if other != name],
    )
    report.save(work / f"{name}-report")
    bundle = pidgan.export_bundle(model, work / f"{name}.onnx", report=report)
    found = pidgan.run_systematics(pidgan.open_bundle(bundle), cuts=CUTS, seed=seed)
    found.save(work / f"{name}-map.json")


def true_efficiencies(
    path: Path, track: str, species: str, *, seed: int
) -> Mapping[str, float]:
    """Return the true efficiency of each cut for the tracks of a simulated ntuple.

    The response of the same tracks is simulated several times, independently of the
    one in the file.
    """
    from pidgan.simulation import simulate_response

    number = abs(pdg_id(species))
    (source,) = find_sources([path])
    kinematics = [f"{track}_P", f"{track}_ETA", "nTracks"]
    frame = read_columns(source, [*kinematics, f"{track}_TRUEID"])
    frame = frame[frame[f"{track}_TRUEID"].abs() == number]
    p, eta, n_tracks = (frame[name].to_numpy() for name in kinematics)
    passed: dict[str, list[FloatArray]] = {cut: [] for cut in CUTS}
    for repeat in range(TRUTH_REPEATS):
        columns = simulate_response(
            species, p, eta, n_tracks, seed=seed + 1_000_000 * (1 + repeat)
        )
        sentinels = dict.fromkeys(columns, (-999.0, -1000.0))
        for cut in CUTS:
            passes = parse_cut(cut, names=columns).passes(columns, sentinels)
            passed[cut].append(passes.mean())
    return {cut: float(np.mean(shares)) for cut, shares in passed.items()}


def format_table(comparisons: list[QuotedVsTrue]) -> str:
    """Return the comparison as text, efficiencies in per cent."""
    lines = [
        f"{'species':8} {'cut':24} {'quoted +- stat +- syst [%]':28} "
        f"{'truth [%]':>10} {'pull':>6}"
    ]
    for row in comparisons:
        quoted = (
            f"{100 * row.value:6.2f} +- {100 * row.stat:.2f} +- {100 * row.syst:.2f}"
        )
        lines.append(
            f"{row.species:8} {row.cut:24} {quoted:28} "
            f"{100 * row.truth:10.2f} {row.pull:6.2f}"
        )
    within = [sum(abs(row.pull) <= n for row in comparisons) for n in (1, 3)]
    total = len(comparisons)
    lines.append(f"within 1 total sigma: {within[0]} of {total}; within 3: {within[1]}")
    return "\n".join(lines)


def _write_summary(work: Path, comparisons: list[QuotedVsTrue]) -> None:
    """Write demo.json and report.html, which leads to the two validation reports."""
    from pidgan.report.page import Picture, Section, Table, with_error, write_page
    from pidgan.report.plots import plot_comparison

    content = [{**dataclasses.asdict(row), "pull": row.pull} for row in comparisons]
    (work / "demo.json").write_text(json.dumps(content, indent=1))
    figure = plot_comparison(
        [f"{row.species}: {row.cut}" for row in comparisons],
        [row.value for row in comparisons],
        [row.total for row in comparisons],
        reference=[row.truth for row in comparisons],
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
            for row in comparisons
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
