import json
import signal
import subprocess
import sys
import time

import mdtraj
import numpy as np
import pytest
import tables
from mdtraj.formats import HDF5TrajectoryFile

from openmm_diffmd.data.readers import read_reference, read_trajectory
from openmm_diffmd.reference.dynamics import ReferenceFrame
from openmm_diffmd.reference.molecules import load_molecule
from openmm_diffmd.reference.storage import ReferenceWriter

TOPOLOGY, _ = load_molecule("water")
MASSES = np.array([15.99943, 1.007947, 1.007947])
WATER = np.array([[0.0, 0.0, 0.0], [0.096, 0.0, 0.0], [-0.024, 0.093, 0.0]])


def frame_at(index):
    generator = np.random.default_rng(index)
    positions, velocities, forces = generator.normal(size=(3, 3, 3))
    return ReferenceFrame(0.01 * (index + 1), positions, velocities, forces, -30000.0)


def write(path, num_frames, capacity=None, flush_interval=2):
    provenance = {"potential": "none", "seed": 1}
    with ReferenceWriter(
        path, TOPOLOGY, MASSES, provenance, capacity or num_frames, flush_interval
    ) as writer:
        for index in range(num_frames):
            writer.write(index // 3, frame_at(index))


def check(trajectory, num_frames):
    expected = [frame_at(index) for index in range(num_frames)]
    for values, name in (
        (trajectory.positions, "positions"),
        (trajectory.velocities, "velocities"),
        (trajectory.forces, "forces"),
    ):
        np.testing.assert_allclose(
            values, [getattr(frame, name) for frame in expected], rtol=1e-6
        )
    np.testing.assert_allclose(trajectory.times, [frame.time for frame in expected])
    np.testing.assert_array_equal(trajectory.segments, np.arange(num_frames) // 3)
    np.testing.assert_array_equal(trajectory.potential_energies, -30000.0)


def test_what_is_written_is_read(tmp_path):
    write(tmp_path / "file.h5", 7)
    trajectory = read_trajectory(tmp_path / "file.h5")
    check(trajectory, 7)
    np.testing.assert_array_equal(trajectory.atomic_numbers, [8, 1, 1])
    np.testing.assert_array_equal(trajectory.bonds, [[0, 1], [0, 2]])
    np.testing.assert_allclose(trajectory.masses, MASSES)
    assert trajectory.provenance == {"potential": "none", "seed": 1}


def test_mdtraj_reads_it(tmp_path):
    write(tmp_path / "file.h5", 7)
    loaded = mdtraj.load(tmp_path / "file.h5")
    np.testing.assert_allclose(
        loaded.xyz, [frame_at(index).positions for index in range(7)], rtol=1e-6
    )
    np.testing.assert_allclose(loaded.time, 0.01 * np.arange(1, 8), rtol=1e-6)
    assert loaded.topology.n_bonds == 2
    with HDF5TrajectoryFile(str(tmp_path / "file.h5")) as file:
        frames = file.read()
    velocities = frame_at(6).velocities
    kinetic = 0.5 * (MASSES[:, None] * velocities**2).sum()
    np.testing.assert_allclose(frames.velocities[6], velocities, rtol=1e-6)
    assert frames.kineticEnergy[6] == pytest.approx(kinetic)
    assert frames.temperature[6] == pytest.approx(2 * kinetic / (9 * 0.0083144626))


def test_frames_not_reached_are_cut_off(tmp_path):
    write(tmp_path / "file.h5", 5, capacity=100)
    check(read_reference(tmp_path / "file.h5"), 5)
    assert mdtraj.load(tmp_path / "file.h5").n_frames == 5
    assert [item.name for item in tmp_path.iterdir()] == ["file.h5"]


def test_file_without_a_frame_is_removed(tmp_path):
    write(tmp_path / "file.h5", 0, capacity=10)
    assert not list(tmp_path.iterdir())


def test_file_is_readable_while_it_is_written(tmp_path):
    path = tmp_path / "file.h5"
    with ReferenceWriter(path, TOPOLOGY, MASSES, {}, 10, flush_interval=3) as writer:
        with pytest.raises(ValueError, match="holds no whole frame yet"):
            read_reference(path)
        for index in range(5):
            writer.write(index // 3, frame_at(index))
        check(read_reference(path), 3)


def test_existing_file_is_refused(tmp_path):
    write(tmp_path / "file.h5", 1)
    with pytest.raises(FileExistsError, match="choose another name or remove it"):
        write(tmp_path / "file.h5", 1)


def test_frame_too_many_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has its 2 frames; expected no more"):
        write(tmp_path / "file.h5", 3, capacity=2)
    check(read_reference(tmp_path / "file.h5"), 2)


WRITER = """
import sys
import numpy as np
from openmm_diffmd.reference.dynamics import ReferenceFrame
from openmm_diffmd.reference.molecules import load_molecule
from openmm_diffmd.reference.storage import ReferenceWriter

topology, _ = load_molecule("water")
values = np.ones((3, 3))
with ReferenceWriter(
    sys.argv[1], topology, np.ones(3), {"seed": 1}, 100_000, flush_interval=5
) as writer:
    for index in range(100_000):
        number = index + 1.0
        writer.write(
            0, ReferenceFrame(number, number * values, values, values, number)
        )
        if index % 5 == 4:
            print(index + 1, flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.13, 0.31])
def test_killed_writer_leaves_every_flushed_frame(tmp_path, delay):
    path = tmp_path / "file.h5"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        first = process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        flushed = int([first, *process.stdout.read().split()][-1])
    assert process.returncode == -signal.SIGKILL
    trajectory = read_reference(path)
    # Where the kill came between a flush and its message, there are 5 more.
    assert trajectory.n_frames in (flushed, flushed + 5)
    numbers = np.arange(1, trajectory.n_frames + 1)
    np.testing.assert_array_equal(trajectory.times, numbers)
    np.testing.assert_array_equal(trajectory.positions[:, 2, 1], numbers)
    np.testing.assert_array_equal(trajectory.potential_energies, numbers)
    assert mdtraj.load(path).time[flushed - 1] == flushed


def test_plain_mdtraj_file_is_read(tmp_path):
    topology = mdtraj.Topology.from_openmm(TOPOLOGY)
    mdtraj.Trajectory(np.ones((4, 3, 3)), topology, time=np.arange(4)).save_hdf5(
        str(tmp_path / "file.h5")
    )
    trajectory = read_reference(tmp_path / "file.h5")
    assert (trajectory.n_frames, trajectory.velocities) == (4, None)
    np.testing.assert_array_equal(trajectory.segments, 0)
    np.testing.assert_allclose(trajectory.masses, MASSES)


def test_frames_without_times_are_numbered(tmp_path):
    path = tmp_path / "file.h5"
    with HDF5TrajectoryFile(str(path), "w") as file:
        file.topology = mdtraj.Topology.from_openmm(TOPOLOGY)
        file.write(coordinates=np.tile(WATER, (4, 1, 1)))
    np.testing.assert_array_equal(read_reference(path).times, np.arange(4))
    trajectory = read_trajectory(path, frame_interval_fs=20.0)
    np.testing.assert_allclose(trajectory.times, 0.02 * np.arange(4))


def test_units_are_those_that_an_array_says(tmp_path):
    path = tmp_path / "file.h5"
    with HDF5TrajectoryFile(str(path), "w") as file:
        file.topology = mdtraj.Topology.from_openmm(TOPOLOGY)
        file.write(coordinates=np.tile(WATER, (4, 1, 1)), time=np.arange(4.0))

    def say(unit):
        with tables.open_file(str(path), "a") as file:
            file.root.coordinates._v_attrs.units = unit
        return read_reference(path).positions[0]

    for unit in ("nanometers", b"nanometers", "nanometer"):
        np.testing.assert_allclose(say(unit), WATER, rtol=1e-6)
    np.testing.assert_allclose(say("angstroms"), 0.1 * WATER, rtol=1e-6)
    for unit in ("kelvin", "parsecs!", "nm"):
        with pytest.raises(ValueError, match=f"coordinates of .* in '{unit}', exp"):
            say(unit)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (10 * WATER, r"in 3 pieces, .* \(HDF5, nanometers\)"),
        (WATER * [[1.0], [20.0], [1.0]], r"in 2 pieces, the smallest of atoms \[1\]"),
        (0.1 * WATER, r"atoms 0 and 1 0\.096 Angstrom apart"),
    ],
)
def test_atoms_that_make_no_molecule_are_refused(tmp_path, positions, message):
    path = tmp_path / "file.h5"
    topology = mdtraj.Topology.from_openmm(TOPOLOGY)
    # With bonds of its own only where these are not what is wrong.
    if "pieces" in message:
        topology = topology.subset([0, 1, 2])
        topology._bonds = []
    with HDF5TrajectoryFile(str(path), "w") as file:
        file.topology = topology
        file.write(coordinates=np.tile(positions, (4, 1, 1)), time=np.arange(4.0))
    with pytest.raises(ValueError, match=message):
        read_trajectory(path)


def test_arrays_of_different_length_are_cut_to_the_shortest(tmp_path):
    topology = mdtraj.Topology.from_openmm(TOPOLOGY)
    path = tmp_path / "file.h5"
    with HDF5TrajectoryFile(str(path), "w") as file:
        file.topology = topology
        file.write(coordinates=np.ones((4, 3, 3)), time=np.arange(4.0))
    with tables.open_file(str(path), "a") as file:
        file.create_array("/", "forces", np.ones((3, 3, 3), dtype=np.float32))
    assert read_reference(path).n_frames == 3


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "file.h5"
    path.write_text(json.dumps({}))
    with pytest.raises(ValueError, match="is not HDF5; expected an MDTraj HDF5 file"):
        read_reference(path)
    with tables.open_file(str(path), "w") as file:
        file.create_array("/", "coordinates", np.ones((1, 3, 3)))
    with pytest.raises(ValueError, match=r"lacks \['topology'\], expected"):
        read_reference(path)
    with pytest.raises(FileNotFoundError):
        read_reference(tmp_path / "absent.h5")


def halve(content):
    return content[: len(content) // 2]


def cut_a_little(content):
    return content[:-100]


def flip_values(content):
    """Values are compressed; they lie behind what says where they are."""
    start = 3 * len(content) // 4
    flipped = bytes(byte ^ 0xFF for byte in content[start : start + 64])
    return content[:start] + flipped + content[start + 64 :]


def alter(old, new):
    def change(content):
        assert old in content
        assert len(old) == len(new)
        return content.replace(old, new, 1)

    return change


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (halve, r"damaged or cut short \(truncated file: .*copy or make it again"),
        (cut_a_little, r"damaged or cut short \(truncated file: .*copy or make it"),
        (flip_values, r"damaged or cut short \(\w+: .*copy or make it again"),
        (alter(b'"index": 0', b'"index": x'), r"damaged or .*\(JSONDecodeError: Expec"),
        (alter(b'"chains"', b'"ch\xffins"'), r"damaged or .*\(UnicodeDecodeError: "),
        (alter(b'"chains"', b'"chbins"'), r"atoms of .* cannot be read \(KeyError: 'c"),
        (alter(b'"O"', b'"Z"'), r"cannot be read \(KeyError: 'Z'\), expected MDTraj's"),
        (
            alter(b"[0, 2]", b"[0, 3]"),
            "cannot be read .*bonds of other atoms than its 3",
        ),
    ],
)
def test_damaged_file_is_refused(tmp_path, spoil, message):
    path = tmp_path / "file.h5"
    topology = mdtraj.Topology.from_openmm(TOPOLOGY)
    values = np.random.default_rng(0).normal(size=(400, 3, 3))
    with HDF5TrajectoryFile(str(path), "w") as file:
        file.topology = topology
        file.write(values, time=np.arange(400.0), velocities=values)
    assert read_reference(path).n_frames == 400
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as refused:
        read_reference(path)
    assert str(path) in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_damaged_file_of_ours_is_refused(tmp_path):
    path = tmp_path / "file.h5"
    write(path, 7)
    whole = path.read_bytes()
    for spoil in (halve, cut_a_little, alter(b'"seed": 1', b'"seed" 1:')):
        path.write_bytes(spoil(whole))
        with pytest.raises(ValueError, match=r"file.h5 damaged or cut short \("):
            read_reference(path)
    path.write_bytes(whole)
    check(read_reference(path), 7)


def test_frame_that_is_not_finite_names_the_file(tmp_path):
    path = tmp_path / "file.h5"
    write(path, 7)
    with tables.open_file(str(path), "a") as file:
        file.root.forces[3] = np.nan
    with pytest.raises(ValueError, match=r"file.h5: found a value .* in forces\[3\]"):
        read_reference(path)
