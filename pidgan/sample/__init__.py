"""Calibration samples: definitions, selection, cuts, sWeights, datasets.

- `built_in`: cuts that a calibration sample already has.
- `building`: a dataset built from the files of a sample.
- `clusters`: pad rows of a time projection chamber as targets.
- `cuts`: the one grammar of cuts.
- `dataset`: the record that a generator is trained on and judged by.
- `definition`: the definition of a sample.
- `events`: rows of the same event, which fluctuate together.
- `grids`: steps of values that are whole multiples of one, and what stands out there.
- `independence`: a test of what sWeights assume.
- `loading`: definitions and binnings loaded from TOML files.
- `mass_fit_pass_fail`: signal counted by mass fits of rows that pass and that fail.
- `pidcalib`: definitions made from the list of PIDCalib2.
- `pidcalib_names`: what PIDCalib2 says in code.
- `sampling`: random rows of a dataset, where not all fit into memory.
- `species`: names and PDG ids of particles.
- `stored`: comparison of stored columns with numbers, without loss of digits.
- `sweights`: sWeights from a mass fit.
- `variables`: conditions and targets, their units and derivations.
- `weights`: effective numbers of rows, and weights without negative values.
"""

__all__ = [
    "building",
    "built_in",
    "clusters",
    "cuts",
    "dataset",
    "definition",
    "events",
    "grids",
    "independence",
    "loading",
    "mass_fit_pass_fail",
    "pidcalib",
    "pidcalib_names",
    "sampling",
    "species",
    "stored",
    "sweights",
    "variables",
    "weights",
]
