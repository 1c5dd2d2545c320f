"""Hybrid showers: learnt ones, which a parametrisation takes to other energies.

What is learnt is trusted between the least and the largest energy of the training part.
Beyond, a parametrisation in the manner of GFlash (`pidgan.training.classical.gflash`),
fitted to the same rows, takes totals and layers from the nearest of these energies E_c
to the energy E: what is learnt are fluctuations around the parametrised shower. With
the expected share m_l(E) of layer l, and s_l that of the learnt shower at E_c,

    ln s'_l = ln m_l(E) + b_l + k (ln s_l - ln m_l(E_c) - b_l),

where b_l is the mean of ln s_l - ln m_l over the training part, and the total moves in
the same way. T, a and the response follow straight lines in ln E, and so do the
logarithms of their spreads, of which k is a ratio: their slopes are those of the nearer
half of the trained energies, as polynomials do not extrapolate. Which cells of a layer
have energy, and how they share it, is as the network has it at E, from the same noise.
Between the trained energies nothing changes.
"""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from pidgan.arguments import checked
from pidgan.arrays import FloatArray
from pidgan.bundle import formulas as f
from pidgan.bundle.card import Card, card_rows
from pidgan.bundle.formulas import Array
from pidgan.calorimeter.observables import layer_energies
from pidgan.errors import TrainingError
from pidgan.notebook import Facts, shown
from pidgan.sample.dataset import Dataset
from pidgan.training.blocks import in_blocks
from pidgan.training.classical.fit import BLOCK_ROWS, fit_parametrisation
from pidgan.training.classical.gflash import GFlash
from pidgan.training.classical.lateral_profile import normalise
from pidgan.training.model import Model

# Shares below are next to nothing, and their ratios mean nothing.
LEAST_SHARE = 1e-5
NOTHING = 1e-30
# Slopes of ln(spread) against ln E: from counting, 1 / sqrt(E), to a constant.
STEEPEST, FLATTEST = -0.5, 0.0


@shown
@dataclasses.dataclass(frozen=True, kw_only=True)
class HybridModel:
    """Learnt showers, which a parametrisation takes beyond the trained energies.

    Attributes:
        card: Card of the hybrid.
        base: Model that makes showers between the trained energies.
        formula: Parametrisation, fitted to the rows that the base was trained on.
        energies: Least and largest trained energy.
        bias: Mean of ln s - ln m in the layers of each view.
    """

    card: Card
    base: Model
    formula: GFlash
    energies: tuple[float, float]
    bias: tuple[FloatArray, ...]

    @checked
    def generate(self, conditions: FloatArray, noise: FloatArray) -> FloatArray:
        """Return cells (n, n_cells) float32, see `Model.generate`."""
        return in_blocks(
            self.evaluate, conditions, noise, card=self.card, size=BLOCK_ROWS
        )

    def evaluate(self, conditions: Array, noise: Array) -> Array:
        """Return cells (n, n_cells) in physical units, as a formula."""
        trend = self._trend(conditions)
        made, near = (
            _as_array(self.base.evaluate(x, noise), conditions)
            for x in (conditions, trend.moved)
        )
        cells = made * self._factors(made, near, trend)
        described = self.card.sample.cells
        threshold = np.float32(described.threshold if described else 0)
        cells = f.where(f.at_least(cells, threshold), cells, 0.0)
        is_beyond = f.greater(f.absolute(trend.step), 0.0)
        return f.where(is_beyond, cells, made)

    def reference(self) -> pd.DataFrame:
        """Return rows never trained on: conditions, targets and "weight"."""
        return self.base.reference()

    def _trend(self, conditions: Array) -> "Trend":
        """Return what the parametrisation says of conditions (n, c)."""
        g, (low, high) = self.formula, self.energies
        names = np.array(g.beam.names)[None] == "energy"
        middle = float(np.sqrt(low * high))
        energy = g.beam.column(conditions, "energy")
        nearest = f.minimum(f.maximum(energy, low), high)
        edge = f.where(f.less(energy, middle), low + energy * 0.0, high + energy * 0.0)
        moved = f.where(names, nearest, conditions)
        own, at_edge, at_middle = (
            g.beam.features(f.where(names, e, conditions))
            for e in (nearest, edge, middle + energy * 0.0)
        )
        slope = (at_edge - at_middle) / f.log(edge * (1 / middle))
        step = f.log(energy / nearest)
        value = f.matmul(own, g.mean)
        spread = f.clip(f.matmul(slope, g.spread), STEEPEST, FLATTEST)
        return Trend(
            moved=moved,
            energy=energy,
            nearest=nearest,
            step=step,
            value=value,
            changed=value + step * f.matmul(slope, g.mean),
            narrower=f.exp(step * spread),
        )

    def _factors(self, cells: Array, near: Array, trend: "Trend") -> Array:
        """Return factors (n, n_cells) on cells, from those at the nearest energies."""
        g, parts = self.formula, []
        layout = g.geometry
        first = next(iter(layout.view_slices.values()))
        total, nearest = (
            f.maximum(f.total(f.columns(v, first.start, first.stop), 1), NOTHING)
            for v in (cells, near)
        )
        response = f.log(nearest / trend.nearest)
        last = len(g.mixing) - 1
        known, wanted, k = (
            f.take(v, [last]) for v in (trend.value, trend.changed, trend.narrower)
        )
        energy = f.exp(wanted + k * (response - known)) * trend.energy
        for v, view in enumerate(layout.views):
            place = layout.view_slices[view.name]
            own, nearby = (f.columns(c, place.start, place.stop) for c in (cells, near))
            if g.depth is None or not view.has_depth:
                parts.append(energy / total + own * 0.0)
                continue
            counts = [layer.n_cells for layer in view.layers]
            layer = np.repeat(np.arange(len(counts)), counts)
            member = np.eye(len(counts))[layer]
            held = f.matmul(own, member)
            share = self._shares(normalise(f.matmul(nearby, member)), trend, v)
            # A layer that is empty in one of the two showers follows the other.
            share = f.where(f.greater(share, 0.0), share, normalise(held))
            share = normalise(f.where(f.greater(held, 0.0), share, 0.0))
            scale = energy * share / f.maximum(held, NOTHING)
            parts.append(f.take(scale, layer))
        return f.concatenate(parts)

    def _shares(self, share: Array, trend: "Trend", v: int) -> Array:
        """Return shares (n, layers) of the layers of a view at the wanted energy."""
        expected = [
            f.log(expected_shares(self.formula, value, v) + LEAST_SHARE) + self.bias[v]
            for value in (trend.value, trend.changed)
        ]
        k = f.take(trend.narrower, [0])
        log_share = f.log(f.maximum(share, NOTHING))
        moved = f.exp(expected[1] + k * (log_share - expected[0]))
        return normalise(f.where(f.greater(share, 0.0), moved, 0.0))

    def _facts(self) -> Facts:
        low, high = self.energies
        return Facts(
            f"{self.card.species} of {self.card.sample.name}: learnt from {low:g} to "
            f"{high:g} MeV, parametrised beyond",
            card_rows(self.card),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trend:
    """What the parametrisation says of n showers, (n, 1) or (n, q)."""

    moved: Array  # conditions at the nearest trained energy
    energy: Array
    nearest: Array
    step: Array  # ln(energy / nearest)
    value: Array  # ln T, ln(a - 1), ln(response) at the nearest energy
    changed: Array  # the same at the energy
    narrower: Array  # ratio of their spreads


def expected_shares(formula: GFlash, value: Array, v: int) -> Array:
    """Return shares (n, layers) of the layers of a view, of showers with values."""
    assert formula.depth is not None
    shape = len(formula.mixing) - 2
    peak, less = f.exp(f.take(value, [0])), f.exp(f.take(value, [shape]))
    return normalise(formula.depth.in_layers(formula.depth.shares(peak, less), v))


def extend(model: Any, dataset: Dataset, *, seed: int) -> HybridModel:
    """Fit the parametrisation that takes showers beyond the trained energies.

    A TrainingError says that the model is none of showers with an incident energy.
    """
    cells = model.card.sample.cells
    if not isinstance(model, Model) or cells is None:
        raise TrainingError(
            f"{model.card.sample.name!r} cannot be extended to other energies; "
            "expected a trained model of the cells of a calorimeter"
        )
    formula = fit_parametrisation(dataset, "gflash", seed=seed).formula
    assert isinstance(formula, GFlash)
    part = dataset.part("train")
    x = part.conditions.astype(np.float64)
    value = formula.beam.features(x) @ formula.mean
    bias = []
    for v, view in enumerate(cells.layout.views):
        bias.append(np.zeros(len(view.layers)))
        if formula.depth is None or not view.has_depth:
            continue
        own = part.targets[:, cells.layout.view_slices[view.name]].astype(np.float64)
        share = normalise(layer_energies(own, view))
        there = share > 0
        expected = np.log(expected_shares(formula, value, v) + LEAST_SHARE)
        difference = np.where(there, np.log(np.maximum(share, NOTHING)) - expected, 0)
        bias[v] = difference.sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    energy = formula.beam.column(x, "energy")
    return HybridModel(
        card=model.card.model_copy(
            update={"settings": {**model.card.settings, "extended": True}}
        ),
        base=model,
        formula=formula,
        energies=(float(energy.min()), float(energy.max())),
        bias=tuple(bias),
    )


def _as_array(cells: Any, conditions: Array) -> Any:
    """Return cells as the kind of value that the conditions are."""
    is_array = isinstance(conditions, np.ndarray)
    return np.asarray(cells) if is_array else cells
