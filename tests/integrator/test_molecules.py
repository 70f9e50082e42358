import numpy as np
import pytest
from openmm import unit
from scipy import stats

from openmm_diffmd.export.metadata import ModelMetadata
from openmm_diffmd.export.torchscript import DiffusionModel
from openmm_diffmd.integrator.molecules import describe_molecules
from openmm_diffmd.integrator.systems import create_system, replicate


@pytest.fixture
def metadata():
    return ModelMetadata(
        name="test",
        dynamics="flow",
        lag_time_fs=10.0,
        temperature_K=300.0,
        friction_per_ps=1.0,
        elements=["O", "H", "C"],
        guards={
            "bond_ranges_nm": {"C-O": [0.12, 0.16], "H-O": [0.08, 0.12]},
            "max_resamples": 10,
        },
        example={
            "elements": ["C", "O", "H"],
            "bonds": [[0, 1], [1, 2]],
            "positions_nm": [[0, 0, 0], [0.14, 0, 0], [0.14, 0.1, 0]],
        },
    )


@pytest.fixture
def example(metadata, tmp_path):
    return DiffusionModel(tmp_path, "", metadata, None).example()


def test_description_follows_the_model(metadata, example):
    found = describe_molecules(example[0], metadata)
    assert found.species.tolist() == [2, 0, 1]
    np.testing.assert_allclose(found.masses, [12.01, 16.0, 1.008], atol=1e-2)
    assert found.bonds.tolist() == [[0, 1], [1, 2]]
    assert found.bond_ranges.tolist() == [[0.12, 0.16], [0.08, 0.12]]
    assert found.num_molecules == 1
    tail = stats.chi2.sf(found.kinetic_energy_quantiles, 9)
    np.testing.assert_allclose(tail, 1e-12, rtol=1e-6)


def test_molecules_are_numbered_by_first_appearance(metadata, example):
    topology, positions = example
    replicas = replicate(topology, create_system(topology), positions, 3)
    ids = np.array([9, 4, 7])[replicas.molecules]
    found = describe_molecules(replicas.topology, metadata, ids)
    assert found.molecules.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert found.num_molecules == 3


def test_atoms_that_no_guard_watches_are_told(metadata, example):
    topology, _ = example
    topology._bonds = []
    with pytest.warns(UserWarning, match=r"found 3 atoms and no bond, expected the"):
        describe_molecules(topology, metadata)


def test_replicas_are_copies_in_chains_of_their_own(example):
    topology, positions = example
    replicas = replicate(topology, create_system(topology), positions, 2)
    assert replicas.topology.getNumChains() == 2
    assert replicas.topology.getNumAtoms() == 6
    bonds = [(b.atom1.index, b.atom2.index) for b in replicas.topology.bonds()]
    assert bonds == [(0, 1), (1, 2), (3, 4), (4, 5)]
    assert [a.name for a in replicas.topology.atoms()] == ["C1", "O2", "H3"] * 2
    found = replicas.positions.value_in_unit(unit.nanometer)
    np.testing.assert_array_equal(found[3:], positions.value_in_unit(unit.nanometer))
    assert replicas.system.getNumParticles() == 6
    assert replicas.system.getParticleMass(4) == replicas.system.getParticleMass(1)


def test_replicas_that_do_not_fit_are_refused(example):
    topology, positions = example
    with pytest.raises(ValueError, match="found 0 replicas"):
        replicate(topology, create_system(topology), positions, 0)
    with pytest.raises(ValueError, match=r"3 atoms .* shape \(2, 3\)"):
        replicate(topology, create_system(topology), positions[:2], 1)
    system = create_system(topology)
    system.addConstraint(0, 1, 0.1)
    with pytest.raises(ValueError, match="1 constraints in the System"):
        replicate(topology, system, positions, 1)


def test_atoms_without_an_element_are_refused(example):
    topology, _ = example
    next(topology.atoms()).element = None
    with pytest.raises(ValueError, match=r"atom 0 .* without an element"):
        create_system(topology)
