"""A model file is balanced on bursts of the molecule, or says what it wants."""

import json

import numpy as np
import pytest
from openmm import app

from openmm_diffmd import cli
from openmm_diffmd.export.rebalance import balance_model
from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.model_files import read_weights
from openmm_diffmd.reference.dynamics import ReferenceFrame
from openmm_diffmd.reference.storage import ReferenceWriter
from openmm_diffmd.testing import save_stub_model

MADE = {"kind": "bursts", "temperature_K": 400.0, "friction_per_ps": 0.0}


@pytest.fixture(scope="module")
def bursts(tmp_path_factory):
    """Write pairs of frames 10 fs apart about ethanol's example, of some provenance."""
    topology, positions = load_model("ethanol").example()
    masses = np.array([a.element.mass._value for a in topology.atoms()])
    folder = tmp_path_factory.mktemp("data")

    def write(topology: app.Topology = topology, **provenance):
        path = folder / f"{len(list(folder.iterdir()))}.h5"
        generator = np.random.default_rng(1)
        with ReferenceWriter(path, topology, masses, MADE | provenance, 60) as writer:
            for frame in range(60):
                x = np.array(positions._value)
                x += 0.003 * generator.standard_normal(x.shape)
                v = generator.standard_normal(x.shape)
                now = ReferenceFrame(0.01 * (frame % 2 + 1), x, v, x, 0.0)
                writer.write(frame // 2, now)
        return path

    return write


def test_a_bundled_model_is_balanced_at_the_temperature_of_bursts(
    bursts, tmp_path, capsys
):
    output = tmp_path / "mine.pt"
    words = ["--model", "ethanol", "--data", str(bursts()), "--output", str(output)]
    assert cli.main(["balance", *words, "--balance_pairs", "20"]) == 0
    shown = capsys.readouterr().out
    assert "Heat that a drawn lag adds" in shown
    assert "C2H6O, 20 pairs:  C-C " in shown
    before, after = load_model("ethanol").metadata, load_model(output).metadata
    assert (after.temperature_K, after.max_temperature_K) == (400.0, 1500.0)
    assert after.config["balanced_on"] == [json.loads(json.dumps(MADE))]
    (heat,) = after.acceptance["heat"]
    assert heat["heat"].keys() == {"C-C", "C-H", "C-O", "H-O", "C", "H", "O"}
    assert after.acceptance["one_lag"] == before.acceptance["one_lag"]
    assert after.guards == before.guards
    # Not a flow: the frames have no memory. Still only the encoder changes.
    _, weights = read_weights(output)
    _, old = read_weights(load_model("ethanol").path)
    assert weights.keys() == old.keys()
    assert all(
        name.startswith("encoder.") or weights[name].equal(old[name])
        for name in weights
    )


@pytest.mark.parametrize(
    ("provenance", "message"),
    [
        ({"friction_per_ps": 1.0}, r"friction_per_ps 1\.0 .* expected bursts"),
        ({"bond_energy_kT": 20.0}, r"bond_energy_kT 20\.0, expected bursts"),
        ({"temperature_K": None}, r"temperature_K None, .* expected bursts"),
    ],
)
def test_other_frames_are_refused(bursts, tmp_path, provenance, message):
    with pytest.raises(ValueError, match=message):
        balance_model("ethanol", bursts(**provenance), tmp_path / "mine.pt")
    assert not (tmp_path / "mine.pt").exists()


def test_frames_of_two_temperatures_are_refused(bursts, tmp_path):
    files = [bursts(), bursts(temperature_K=500.0)]
    with pytest.raises(ValueError, match=r"temperatures \[400\.0, 500\.0\] K .* one"):
        balance_model("ethanol", files, tmp_path / "mine.pt")


def test_a_file_is_replaced_only_where_asked_to(bursts, tmp_path):
    output = tmp_path / "mine.pt"
    output.touch()
    with pytest.raises(FileExistsError, match=r"found a file .*mine\.pt; choose"):
        balance_model("ethanol", bursts(), output)


def test_a_model_that_is_no_network_of_ours_is_refused(bursts, tmp_path):
    stub = save_stub_model(tmp_path / "stub.pt")
    with pytest.raises(ValueError, match=r"stub\.pt without the sizes of its network"):
        balance_model(stub, bursts(), tmp_path / "mine.pt")
