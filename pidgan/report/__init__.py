"""Reports that judge generators, and the figures that they draw.

`validation` compares generated with real rows, of tracks and of showers; `report` has
the outcome, which saves itself, `verdict` says what its figures are together, and
`page` is the page of every report. `map_page` is the page of
efficiency maps and working points, `family_comparison` that of families. `metrics`,
`shower_metrics` and `pads` are the distances behind the figures, `shower_validation`
applies them to showers. `plots` draws.
"""

__all__ = [
    "family_comparison",
    "map_page",
    "metrics",
    "pads",
    "page",
    "plots",
    "report",
    "shower_metrics",
    "shower_validation",
    "validation",
]
