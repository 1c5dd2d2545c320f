"""Toy detectors with known truth, numpy only: data for examples, tests and docs.

Use `simulate_calibration` for what a training starts from, `simulate_analysis` for
what a trained model is applied to, and `simulate_response` for the truth that either
is compared with; `simulate_showers` for those who learn a calorimeter.
"""

from pidgan.simulation.analysis import ANALYSIS_TREE, Jagged, simulate_analysis
from pidgan.simulation.calibration import (
    MODES,
    RICH_MODES,
    MassShape,
    simulate_calibration,
)
from pidgan.simulation.calorimeter import SHOWER_TREE, simulate_showers
from pidgan.simulation.calorimeter_pid import (
    CALORIMETER_SPECIES,
    simulate_calorimeter,
    simulate_calorimeter_response,
)
from pidgan.simulation.combined import SPECIES, simulate_response
from pidgan.simulation.rich import RICH_VARIABLES, SENTINEL
from pidgan.simulation.tpc import TPC_SPECIES, simulate_tpc, simulate_tpc_response

__all__ = [
    "ANALYSIS_TREE",
    "CALORIMETER_SPECIES",
    "MODES",
    "RICH_MODES",
    "RICH_VARIABLES",
    "SENTINEL",
    "SHOWER_TREE",
    "SPECIES",
    "TPC_SPECIES",
    "Jagged",
    "MassShape",
    "simulate_analysis",
    "simulate_calibration",
    "simulate_calorimeter",
    "simulate_calorimeter_response",
    "simulate_response",
    "simulate_showers",
    "simulate_tpc",
    "simulate_tpc_response",
]
