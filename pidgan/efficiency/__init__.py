"""Efficiencies of PID cuts: real against generated, and their uncertainties.

`table` gives efficiencies of any rows in bins, `real_vs_generated` the record of real
against generated ones, `systematics` an efficiency map of their differences,
`efficiency_map` the map and its files, `working_point` the threshold for a wanted
efficiency, `pid_efficiency` the efficiency of selections on an analysis ntuple.
`simulated_rows` is a simulation as a generator, `simulated_shares` its statistics.
`among` has denominators, `analysis_rows` the rows of ntuples, `track_maps` the maps of
a track, `made_by` which of them serves a row, `events` rows that fluctuate together,
`binning` bins of conditions, `selections` selections of several tracks, `table_files`
tables as files, `map_averages` averages over bins, `variation_parts` parts of an
uncertainty, `periods` means over periods, `period_maps` their maps, `quoted` rounded
numbers. `control` compares
a control channel with its prediction, `control_result` is what it finds, and `transfer`
puts its factor into a map. `control_rows` reads control samples, and `counted` counts
signal by mass fits. `fit_inputs`, `misid_matrix` and `sysvar_table` are what fits read.
`filling` is how an analysis fills the bins of a map.
`derived` adds functions of targets to a generator, `dataset_table` has tables of
datasets. `map_card` says what a map holds.
"""

__all__ = [
    "among",
    "analysis_rows",
    "binning",
    "control",
    "control_result",
    "control_rows",
    "counted",
    "dataset_table",
    "derived",
    "efficiency_map",
    "events",
    "filling",
    "fit_inputs",
    "map_averages",
    "map_card",
    "misid_matrix",
    "period_maps",
    "periods",
    "pid_efficiency",
    "quoted",
    "real_vs_generated",
    "selections",
    "simulated_rows",
    "systematics",
    "sysvar_table",
    "table",
    "table_files",
    "transfer",
    "variation_parts",
    "working_point",
]
