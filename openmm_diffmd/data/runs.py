"""Whether two files are of one run, made twice or not."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.outputs import file_sha256

IDENTITY = ("temperature_K", "seed", "file")
"""
Provenance of one run of the reference driver, or of a file of others; when is left out,
since a seed makes the same run again. What moved, and by which force, is told by the
hashes of files that were read, where both have any, else by name.
"""


def same_run(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """
    Tell whether two provenances are of one run, made twice or not.

    Parameters
    ----------
    one, other : mapping
        Provenances.

    Returns
    -------
    bool
        Whether all that they say of `IDENTITY`, molecule and force is equal. A file
        that was renamed is the same, one that was edited is not.
    """
    # Early files have no hashes, later ones an empty mapping where no file was read.
    hashes = [sorted((run.get("sha256") or {}).values()) for run in (one, other)]
    if all(hashes) and hashes[0] != hashes[1]:
        return False
    options = [run.get("potential_options") or {} for run in (one, other)]
    if options[0] != options[1]:
        return False
    return all(one.get(name) == other.get(name) for name in IDENTITY) and all(
        _same_name(one, other, name) for name in ("molecule", "potential")
    )


def check_overlap(files: Sequence[Path], trajectories: Sequence[Trajectory]) -> None:
    """
    Refuse one run in two files: what one leaves out the other would train on.

    Parameters
    ----------
    files : sequence of path-like
        Files to train on; one that is named twice counts twice, which is meant.
    trajectories : sequence of Trajectory
        What is in them, with velocities.

    Raises
    ------
    ValueError
        If two files are of one run of the reference driver, of two lengths say.
    """
    both = zip(files, trajectories, strict=True)
    for (file, one), (again, other) in itertools.combinations(both, 2):
        # Hot bonds of the same seed begin at the same frames and go elsewhere.
        kinds = [
            [t.provenance.get(key) for key in ("kind", "bond_energy_kT")]
            for t in (one, other)
        ]
        seed = one.provenance.get("seed")
        if seed is None or kinds[0] != kinds[1]:
            continue
        starts = [
            np.concatenate([t.positions[0], np.asarray(t.velocities)[0]])
            for t in (one, other)
        ]
        if (
            same_run(one.provenance, other.provenance)
            and np.array_equal(starts[0], starts[1])
            and file_sha256(file) != file_sha256(again)
        ):
            raise ValueError(
                f"found the frames of {file} in {again} again, a run of the same seed "
                f"({seed}), expected another: what is left out of one would be trained "
                "on in the other; make it with another --seed, or give the longer one "
                "alone"
            )


def _same_name(one: Mapping[str, Any], other: Mapping[str, Any], key: str) -> bool:
    names = [run.get(key) for run in (one, other)]
    hashes = [
        (run.get("sha256") or {}).get(name)
        for run, name in zip((one, other), names, strict=True)
    ]
    if all(hashes):
        return bool(hashes[0] == hashes[1])
    # Bundled molecules are known by their names in any case.
    first, second = (str(name).casefold() for name in names)
    return first == second
