"""Observables of a shower: energies, centres, widths, sparsity.

Each view of a geometry has these observables, where E_i is the energy of a cell and
sums run over the cells of the view:

- `total` is sum E_i, and `response` is the total over the incident energy.
- `layer[NAME]` is the energy of a layer, and `fraction[NAME]` its share of the total.
- `x`, `y` and `r` (the distance to the axis, for cylindrical layers) are the centre of
  energy, sum E_i x_i / sum E_i, and `width_x` is the root of
  sum E_i (x_i - x)^2 / sum E_i; `x[NAME]` is the same for layers with several cells.
- `depth`, `width_depth` and `skew_depth` are mean, root variance and third standardised
  moment of the profile along the layers.
- `peak` is the share of the hottest cell, and `sparsity` the share of empty cells.

These are the high-level features of the CaloChallenge (Krause et al., arXiv:2410.21611,
section 4.1), and the moments of the shower as a whole.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from pidgan.arrays import FloatArray
from pidgan.calorimeter.geometry import Geometry, View


def observables(
    cells: ArrayLike,
    geometry: Geometry,
    e_incident: ArrayLike | None = None,
    *,
    threshold: float = 0.0,
    per_layer: bool = True,
) -> dict[str, FloatArray]:
    """Return the observables (n,) of each shower from cells (n, n_cells), by name.

    Centres, widths and shares are 0 where there is no energy. Names start with the
    view, "profile.depth", if the geometry has several. Lengths are in mm; the depth is
    the number of the layer, from 0, where positions are unknown. `sparsity` counts
    cells up to the threshold.
    """
    e = check_cells(cells, geometry)
    found: dict[str, FloatArray] = {}
    for view in geometry.views:
        part = geometry.view_slices[view.name]
        prefix = f"{view.name}." if len(geometry.views) > 1 else ""
        at = geometry.centres[part]
        items = _of_view(e[:, part], at, view, e_incident, threshold, per_layer)
        found |= {prefix + name: values for name, values in items}
    return found


def challenge_features(
    cells: ArrayLike, geometry: Geometry, *, threshold: float = 0.0
) -> dict[str, FloatArray]:
    """Return the high-level features of the CaloChallenge, by its own names.

    They are those of its `HighLevelFeatures.py`: "E_tot", and "E_layers[l]",
    "sparsity[l]", "EC_r[l]" and "width_r[l]" of each layer l of rings; where a layer
    has sectors too, "EC_etas[l]", "EC_phis[l]", "width_etas[l]" and "width_phis[l]",
    which are `x`, `y` and their widths in mm. Layers have the names of the XML file.
    A sparsity here is the share of cells up to the threshold, which the challenge's
    code calls so too. Source: Krause et al., arXiv:2410.21611, section 4.1.

    A ValueError says that a layer has no rings.
    """
    e = check_cells(cells, geometry)
    found = {"E_tot": e.sum(axis=1)}
    starts = np.cumsum([0, *(layer.n_cells for layer in geometry.layers)])
    for layer, start in zip(geometry.layers, starts, strict=False):
        if layer.kind != "cylindrical":
            raise ValueError(
                f"layer {layer.name!r} of {geometry.name} is {layer.kind}; the "
                "features of the CaloChallenge are those of cylindrical layers"
            )
        part = slice(start, start + layer.n_cells)
        at, energies = geometry.centres[part], e[:, part]
        found[f"E_layers[{layer.name}]"] = energies.sum(axis=1)
        found[f"sparsity[{layer.name}]"] = np.mean(energies <= threshold, axis=1)
        axes = {"r": np.hypot(at[:, 0], at[:, 1])}
        if layer.shape[0] > 1:
            axes |= {"etas": at[:, 0], "phis": at[:, 1]}
        for name, positions in axes.items():
            mean, width, _ = moments(energies, positions)
            found[f"EC_{name}[{layer.name}]"] = mean
            found[f"width_{name}[{layer.name}]"] = width
    return found


def check_cells(cells: ArrayLike, geometry: Geometry) -> FloatArray:
    """Return cells (n, n_cells) as float64; a ValueError says that they do not fit."""
    e = np.asarray(cells, dtype=np.float64)
    if e.ndim != 2 or e.shape[1] != geometry.n_cells:
        raise ValueError(
            f"cells of shape {e.shape}, expected (n, {geometry.n_cells}) "
            f"for {geometry.name}"
        )
    return e


def depths(view: View) -> FloatArray:
    """Return the depth of each layer: its middle in mm, or its number if unknown."""
    z = np.array([layer.middle for layer in view.layers])
    return z if np.all(np.isfinite(z)) else np.arange(float(len(z)))


def layer_edges(view: View) -> FloatArray | None:
    """Return the edges of layers, mm; None if unknown or if there are gaps."""
    layers = view.layers
    if any(la.z is None or la.thickness is None for la in layers):
        return None
    front = np.array([la.z for la in layers], dtype=np.float64)
    back = front + np.array([la.thickness for la in layers], dtype=np.float64)
    return np.append(front, back[-1]) if np.allclose(front[1:], back[:-1]) else None


def layer_energies(cells: FloatArray, view: View) -> FloatArray:
    """Return the energies (n, layers) of layers from the cells (n, k) of a view."""
    starts = [part.start for part in view.layer_slices]
    return np.add.reduceat(cells, starts, axis=1)


def moments(e: FloatArray, at: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return mean, root variance and skewness, (n,) each, of positions (k,).

    Weights are energies (n, k); all moments are 0 where their sum is not above 0.
    """
    total = e.sum(axis=1)
    scale = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    # Distances from the middle keep squares from cancelling.
    middle = (at.max() + at.min()) / 2
    x = at - middle
    m1, m2, m3 = (e @ x**k * scale for k in (1, 2, 3))
    variance = np.maximum(m2 - m1**2, 0.0)
    third = m3 - 3 * m1 * m2 + 2 * m1**3
    width = np.sqrt(variance)
    floor = 1e-6 * (at.max() - at.min())  # a width below it is rounding
    skew = np.divide(third, width**3, out=np.zeros_like(third), where=width > floor)
    return np.where(total > 0, m1 + middle, 0.0), width, skew


def _of_view(
    e: FloatArray,
    at: FloatArray,
    view: View,
    e_incident: ArrayLike | None,
    threshold: float,
    per_layer: bool,
) -> Iterator[tuple[str, FloatArray]]:
    total = e.sum(axis=1)
    scale = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    yield "total", total
    if e_incident is not None:
        yield "response", total / np.asarray(e_incident, dtype=np.float64)
    if view.has_depth:
        layers = layer_energies(e, view)
        for layer, energy in zip(view.layers, layers.T, strict=True):
            yield f"layer[{layer.name}]", energy
        for layer, energy in zip(view.layers, layers.T, strict=True):
            yield f"fraction[{layer.name}]", energy * scale
        depth, width, skew = moments(layers, depths(view))
        yield from (("depth", depth), ("width_depth", width), ("skew_depth", skew))
    if view.has_plane:
        yield from _in_plane(e, at, view, "")
        yield "peak", e.max(axis=1) * scale
        yield "sparsity", np.mean(e <= threshold, axis=1)
    for layer, part in zip(view.layers, view.layer_slices, strict=True):
        if per_layer and layer.n_cells > 1 and view.has_depth:
            alone = View(name=view.name, layers=(layer,))
            yield from _in_plane(e[:, part], at[part], alone, f"[{layer.name}]")


def _in_plane(
    e: FloatArray, at: FloatArray, view: View, suffix: str
) -> Iterator[tuple[str, FloatArray]]:
    """Yield centres and widths in the coordinates in which layers have cells."""
    kinds = {layer.kind for layer in view.layers}
    rings = [la for la in view.layers if la.kind == "cylindrical"]
    coordinates = {"x": at[:, 0], "y": at[:, 1]}
    if rings and all(layer.shape[0] == 1 for layer in rings):
        coordinates = {} if kinds == {"cylindrical"} else coordinates
    if kinds == {"cylindrical"}:
        coordinates["r"] = np.hypot(at[:, 0], at[:, 1])
    for name, values in coordinates.items():
        if np.ptp(values) > 0:
            mean, width, _ = moments(e, values)
            yield f"{name}{suffix}", mean
            yield f"width_{name}{suffix}", width
