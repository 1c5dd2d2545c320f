"""Clusters along helices: geometry, resolution, losses."""

import dataclasses

import numpy as np
import pytest

from pidgan.simulation.tpc import ROW_RADII
from pidgan.simulation.tpc_clusters import (
    CLUSTER_ROWS,
    FIELD,
    PT_RANGE,
    draw_helices,
    helix_points,
    simulate_clusters,
)

N = 1500
RADII = ROW_RADII[CLUSTER_ROWS]


@pytest.fixture(scope="module")
def tracks():
    helices = draw_helices(N, seed=1)
    return helices, *simulate_clusters(helices, seed=2)


def test_helices_are_circles_through_the_beam_axis_with_a_constant_slope(tracks):
    helices = tracks[0]
    points = helix_points(helices, RADII)
    radius = helices.pt / (0.299792458 * FIELD)
    # Force of the field along z on a positive charge: the centre lies clockwise.
    angle = helices.phi - 0.5 * np.pi * helices.charge
    centre = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    distance = np.linalg.norm(points[:, :, :2] - centre[:, None], axis=2)
    np.testing.assert_allclose(distance, np.repeat(radius[:, None], 53, axis=1))
    azimuth = np.unwrap(
        np.arctan2(*np.moveaxis(points[:, :, :2] - centre[:, None], 2, 0)[::-1])
    )
    path = radius[:, None] * np.abs(np.diff(azimuth, axis=1))
    np.testing.assert_allclose(
        np.diff(points[:, :, 2], axis=1), path * helices.dip[:, None], atol=1e-6
    )


def test_clusters_lie_around_the_helix_with_the_resolution_of_a_tpc(tracks):
    helices, positions, found = tracks
    apart = positions - helix_points(helices, RADII)
    squared = np.sum(apart**2, axis=2)[found]
    # About 1 mm along the pads and in z each, as in ALICE: arXiv:1402.4476.
    assert 0.7 < np.sqrt(squared.mean()) < 2.0
    error = apart[found].std(axis=0) / np.sqrt(found.sum())
    assert np.all(np.abs(apart[found].mean(axis=0)) < 5 * error)
    np.testing.assert_allclose(
        np.hypot(positions[:, :, 0], positions[:, :, 1])[found],
        np.broadcast_to(RADII, found.shape)[found],
    )


def test_a_long_drift_costs_resolution():
    flat = draw_helices(N, seed=3)
    zero = dataclasses.replace(flat, dip=0.0 * flat.dip)
    steep = dataclasses.replace(flat, dip=0.0 * flat.dip, z=flat.z + 2000.0)
    widths = []
    for helices in (zero, steep):
        positions, found = simulate_clusters(helices, seed=4)
        apart = (positions - helix_points(helices, RADII))[found]
        widths.append(apart[:, 2].std())
    # Diffusion grows with the square root of the drift: 2500 against 500 mm.
    assert widths[0] > 1.3 * widths[1]


def test_losses(tracks):
    found = tracks[2]
    assert 0.88 < found.mean() < 0.95
    assert np.isnan(tracks[1][~found]).all()
    # The inner rows have a larger part of their circumference in the dead zones.
    assert found[:, :10].mean() < found[:, -10:].mean()


def test_soft_tracks_do_not_reach_the_outer_rows():
    helices = draw_helices(3, seed=1)
    soft = dataclasses.replace(helices, pt=0.5 * PT_RANGE[0] + 0.0 * helices.pt)
    with pytest.raises(ValueError, match="do not reach the radius"):
        helix_points(soft, RADII)
