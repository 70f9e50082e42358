import itertools

import mdtraj
import numpy as np
import pytest

from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.revisiting.outermost import (
    SEPARATION_PS,
    near_pairs,
    outermost_frames,
)


def chain(symbols):
    """Atoms in a row, each bonded to the next."""
    topology = mdtraj.Topology()
    residue = topology.add_residue("M", topology.add_chain())
    atoms = [
        topology.add_atom(f"{s}{i}", mdtraj.element.get_by_symbol(s), residue)
        for i, s in enumerate(symbols)
    ]
    for pair in itertools.pairwise(atoms):
        topology.add_bond(*pair)
    return topology


def swinging(amplitudes, frame_interval=0.01):
    """Replicas of HCO whose H-C stretches with a period of 0.4 ps."""
    time = frame_interval * np.arange(200)
    positions = []
    for amplitude in amplitudes:
        x = np.zeros((len(time), 3, 3))
        x[:, 1, 0] = 0.11
        x[:, 0, 0] = -amplitude * np.sin(2 * np.pi * time / 0.4)
        x[:, 2, 0], x[:, 2, 1] = 0.11, 0.12
        positions.append(x)
    return Ensemble(chain("HCO"), frame_interval, positions)


def test_pairs_are_bonds_and_bends():
    assert near_pairs(chain("HCCO")).tolist() == [
        [0, 1],
        [0, 2],
        [1, 2],
        [1, 3],
        [2, 3],
    ]


def test_frames_are_those_furthest_out_and_apart_in_time():
    ensemble = swinging([0.01, 0.03, 0.02])
    frames = outermost_frames(ensemble, near_pairs(ensemble.topology), 3)
    x = np.concatenate(ensemble.positions)
    lengths = np.linalg.norm(x[:, 0] - x[:, 1], axis=1)
    chosen = lengths[frames]
    # Of the replica that swings most, at its turning points.
    assert (chosen > 0.14 - 1e-9).sum() == 3
    assert (chosen < 0.08 + 1e-9).sum() == 3
    # More than it has turning points: not their neighbours in time.
    frames = outermost_frames(ensemble, np.array([[0, 1]]), 7)
    longest = frames[lengths[frames] > 0.11]
    assert len(longest) == 7
    assert np.diff(longest).min() >= round(SEPARATION_PS / ensemble.frame_interval)


def test_a_distance_that_never_changes_adds_few_frames():
    ensemble = swinging([0.01, 0.03, 0.02])
    frames = outermost_frames(ensemble, near_pairs(ensemble.topology), 3)
    # C-O never moves: any frames serve.
    assert len(frames) <= 3 * 2 * 3


def test_one_frame_serves_several_distances():
    ensemble = swinging([0.02])
    frames = outermost_frames(ensemble, near_pairs(ensemble.topology), 1)
    assert len(frames) < 2 * len(near_pairs(ensemble.topology))
    assert (np.diff(frames) > 0).all()


@pytest.mark.parametrize("frame_interval", [0.01, 0.5])
def test_fewer_frames_than_asked_for_are_all_there_are(frame_interval):
    ensemble = swinging([0.02], frame_interval)
    every = 10 if frame_interval == 0.01 else 1
    found = outermost_frames(ensemble, near_pairs(ensemble.topology), 10**4)
    # At most one each 0.1 ps at each of six ends.
    assert len(found) <= 6 * (200 // every + 1)
    assert len(found) >= 200 // (2 * every)
