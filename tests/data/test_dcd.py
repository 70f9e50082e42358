"""DCD files, with the PDB file that names their atoms."""

from pathlib import Path

import mdtraj
import numpy as np
import pytest

from openmm_diffmd.data.dcd import read_dcd
from openmm_diffmd.data.readers import read_trajectory
from openmm_diffmd.topologies import make_topology

WATER = np.array([[0.0, 0.0, 0.0], [0.096, 0.0, 0.0], [-0.024, 0.093, 0.0]])


def write(folder: Path, positions: np.ndarray, symbols: str = "OHH") -> Path:
    """Write frames as OpenMM's reporters do, a PDB file of the first beside them."""
    topology = make_topology(symbols, [[0, 1], [0, 2]])
    frames = mdtraj.Trajectory(positions, topology)
    frames.save_dcd(str(folder / "md.dcd"))
    frames[0].save_pdb(str(folder / "md.pdb"))
    return folder / "md.dcd"


def test_a_dcd_is_read_in_package_units(tmp_path: Path):
    x = np.stack([WATER, 1.01 * WATER, 1.02 * WATER])
    found = read_trajectory(write(tmp_path, x), frame_interval_fs=20.0)
    np.testing.assert_allclose(found.positions, x, atol=1e-7)
    np.testing.assert_allclose(found.times, [0.0, 0.02, 0.04])
    assert found.atomic_numbers.tolist() == [8, 1, 1]
    assert found.bonds.tolist() == [[0, 1], [0, 2]]
    assert found.velocities is None
    assert found.is_foreign


def test_a_name_may_have_any_letters(tmp_path: Path):
    path = write(tmp_path, np.stack([WATER, WATER]))
    named = path.rename(tmp_path / "Äthanol.dcd")
    path.with_suffix(".pdb").rename(named.with_suffix(".pdb"))
    assert read_dcd(named, 1.0).n_frames == 2


def test_what_is_missing_is_told(tmp_path: Path):
    path = write(tmp_path, np.stack([WATER, WATER]))
    with pytest.raises(ValueError, match="has no times, expected frame_interval_fs"):
        read_trajectory(path)
    with pytest.raises(ValueError, match="interval"):
        read_dcd(path, 0.0)
    path.with_suffix(".pdb").unlink()
    with pytest.raises(FileNotFoundError, match=r"found no .*md\.pdb, expected a DCD"):
        read_dcd(path, 1.0)


def test_damage_is_told(tmp_path: Path):
    path = write(tmp_path, np.stack([WATER, WATER]))
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(ValueError, match=r"md\.dcd damaged or of other atoms"):
        read_dcd(path, 1.0)
    path.write_bytes(whole)
    pdb = path.with_suffix(".pdb")
    pdb.write_text("".join(pdb.read_text().splitlines(keepends=True)[:2]) + "END\n")
    with pytest.raises(ValueError, match=r"md\.dcd damaged or of other atoms"):
        read_dcd(path, 1.0)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("content", ["", "REMARK x\nEND\n"])
def test_a_pdb_without_atoms_is_refused(tmp_path: Path, content: str):
    path = write(tmp_path, np.stack([WATER, WATER]))
    path.with_suffix(".pdb").write_text(content)
    with pytest.raises(ValueError, match=r"md\.pdb is no PDB file that can be read"):
        read_dcd(path, 1.0)


def test_wrapped_positions_are_refused(tmp_path: Path):
    wrapped = WATER.copy()
    wrapped[1] += [2.0, 0.0, 0.0]
    path = write(tmp_path, np.stack([WATER, WATER, wrapped]))
    with pytest.raises(ValueError, match=r"atoms 0 and 1 have a bond .* in frame 2"):
        read_trajectory(path, 1.0)


def test_atoms_without_an_element_are_refused(tmp_path: Path):
    path = write(tmp_path, np.stack([WATER, WATER]))
    pdb = path.with_suffix(".pdb")
    site = pdb.read_text().replace(" O1 ", " Q1 ").replace(" O  \n", "    \n")
    pdb.write_text(site)
    with pytest.raises(ValueError, match=r"found an atom of no element in .*md\.pdb"):
        read_dcd(path, 1.0)


def test_of_a_run_that_is_judged_only_the_first_frame_has_to_be_whole(tmp_path: Path):
    # Most frames are of a molecule that broke.
    broken = WATER + np.array([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0]])
    path = write(tmp_path, np.stack([WATER] * 20 + [broken] * 80))
    found = read_trajectory(path, 1.0, whole=False)
    assert found.bonds.tolist() == [[0, 1], [0, 2]]
    assert found.n_frames == 100
    with pytest.raises(ValueError, match=r"atoms 0 and 1 .* apart in frame 20"):
        read_trajectory(path, 1.0)
