import numpy as np
import pytest

from openmm_diffmd.data.readers import read_md17, read_rmd17, read_trajectory

MASSES = np.array([15.99943, 1.007947, 1.007947])
# 1 Da A/fs^2 in kcal/mol/A.
DALTON_ANGSTROM_PER_FS2 = 2390.0574
ACCELERATIONS = 0.004 * np.array([[0.1, 0, 0], [-1, 0.5, 0], [0.3, 0, -1]])  # A/fs^2
WATER = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])


def frames(n_frames):
    steps = 0.01 * np.arange(n_frames)[:, None, None]
    return WATER + steps * np.array([1.0, 2.0, 3.0])


@pytest.fixture
def md17():
    """
    Arrays of an MD17 file: water under constant forces, frames 0.5 fs apart.

    It drifts by (1, 2, 3) / 100 A a frame besides.
    """
    time = 0.5 * np.arange(5)[:, None, None]
    forces = DALTON_ANGSTROM_PER_FS2 * MASSES[:, None] * ACCELERATIONS
    return {
        "R": frames(5) + 0.5 * ACCELERATIONS * time**2,
        "E": -np.arange(5.0)[:, None],
        "F": np.tile(forces, (5, 1, 1)),
        "z": np.array([8, 1, 1], dtype=np.uint8),
    }


@pytest.fixture
def rmd17():
    return {
        "coords": frames(5)[[4, 0, 2]].astype(np.float32),
        "energies": np.array([-4.0, 0.0, -2.0]),
        "forces": np.arange(27.0).reshape(3, 3, 3),
        "nuclear_charges": np.array([8, 1, 1], dtype=np.uint8),
        "old_indices": np.array([40, 0, 20]),
    }


def save(folder, arrays):
    np.savez(folder / "file.npz", **arrays)
    return folder / "file.npz"


def test_md17_is_read_in_package_units(tmp_path, md17):
    trajectory = read_md17(save(tmp_path, md17), frame_interval_fs=0.5)
    np.testing.assert_allclose(trajectory.positions, 0.1 * md17["R"][1:])
    # 0.001 nm in 0.0005 ps, and 100 nm/ps in 1 A/fs.
    time = 0.5 * np.arange(1, 5)[:, None, None]
    velocities = np.array([2.0, 4.0, 6.0]) + 100 * ACCELERATIONS * time
    np.testing.assert_allclose(trajectory.velocities, velocities, rtol=1e-4)
    np.testing.assert_allclose(trajectory.times, [0.0005, 0.001, 0.0015, 0.002])
    np.testing.assert_allclose(
        trajectory.potential_energies, 4.184 * np.array([-1.0, -2.0, -3.0, -4.0])
    )
    np.testing.assert_allclose(trajectory.forces, 41.84 * md17["F"][1:])
    np.testing.assert_array_equal(trajectory.bonds, [[0, 1], [0, 2]])
    np.testing.assert_allclose(trajectory.masses, [15.999, 1.008, 1.008], rtol=1e-4)


def test_md17_velocity_knows_nothing_of_the_future(tmp_path, md17):
    before = read_md17(save(tmp_path, md17)).velocities
    md17["R"][3:] += 1e-5
    after = read_md17(save(tmp_path, md17)).velocities
    np.testing.assert_array_equal(before[:2], after[:2])
    assert not np.allclose(before[2], after[2])


def test_md17_frames_that_are_not_so_far_apart_have_no_velocities(tmp_path, md17):
    path = save(tmp_path, md17)
    slow = read_md17(path, frame_interval_fs=0.2)
    assert slow.velocities is None
    assert "are 0.5 fs apart, not 0.2: give" in slow.provenance["velocities"]
    assert read_md17(path, frame_interval_fs=0.55).velocities is not None
    md17["R"] = md17["R"][[3, 0, 4, 1, 2]]
    assert read_md17(save(tmp_path, md17)).velocities is None
    md17["F"] = np.zeros_like(md17["F"])
    said = read_md17(save(tmp_path, md17)).provenance["velocities"]
    assert said == "none: too few frames, or no forces"


def test_md17_out_of_order_or_far_apart_has_no_velocities(shared_data, tmp_path):
    with np.load(shared_data / "md17" / "md17_ethanol_first2000.npz") as file:
        whole = {name: file[name] for name in "zREF"}
    shuffled = np.random.default_rng(1).permutation(2000)

    def said(interval, frames=slice(None), **changes):
        part = {n: x if n == "z" else x[frames] for n, x in (whole | changes).items()}
        found = read_md17(save(tmp_path, part), interval)
        assert found.velocities is None
        return found.provenance["velocities"]

    # At the interval that a mere fit would tell, too.
    for interval in (0.5, 5.3):
        told = said(interval, shuffled)
        assert "correlation 0.2" in told
        assert "not in order" in told
    assert "correlation 0.6" in said(10.0, slice(None, None, 20))
    for stride in (4, 10):
        interval = 0.5 * stride
        assert f"{interval:g} fs apart are too far" in said(
            interval, slice(None, None, stride)
        )
    assert "are these gradients?" in said(0.5, F=-whole["F"])
    assert "0.24 fs apart, not 0.5: give frame_interval_fs, or forces in kcal" in said(
        0.5, F=4.184 * whole["F"]
    )


def test_rmd17_has_the_true_times_in_order(tmp_path, rmd17):
    trajectory = read_rmd17(save(tmp_path, rmd17))
    np.testing.assert_allclose(trajectory.times, [0.0, 0.01, 0.02])
    np.testing.assert_allclose(trajectory.positions, 0.1 * frames(5)[::2], rtol=1e-6)
    np.testing.assert_allclose(
        trajectory.potential_energies, 4.184 * np.array([0.0, -2.0, -4.0])
    )
    np.testing.assert_allclose(trajectory.forces, 41.84 * rmd17["forces"][[1, 2, 0]])
    assert trajectory.velocities is None


def test_rmd17_keeps_the_forces_that_moved_its_frames(tmp_path, rmd17):
    old = {"old_energies": 2 * rmd17["energies"], "old_forces": 3 * rmd17["forces"]}
    path = save(tmp_path, rmd17 | old)
    of_rmd17, of_md17 = (read_rmd17(path, old_forces=old) for old in (False, True))
    np.testing.assert_allclose(
        of_md17.potential_energies, 2 * of_rmd17.potential_energies
    )
    np.testing.assert_allclose(of_md17.forces, 3 * of_rmd17.forces)
    np.testing.assert_array_equal(of_md17.positions, of_rmd17.positions)
    with pytest.raises(ValueError, match=r"lacks \['old_energies', 'old_forces'\]"):
        read_rmd17(save(tmp_path, rmd17), old_forces=True)


@pytest.mark.parametrize(
    ("energy", "length"),
    [
        (b"kcal/mol", "Angstrom"),
        ("kcal mol^-1", "Å".encode()),
        (["kcal/mol"], "A"),
        # A text that needs pickle, which is not read.
        (np.array("kcal/mol", dtype=object), "Ang"),
    ],
)
def test_units_that_a_file_tells_may_be_the_right_ones(tmp_path, md17, energy, length):
    told = md17 | {"e_unit": np.array(energy), "r_unit": np.array(length)}
    found = read_md17(save(tmp_path, told))
    np.testing.assert_array_equal(found.forces, read_md17(save(tmp_path, md17)).forces)


def test_rmd17_is_told_from_original_md17(tmp_path, rmd17):
    with pytest.raises(ValueError, match="rMD17 file, whose frames are a sample"):
        read_md17(save(tmp_path, rmd17))


def test_npz_reader_is_chosen_by_keys(tmp_path, md17, rmd17):
    assert read_trajectory(save(tmp_path, rmd17 | md17)).provenance["data"] == "MD17"
    assert read_trajectory(save(tmp_path, md17)).provenance["data"] == "MD17"
    assert read_trajectory(save(tmp_path, rmd17)).provenance["data"] == "rMD17"


def change(key, value):
    def apply(arrays):
        arrays[key] = value(arrays[key]) if callable(value) else value
        return arrays

    return apply


def set_nan(values):
    values[2, 1, 0] = np.nan
    return values


def pull_apart(values):
    values[3, 2] += 5.0
    return values


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: {k: v for k, v in a.items() if k != "F"}, r"lacks \['F'\], exp.*z"),
        (change("z", np.array([8, 1])), r"coordinates \(5, 3, 3\), expected .*, 2, 3"),
        (change("z", np.ones((5, 3))), r"atomic numbers of shape \(5, 3\).*one mol"),
        (change("z", np.array([8, 1, 0])), "atomic number 0, expected an element"),
        (change("E", np.zeros(4)), r"E of shape \(4,\), expected 5 frames as R"),
        (change("e_unit", np.array("eV")), "says e_unit='eV', expected 'kcal/mol'"),
        (change("r_unit", np.array(b"Bohr")), "says r_unit='Bohr', expected 'Angst"),
        (change("e_unit", np.array("kcal/mol/atom")), "says e_unit='kcal/mol/atom'"),
        (change("E", np.array(1.0)), r"E of shape \(\), expected 5 frames as R"),
        (change("z", np.array([8, 1, 1], dtype=object)), "array of pickled objects"),
        (change("z", np.array(["O", "H", "H"])), "texts as z, expected atomic numbers"),
        (change("E", np.zeros((5, 2))), r"E \(5, 2\), expected \(n_frames,\)"),
        (change("F", np.zeros((5, 2, 3))), r"forces \(4, 2, 3\), expected \(4, 3, 3\)"),
        (change("R", set_nan), r"not finite in R\[2\], expected .*; remove or repair"),
        (change("F", set_nan), r"not finite in F\[2\], expected"),
        (
            lambda a: {k: v if k == "z" else v[:1] for k, v in a.items()},
            "one frame, expected two or more",
        ),
    ],
)
def test_md17_that_is_wrong_is_refused(tmp_path, md17, spoil, message):
    path = save(tmp_path, spoil(md17))
    with pytest.raises(ValueError, match=message):
        read_md17(path)


def test_md17_of_a_molecule_in_pieces_is_refused(tmp_path, md17):
    path = save(tmp_path, change("R", pull_apart)(md17))
    with pytest.raises(ValueError, match=r"atoms 0 and 2 .* frame 2; expected frames"):
        read_trajectory(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change("old_indices", np.array([1, 1, 2])), "an old index twice"),
        (change("old_indices", np.array([1, 2])), "2 old_indices, expected 3"),
        (change("coords", set_nan), r"not finite in coords\[2\]"),
        (
            change("forces", np.ones((2, 2, 3))),
            r"forces of shape \(2, 2, 3\), expected 3 frames",
        ),
        (
            lambda arrays: {
                key: value if key == "nuclear_charges" else value[:0]
                for key, value in arrays.items()
            },
            "no frames, expected at least one",
        ),
    ],
)
def test_rmd17_that_is_wrong_is_refused(tmp_path, rmd17, spoil, message):
    path = save(tmp_path, spoil(rmd17))
    with pytest.raises(ValueError, match=message):
        read_rmd17(path)


def test_npz_of_other_things_is_refused(tmp_path):
    path = save(tmp_path, {"x": np.zeros(3)})
    with pytest.raises(ValueError, match=r"keys \['x'\], expected MD17's .* or rMD17"):
        read_trajectory(path)
    path.write_bytes(b"not a zip")
    with pytest.raises(ValueError, match="is not an npz file"):
        read_trajectory(path)
    with pytest.raises(FileNotFoundError):
        read_trajectory(tmp_path / "absent.npz")


@pytest.mark.parametrize("save_arrays", [np.savez, np.savez_compressed])
def test_damaged_npz_is_refused(tmp_path, md17, save_arrays):
    path = tmp_path / "file.npz"
    save_arrays(path, **md17)
    whole = path.read_bytes()
    generator = np.random.default_rng(1)
    for position in generator.integers(len(whole), size=200):
        spoilt = bytearray(whole)
        spoilt[position] ^= 0xFF
        path.write_bytes(spoilt)
        try:
            read_trajectory(path)
        except ValueError as error:
            assert "file.npz" in str(error)  # noqa: PT017
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"is not an npz file, or cut short; .*again"):
        read_trajectory(path)
    # Values of F, inside the file.
    middle = whole.index(b"F.npy") + 200
    path.write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    with pytest.raises(ValueError, match=r"file.npz damaged .*copy or download it aga"):
        read_trajectory(path)


def test_npz_of_texts_is_refused(tmp_path, md17):
    path = save(tmp_path, md17 | {"E": np.array(list("abcde"))})
    with pytest.raises(ValueError, match=r"damaged \(E is no array of numbers\)"):
        read_md17(path)


@pytest.mark.parametrize("interval", [0.0, -1.0, np.nan, np.inf])
def test_interval_that_is_none_is_refused(tmp_path, md17, rmd17, interval):
    for arrays in (md17, rmd17):
        path = save(tmp_path, arrays)
        with pytest.raises(
            ValueError, match=rf"frame_interval_fs {interval:g}, expected above 0: give"
        ):
            read_trajectory(path, interval)


def test_real_rmd17_frames_are_those_of_real_md17(shared_data):
    md17 = read_md17(shared_data / "md17" / "md17_ethanol_first2000.npz")
    rmd17 = read_rmd17(shared_data / "rmd17" / "rmd17_ethanol.npz")
    times = np.round(1e4 * md17.times).astype(int)
    old_times = np.round(1e4 * rmd17.times).astype(int)
    _, in_md17, in_rmd17 = np.intersect1d(times, old_times, return_indices=True)
    assert len(in_md17) > 20
    np.testing.assert_allclose(
        md17.positions[in_md17], rmd17.positions[in_rmd17], atol=1e-6
    )
    assert sorted(map(tuple, md17.bonds)) == sorted(map(tuple, rmd17.bonds))
    # 500 K over 3N degrees of freedom, of which MD17 froze the rotation.
    kinetic = 0.5 * np.einsum("i,fia->f", md17.masses, md17.velocities**2).mean()
    temperature = 2 * kinetic / (3 * 9 * 0.00831446)
    assert 400 < temperature < 600


def test_bonds_are_found_by_mean_distances(tmp_path):
    # Water whose hydrogens meet in one frame of two.
    apart = [[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]]
    close = [[0.0, 0.0, 0.0], [0.9, 0.0, 0.0], [0.9, 0.5, 0.0]]
    arrays = {
        "nuclear_charges": np.array([8, 1, 1]),
        "coords": np.array([close, apart]),
        "energies": np.zeros(2),
        "forces": np.zeros((2, 3, 3)),
        "old_indices": np.array([20, 10]),
    }
    assert read_rmd17(save(tmp_path, arrays)).bonds.tolist() == [[0, 1], [0, 2]]


@pytest.mark.parametrize(
    ("molecule", "n_bonds"),
    [("aspirin", 21), ("benzene", 12), ("naphthalene", 19), ("uracil", 12)],
)
def test_real_rmd17_has_the_bonds_of_its_molecule(shared_data, molecule, n_bonds):
    trajectory = read_rmd17(shared_data / "rmd17" / f"rmd17_{molecule}.npz")
    assert len(trajectory.bonds) == n_bonds
