import ase.io
import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

from openmm_diffmd.bundled import PRETRAINED
from openmm_diffmd.data.readers import frame_intervals, read_extxyz, read_trajectory


def frame(shift=0.0, velocity=None):
    atoms = molecule("H2O")
    atoms.positions += shift
    if velocity is not None:
        atoms.set_velocities(np.full((3, 3), velocity * 1e-2 / ase.units.fs))
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.ones((3, 3)))
    return atoms


def write(folder, frames):
    ase.io.write(folder / "file.xyz", frames, format="extxyz")
    return folder / "file.xyz"


def test_extxyz_is_read_in_package_units(tmp_path):
    frames = [frame(0.01 * i, velocity=1.0) for i in range(3)]
    trajectory = read_trajectory(write(tmp_path, frames), frame_interval_fs=2.0)
    np.testing.assert_allclose(
        trajectory.positions, [0.1 * atoms.positions for atoms in frames], atol=1e-8
    )
    # 0.01 A/fs is 1 nm/ps.
    np.testing.assert_allclose(trajectory.velocities, 1.0, rtol=1e-6)
    np.testing.assert_allclose(trajectory.times, [0.0, 0.002, 0.004])
    np.testing.assert_allclose(trajectory.potential_energies, -96.4853, rtol=1e-6)
    np.testing.assert_allclose(trajectory.forces, 964.853, rtol=1e-6)
    np.testing.assert_array_equal(trajectory.bonds, [[0, 1], [0, 2]])


def test_extxyz_of_isotopes_is_refused(tmp_path):
    heavy = frame(velocity=1.0)
    heavy.set_masses([15.999, 2.014, 2.014])
    with pytest.raises(ValueError, match=r"found mass 2.014 Da of atom 1 in "):
        read_extxyz(write(tmp_path, [heavy, heavy]), 1.0)


def test_extxyz_without_momenta_has_no_velocities(tmp_path):
    assert read_extxyz(write(tmp_path, [frame(), frame()]), 1.0).velocities is None


def test_extxyz_needs_an_interval(tmp_path):
    with pytest.raises(ValueError, match="has no times, expected frame_interval_fs"):
        read_trajectory(write(tmp_path, [frame()]))


def test_an_interval_is_for_files_without_times(tmp_path):
    bare = write(tmp_path, [frame(), frame()])
    timed = PRETRAINED / "ethanol_reference.h5"
    assert frame_intervals([timed, bare], None) == [None, None]
    assert frame_intervals([timed, bare], 2.0) == [None, 2.0]
    # Refused when it is read.
    assert frame_intervals([timed], 2.0) == [2.0]


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        (10.0, r"atoms 0 and \d .* apart, expected at least 0.5: are the pos"),
        (0.5291772, r"in 3 pieces, the smallest of atoms \[0\], .* not in Angstrom"),
    ],
    ids=["nm", "Bohr"],
)
def test_positions_in_other_units_are_refused(tmp_path, unit, message):
    one = frame()
    one.positions /= unit
    with pytest.raises(ValueError, match=message):
        read_extxyz(write(tmp_path, [one, one]), 1.0)


@pytest.mark.parametrize("interval", [0.0, -1.0])
def test_interval_that_is_none_is_refused(tmp_path, interval):
    with pytest.raises(ValueError, match=r"frame_interval_fs .*, expected above 0"):
        read_extxyz(write(tmp_path, [frame()]), interval)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no frame, expected frames of one molecule .*make it again"),
        ("0\n\n", "holds no atom, expected frames of one molecule"),
        (
            "3",
            r"is no xyz file .*StopIteration\); expected .*: repair or copy it again",
        ),
        ("garbage\n", r"is no xyz file that can be read \(XYZError: .*; expected a nu"),
        ("1\n\n1 0 0 0\n", r"is no xyz file that can be read \(KeyError: '1'\)"),
        ("1\n\nO 0 x 0\n", "is no xyz file that can be read .*'x'"),
        ("1\nenergy=x\nO 0 0 0\n", "found energy of .* cannot be read .*: repair or"),
    ],
)
def test_damaged_xyz_is_refused(tmp_path, text, message):
    path = tmp_path / "bad.xyz"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as refused:
        read_extxyz(path, 1.0)
    assert str(path) in str(refused.value)


def test_absent_xyz_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_extxyz(tmp_path / "absent.xyz", 1.0)


def test_mixed_molecules_are_refused(tmp_path):
    path = write(tmp_path, [frame(), Atoms("CO2", np.eye(3))])
    with pytest.raises(ValueError, match="frame 1 is CO2, expected OH2 as in frame 0"):
        read_extxyz(path, 1.0)


def test_periodic_cell_is_refused(tmp_path):
    atoms = frame()
    atoms.set_cell([10.0, 10.0, 10.0])
    atoms.pbc = True
    with pytest.raises(ValueError, match="frame 0 has a periodic cell, expected an"):
        read_extxyz(write(tmp_path, [atoms]), 1.0)


def test_isomers_are_refused(shared_data):
    path = shared_data / "iso17" / "c7o2h10_equilibrium_40.xyz"
    with pytest.raises(ValueError, match="split the file"):
        read_extxyz(path, 1.0)


def test_unknown_suffix_is_refused(tmp_path):
    (tmp_path / "file.gro").touch()
    with pytest.raises(ValueError, match=r"expected one of .h5, .hdf5, .npz"):
        read_trajectory(tmp_path / "file.gro")
