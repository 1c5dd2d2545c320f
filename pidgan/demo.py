"""The whole chain on simulated data, compared with the truth.

Kaon and pion calibration samples, with background under the mass peak, are turned into
datasets with sWeights; a generator is trained, judged and exported for each species,
and applied to the tracks of an analysis ntuple with other kinematics and occupancy.
The efficiency that is quoted there is then compared with the true response.
"""

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from pidgan.cuts import parse_cut
from pidgan.errors import PidganError
from pidgan.ntuple import find_sources, read_columns, write_trees
from pidgan.typing import FloatArray

CALIBRATION_TRACKS = 200_000
ANALYSIS_ENTRIES = 50_000
# Independent responses of the analysis tracks that are averaged for the truth: its own
# statistical error is then far below the quoted one.
TRUTH_REPEATS = 10
# Species, calibration mode and track in the analysis ntuple.
SPECIES = {"kaon": ("dstar_k", "Kplus", "K+"), "pion": ("dstar_pi", "piminus", "pi+")}
CUTS = ("RichDLLk > 0", "RichDLLk > 5", "RichDLLk - RichDLLp > 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Quoted and true efficiency of one cut for one species.

    Attributes:
        species, cut: of the efficiency.
        value, stat, syst, total: quoted.
        truth: from the simulation.
    """

    species: str
    cut: str
    value: float
    stat: float
    syst: float
    total: float
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
) -> list[Comparison]:
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
        PidganError: the directory exists.
    """
    directory = Path(directory)
    if directory.exists():
        if not overwrite:
            raise PidganError(f"{directory} exists; choose another -o or --overwrite")
        if any(directory.iterdir()) and not (directory / "demo.json").is_file():
            raise PidganError(f"{directory} is not a demo's directory; not overwritten")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{directory.name}.", dir=directory.parent
    ) as temporary:
        work = Path(temporary) / "demo"
        work.mkdir()
        comparisons = _run(work, seed=seed, budget=budget, echo=echo)
        if directory.exists():
            shutil.rmtree(directory)
        work.rename(directory)
    echo(f"{directory / 'report.html'}")
    return comparisons


def _run(
    work: Path, *, seed: int, budget: str | float, echo: Callable[[str], None]
) -> list[Comparison]:
    """Do every stage in a directory."""
    import pidgan
    from pidgan.simulation import ANALYSIS_TREE, simulate_analysis

    analysis = work / "analysis.root"
    write_trees(
        analysis, {ANALYSIS_TREE: simulate_analysis(ANALYSIS_ENTRIES, seed=seed)}
    )
    for name in SPECIES:
        _make_bundle(work, name, seed=seed, budget=budget, echo=echo)
    echo("apply: the generators replace the simulated response of the analysis ntuple")
    output = work / "analysis-pid.root"
    tracks = {track: work / f"{name}.onnx" for name, (_, track, _) in SPECIES.items()}
    pidgan.apply(tracks, [analysis], output, mode="replace", seed=seed)
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
            Comparison(
                species=species,
                cut=result.cut,
                value=result.value,
                stat=result.stat,
                syst=float(np.sqrt(sum(v**2 for v in result.syst.values()))),
                total=result.total,
                truth=truth[result.cut],
            )
            for result in found
        ]
    table = format_table(comparisons)
    echo(table)
    _write_summary(work, comparisons, table)
    return comparisons


def _make_bundle(
    work: Path,
    name: str,
    *,
    seed: int,
    budget: str | float,
    echo: Callable[[str], None],
) -> None:
    """Simulate a calibration sample and make a bundle and its map from it."""
    import pidgan
    from pidgan.report import write_report
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
    echo(f"{name}: training for {budget}")
    model = pidgan.train(dataset, budget=budget, seed=seed)
    model.save(work / f"{name}-model")
    echo(f"{name}: validation on rows never trained on")
    report = pidgan.validate(model, dataset, cuts=CUTS, seed=seed)
    write_report(
        report,
        work / f"{name}-report",
        history=model.history,
        mass_fit=dataset.info.get("fit"),
    )
    bundle = pidgan.export_bundle(model, work / f"{name}.onnx", report=report)
    echo(f"{name}: difference of real and generated efficiencies")
    found = pidgan.run_systematics(pidgan.open_bundle(bundle), cuts=CUTS, seed=seed)
    found.save(work / f"{name}-map.json")


def true_efficiencies(
    path: Path, track: str, species: str, *, seed: int
) -> Mapping[str, float]:
    """Return the true efficiency of each cut for the tracks of a simulated ntuple.

    The response of the same tracks is simulated several times, independently of the
    one in the file.
    """
    from particle import Particle

    from pidgan.simulation import simulate_response

    pdg_id = abs(int(Particle.from_name(species).pdgid))
    (source,) = find_sources([path])
    kinematics = [f"{track}_P", f"{track}_ETA", "nTracks"]
    frame = read_columns(source, [*kinematics, f"{track}_TRUEID"])
    frame = frame[frame[f"{track}_TRUEID"].abs() == pdg_id]
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


def format_table(comparisons: list[Comparison]) -> str:
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


def _write_summary(work: Path, comparisons: list[Comparison], table: str) -> None:
    content = [{**dataclasses.asdict(row), "pull": row.pull} for row in comparisons]
    (work / "demo.json").write_text(json.dumps(content, indent=1))
