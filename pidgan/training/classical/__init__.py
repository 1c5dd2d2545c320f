"""Classical parametrisations of showers: formulas, and their fits to a sample.

- `fit`: a parametrisation fitted to a dataset, as a generator.
- `gflash`, `gflash_fit`: few parameters, in the manner of GFlash.
- `principal_components`, `principal_components_fit`: a chain as in FastCaloSim.
"""
