import copy
import hashlib
import pickle
import warnings
import zipfile

import numpy as np
import pytest
import torch
from openmm import unit

from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.model_files import find_model
from openmm_diffmd.testing import HarmonicModel, save_stub_model

# Freezing may fold constants, which rounds differently.
TOLERANCE = 1e-6


@pytest.fixture
def path(tmp_path):
    return save_stub_model(tmp_path / "model.pt", HarmonicModel(friction=5.0))


def encode(module):
    generator = torch.Generator().manual_seed(1)
    x, v = (torch.randn((2, 9, 3), generator=generator) for _ in range(2))
    return module.encode(
        x,
        v,
        torch.zeros(2, 9, 3),
        torch.zeros(2, dtype=torch.bool),
        torch.zeros(2, 9, dtype=torch.int64),
        torch.full((2, 9), 12.0),
        torch.zeros(2),
    )


def test_reloaded_equals_eager(path):
    eager, loaded = HarmonicModel(friction=5.0), load_model(path).module
    residual, sigma = torch.ones(2, 9, 2, 3), torch.full((2,), 0.5)
    results = []
    for module in (eager, loaded):
        condition = encode(module)
        denoised = module.denoise(residual, sigma, condition)
        results.append(module.decode(denoised, condition, False))
    torch.testing.assert_close(*results, rtol=0, atol=TOLERANCE)


def test_model_knows_its_file_and_quantities(path):
    model = load_model(path)
    assert model.path == path
    assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert model.temperature == 300 * unit.kelvin
    assert model.lag_time == 10 * unit.femtosecond
    assert model.friction.value_in_unit(unit.picosecond**-1) == 5.0
    topology, positions = model.example()
    symbols = [atom.element.symbol for atom in topology.atoms()]
    assert symbols == ["C", "C", "O", *"HHHHHH"]
    assert topology.getNumBonds() == 8
    assert np.shape(positions.value_in_unit(unit.nanometer)) == (9, 3)


def test_model_says_what_it_is(path):
    model = load_model(path)
    m = model.metadata
    assert repr(model) == (
        f"<DiffusionModel {m.name!r}: lag {m.lag_time_fs:g} fs, {m.temperature_K:g} K, "
        f"{m.friction_per_ps:g}/ps, elements {' '.join(m.elements)}, {path.resolve()}>"
    )


def test_model_is_pickled_as_its_file(path):
    model = load_model(path)
    for copied in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert copied.metadata == model.metadata
        condition = encode(copied.module)
        torch.testing.assert_close(condition, encode(model.module), rtol=0, atol=0)
    pickled = pickle.dumps(model)
    save_stub_model(path, HarmonicModel(friction=6.0))
    with pytest.raises(ValueError, match=r"the file of the model that was pickled"):
        pickle.loads(pickled)


def test_models_are_made_and_loaded_without_a_warning(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_model(save_stub_model(path, HarmonicModel()))


def test_bundled_names_are_found_in_any_case():
    assert load_model("Ethanol").path == load_model("ethanol").path


def test_a_path_with_a_folder_is_that_file_and_no_other(path, tmp_path):
    # Names of bundled models are taken in any case, and without .pt.
    other = save_stub_model(tmp_path / "mymodel.pt", HarmonicModel(friction=9.0))
    mine = path.rename(tmp_path / "MyModel")
    assert find_model(mine) == mine
    assert find_model(str(other)) == other
    (tmp_path / "folder").mkdir()
    save_stub_model(tmp_path / "folder.pt", HarmonicModel())
    with pytest.raises(IsADirectoryError, match=r"found the folder .*folder as the "):
        find_model(tmp_path / "folder")


def test_a_file_does_not_say_where_it_was_made(path):
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    assert not [name for name in names if name.endswith(".debug_pkl")]
    assert {name.partition("/")[0] for name in names} == {path.stem}


def test_saving_replaces_the_file_and_leaves_nothing_else(path):
    before = path.read_bytes()
    save_stub_model(path, HarmonicModel(friction=6.0))
    assert path.read_bytes() != before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_unknown_names_are_refused_naming_the_bundled(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model 'unobtainium'.*bundled"):
        load_model("unobtainium")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.9])
def test_cut_files_are_refused(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"no readable TorchScript file .* again"):
        load_model(path)


def test_flipped_bits_are_refused(path):
    content = bytearray(path.read_bytes())
    place = content.index(b'"thermostatted"')
    content[place + 1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"wrong checksum of .*metadata.json"):
        load_model(path)


def test_text_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    path.write_text("no model")
    with pytest.raises(ValueError, match="no readable TorchScript file"):
        load_model(path)


def test_file_without_metadata_is_refused(path):
    other = path.with_name("other.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for entry in old.infolist():
            if "metadata.json" not in entry.filename:
                new.writestr(entry, old.read(entry))
    with pytest.raises(ValueError, match=r"without metadata\.json"):
        load_model(other)


def test_file_without_a_method_is_refused(path, monkeypatch):
    monkeypatch.setattr(
        "openmm_diffmd.export.torchscript.METHODS", ("encode", "denoise", "dream")
    )
    with pytest.raises(ValueError, match=r"without the methods \['dream'\]"):
        load_model(path)
