"""Detector response learnt from calibration data, and the uncertainty it leaves.

The public names below are resolved on first use: `import pidgan` loads neither a
network library nor a file reader.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pidgan.application import apply
    from pidgan.bundle import Bundle, open_bundle
    from pidgan.dataset import Dataset, build_dataset
    from pidgan.efficiency import efficiency_table
    from pidgan.efficiency_map import EfficiencyMap
    from pidgan.errors import PidganError
    from pidgan.onnx_export import export_bundle
    from pidgan.propagation import pid_efficiency
    from pidgan.sample import Sample, load_sample
    from pidgan.sweights import compute_sweights
    from pidgan.systematics import run_systematics
    from pidgan.training import train
    from pidgan.validation import Report, validate

_HOMES = {
    "Bundle": "bundle",
    "Dataset": "dataset",
    "EfficiencyMap": "efficiency_map",
    "PidganError": "errors",
    "Report": "validation",
    "Sample": "sample",
    "apply": "application",
    "build_dataset": "dataset",
    "compute_sweights": "sweights",
    "efficiency_table": "efficiency",
    "export_bundle": "onnx_export",
    "load_sample": "sample",
    "open_bundle": "bundle",
    "pid_efficiency": "propagation",
    "run_systematics": "systematics",
    "train": "training",
    "validate": "validation",
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
    "run_systematics",
    "train",
    "validate",
]


TRAINING_HINT = (
    'training, reports and export need: pip install ".[train]" in the source tree'
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
