"""Reference rows of one event fluctuate together in efficiencies and in maps."""

from dataclasses import replace

import numpy as np
import pytest

from pidgan.efficiency.between_bins import between_bins
from pidgan.efficiency.real_vs_generated import ComparedRows
from pidgan.efficiency.systematics import map_from_rows

EDGES = {"P": (0.0, 1.0, 2.0, 3.0, 4.0)}
CUTS = ("y > 0", "y > 0.5")


def make_rows(n: int, seed: int = 1, *, conditional: bool = False) -> ComparedRows:
    rng = np.random.default_rng(seed)
    p, real = rng.uniform(0, 4, n), rng.standard_normal(n)
    made = rng.standard_normal((4, n))
    cuts = np.array([0.0, 0.5])[:, np.newaxis]
    counts = np.array([(made > c).sum(axis=0) for c in cuts[:, 0]])
    among = {"among": real > -1, "generated_among": (made > -1).sum(axis=0)}
    return ComparedRows(
        species="K+",
        cuts=CUTS,
        columns={"P": p},
        weights=rng.normal(1, 0.6, n),
        real=real > cuts,
        generated=counts,
        repeats=4,
        **(among if conditional else {}),
    )


def twice(rows: ComparedRows) -> ComparedRows:
    """Return each row two times in one event, in random order."""
    n = len(rows.weights)
    order = np.random.default_rng(9).permutation(np.tile(np.arange(n), 2))
    given = {"among": rows.among, "generated_among": rows.generated_among}
    return replace(
        rows,
        columns={"P": rows.columns["P"][order]},
        weights=rows.weights[order],
        real=rows.real[:, order],
        generated=rows.generated[:, order],
        events=order,
        **{k: v if v is None else v[order] for k, v in given.items()},
    )


@pytest.mark.parametrize("conditional", [False, True])
def test_rows_that_are_repeated_say_nothing_new(conditional: bool) -> None:
    rows = make_rows(3000, conditional=conditional)
    once = rows.in_bins(EDGES, variance="pidcalib")
    again = twice(rows).in_bins(EDGES, variance="pidcalib")
    for name in ("difference", "difference_error", "covariance"):
        assert np.allclose(getattr(again, name), getattr(once, name), rtol=1e-9)
    for a, b in ((again.real, once.real), (again.generated, once.generated)):
        assert np.allclose(a.efficiency, b.efficiency)
        assert np.allclose(a.variance, b.variance, rtol=1e-9)
    # Without the events, they seem to be twice as many.
    blind = replace(twice(rows), events=None).in_bins(EDGES, variance="pidcalib")
    assert np.allclose(2 * blind.real.variance, once.real.variance, rtol=1e-9)


def test_events_of_one_row_change_little() -> None:
    rows = make_rows(3000)
    alone = replace(rows, events=np.random.default_rng(2).permutation(3000))
    once, again = rows.in_bins(EDGES), alone.in_bins(EDGES)
    assert np.allclose(again.difference_error, once.difference_error, rtol=1e-12)
    assert np.allclose(again.moments, once.moments, rtol=0.02)
    pairs, _ = between_bins(alone, np.zeros(3000, dtype=int), np.ones(1))
    assert pairs.shape == (2, 0)


def test_a_map_of_repeated_rows_is_as_uncertain_as_of_one() -> None:
    rows = make_rows(3000)
    errors = []
    for own in (rows, twice(rows), replace(twice(rows), events=None)):
        found = map_from_rows(
            own, edges=EDGES, empty_bins=lambda _: np.empty((2, 0)), metadata={}
        )
        share = np.full(4, 0.25)
        errors.append(np.sqrt(share @ found.covariance[0] @ share))
    assert errors[1] == pytest.approx(errors[0], rel=0.05)
    assert errors[2] == pytest.approx(errors[0] / np.sqrt(2), rel=0.05)


def test_events_join_different_bins() -> None:
    rows = make_rows(2000)
    place = np.floor(rows.columns["P"]).astype(int)
    events = np.random.default_rng(4).integers(0, 600, 2000)
    rows = replace(rows, events=events)
    sums = np.bincount(place, rows.weights)
    pairs, values = between_bins(rows, place, sums)
    assert {tuple(pair) for pair in pairs.T} == {
        (a, b) for a in range(4) for b in range(4) if a != b
    }
    # Mean over bins of equal shares: within and between bins are a sum over events.
    step = rows.weights * (rows.real - rows.generated / 4)
    step = step - rows.weights * (step.sum(axis=1) / rows.weights.sum())[:, np.newaxis]
    influence = 0.25 * step / sums[place]
    by_event = np.array([np.bincount(events, one) for one in influence])
    moments = rows.in_bins(EDGES).moments
    w2 = np.bincount(place, rows.weights**2)
    within = (moments * w2 / sums**2).sum(axis=-1) / 16
    assert np.allclose(within + values.sum(axis=-1) / 16, by_event @ by_event.T)


def test_what_events_share_in_all_bins_does_not_average_out() -> None:
    rng = np.random.default_rng(6)
    rows = make_rows(4000)
    events = np.repeat(np.arange(1000), 4)
    # All candidates of an event pass, or none: one in each bin.
    shared = np.repeat(rng.random(1000) < 0.7, 4)
    rows = replace(
        rows,
        columns={"P": np.tile([0.5, 1.5, 2.5, 3.5], 1000)},
        weights=np.ones(4000),
        real=np.array([shared, shared]),
        events=events,
    )
    maps = [
        map_from_rows(
            own, edges=EDGES, empty_bins=lambda _: np.empty((2, 0)), metadata={}
        )
        for own in (rows, replace(rows, events=None))
    ]
    share = np.full(4, 0.25)
    with_events, blind = (np.sqrt(m.propagate(share)[0, 0]) for m in maps)
    assert 1.6 * blind < with_events < 2.2 * blind
    # The covariance of two cuts knows it too: here they are the same cut.
    joint = maps[0].propagate(share)
    assert joint[0, 1] > 0.8 * joint[0, 0]
