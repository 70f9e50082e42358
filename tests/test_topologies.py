from openmm import app

from openmm_diffmd.topologies import make_topology


def test_openmm_gets_names_elements_and_bonds():
    topology = make_topology(["O", "H", "H"], [(0, 1), (0, 2)]).to_openmm()
    (residue,) = topology.residues()
    assert (residue.name, residue.id) == ("MOL", "1")
    atoms = list(topology.atoms())
    assert [(a.name, a.id) for a in atoms] == [("O1", "1"), ("H2", "2"), ("H3", "3")]
    assert atoms[1].element is app.element.hydrogen
    assert [(a.index, b.index) for a, b in topology.bonds()] == [(0, 1), (0, 2)]
