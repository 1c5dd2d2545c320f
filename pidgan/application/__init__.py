"""Generated columns for an analysis ntuple.

`apply` applies generators to files, `correct` correctors, `conditions` finds the
branches that hold their conditions, `quantile_map` makes simulation look like data
before, `several_tracks` handles entries with several tracks, `workers` divides files
among processes. `request` is what `apply` is asked for, `planning` what each tree gets,
`in_memory` serves rows in memory, `names` has the names of a track's branches,
`generators` those of a track, `choosing` the columns that choose among them,
`one_track` the plan of a track, `generating` its new columns, `sample_cuts` the cuts of
the calibration sample, `one_file` the copy of a file, `shower_file` generated showers
in a file, `record` what it holds of how it
was made, `fingerprints` numbers that change with its values, `finished` outputs of
earlier runs, `summary` what was done.
"""

__all__ = [
    "apply",
    "conditions",
    "correct",
    "fingerprints",
    "generating",
    "generators",
    "names",
    "one_track",
    "quantile_map",
    "record",
    "request",
    "sample_cuts",
    "several_tracks",
    "shower_file",
    "summary",
    "workers",
]
