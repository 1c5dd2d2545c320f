"""Verbs that simulate data: the demo and the samples of toy detectors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from pidgan.cli.options import (
    budget_option,
    entries_option,
    output_option,
    overwrite_option,
    seed_option,
    species_option,
)

CALIBRATION_ENTRIES, ANALYSIS_ENTRIES, SHOWER_ENTRIES = 200_000, 50_000, 20_000
CLUSTER_ENTRIES = 50_000
CHARGED = ("e+", "mu+", "pi+", "K+", "p")


@click.command(epilog="Example: pidgan demo -o demo")
@output_option(required=False, default="pidgan-demo")
@seed_option
@overwrite_option
@budget_option
def demo(output: Path, **options: Any) -> None:
    """Run the whole chain on simulated data, and compare it with the truth."""
    from pidgan.cli.demo import run_demo

    run_demo(output, echo=lambda line: click.echo(line, err=True), **options)


@click.group(epilog="Example: pidgan simulate rich --decay dstar_k -n 200000 -o k.root")
def simulate() -> None:
    """Write simulated data with known truth."""


@simulate.command(
    epilog="Example: pidgan simulate rich --decay dstar_k -n 200000 -o k.root"
)
@click.option(
    "--decay",
    "--mode",
    "decay",
    required=True,
    type=click.Choice(["dstar_k", "dstar_pi", "lambda_p", "jpsi_mu", "jpsi_e"]),
    help="Decay that the calibration tracks come from.",
)
@entries_option(CALIBRATION_ENTRIES)
@output_option()
@seed_option
@overwrite_option
def rich(decay: str, entries: int, output: Path, seed: int, overwrite: bool) -> None:
    """Write a RICH calibration sample with the tree and branch names of LHCb."""
    from pidgan.simulation import simulate_calibration

    _write(output, simulate_calibration(decay, entries, seed=seed), overwrite)


@simulate.command(epilog="Example: pidgan simulate tpc --species K+ -o k.root")
@species_option(*CHARGED)
@entries_option(CALIBRATION_ENTRIES)
@output_option()
@seed_option
@overwrite_option
def tpc(species: str, entries: int, output: Path, seed: int, overwrite: bool) -> None:
    """Write a calibration sample of dE/dx in a time projection chamber."""
    from pidgan.simulation import simulate_tpc

    _write(output, simulate_tpc(species, entries, seed=seed), overwrite)


@simulate.command(epilog="Example: pidgan simulate calorimeter --species e+ -o e.root")
@species_option(*CHARGED, "gamma")
@entries_option(CALIBRATION_ENTRIES)
@output_option()
@seed_option
@overwrite_option
def calorimeter(
    species: str, entries: int, output: Path, seed: int, overwrite: bool
) -> None:
    """Write a calibration sample of E/p, shower widths and hadronic fraction."""
    from pidgan.simulation import simulate_calorimeter

    _write(output, simulate_calorimeter(species, entries, seed=seed), overwrite)


@simulate.command(epilog="Example: pidgan simulate analysis -n 50000 -o d2kpi.root")
@entries_option(ANALYSIS_ENTRIES)
@output_option()
@seed_option
@overwrite_option
def analysis(entries: int, output: Path, seed: int, overwrite: bool) -> None:
    """Write an analysis ntuple, anti-D0 -> K+ pi-, with a wrong PID response."""
    from pidgan.simulation import ANALYSIS_TREE, simulate_analysis

    _write(output, {ANALYSIS_TREE: simulate_analysis(entries, seed=seed)}, overwrite)


@simulate.command(epilog="Example: pidgan simulate showers -n 20000 -o showers.root")
@entries_option(SHOWER_ENTRIES)
@output_option()
@seed_option
@overwrite_option
def showers(entries: int, output: Path, seed: int, overwrite: bool) -> None:
    """Write showers of electrons and photons in a block of lead tungstate."""
    from pidgan.simulation import SHOWER_TREE, simulate_showers

    _write(output, {SHOWER_TREE: simulate_showers(entries, seed=seed)}, overwrite)


@simulate.command(epilog="Example: pidgan simulate clusters -n 50000 -o tracks.root")
@entries_option(CLUSTER_ENTRIES)
@output_option()
@seed_option
@overwrite_option
def clusters(entries: int, output: Path, seed: int, overwrite: bool) -> None:
    """Write tracks in a time projection chamber with their clusters."""
    from pidgan.simulation import CLUSTER_TREE, simulate_cluster_tracks

    branches = simulate_cluster_tracks(entries, seed=seed)
    _write(output, {CLUSTER_TREE: branches}, overwrite)


def _write(
    output: Path, trees: Mapping[str, Mapping[str, Any]], overwrite: bool
) -> None:
    """Write trees, and say what was written."""
    from pidgan.files.tables import write_trees

    write_trees(output, trees, overwrite=overwrite)
    for tree, branches in trees.items():
        click.echo(f"{output}:{tree}  {len(next(iter(branches.values())))} entries")
