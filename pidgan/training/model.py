"""A trained model: networks and transforms joined to one function in physical units."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pidgan import higher
from pidgan.arguments import checked
from pidgan.arrays import FloatArray
from pidgan.bundle import formulas as f
from pidgan.bundle.card import Card
from pidgan.bundle.formulas import Array
from pidgan.errors import TrainingError, nearest
from pidgan.files.documents import read_json
from pidgan.files.recognition import refuse_other
from pidgan.files.seals import (
    SEAL,
    check_seal,
    file_sha256,
    part_of,
    read_set,
    reason,
    sealed,
)
from pidgan.files.tables import read_arrays, read_table, write_table
from pidgan.files.writing import writing_set_folder
from pidgan.notebook import Facts, shown
from pidgan.training.blocks import in_blocks
from pidgan.training.chain import FORMAT as CHAIN_FORMAT
from pidgan.training.chain import Chain, chain_files, model_facts
from pidgan.training.conditions import ConditionTransform
from pidgan.training.corrector import FILES as CORRECTOR_FILES
from pidgan.training.corrector import FORMAT as CORRECTOR_FORMAT
from pidgan.training.corrector import Corrector
from pidgan.training.families import build_family, parse_settings
from pidgan.training.networks.evaluation import evaluate
from pidgan.training.patterns import pattern_network, pick_pattern
from pidgan.training.targets import Targets, read_targets
from pidgan.training.targets.tracks import TargetTransform

FILES = ("model.json", "model.npz", "reference.parquet")
"""Files of a saved model; the first holds the hashes of the others."""

FORMAT = 2
"""Version of the folder's layout. Version 0.1 of this package wrote no number and no
hashes."""


@shown
@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A generator as keras networks, before it is exported.

    Attributes:
        card: Description of the generator and of its training.
        conditions: Scaling of the conditions.
        targets: Map between targets and coordinates.
        generator: Function (conditions, pattern, noise) -> coordinates: a keras
            network, or a `pidgan.training.networks.evaluation.Generator`.
        patterns: Keras network from conditions to pattern logits, None if there is
            only one pattern.
        history: Losses by name, each a list, beside "step".
        held_out: Rows never trained on: conditions, targets and "weight".
        beside: Weights of networks that were trained beside the generator, such as a
            teacher or a critic: another training may start from them.
    """

    card: Card
    conditions: ConditionTransform
    targets: Targets
    generator: Any
    patterns: Any
    history: dict[str, list[float]]
    held_out: pd.DataFrame
    beside: tuple[np.ndarray, ...] = ()

    plot = higher.plot

    @checked
    def generate(self, conditions: FloatArray, noise: FloatArray) -> FloatArray:
        """Return targets (n, n_targets) float32 in physical units.

        Conditions (n, n_conditions) are in package units, noise (n, n_noise) is
        standard normal. A row is NaN where a condition is not finite.
        """
        return in_blocks(self.evaluate, conditions, noise, card=self.card)

    def evaluate(self, conditions: Array, noise: Array) -> Array:
        """Return targets (n, n_targets) in physical units, as a formula."""
        y, codes = self.draw(self.conditions.forward(conditions), noise)
        return self.targets.inverse(y, codes, conditions)

    def draw(self, x: Array, noise: Array) -> tuple[Array, Array | None]:
        """Return coordinates of each row, and its pattern as a one-hot code, or None.

        x are conditions (n, n_columns) as networks see them.
        """
        if self.patterns is None:
            return evaluate(self.generator, {"conditions": x, "noise": noise}), None
        logits = evaluate(self.patterns, {"conditions": x})
        codes = pick_pattern(logits, f.columns(noise, 0, 1))
        left = f.columns(noise, 1, noise.shape[-1])
        inputs = {"conditions": x, "pattern": codes, "noise": left}
        return evaluate(self.generator, inputs), codes

    @property
    def track_targets(self) -> TargetTransform:
        """The transform of the targets of a track; a TrainingError for others."""
        if not isinstance(self.targets, TargetTransform):
            raise TrainingError(
                f"the generator of {self.card.sample.name!r} makes other targets, "
                "expected PID variables of a track"
            )
        return self.targets

    def reference(self) -> pd.DataFrame:
        """Return rows never trained on: conditions, targets and "weight"."""
        return self.held_out

    def arrays(self) -> dict[str, Any]:
        """Return weights and transforms by name."""
        networks = (("generator", self.generator), ("patterns", self.patterns))
        weights = {
            f"{name}_{i}": variable.numpy()
            for name, network in networks
            for i, variable in enumerate(network.variables if network else ())
        }
        others = {f"beside_{i}": value for i, value in enumerate(self.beside)}
        transforms = self.conditions.to_arrays() | self.targets.to_arrays()
        return weights | transforms | others

    @checked
    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the model to a directory, in one piece or not at all.

        Files of a running training in the directory, such as a checkpoint, stay.

        Raises:
            NtupleError: The directory holds a model and `overwrite` is not set.
        """
        with writing_set_folder(path, *FILES, overwrite=overwrite) as files:
            head, weights, reference = files
            np.savez(weights, **self.arrays())
            write_table(reference, self.held_out)
            hashes = map(file_sha256, files[1:])
            content = {
                "format": FORMAT,
                "card": json.loads(self.card.to_json()),
                "history": self.history,
                "files": dict(zip(FILES[1:], hashes, strict=True)),
            }
            head.write_text(json.dumps(sealed(content)), encoding="utf-8")

    def _facts(self) -> Facts:
        return model_facts(self)


@checked
def open_model(
    path: str | Path | Model | Chain | Corrector,
) -> Model | Chain | Corrector:
    """Read a model, chain or corrector that `save` wrote; an open one is returned.

    Raises:
        TrainingError: The directory has no finished model, or the model is damaged.
    """
    if isinstance(path, Model | Chain | Corrector):
        return path
    path = Path(path)
    if not (path / "model.json").is_file():
        siblings = [p.parent.name for p in path.parent.glob("*/model.json")]
        unfinished = any(
            any(path.glob(f"{place}checkpoint.npz"))
            for place in ("", "link_*/", "*-training/")
        )
        members = sorted(p.parent.name for p in path.glob("member_*/model.json"))
        if not (unfinished or members):
            refuse_other(path, "model", error=TrainingError)
        raise TrainingError(
            f"{path} holds no finished model"
            + ("; train with --resume to finish it" if unfinished else "")
            + (f"; it holds members, {members[0]} first" if members else "")
            + nearest(path.name, siblings)
        )
    return read_set(path / FILES[0], lambda: _open(path))


def _open(path: Path) -> Model | Chain | Corrector:
    try:
        content = read_json(path / FILES[0], error=TrainingError)
        links, known = content.get("links"), content.get("known")
        names: Sequence[str] = FILES[1:]
        if links is not None:
            names = chain_files(len(links))[1:]
        elif known is not None:
            names = CORRECTOR_FILES[1:]
        files = [path / name for name in names]
        if {"format", "files", SEAL} & set(content):
            check_seal(content)
            wanted = FORMAT if links is None else CHAIN_FORMAT
            wanted = wanted if known is None else CORRECTOR_FORMAT
            if content["format"] != wanted:
                raise ValueError(
                    f"it has format {content['format']!r}, expected {wanted}"
                )
            files = [part_of(file, content["files"][file.name]) for file in files]
        *weights, reference = files
        card = Card.from_json(json.dumps(content["card"]), where=str(path))
        held_out = read_table(reference)
        if known is not None:
            parts = ("simulation", "data")
            return Corrector(
                card=card,
                **{
                    name: _read(content[name], file, held_out, str(path))
                    for name, file in zip(parts, weights, strict=True)
                },
                known=np.array(known, dtype=np.float32),
                held_out=held_out,
            )
        if links is None:
            return _read(content, weights[0], held_out, str(path))
        models = [
            _read(link, file, held_out, str(path))
            for link, file in zip(links, weights, strict=True)
        ]
        return Chain(card=card, links=tuple(models), held_out=held_out)
    # A damaged file of version 0.1, which has no hashes, may raise whatever there is.
    except Exception as error:
        text = f"{path}: the model is damaged ({reason(error)})"
        raise TrainingError(text) from error


def _read(
    content: dict[str, Any], weights: Path, held_out: pd.DataFrame, where: str
) -> Model:
    """Return the model of a card and a history, and of a file of weights."""
    card = Card.from_json(json.dumps(content["card"]), where=where)
    arrays = read_arrays(weights)
    targets = read_targets(card.sample, arrays)
    conditions = ConditionTransform.from_arrays(arrays)
    shape = targets.shape(card.sample, n_conditions=conditions.n_columns)
    settings = parse_settings(card.family, card.settings)
    generator = build_family(settings, shape=shape, seed=0).generator
    patterns = pattern_network(shape=shape, seed=0) if shape.n_patterns else None
    for name, network in (("generator", generator), ("patterns", patterns)):
        for i, variable in enumerate(network.variables if network else ()):
            variable.assign(arrays[f"{name}_{i}"])
    return Model(
        card=card,
        conditions=conditions,
        targets=targets,
        generator=generator,
        patterns=patterns,
        history=dict(content["history"]),
        held_out=held_out,
        beside=tuple(
            arrays[f"beside_{i}"]
            for i in range(sum(name.startswith("beside_") for name in arrays))
        ),
    )
