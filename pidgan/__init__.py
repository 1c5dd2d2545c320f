"""Detector response learnt from calibration data, and the uncertainty it leaves.

The public names below are resolved on first use: `import pidgan` loads neither a
network library nor a file reader. They are what the reference of the documentation
lists; what else is in the modules may change.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pidgan.application.apply import apply
    from pidgan.application.conditions import Conditions
    from pidgan.application.correct import correct
    from pidgan.application.quantile_map import QuantileMap, make_quantile_map
    from pidgan.application.summary import ApplySummary
    from pidgan.bundle.bundle import Bundle, open_bundle
    from pidgan.bundle.c_collection import export_collection_c
    from pidgan.bundle.c_file import export_c
    from pidgan.bundle.collecting import collect
    from pidgan.bundle.collection import Collection
    from pidgan.bundle.triton import export_triton
    from pidgan.campaign.definition import Campaign
    from pidgan.campaign.run import run_campaign
    from pidgan.campaign.status import CampaignStatus, TaskStatus, campaign_status
    from pidgan.efficiency.binning import choose_edges, equal_population
    from pidgan.efficiency.control import closure
    from pidgan.efficiency.control_result import ControlClosure, CutClosure
    from pidgan.efficiency.derived import Derived, derive_target
    from pidgan.efficiency.efficiency_map import EfficiencyMap
    from pidgan.efficiency.fit_inputs import fit_workspace, write_fit_workspace
    from pidgan.efficiency.misid_matrix import MisIDMatrix, misid_matrix
    from pidgan.efficiency.pid_efficiency import (
        Estimate,
        Estimates,
        PidEfficiencies,
        PidEfficiency,
        pid_efficiency,
        write_efficiency_columns,
    )
    from pidgan.efficiency.real_vs_generated import RealVsGenerated, closure_table
    from pidgan.efficiency.simulated_rows import SimulatedRows, open_simulation
    from pidgan.efficiency.systematics import run_systematics
    from pidgan.efficiency.sysvar_table import sysvar_table, write_sysvar_table
    from pidgan.efficiency.table import (
        EfficiencyTable,
        cut_covariance,
        efficiency_table,
    )
    from pidgan.efficiency.transfer import transfer
    from pidgan.efficiency.working_point import (
        CutScan,
        SpeciesPoint,
        WorkingPoint,
        scan_cut,
        working_point,
    )
    from pidgan.errors import (
        BundleError,
        CampaignError,
        CutError,
        DatasetError,
        FitError,
        MapError,
        NtupleError,
        PidganError,
        PidganWarning,
        SampleError,
        TrainingError,
    )
    from pidgan.report.control_page import write_control_report
    from pidgan.report.drawing import plot
    from pidgan.report.family_comparison import (
        FamilyComparison,
        FamilyFigures,
        compare_families,
    )
    from pidgan.report.index_page import write_index
    from pidgan.report.map_page import (
        MapInput,
        write_map_report,
        write_working_point_report,
    )
    from pidgan.report.pads import (
        amplitude_spectrum,
        chi2_floor,
        image_moments,
        moments_chi2,
    )
    from pidgan.report.pictures import Pictures
    from pidgan.report.report import Report
    from pidgan.report.tuned import Tuning
    from pidgan.report.tuning import tune
    from pidgan.report.validation import validate
    from pidgan.sample.building import build_dataset
    from pidgan.sample.dataset import Dataset
    from pidgan.sample.definition import Sample
    from pidgan.sample.loading import list_samples, load_binning, load_sample
    from pidgan.sample.pidcalib import (
        PidcalibSample,
        convert_pidcalib_sample,
        list_pidcalib_samples,
        save_pidcalib_samples,
    )
    from pidgan.sample.sweights import SweightResult, compute_sweights
    from pidgan.service.server import serve
    from pidgan.simulation import (
        simulate_analysis,
        simulate_calibration,
        simulate_calorimeter,
        simulate_calorimeter_response,
        simulate_cluster_tracks,
        simulate_dimuons,
        simulate_response,
        simulate_showers,
        simulate_spectrometer,
        simulate_spectrometer_response,
        simulate_tpc,
        simulate_tpc_response,
    )
    from pidgan.simulation.tpc import expected_dedx, n_sigma
    from pidgan.simulation.tpc_clusters import helix_points, simulate_clusters
    from pidgan.training.correction import train_corrector
    from pidgan.training.corrector import Corrector
    from pidgan.training.export import export_bundle
    from pidgan.training.families import (
        FamilyDescription,
        describe_family,
        list_families,
        parse_settings,
    )
    from pidgan.training.families.distilled import Distilled
    from pidgan.training.hybrid import HybridModel
    from pidgan.training.loop import train
    from pidgan.training.members import member_paths, train_members
    from pidgan.training.mending import MendedModel
    from pidgan.training.model import Model, open_model
    from pidgan.training.record import Progress
    from pidgan.training.refinement import RefinedModel, refine

_HOMES = {
    "ApplySummary": "application.summary",
    "Bundle": "bundle.bundle",
    "BundleError": "errors",
    "Campaign": "campaign.definition",
    "CampaignError": "errors",
    "CampaignStatus": "campaign.status",
    "Collection": "bundle.collection",
    "ControlClosure": "efficiency.control_result",
    "Conditions": "application.conditions",
    "Corrector": "training.corrector",
    "CutError": "errors",
    "CutClosure": "efficiency.control_result",
    "CutScan": "efficiency.working_point",
    "Dataset": "sample.dataset",
    "DatasetError": "errors",
    "Derived": "efficiency.derived",
    "Distilled": "training.families.distilled",
    "EfficiencyMap": "efficiency.efficiency_map",
    "EfficiencyTable": "efficiency.table",
    "Estimate": "efficiency.pid_efficiency",
    "Estimates": "efficiency.pid_efficiency",
    "FamilyComparison": "report.family_comparison",
    "FamilyDescription": "training.families",
    "FamilyFigures": "report.family_comparison",
    "FitError": "errors",
    "HybridModel": "training.hybrid",
    "MapError": "errors",
    "MapInput": "report.map_input",
    "MendedModel": "training.mending",
    "MisIDMatrix": "efficiency.misid_matrix",
    "Model": "training.model",
    "NtupleError": "errors",
    "Pictures": "report.pictures",
    "PidEfficiencies": "efficiency.pid_efficiency",
    "PidEfficiency": "efficiency.pid_efficiency",
    "PidcalibSample": "sample.pidcalib",
    "PidganError": "errors",
    "PidganWarning": "errors",
    "Progress": "training.record",
    "QuantileMap": "application.quantile_map",
    "RealVsGenerated": "efficiency.real_vs_generated",
    "RefinedModel": "training.refinement",
    "Report": "report.report",
    "Sample": "sample.definition",
    "SampleError": "errors",
    "SimulatedRows": "efficiency.simulated_rows",
    "SpeciesPoint": "efficiency.working_point",
    "SweightResult": "sample.sweights",
    "TaskStatus": "campaign.status",
    "TrainingError": "errors",
    "Tuning": "report.tuned",
    "WorkingPoint": "efficiency.working_point",
    "amplitude_spectrum": "report.pads",
    "apply": "application.apply",
    "build_dataset": "sample.building",
    "campaign_status": "campaign.status",
    "chi2_floor": "report.pads",
    "choose_edges": "efficiency.binning",
    "closure": "efficiency.control",
    "closure_table": "efficiency.real_vs_generated",
    "collect": "bundle.collecting",
    "compare_families": "report.family_comparison",
    "compute_sweights": "sample.sweights",
    "convert_pidcalib_sample": "sample.pidcalib",
    "correct": "application.correct",
    "cut_covariance": "efficiency.table",
    "derive_target": "efficiency.derived",
    "describe_family": "training.families",
    "efficiency_table": "efficiency.table",
    "equal_population": "efficiency.binning",
    "expected_dedx": "simulation.tpc",
    "export_bundle": "training.export",
    "export_c": "bundle.c_file",
    "export_collection_c": "bundle.c_collection",
    "export_triton": "bundle.triton",
    "fit_workspace": "efficiency.fit_inputs",
    "helix_points": "simulation.tpc_clusters",
    "image_moments": "report.pads",
    "list_families": "training.families",
    "list_pidcalib_samples": "sample.pidcalib",
    "list_samples": "sample.loading",
    "load_binning": "sample.loading",
    "load_sample": "sample.loading",
    "make_quantile_map": "application.quantile_map",
    "member_paths": "training.members",
    "misid_matrix": "efficiency.misid_matrix",
    "moments_chi2": "report.pads",
    "n_sigma": "simulation.tpc",
    "open_bundle": "bundle.bundle",
    "open_model": "training.model",
    "open_simulation": "efficiency.simulated_rows",
    "parse_settings": "training.families",
    "pid_efficiency": "efficiency.pid_efficiency",
    "plot": "report.drawing",
    "refine": "training.refinement",
    "run_campaign": "campaign.run",
    "run_demo": "cli.demo",
    "run_systematics": "efficiency.systematics",
    "save_pidcalib_samples": "sample.pidcalib",
    "scan_cut": "efficiency.working_point",
    "serve": "service.server",
    "simulate_analysis": "simulation",
    "simulate_calibration": "simulation",
    "simulate_calorimeter": "simulation",
    "simulate_calorimeter_response": "simulation",
    "simulate_cluster_tracks": "simulation",
    "simulate_clusters": "simulation.tpc_clusters",
    "simulate_dimuons": "simulation",
    "simulate_response": "simulation",
    "simulate_showers": "simulation",
    "simulate_spectrometer": "simulation",
    "simulate_spectrometer_response": "simulation",
    "simulate_tpc": "simulation",
    "simulate_tpc_response": "simulation",
    "sysvar_table": "efficiency.sysvar_table",
    "train": "training.loop",
    "train_corrector": "training.correction",
    "train_members": "training.members",
    "transfer": "efficiency.transfer",
    "tune": "report.tuning",
    "validate": "report.validation",
    "working_point": "efficiency.working_point",
    "write_efficiency_columns": "efficiency.pid_efficiency",
    "write_fit_workspace": "efficiency.fit_inputs",
    "write_index": "report.index_page",
    "write_control_report": "report.control_page",
    "write_map_report": "report.map_page",
    "write_sysvar_table": "efficiency.sysvar_table",
    "write_working_point_report": "report.map_page",
}

__all__ = [
    "ApplySummary",
    "Bundle",
    "BundleError",
    "Campaign",
    "CampaignError",
    "CampaignStatus",
    "Collection",
    "Conditions",
    "ControlClosure",
    "Corrector",
    "CutClosure",
    "CutError",
    "CutScan",
    "Dataset",
    "DatasetError",
    "Derived",
    "Distilled",
    "EfficiencyMap",
    "EfficiencyTable",
    "Estimate",
    "Estimates",
    "FamilyComparison",
    "FamilyDescription",
    "FamilyFigures",
    "FitError",
    "HybridModel",
    "MapError",
    "MapInput",
    "MendedModel",
    "MisIDMatrix",
    "Model",
    "NtupleError",
    "Pictures",
    "PidEfficiencies",
    "PidEfficiency",
    "PidcalibSample",
    "PidganError",
    "PidganWarning",
    "Progress",
    "QuantileMap",
    "RealVsGenerated",
    "RefinedModel",
    "Report",
    "Sample",
    "SampleError",
    "SimulatedRows",
    "SpeciesPoint",
    "SweightResult",
    "TaskStatus",
    "TrainingError",
    "Tuning",
    "WorkingPoint",
    "__version__",
    "amplitude_spectrum",
    "apply",
    "build_dataset",
    "campaign_status",
    "chi2_floor",
    "choose_edges",
    "closure",
    "closure_table",
    "collect",
    "compare_families",
    "compute_sweights",
    "convert_pidcalib_sample",
    "correct",
    "cut_covariance",
    "derive_target",
    "describe_family",
    "efficiency_table",
    "equal_population",
    "expected_dedx",
    "export_bundle",
    "export_c",
    "export_collection_c",
    "export_triton",
    "fit_workspace",
    "helix_points",
    "image_moments",
    "list_families",
    "list_pidcalib_samples",
    "list_samples",
    "load_binning",
    "load_sample",
    "make_quantile_map",
    "member_paths",
    "misid_matrix",
    "moments_chi2",
    "n_sigma",
    "open_bundle",
    "open_model",
    "open_simulation",
    "parse_settings",
    "pid_efficiency",
    "plot",
    "refine",
    "run_campaign",
    "run_demo",
    "run_systematics",
    "save_pidcalib_samples",
    "scan_cut",
    "serve",
    "simulate_analysis",
    "simulate_calibration",
    "simulate_calorimeter",
    "simulate_calorimeter_response",
    "simulate_cluster_tracks",
    "simulate_clusters",
    "simulate_dimuons",
    "simulate_response",
    "simulate_showers",
    "simulate_spectrometer",
    "simulate_spectrometer_response",
    "simulate_tpc",
    "simulate_tpc_response",
    "sysvar_table",
    "train",
    "train_corrector",
    "train_members",
    "transfer",
    "tune",
    "validate",
    "working_point",
    "write_control_report",
    "write_efficiency_columns",
    "write_fit_workspace",
    "write_index",
    "write_map_report",
    "write_sysvar_table",
    "write_working_point_report",
]


TRAINING_HINT = (
    "training, reports, pictures and export need: "
    'pip install ".[train]" in the source tree'
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        from pidgan.errors import nearest

        hint = "" if name.startswith("_") else nearest(name, _HOMES)
        raise AttributeError(f"module 'pidgan' has no attribute {name!r}{hint}")
    try:
        module = importlib.import_module(f"pidgan.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("pidgan"):
            raise
        message = f"pidgan.{name} needs {error.name}; {TRAINING_HINT}"
        raise ModuleNotFoundError(message, name=error.name) from error
    return getattr(module, name)


def _version() -> str:
    """Return the installed version, in a source tree that of its pyproject.toml."""
    from importlib.metadata import PackageNotFoundError, version
    from pathlib import Path

    try:
        return version("pidgan")
    except PackageNotFoundError:
        import tomllib

        path = Path(__file__).resolve().parents[1] / "pyproject.toml"
        try:
            project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
            return str(project["version"]) if project["name"] == "pidgan" else "unknown"
        except (OSError, ValueError, KeyError):
            return "unknown"


def __dir__() -> list[str]:
    # What a person may use: completion in a notebook shows nothing else.
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
