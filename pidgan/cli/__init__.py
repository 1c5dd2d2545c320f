"""The command line: one verb for each public function.

Results go to standard output (`--json` for machines), progress and warnings to
standard error. A `PidganError` becomes one line and exit code 1.
"""

import contextlib
import functools
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from pidgan import TRAINING_HINT
from pidgan.cli import (  # noqa: F401
    applying,
    campaigns,
    control,
    correcting,
    efficiencies,
    learning,
    pid_efficiencies,
    plotting,
    serving,
    simulating,
    tuning,
    working_points,
)
from pidgan.cli.group import cli, fail, tell
from pidgan.cli.verbs import Shown
from pidgan.errors import PidganError, PidganWarning, one_line

__all__ = ["VERBS", "cli", "main"]

# Verb -> function that does its work; the docs and a test follow this table.
VERBS = {
    "demo": "pidgan.cli.demo.run_demo",
    "simulate": "pidgan.simulation.simulate_calibration",
    "samples": "pidgan.sample.loading.list_samples",
    "prepare": "pidgan.build_dataset",
    "families": "pidgan.training.families.list_families",
    "train": "pidgan.train",
    "train-corrector": "pidgan.train_corrector",
    "tune": "pidgan.tune",
    "compare": "pidgan.report.family_comparison.compare_families",
    "validate": "pidgan.validate",
    "refine": "pidgan.training.refinement.refine",
    "export": "pidgan.export_bundle",
    "campaign": "pidgan.run_campaign",
    "inspect": "pidgan.open_bundle",
    "plot": "pidgan.plot",
    "report": "pidgan.report.index_page.write_index",
    "collect": "pidgan.bundle.collecting.collect",
    "quantile-map": "pidgan.application.quantile_map.make_quantile_map",
    "apply": "pidgan.apply",
    "correct": "pidgan.correct",
    "serve": "pidgan.serve",
    "table": "pidgan.efficiency.real_vs_generated.closure_table",
    "systematics": "pidgan.run_systematics",
    "closure": "pidgan.closure",
    "working-point": "pidgan.efficiency.working_point.working_point",
    "efficiency": "pidgan.pid_efficiency",
}


def main() -> None:
    """Run the command line; the entry point `pidgan`."""
    shown = Shown()
    warnings.showwarning = functools.partial(_show_warning, shown)
    try:
        with _traceback(shown):
            cli(prog_name="pidgan", standalone_mode=False, obj=shown)
            if sys.stdout is not None:
                sys.stdout.flush()
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f"; see {context.command_path} --help" if context else ""
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            error.show()
            sys.exit(error.exit_code)
        fail(f"{error.format_message().rstrip('.')}{hint}", code=error.exit_code)
    except PidganError as error:
        fail(str(error), code=1)
    except ModuleNotFoundError as error:
        if (error.name or "pidgan").startswith("pidgan"):
            raise
        fail(f"{error.name} is missing; {TRAINING_HINT}", code=1)
    except SystemExit as end:
        # click leaves so where the reader of a pipe has gone.
        if type(sys.stdout).__name__.endswith("PacifyFlushWrapper"):
            fail("the standard output cannot be written: its reader has gone", code=1)
        raise end
    except ValueError as error:
        if not _is_raised_here(error):
            raise
        fail(str(error), code=2)
    except MemoryError as error:
        fail(f"the memory is not enough: {one_line(error)}", code=1)
    except OSError as error:
        # Whatever names no file is written to the standard output.
        _close_output()
        where = "" if error.filename else "the standard output cannot be written: "
        fail(f"{where}{one_line(error)}", code=1)
    except (KeyboardInterrupt, click.Abort):
        fail("interrupted", code=130)


@contextlib.contextmanager
def _traceback(shown: Shown) -> Iterator[None]:
    """Print the traceback of an error, and time and memory, if the command is verbose.

    The error goes on, and is printed as one line too.
    """
    try:
        yield
    except Exception:
        if shown.verbose:
            tell(traceback.format_exc().rstrip())
        raise
    finally:
        if shown.verbose:
            tell(shown.end())


def _is_raised_here(error: BaseException) -> bool:
    """Return whether the package says what is wrong, rather than a library."""
    *_, last = traceback.walk_tb(error.__traceback__)
    return Path(last[0].f_code.co_filename).is_relative_to(Path(__file__).parents[1])


def _close_output() -> None:
    """Let the interpreter flush what is left of the output into nothing."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_warning(
    shown: Shown, message: Any, category: Any, filename: str, lineno: int, *_: Any
) -> None:
    """Print a warning as one line: the project's own, of libraries if verbose."""
    text = " ".join(str(message).split())
    if issubclass(category, PidganWarning):
        tell(f"pidgan: warning: {text}")
    elif shown.verbose:
        tell(f"pidgan: {category.__name__} of {filename}:{lineno}: {text}")
