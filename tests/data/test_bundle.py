"""A bundle holds the frames of its sources, rounded, and says where they are from."""

import copy

import mdtraj
import numpy as np
import pytest
from openmm import app

from openmm_diffmd.data import bundle
from openmm_diffmd.data.bundle import POSITION_STEP, VELOCITY_STEP, bundle_reference
from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.reference.dynamics import ReferenceFrame
from openmm_diffmd.reference.storage import ReferenceWriter


@pytest.fixture
def write_source(tmp_path):
    topology = app.Topology()
    residue = topology.addResidue("OH", topology.addChain())
    atoms = [
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
        for symbol in ("O", "H")
    ]
    loose = copy.deepcopy(topology)
    topology.addBond(*atoms)

    def write(
        name,
        seed,
        num_frames=7,
        temperature=500.0,
        interval=0.01,
        bonded=True,
        **made,
    ):
        generator = np.random.default_rng(seed)
        provenance = {"temperature_K": temperature, "seed": seed, **made}
        path = tmp_path / f"{name}.h5"
        masses = np.array([15.999, 1.008])
        drawn = topology if bonded else loose
        with ReferenceWriter(path, drawn, masses, provenance, num_frames) as file:
            for index in range(num_frames):
                file.write(
                    0,
                    ReferenceFrame(
                        time=interval * (index + 1),
                        positions=0.1 * generator.standard_normal((2, 3)),
                        velocities=generator.standard_normal((2, 3)),
                        forces=np.zeros((2, 3)),
                        potential_energy=0.0,
                    ),
                )
        return path

    return write


def test_bundle_holds_the_frames_of_its_sources(write_source, tmp_path):
    sources = [write_source("a", 1), write_source("b", 2, num_frames=5)]
    path = bundle_reference(sources, tmp_path / "bundle.h5")
    found = read_reference(path)
    expected = [read_reference(source) for source in sources]
    positions = np.concatenate([t.positions for t in expected])
    velocities = np.concatenate([t.velocities for t in expected])
    assert np.abs(found.positions - positions).max() <= 0.51 * POSITION_STEP
    assert np.abs(found.velocities - velocities).max() <= 0.51 * VELOCITY_STEP
    np.testing.assert_array_equal(found.segments, [0] * 7 + [1] * 5)
    np.testing.assert_allclose(found.times[7:], 0.01 * np.arange(1, 6), rtol=1e-6)
    assert [s["seed"] for s in found.provenance["sources"]] == [1, 2]
    assert mdtraj.load(str(path)).n_frames == 12


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"temperature": 300.0}, r"temperature_K 300\.0 in .*b\.h5, expected 500\.0"),
        ({"interval": 0.02}, r"frame interval, ps 0\.02 in .*b\.h5, expected 0\.01"),
        ({"friction_per_ps": 5.0}, r"friction_per_ps 5\.0 in"),
        ({"potential": "GFN1-xTB"}, r"potential GFN1-xTB in"),
        (
            {"bonded": False},
            r"bonds \[\] in .*b\.h5, expected \[\[0, 1\]\] as",
        ),
        ({"kind": "bursts"}, r"frictionless bursts in .*b\.h5"),
    ],
)
def test_runs_that_differ_are_refused(write_source, tmp_path, other, message):
    sources = [write_source("a", 1), write_source("b", 2, **other)]
    with pytest.raises(ValueError, match=f"found {message}"):
        bundle_reference(sources, tmp_path / "bundle.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "b.h5"]


def test_forces_of_one_name_are_told_apart(write_source, tmp_path):
    made = {"potential": "force.pt", "potential_options": {}}
    a, b, c = (
        write_source(name, seed, **made, sha256={"force.pt": 64 * file})
        for seed, (name, file) in enumerate(("ax", "bx", "cy"), 1)
    )
    bundle_reference([a, b], tmp_path / "bundle.h5")
    with pytest.raises(ValueError, match=r"found SHA-256 of the force yyy.*c\.h5, exp"):
        bundle_reference([a, c], tmp_path / "other.h5")


def test_no_source_is_refused(tmp_path):
    with pytest.raises(ValueError, match="found no source"):
        bundle_reference([], tmp_path / "bundle.h5")


def test_half_a_file_is_not_left_under_its_name(write_source, tmp_path, monkeypatch):
    source = write_source("a", 1)

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(bundle, "_rounded", full)
    with pytest.raises(OSError, match="no space left"):
        bundle_reference([source], tmp_path / "bundle.h5")
    monkeypatch.undo()
    # What is left of it is written anew.
    assert not (tmp_path / "bundle.h5").exists()
    bundle_reference([source], tmp_path / "bundle.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "bundle.h5"]


def test_an_existing_file_is_kept(write_source, tmp_path):
    kept = tmp_path / "bundle.h5"
    kept.write_text("mine")
    with pytest.raises(FileExistsError, match="exists"):
        bundle_reference([write_source("a", 1)], kept)
    assert kept.read_text() == "mine"


def test_a_bundle_of_bundles_names_each_run(write_source, tmp_path):
    a, b, c = (write_source(name, seed) for seed, name in enumerate("abc", 1))
    inner = bundle_reference([a, b], tmp_path / "inner.h5")
    path = bundle_reference([inner, c], tmp_path / "outer.h5")
    found = read_reference(path).provenance
    assert [source["seed"] for source in found["sources"]] == [1, 2, 3]
    np.testing.assert_allclose(found["lengths_ps"], [0.07] * 3, rtol=1e-5)


def test_one_run_twice_is_refused(write_source, tmp_path):
    a, b = write_source("a", 1), write_source("b", 1, num_frames=5)
    with pytest.raises(ValueError, match=r"run of seed 1 in .*a\.h5 and in .*b\.h5"):
        bundle_reference([a, b], tmp_path / "bundle.h5")
    inner = bundle_reference([a, write_source("c", 2)], tmp_path / "inner.h5")
    with pytest.raises(ValueError, match="expected each once"):
        bundle_reference([inner, b], tmp_path / "bundle.h5")
