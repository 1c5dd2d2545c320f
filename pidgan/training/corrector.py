"""A corrector: simulated targets become those of data, row by row.

A generator replaces the targets of simulation, and with them all that they share with
the rest of the event. A corrector transforms them, by the map of
`pidgan.training.correction_map`. It is two models of the same conditions and targets,
one learnt from simulation and one from data, which see both through the same
transforms.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pidgan.arguments import checked
from pidgan.arrays import FloatArray
from pidgan.bundle import formulas as f
from pidgan.bundle.card import Card
from pidgan.bundle.formulas import Array
from pidgan.files.seals import file_sha256, sealed
from pidgan.files.tables import write_table
from pidgan.files.writing import writing_set_folder
from pidgan.notebook import Facts, shown
from pidgan.training.blocks import in_blocks
from pidgan.training.chain import model_facts
from pidgan.training.correction_map import changed_pattern, only_known
from pidgan.training.networks.evaluation import evaluate
from pidgan.training.targets.tracks_forward import see

FILES = ("model.json", "simulation.npz", "data.npz", "reference.parquet")
"""Files of a saved corrector; the first holds the hashes of the others."""

FORMAT = 4
"""Version of the layout of a corrector's folder."""


@shown
@dataclasses.dataclass(frozen=True, kw_only=True)
class Corrector:
    """A map of simulated targets to those of data; made by `train_corrector`.

    Attributes:
        card: Description; `simulated` are the targets as simulation has them.
        simulation: `Model` of the simulation.
        data: `Model` of the data, with the same transforms.
        known: 1 for each pattern that data have, (n_patterns,).
        held_out: Rows never trained on: conditions, targets, "weight" and "simulated",
            0 for data and 1 for simulation.
    """

    card: Card
    simulation: Any
    data: Any
    known: FloatArray
    held_out: pd.DataFrame

    @checked
    def generate(self, conditions: FloatArray, noise: FloatArray) -> FloatArray:
        """Return corrected targets (n, n_targets) float32 in physical units.

        Conditions (n, n_conditions + n_targets) are in package units, the simulated
        targets after the conditions; noise (n, n_noise) is standard normal. A row is
        NaN where one of them is not finite, or where targets are unlike those of the
        training.
        """
        return in_blocks(self.evaluate, conditions, noise, card=self.card)

    def evaluate(self, conditions: Array, noise: Array) -> Array:
        """Return corrected targets (n, n_targets), as a formula."""
        n = len(self.card.conditions)
        own = f.columns(conditions, 0, n)
        simulated = f.columns(conditions, n, conditions.shape[-1])
        x = self.data.conditions.forward(own)
        d, transform = len(self.card.targets), self.data.track_targets
        seen = see(transform, simulated, [v.sentinels for v in self.card.targets])
        codes, fresh = seen.codes, f.columns(noise, 0, d)
        before, after = {"conditions": x}, {"conditions": x}
        if self.data.patterns is not None:
            p, q = (
                f.softmax(evaluate(model.patterns, {"conditions": x}))
                for model in (self.simulation, self.data)
            )
            codes = changed_pattern(
                codes, p, only_known(q, self.known), f.columns(noise, d, d + 1)
            )
            before, after = (
                {**before, "pattern": seen.codes},
                {**after, "pattern": codes},
            )
        ranks = self.simulation.generator.noise_of({**before, "y": seen.y})
        ranks = fresh + (ranks - fresh) * seen.free
        y = evaluate(self.data.generator, {**after, "noise": ranks})
        several = None if self.data.patterns is None else codes
        made = transform.inverse(y, several, own)
        fits = f.greater(f.total(seen.codes, 1), 0.5)
        return f.where(fits, made, np.full((1, d), np.nan, dtype=np.float32))

    @property
    def history(self) -> dict[str, list[float]]:
        """Losses of both trainings by name, beside the "step" counted through both."""
        first, second = self.simulation.history, self.data.history
        done = int(first["step"][-1]) if first["step"] else 0
        merged = {"step": [*first["step"], *(done + s for s in second["step"])]}
        parts = {"simulation": first, "data": second}
        for name, history in parts.items():
            before, after = len(first["step"]), len(second["step"])
            before, after = (before, 0) if name == "data" else (0, after)
            for loss, values in history.items():
                if loss != "step":
                    own = [*[np.nan] * before, *values, *[np.nan] * after]
                    merged[f"{name} {loss}"] = own
        return merged

    def reference(self) -> pd.DataFrame:
        """Return rows never trained on, of data and of simulation."""
        return self.held_out

    @checked
    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the corrector to a directory, in one piece or not at all.

        Files of a running training in the directory, such as checkpoints, stay.

        Raises:
            NtupleError: The directory holds a model and `overwrite` is not set.
        """
        with writing_set_folder(path, *FILES, overwrite=overwrite) as files:
            head, *weights, reference = files
            models = {"simulation": self.simulation, "data": self.data}
            for file, model in zip(weights, models.values(), strict=True):
                np.savez(file, **model.arrays())
            write_table(reference, self.held_out)
            hashes = map(file_sha256, files[1:])
            content = {
                "format": FORMAT,
                "card": json.loads(self.card.to_json()),
                "known": self.known.tolist(),
                **{
                    name: {
                        "card": json.loads(model.card.to_json()),
                        "history": model.history,
                    }
                    for name, model in models.items()
                },
                "files": dict(zip(FILES[1:], hashes, strict=True)),
            }
            head.write_text(json.dumps(sealed(content)), encoding="utf-8")

    def _facts(self) -> Facts:
        return model_facts(self)
