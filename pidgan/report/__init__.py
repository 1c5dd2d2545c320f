"""Reports that judge generators, and pictures of whatever the package makes.

`validation` compares generated with real rows, of tracks and of showers; `report` has
the outcome, which saves itself, and `verdict` says what its figures are together.
`page` is the page of every report and `index_page` that of a folder of reports.
`map_page` is the page of efficiency maps and working points, `map_input` its input,
`family_comparison` that of families, `control_page` that of control channels.
`tuning` searches settings, and `tuned` is the outcome and its page.
`metrics`, `shower_metrics` and `pads` are the distances behind the figures,
`shower_tests` has tests of showers of the same conditions, `shower_validation` applies
both. `drawing` has the pictures of datasets, generators, maps, tables and ntuples,
`drawn_maps` those of maps, and `pictures` writes them, under names that `suffixes`
allows. `plots` draws from arrays.
"""

__all__ = [
    "control_page",
    "drawing",
    "drawn_maps",
    "family_comparison",
    "index_page",
    "map_input",
    "map_page",
    "metrics",
    "pads",
    "page",
    "pictures",
    "plots",
    "report",
    "shower_metrics",
    "shower_tests",
    "shower_validation",
    "suffixes",
    "tuned",
    "tuning",
    "validation",
    "verdict",
]
