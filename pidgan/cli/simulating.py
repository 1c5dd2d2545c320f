"""Verbs that simulate data: the demo and the samples of toy detectors."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from pidgan.cli import lengths, options
from pidgan.cli.group import cli, fail, note, result, shows_progress

CALIBRATION_ENTRIES, ANALYSIS_ENTRIES, SHOWER_ENTRIES = 200_000, 50_000, 20_000
CLUSTER_ENTRIES = 50_000
DECAYS = ("dstar_k", "dstar_pi", "lambda_p", "jpsi_mu", "jpsi_e")
DATA = (".root", ".parquet", ".npz", ".h5", ".hdf5")
CHARGED = ("e+", "mu+", "pi+", "K+", "p")


@cli.command(epilog="Example: pidgan demo -o demo")
@options.output(
    "Folder that is written.", required=False, default="pidgan-demo", refuses=False
)
@options.seed
@options.overwrite
@lengths.budget("5000 steps")
@click.option(
    "--workers",
    type=options.COUNT,
    help="Number of generators that are made at the same time, 1 or 2.  [default: 2, "
    "or 1 where there is one core]",
)
@options.as_json
def demo(output: Path, as_json: bool, **given: Any) -> None:
    """Run the whole chain on simulated data, and compare it with the truth.

    What is finished stays when the demo is stopped; the same command continues.
    """
    options.refuse_place(output, "demo", "folder", "unfinished")
    from pidgan.cli.demo import run_demo

    try:
        found = run_demo(output, echo=note, progress=shows_progress(), **given)
    except KeyboardInterrupt:
        fail("interrupted; the same command continues after what is finished", code=130)
    if as_json:
        click.echo(found.to_json(orient="records"))


@cli.group(epilog="Example: pidgan simulate rich --decay dstar_k -n 200000 -o k.root")
def simulate() -> None:
    """Write simulated data with known truth."""


def _sample(entries: int) -> Callable[..., Any]:
    """Return the options of all samples, as one decorator."""

    written = options.output("File that is written, e.g. .root or .parquet.", *DATA)

    def add(command: Any) -> Any:
        for option in (options.as_json, options.overwrite, options.seed, written):
            command = option(command)
        return options.entries(entries)(command)

    return add


_decay = click.option(
    "--decay",
    required=True,
    type=click.Choice(DECAYS),
    help="Decay that the calibration tracks come from.",
)


def _write(
    trees: Mapping[str, Any], output: Path, overwrite: bool, as_json: bool
) -> None:
    """Write trees, and say what was written."""
    from pidgan.files.tables import write_trees

    write_trees(output, trees, overwrite=overwrite)
    entries = {name: len(next(iter(found.values()))) for name, found in trees.items()}
    lines = (f"{output}:{tree}  {n} entries" for tree, n in entries.items())
    result("\n".join(lines), as_json=as_json, output=output, entries=entries)


@simulate.command(
    epilog="Example: pidgan simulate rich --decay dstar_k -n 200000 -o k.root"
)
@_decay
@_sample(CALIBRATION_ENTRIES)
def rich(decay: str, entries: int, seed: int, **given: Any) -> None:
    """Write a RICH calibration sample with the tree and branch names of LHCb."""
    from pidgan.simulation import simulate_calibration

    _write(simulate_calibration(decay, entries, seed=seed), **given)


@simulate.command(
    epilog="Example: pidgan simulate spectrometer --decay jpsi_mu -n 200000 -o mu.root"
)
@_decay
@_sample(CALIBRATION_ENTRIES)
def spectrometer(decay: str, entries: int, seed: int, **given: Any) -> None:
    """Write a calibration sample with RICH, calorimeter, muon system and ProbNN."""
    from pidgan.simulation import simulate_spectrometer

    _write(simulate_spectrometer(decay, entries, seed=seed), **given)


@simulate.command(epilog="Example: pidgan simulate tpc --species K+ -o k.root")
@options.species(*CHARGED)
@_sample(CALIBRATION_ENTRIES)
def tpc(species: str, entries: int, seed: int, **given: Any) -> None:
    """Write a calibration sample of dE/dx in a time projection chamber."""
    from pidgan.simulation import simulate_tpc

    _write(simulate_tpc(species, entries, seed=seed), **given)


@simulate.command(epilog="Example: pidgan simulate calorimeter --species e+ -o e.root")
@options.species(*CHARGED, "gamma")
@_sample(CALIBRATION_ENTRIES)
def calorimeter(species: str, entries: int, seed: int, **given: Any) -> None:
    """Write a calibration sample of E/p, shower widths and hadronic fraction."""
    from pidgan.simulation import simulate_calorimeter

    _write(simulate_calorimeter(species, entries, seed=seed), **given)


@simulate.command(epilog="Example: pidgan simulate analysis -n 50000 -o d2kpi.root")
@_sample(ANALYSIS_ENTRIES)
def analysis(entries: int, seed: int, **given: Any) -> None:
    """Write an analysis ntuple, anti-D0 -> K+ pi-, with a wrong PID response."""
    from pidgan.simulation import ANALYSIS_TREE, simulate_analysis

    _write({ANALYSIS_TREE: simulate_analysis(entries, seed=seed)}, **given)


@simulate.command(epilog="Example: pidgan simulate dimuons -n 50000 -o jpsi.root")
@_sample(ANALYSIS_ENTRIES)
def dimuons(entries: int, seed: int, **given: Any) -> None:
    """Write an analysis ntuple, J/psi -> mu+ mu-, with all PID of both muons."""
    from pidgan.simulation import ANALYSIS_TREE, simulate_dimuons

    _write({ANALYSIS_TREE: simulate_dimuons(entries, seed=seed)}, **given)


@simulate.command(epilog="Example: pidgan simulate showers -n 20000 -o showers.root")
@_sample(SHOWER_ENTRIES)
def showers(entries: int, seed: int, **given: Any) -> None:
    """Write showers of electrons and photons in a block of lead tungstate."""
    from pidgan.simulation import SHOWER_TREE, simulate_showers

    _write({SHOWER_TREE: simulate_showers(entries, seed=seed)}, **given)


@simulate.command(epilog="Example: pidgan simulate clusters -n 50000 -o tracks.root")
@_sample(CLUSTER_ENTRIES)
def clusters(entries: int, seed: int, **given: Any) -> None:
    """Write tracks in a time projection chamber with their clusters."""
    from pidgan.simulation import CLUSTER_TREE, simulate_cluster_tracks

    _write({CLUSTER_TREE: simulate_cluster_tracks(entries, seed=seed)}, **given)
