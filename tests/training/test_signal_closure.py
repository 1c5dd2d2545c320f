"""sWeights do in training what they promise: background leaves no trace."""

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from signal_closure import Samples, compare, make_samples

TRACKS = 16_000
MOST_PULL = 3.5
# Few steps leave the probabilities of the patterns behind, which the weights change.
STEPS = {"mmd": 400, "flow": 800}
TRAININGS = {
    "mmd": {"width": 32, "blocks": 1, "samples": 2, "average": 0.98},
    "flow": {"width": 32, "blocks": 1, "bins": 6, "batch_size": 256},
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return make_samples(tmp_path_factory.mktemp("closure"), TRACKS, seed=21)


@pytest.mark.parametrize("family", TRAININGS)
def test_a_contaminated_sample_teaches_its_signal(
    samples: Samples, family: str
) -> None:
    """Signed weights in `mmd`, regressed E[w | x, y] >= 0 in `flow`."""
    assert (samples.weighted.part("train").weights < 0).mean() > 0.1
    pulls = compare(
        samples, family=family, steps=STEPS[family], settings=TRAININGS[family]
    )
    assert np.abs(pulls["weighted"]).max() < MOST_PULL
    # Without weights the background is learnt too, and the same comparison sees it.
    assert np.abs(pulls["unweighted"]).max() > 1.4 * MOST_PULL
