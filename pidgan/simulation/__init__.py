"""Toy detectors with known truth, numpy only: data for examples, tests and docs.

- `simulate_calibration` makes calibration samples, from which a training starts.
- `simulate_analysis` makes an analysis ntuple, to which a trained model is applied.
- `simulate_response` makes the true response, with which both are compared.
- `simulate_spectrometer`, `simulate_dimuons` and `simulate_spectrometer_response` make
  the same with RICH, calorimeters, muon stations and what is combined of them.
- `simulate_tpc` and `simulate_calorimeter` make calibration samples of a time
  projection chamber and of calorimeters.
- `simulate_showers` makes showers cell by cell, `simulate_cluster_tracks` tracks with
  their clusters.

Studies take constants and distributions from `tpc`, `tpc_clusters` and `tracks`, and
make detectors of their own with `detector`, `rich` and `calibration`.
"""

from pidgan.simulation.analysis import ANALYSIS_TREE, Jagged, simulate_analysis
from pidgan.simulation.calibration import MODES, RICH_MODES, simulate_calibration
from pidgan.simulation.calorimeter import SHOWER_TREE, simulate_showers
from pidgan.simulation.calorimeter_pid import (
    CALORIMETER_SPECIES,
    simulate_calorimeter,
    simulate_calorimeter_response,
)
from pidgan.simulation.rich import RICH_VARIABLES, SENTINEL, simulate_response
from pidgan.simulation.spectrometer import simulate_spectrometer_response
from pidgan.simulation.spectrometer_samples import (
    DIMUON_TRACKS,
    simulate_dimuons,
    simulate_spectrometer,
)
from pidgan.simulation.tpc import TPC_SPECIES, simulate_tpc, simulate_tpc_response
from pidgan.simulation.tpc_clusters import CLUSTER_TREE, simulate_cluster_tracks

__all__ = [
    "ANALYSIS_TREE",
    "CALORIMETER_SPECIES",
    "CLUSTER_TREE",
    "DIMUON_TRACKS",
    "MODES",
    "RICH_MODES",
    "RICH_VARIABLES",
    "SENTINEL",
    "SHOWER_TREE",
    "TPC_SPECIES",
    "Jagged",
    "calibration",
    "detector",
    "rich",
    "simulate_analysis",
    "simulate_calibration",
    "simulate_calorimeter",
    "simulate_calorimeter_response",
    "simulate_cluster_tracks",
    "simulate_dimuons",
    "simulate_response",
    "simulate_showers",
    "simulate_spectrometer",
    "simulate_spectrometer_response",
    "simulate_tpc",
    "simulate_tpc_response",
    "tpc",
    "tpc_clusters",
    "tracks",
]
