"""Calorimeters as data: their cells, the observables of showers, and symmetries.

- `geometry`: views, layers and cells, their flat index and their positions.
- `geometry_file`: geometries read from TOML, XML and tables.
- `halving`: layers cut in halves, down to single cells.
- `mirrors`: mirror images of showers as further rows.
- `observables`: energies, centres, widths and sparsity of showers.
"""

__all__ = ["geometry", "geometry_file", "halving", "mirrors", "observables"]
