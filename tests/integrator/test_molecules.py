import dataclasses

import numpy as np
import openmm
import pytest
from openmm import app, unit
from scipy import stats

from openmm_diffmd.bundled import PRETRAINED
from openmm_diffmd.export.metadata import ModelMetadata
from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.integrator.molecules import describe_molecules
from openmm_diffmd.integrator.systems import TERMS, create_system, replicate


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
    # Oxygen, hydrogen, carbon: radii of 0.066, 0.031, 0.076 nm.
    limits = [[0.132, 0, 0.142], [0, 0.062, 0.107], [0.142, 0.107, 0.152]]
    np.testing.assert_allclose(found.contact_limits, limits, atol=1e-9)
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
    with pytest.warns(UserWarning, match=r"found 1 of 1 molecules without a bond, exp"):
        describe_molecules(topology, metadata)


def test_molecules_without_bonds_are_told_beside_one_that_has_them(metadata, example):
    topology, positions = example
    replicas = replicate(topology, create_system(topology), positions, 3)
    replicas.topology._bonds = replicas.topology._bonds[:2]
    with pytest.warns(UserWarning, match="found 2 of 3 molecules without a bond") as w:
        describe_molecules(replicas.topology, metadata, replicas.molecules)
    assert len(w) == 1


def chain_of(symbols: str, bonds: list[tuple[int, int]]) -> app.Topology:
    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    atoms = [
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
        for symbol in symbols
    ]
    for i, j in bonds:
        topology.addBond(atoms[i], atoms[j])
    return topology


def test_a_molecule_in_another_order_of_atoms_is_known(metadata):
    found = describe_molecules(chain_of("HCO", [(2, 0), (2, 1)]), metadata)
    assert found.species.tolist() == [1, 2, 0]


def test_a_molecule_that_was_never_trained_on_is_told(metadata):
    # The same elements and kinds of bonds; then the same formula as well.
    for symbols, bonds, formula in (
        ("COHH", [(0, 1), (1, 2), (1, 3)], "CH2O"),
        ("CHO", [(0, 2)], "CHO"),
    ):
        with pytest.warns(
            UserWarning, match=rf"found {formula}, .* trained on \(CHO\)"
        ):
            describe_molecules(chain_of(symbols, bonds), metadata, [0] * len(symbols))


def test_molecules_of_the_training_files_are_known(metadata):
    """Files say their bonds; those of before say a name; without both none is known."""
    water = {"elements": ["H", "O", "H"], "bonds": [[0, 1], [1, 2]], "provenance": {}}
    ethanol = {"provenance": {"molecule": "ethanol"}}
    topology = chain_of("OHH", [(0, 1), (0, 2)])
    known = dataclasses.replace(metadata, reference={"data": [water, ethanol]})
    describe_molecules(topology, known)
    named = dataclasses.replace(metadata, reference={"data": [ethanol]})
    with pytest.warns(UserWarning, match=r"found H2O, .* trained on \(C2H6O, CHO\)"):
        describe_molecules(topology, named)
    silent = {"provenance": {"molecule": "mine.xyz"}}
    unknown = dataclasses.replace(metadata, reference={"data": [silent]})
    describe_molecules(topology, unknown)


@pytest.mark.parametrize("path", sorted(PRETRAINED.glob("*.pt")), ids=lambda p: p.stem)
def test_bundled_models_tell_a_molecule_that_they_do_not_know(path):
    metadata = load_model(path).metadata
    # Elements and bonds that all models know.
    with pytest.warns(UserWarning, match=r"found CH3, .* trained on"):
        describe_molecules(chain_of("CHHH", [(0, 1), (0, 2), (0, 3)]), metadata)


def test_pieces_without_ids_are_refused_but_where_trained_on(metadata):
    pair = chain_of("COHOHH", [(0, 1), (1, 2), (3, 4), (3, 5)])
    with pytest.raises(ValueError, match="found 2 pieces without bonds between them"):
        describe_molecules(pair, metadata)
    elements = [atom.element.symbol for atom in pair.atoms()]
    bonds = [(bond.atom1.index, bond.atom2.index) for bond in pair.bonds()]
    dimer = {"elements": elements, "bonds": bonds, "provenance": {}}
    known = dataclasses.replace(metadata, reference={"data": [dimer]})
    assert describe_molecules(pair, known).num_molecules == 1


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


def restraints() -> list[openmm.Force]:
    """One force of each kind that can be copied, on four atoms at most."""
    bond = openmm.HarmonicBondForce()
    bond.addBond(0, 1, 0.12, 3e4)
    bond.addBond(1, 2, 0.09, 2e4)
    bond.setForceGroup(3)
    angle = openmm.HarmonicAngleForce()
    angle.addAngle(0, 1, 2, 1.7, 200.0)
    torsion = openmm.PeriodicTorsionForce()
    torsion.addTorsion(0, 1, 2, 3, 2, 0.3, 20.0)
    ryckaert = openmm.RBTorsionForce()
    ryckaert.addTorsion(0, 1, 2, 3, 1.0, -2.0, 3.0, 4.0, 0.5, 0.1)
    custom_bond = openmm.CustomBondForce("strength*k*(r-r0)^4")
    custom_bond.addGlobalParameter("strength", 7.0)
    custom_bond.addPerBondParameter("k")
    custom_bond.addPerBondParameter("r0")
    custom_bond.addBond(0, 2, [5e3, 0.2])
    custom_angle = openmm.CustomAngleForce("30*cos(theta)")
    custom_angle.addAngle(2, 1, 0)
    custom_torsion = openmm.CustomTorsionForce("amplitude*(1+cos(theta))")
    custom_torsion.addPerTorsionParameter("amplitude")
    custom_torsion.addTorsion(3, 2, 1, 0, [11.0])
    compound = openmm.CustomCompoundBondForce(3, "40*distance(p1,p2)*angle(p1,p2,p3)")
    compound.addBond([2, 0, 1])
    external = openmm.CustomExternalForce("k*periodicdistance(x, y, z, 0, 0, 0)^2")
    external.addPerParticleParameter("k")
    external.addParticle(1, [900.0])
    return [
        bond,
        angle,
        torsion,
        ryckaert,
        custom_bond,
        custom_angle,
        custom_torsion,
        compound,
        external,
    ]


def forces_on(system: openmm.System, positions: np.ndarray) -> np.ndarray:
    context = openmm.Context(
        system,
        openmm.VerletIntegrator(0.001),
        openmm.Platform.getPlatform("Reference"),
    )
    context.setPositions(positions)
    return context.getState(forces=True).getForces(asNumpy=True)._value


@pytest.mark.parametrize("index", range(len(TERMS)))
def test_restraints_act_on_each_copy_as_on_one(index):
    force = restraints()[index]
    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    for symbol in "COHH":
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    positions = np.array([[0, 0, 0], [0.14, 0, 0], [0.14, 0.1, 0], [0.2, 0.1, 0.1]])
    system = create_system(topology)
    system.addForce(force)
    system.setDefaultPeriodicBoxVectors(*0.25 * np.eye(3))
    replicas = replicate(topology, system, positions, 3)
    (copied,) = replicas.system.getForces()
    assert type(copied) is type(force)
    assert copied.getForceGroup() == force.getForceGroup()
    # Copies moved apart: a term that reached into another one would show.
    shaken = positions + np.random.default_rng(5).normal(scale=0.02, size=(3, 4, 3))
    found = forces_on(replicas.system, shaken.reshape(12, 3)).reshape(3, 4, 3)
    for one, expected in zip(found, shaken, strict=True):
        np.testing.assert_allclose(one, forces_on(system, expected), rtol=1e-12)
    assert np.abs(found).max() > 1.0
    # The System that was copied is as it was.
    assert system.getNumForces() == 1


def test_every_kind_of_restraint_is_tested():
    assert [type(force) for force in restraints()] == list(TERMS)


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
    system = create_system(topology)
    system.addForce(openmm.NonbondedForce())
    with pytest.raises(ValueError, match="found a NonbondedForce in the System, exp"):
        replicate(topology, system, positions, 1)


def test_atoms_without_an_element_are_refused(example):
    topology, _ = example
    next(topology.atoms()).element = None
    with pytest.raises(ValueError, match=r"atom 0 .* without an element"):
        create_system(topology)


def test_another_formula_is_told_where_there_are_no_bonds(metadata):
    # Two molecules that would pass for one.
    with (
        pytest.warns(UserWarning, match="found 1 of 1 molecules without a bond"),
        pytest.warns(UserWarning, match="found C2H2O2, bonded as no molecule"),
    ):
        describe_molecules(chain_of("COHCOH", []), metadata)
