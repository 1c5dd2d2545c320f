"""Efficiency maps of cuts on a function of targets, such as a BDT of PID variables.

The function is evaluated for real and for generated targets. Its map corrects the cut
as that of any target, because both go through the same function.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pidgan.application.generators import generator_hash
from pidgan.arguments import checked
from pidgan.arrays import FloatArray
from pidgan.bundle.card import Card, CardVariable, Generator
from pidgan.bundle.opening import GivenGenerator, open_generator
from pidgan.bundle.reference import GivenReference, reference_frame
from pidgan.bundle.session import open_function
from pidgan.errors import MapError, nearest


@dataclass(frozen=True, kw_only=True, eq=False)
class Derived:
    """A generator with one more target, a function of the others.

    Attributes:
        card: Card of the generator, with the derived target last.
        sha256: Hash of the generator itself, whose columns the function is given.
    """

    card: Card
    sha256: str
    _generator: Generator = field(repr=False)
    _evaluate: Callable[[pd.DataFrame], FloatArray] = field(repr=False)
    _reference: GivenReference | None = field(repr=False, default=None)

    def generate(self, conditions: Any, noise: Any) -> Any:
        """Return targets (n, n_targets + 1) for conditions and noise."""
        found = np.asarray(self._generator.generate(conditions, noise))
        own = self._generator.card
        columns = dict(zip(own.condition_names, np.asarray(conditions).T, strict=True))
        columns |= dict(zip(own.target_names, found.T, strict=True))
        value = self._evaluate(pd.DataFrame(columns))
        return np.column_stack([found, value]).astype(np.float32)

    def reference(self) -> pd.DataFrame:
        """Return the reference rows with a column of the derived target."""
        frame = reference_frame(self._generator, self._reference, others=True)
        name = self.card.target_names[-1]
        if name in frame:
            return frame
        return frame.assign(**{name: self._evaluate(frame)})


@checked
def derive_target(
    generator: GivenGenerator,
    name: str,
    function: Callable[..., Any] | str | Path,
    *,
    inputs: Sequence[str] = (),
    reference: GivenReference | None = None,
) -> Derived:
    """Return a generator with a further target, a function of its targets.

    Args:
        generator: A model or a bundle, or its path.
        name: Name of the new target, which cuts then use.
        function: Function of a DataFrame of conditions and targets that gives (n,)
            values; or an ONNX file with one input (n, k), whose last output counts (of
            a classifier, the probability of the last class).
        inputs: Conditions and targets that the ONNX file takes, in its order.
        reference: Reference rows, as in `run_systematics`. If they have a column of
            this name, it is the value of the real targets.

    Returns:
        The generator, for `run_systematics` and `closure_table`.

    Raises:
        MapError: The name is taken, or an input is no variable of the generator.
        BundleError: The ONNX file cannot be used.

    Example:
        >>> both = derive_target("kaon.onnx", "bdt", "bdt.onnx", inputs=["P", "DLLk"])
        ... # doctest: +SKIP
        >>> run_systematics(both, cuts="bdt > 0.5")               # doctest: +SKIP
    """
    opened = open_generator(generator)
    card = opened.card
    known = [*card.condition_names, *card.target_names]
    if name in known or not name.isidentifier():
        raise MapError(f"name is {name!r}, expected a new name such as 'bdt'")
    for one in inputs:
        if one not in known:
            raise MapError(f"inputs has {one!r}, no variable{nearest(one, known)}")
    if isinstance(function, str | Path):
        if not inputs:
            raise ValueError("inputs is missing, expected the variables of the file")
        run = open_function(Path(function))

        def evaluate(frame: pd.DataFrame) -> FloatArray:
            x = frame[list(inputs)].to_numpy(np.float32)
            return _checked_values(run(x), len(frame), name)
    else:
        own = function

        def evaluate(frame: pd.DataFrame) -> FloatArray:
            return _checked_values(own(frame[known]), len(frame), name)

    most = float(np.finfo(np.float32).max)
    variable = CardVariable(name=name, unit="1", range=(-most, most))
    return Derived(
        card=card.model_copy(update={"targets": (*card.targets, variable)}),
        sha256=generator_hash(opened),
        _generator=opened,
        _evaluate=evaluate,
        _reference=reference,
    )


def _checked_values(values: Any, n: int, name: str) -> FloatArray:
    """Return values (n,) of a function; a MapError if they are others."""
    found = np.asarray(values, dtype=np.float64)
    if found.shape != (n,):
        raise MapError(f"{name}: the function gave {found.shape}, expected ({n},)")
    if not np.isfinite(found).all():
        bad = int(np.count_nonzero(~np.isfinite(found)))
        raise MapError(f"{name}: {bad} of {n} values are not finite")
    return found
