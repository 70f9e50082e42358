"""Frames of one molecule, told by distances."""

from pathlib import Path

import numpy as np
import pytest

from openmm_diffmd.data.single_molecule import check_whole, single_molecule

# Two oxygens at the ends of three carbons; a hydrogen between them may go over.
CARBONS = 0.1 * np.array([[0.0, -1.4, 0.0], [1.4, -1.9, 0.0], [2.8, -1.4, 0.0]])
HERE = 0.1 * np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [2.8, 0.0, 0.0]])
THERE = HERE.copy()
THERE[1] += [0.085, 0.0, 0.0]
NUMBERS = np.array([8, 1, 8, 6, 6, 6])


def molecule_of(frames: list[np.ndarray]):
    n_frames = len(frames)
    return single_molecule(
        Path("run.xyz"),
        positions=np.stack([np.concatenate([x, CARBONS]) for x in frames]),
        velocities=None,
        times=np.arange(float(n_frames)),
        segments=np.zeros(n_frames, np.int32),
        atomic_numbers=NUMBERS,
        provenance={},
    )


def test_a_proton_that_goes_over_is_no_other_molecule():
    run = molecule_of([HERE] * 30 + [THERE] * 10)
    assert [0, 1] in run.bonds.tolist()
    check_whole("run.xyz", run)
    gone = HERE.copy()
    gone[1] += [0.0, 0.6, 0.0]
    apart = molecule_of([HERE] * 30 + [THERE] * 10 + [gone])
    with pytest.raises(ValueError, match=r"atoms 0 and 1 .* apart in frame 40; expec"):
        check_whole("run.xyz", apart)
    check_whole("run.xyz", apart, 40)


def test_bonds_are_those_of_the_start_where_most_frames_have_others():
    run = molecule_of([HERE] * 30 + [THERE] * 100)
    assert [0, 1] in run.bonds.tolist()
    assert [1, 2] not in run.bonds.tolist()
