import numpy as np
import openmm
import pytest
import torch
from openmm import unit

from openmm_diffmd.bundled import PRETRAINED
from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.models.energy import EnergyModel, load_force, save_force
from openmm_diffmd.reference.driver import make_reference
from openmm_diffmd.reference.molecules import load_molecule
from openmm_diffmd.reference.potentials import create_reference_system
from openmm_diffmd.reference.trained_force import read_trained_force

SIZES = {"n_max": 4, "channels": 8, "n_heads": 2, "edge_channels": 8, "n_layers": 1}


def save(path, elements=("H", "O")):
    torch.manual_seed(1)
    model = EnergyModel(len(elements), **SIZES)
    # An untrained network is nearly flat.
    model.force_scale.fill_(2000.0)
    description = {"model": SIZES, "elements": list(elements), "data": []}
    return save_force(model, description, path)


def forces_of(system, positions):
    context = openmm.Context(
        system,
        openmm.VerletIntegrator(0.001),
        openmm.Platform.getPlatformByName("Reference"),
    )
    context.setPositions(positions)
    forces = context.getState(forces=True).getForces(asNumpy=True)
    return forces.value_in_unit(unit.kilojoule_per_mole / unit.nanometer)


def test_reference_system_has_the_trained_force(tmp_path):
    path = save(tmp_path / "force.pt")
    topology, positions = load_molecule("water")
    system = create_reference_system(topology, path)
    assert system.getParticleMass(0) == topology_mass(topology, 0)
    model, species = EnergyModel(2, **SIZES), torch.tensor([[1, 0, 0]])
    model.load_state_dict(torch.load(path)["weights"])
    x = torch.tensor(positions.value_in_unit(unit.nanometer), dtype=torch.float32)
    _, expected = model.eval().energy_and_forces(x[None], species)
    scale = expected.abs().max().item()
    assert scale > 10
    found = forces_of(system, positions)
    np.testing.assert_allclose(found, expected[0].numpy(), atol=1e-5 * scale)


def test_molecule_that_a_force_was_not_trained_on_is_told(tmp_path):
    path = save(tmp_path / "force.pt")
    (tmp_path / "h2o2.xyz").write_text(
        "4\n\nO 0 0 0\nO 1.46 0 0\nH -0.2 0.95 0\nH 1.66 0 0.95\n"
    )
    water, peroxide = (load_molecule(m)[0] for m in ("water", tmp_path / "h2o2.xyz"))
    model, description = load_force(path)
    save_force(
        model,
        {**description, "data": [{"elements": list("HOH"), "bonds": [[0, 1], [1, 2]]}]},
        path,
    )
    # Atoms in any order.
    read_trained_force(path, water)
    with pytest.warns(UserWarning, match=r"force\.pt was not trained on"):
        read_trained_force(path, peroxide)


def topology_mass(topology, index):
    return list(topology.atoms())[index].element.mass


# Nothing was trained: the force holds no molecule together.
@pytest.mark.filterwarnings("ignore:found the bond between")
def test_bursts_of_a_trained_force_conserve_energy(tmp_path):
    path = save(tmp_path / "force.pt")
    _, bursts = make_reference(
        "water",
        tmp_path / "out",
        potential=str(path),
        equilibration_ps=0.01,
        length_ps=0.02,
        num_bursts=2,
        burst_length_ps=0.02,
        progress=False,
    )
    flow = read_reference(bursts)
    kinetic = 0.5 * np.einsum("i,fia->f", flow.masses, flow.velocities**2)
    total = (flow.potential_energies + kinetic).reshape(2, 20)
    assert np.ptp(total, axis=1).max() < 0.02 * np.ptp(kinetic)
    assert flow.provenance["potential"] == "force.pt"
    assert set(flow.provenance["sha256"]) == {"force.pt"}
    assert "torch" in flow.provenance["versions"]


def test_files_that_do_not_fit_are_refused(tmp_path):
    topology, _ = load_molecule("water")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    with pytest.raises(ValueError, match="no trained force that can be read"):
        create_reference_system(topology, tmp_path / "tensor.pt")
    with pytest.raises(FileNotFoundError, match=r"found no .*gone\.pt, expected a fi"):
        create_reference_system(topology, tmp_path / "gone.pt")
    path = save(tmp_path / "force.pt", ("H", "C"))
    with pytest.raises(ValueError, match=r"found element O, expected one of H, C, whi"):
        create_reference_system(topology, path)
    with pytest.raises(ValueError, match=r"found options .* for .*force\.pt, expected"):
        create_reference_system(topology, path, {"charge": 1})
    model = PRETRAINED / "ethanol.pt"
    with pytest.raises(ValueError, match=r"ethanol\.pt, which is a model file, expec"):
        create_reference_system(topology, model)
    (tmp_path / "other.pt").write_bytes(b"no force")
    with pytest.raises(ValueError, match=r"other\.pt, which is no trained force that"):
        create_reference_system(topology, tmp_path / "other.pt")
