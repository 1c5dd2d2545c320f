"""The command line: one verb for each public function.

Results go to standard output (`--json` for machines), progress and warnings to
standard error. A `PidganError` becomes one line and exit code 1.
"""

import sys
import warnings
from typing import Any

import click

from pidgan import TRAINING_HINT
from pidgan.cli import applying, efficiencies, learning, simulating  # noqa: F401
from pidgan.cli.group import cli, fail
from pidgan.errors import PidganError, PidganWarning

__all__ = ["VERBS", "cli", "main"]

# Verb -> function that does its work; the docs and a test follow this table.
VERBS = {
    "demo": "pidgan.cli.demo.run_demo",
    "simulate": "pidgan.simulation.simulate_calibration",
    "samples": "pidgan.sample.loading.list_samples",
    "prepare": "pidgan.build_dataset",
    "train": "pidgan.train",
    "families": "pidgan.training.families.list_families",
    "compare": "pidgan.report.family_comparison.compare_families",
    "validate": "pidgan.validate",
    "table": "pidgan.efficiency.real_vs_generated.closure_table",
    "systematics": "pidgan.run_systematics",
    "export": "pidgan.export_bundle",
    "refine": "pidgan.training.refinement.refine",
    "inspect": "pidgan.open_bundle",
    "quantile-map": "pidgan.application.quantile_map.make_quantile_map",
    "apply": "pidgan.apply",
    "efficiency": "pidgan.pid_efficiency",
    "working-point": "pidgan.efficiency.working_point.working_point",
}


def main() -> None:
    """Run the command line; the entry point `pidgan`."""
    warnings.showwarning = _show_warning
    try:
        cli(prog_name="pidgan", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except PidganError as error:
        fail(str(error), code=1)
    except ModuleNotFoundError as error:
        if (error.name or "pidgan").startswith("pidgan"):
            raise
        fail(f"{error.name} is missing; {TRAINING_HINT}", code=1)
    except (KeyboardInterrupt, click.Abort):
        fail("interrupted", code=130)


def _show_warning(message: Any, category: Any, *_: Any, **__: Any) -> None:
    """Print the project's warnings as one line, and no others."""
    if issubclass(category, PidganWarning):
        click.echo(f"pidgan: warning: {' '.join(str(message).split())}", err=True)
