"""Detector response learnt from calibration data, and the uncertainty it leaves.

The public names below are resolved on first use: `import pidgan` loads neither a
network library nor a file reader.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pidgan.application.apply import apply
    from pidgan.bundle.bundle import Bundle, open_bundle
    from pidgan.efficiency.efficiency_map import EfficiencyMap
    from pidgan.efficiency.pid_efficiency import pid_efficiency
    from pidgan.efficiency.systematics import run_systematics
    from pidgan.efficiency.table import efficiency_table
    from pidgan.errors import PidganError
    from pidgan.report.drawing import plot
    from pidgan.report.report import Report
    from pidgan.report.validation import validate
    from pidgan.sample.building import build_dataset
    from pidgan.sample.dataset import Dataset
    from pidgan.sample.definition import Sample
    from pidgan.sample.loading import load_sample
    from pidgan.sample.sweights import compute_sweights
    from pidgan.training.export import export_bundle
    from pidgan.training.loop import train

_HOMES = {
    "Bundle": "bundle.bundle",
    "Dataset": "sample.dataset",
    "EfficiencyMap": "efficiency.efficiency_map",
    "PidganError": "errors",
    "Report": "report.report",
    "Sample": "sample.definition",
    "apply": "application.apply",
    "build_dataset": "sample.building",
    "compute_sweights": "sample.sweights",
    "efficiency_table": "efficiency.table",
    "export_bundle": "training.export",
    "load_sample": "sample.loading",
    "open_bundle": "bundle.bundle",
    "pid_efficiency": "efficiency.pid_efficiency",
    "plot": "report.drawing",
    "run_systematics": "efficiency.systematics",
    "train": "training.loop",
    "validate": "report.validation",
}

__all__ = [
    "Bundle",
    "Dataset",
    "EfficiencyMap",
    "PidganError",
    "Report",
    "Sample",
    "apply",
    "build_dataset",
    "compute_sweights",
    "efficiency_table",
    "export_bundle",
    "load_sample",
    "open_bundle",
    "pid_efficiency",
    "plot",
    "run_systematics",
    "train",
    "validate",
]


TRAINING_HINT = (
    "training, reports, pictures and export need: "
    'pip install ".[train]" in the source tree'
)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pidgan' has no attribute {name!r}")
    try:
        module = importlib.import_module(f"pidgan.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("pidgan"):
            raise
        message = f"pidgan.{name} needs {error.name}; {TRAINING_HINT}"
        raise ModuleNotFoundError(message, name=error.name) from error
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
