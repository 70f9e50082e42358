import dataclasses
import json

import pytest

from openmm_diffmd.export.metadata import ModelMetadata


@pytest.fixture
def metadata():
    return ModelMetadata(
        name="test",
        dynamics="flow",
        lag_time_fs=10.0,
        temperature_K=500.0,
        friction_per_ps=1.0,
        elements=["H", "C"],
        guards={"bond_ranges_nm": {"C-H": [0.09, 0.13]}, "max_resamples": 3},
    )


def test_json_round_trip(metadata):
    assert ModelMetadata.from_json(metadata.to_json()) == metadata


def test_metadata_of_version_1_are_read(metadata):
    values = json.loads(metadata.to_json()) | {"schema_version": 1}
    del values["operators"]
    assert ModelMetadata.from_json(json.dumps(values)) == metadata


def test_hottest_training_data_default_to_the_temperature(metadata):
    assert metadata.max_temperature_K == 500.0


def test_bond_ranges_do_not_depend_on_order(metadata):
    assert (
        metadata.bond_range("H", "C") == metadata.bond_range("C", "H") == (0.09, 0.13)
    )
    with pytest.raises(ValueError, match=r"found a C-C bond, .* trained on C-H"):
        metadata.bond_range("C", "C")


def test_contact_limits_are_what_was_measured(metadata):
    guards = metadata.guards | {"contact_limits_nm": {"C-H": 0.08}}
    measured = dataclasses.replace(metadata, guards=guards)
    assert measured.contact_limit("H", "C") == measured.contact_limit("C", "H") == 0.08
    assert measured.contact_limit("H", "H") == 0.0
    assert ModelMetadata.from_json(measured.to_json()) == measured


def test_files_of_before_take_covalent_radii_but_for_shared_protons(metadata):
    """Radii of Cordero et al. 2008, Table 2: H 0.31, C 0.76, O 0.66 Angstrom."""
    assert metadata.contact_limit("C", "H") == pytest.approx(0.107)
    assert metadata.contact_limit("C", "C") == pytest.approx(0.152)
    assert metadata.contact_limit("O", "O") == pytest.approx(0.132)
    assert metadata.contact_limit("H", "O") == metadata.contact_limit("N", "H") == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 3}, "found model schema version 3, expected 2; export"),
        ({"schema_version": None}, "found model schema version None"),
        ({"dynamics": "magic"}, "found dynamics 'magic', expected .*flow"),
        ({"lag_time_fs": -1}, "found lag_time_fs -1, expected a positive number"),
        ({"lag_time_fs": "10"}, "found lag_time_fs '10'"),
        ({"temperature_K": True}, "found temperature_K True"),
        ({"friction_per_ps": -0.5}, "found friction_per_ps -0.5"),
        ({"elements": []}, "found elements"),
        ({"elements": ["H", "H"]}, "found elements .* different symbols"),
        ({"operators": ["aten::add"]}, "found operators .* begin with 'diffmd::'"),
        ({"dtype": "float16"}, "found dtype 'float16'"),
        ({"units": {"length": "angstrom"}}, "found units"),
        ({"noise": {"sigma_min": 1.0}}, "found noise"),
        (
            {"noise": {"sigma_min": 2.0, "sigma_max": 1.0, "rho": 7.0}},
            "sigma_min <= sigma_max",
        ),
        ({"sampler": {"name": "euler", "num_steps": -1}}, "num_steps'. -1"),
        (
            {"guards": {"bond_ranges_nm": {"H-C": [0.1, 0.2]}, "max_resamples": 1}},
            "found bond 'H-C', expected two symbols, sorted",
        ),
        (
            {"guards": {"bond_ranges_nm": {"C-H": [0.2, 0.1]}, "max_resamples": 1}},
            "found range of C-H",
        ),
        *(
            (
                {
                    "guards": {
                        "bond_ranges_nm": {},
                        "max_resamples": 1,
                        "contact_limits_nm": limits,
                    }
                },
                message,
            )
            for limits, message in (
                ({"H-C": 0.1}, "found bond 'H-C', expected two symbols, sorted"),
                ({"C-H": -0.1}, "found contact limit of C-H -0.1"),
            )
        ),
        ({"noise": 3}, "wrong types"),
        ({"surprise": 1}, "found metadata keys"),
    ],
)
def test_what_does_not_fit_is_refused(metadata, change, message):
    text = json.dumps(json.loads(metadata.to_json()) | change)
    with pytest.raises(ValueError, match=message):
        ModelMetadata.from_json(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"elements": ["H", "X"]}, "found elements of the example .*'X'"),
        ({"elements": None}, "found elements of the example None"),
        ({"unheard_of": 1}, "found example .*unheard_of"),
        (
            {"bonds": [[0, 2]]},
            r"found bonds of the example \[\[0, 2\]\], expected pairs",
        ),
        ({"bonds": [[0, 0]]}, "found bonds of the example"),
        ({"bonds": [[0, 1.0]]}, "found bonds of the example"),
        ({"bonds": [None]}, "found metadata of the wrong types"),
        ({"positions_nm": [[0.0, 0.0, 0.0]]}, "found positions of the example"),
        ({"positions_nm": [[0.0, 0.0], [0.0, 0.0]]}, "expected three numbers an atom"),
        (
            {"positions_nm": [[0.0, 0.0, float("nan")], [0.0, 0.0, 0.0]]},
            "found positions of the example",
        ),
    ],
)
def test_example_that_is_no_molecule_is_refused(metadata, change, message):
    example = {
        "elements": ["H", "H"],
        "bonds": [[0, 1]],
        "positions_nm": [[0.0, 0.0, 0.0], [0.07, 0.0, 0.0]],
    }
    values = json.loads(metadata.to_json()) | {"example": example}
    ModelMetadata.from_json(json.dumps(values))
    values["example"] = example | change
    with pytest.raises(ValueError, match=message):
        ModelMetadata.from_json(json.dumps(values))


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_what_is_no_json_object_is_refused(text):
    with pytest.raises(ValueError, match="found metadata"):
        ModelMetadata.from_json(text)


def test_missing_keys_are_refused(metadata):
    values = json.loads(metadata.to_json())
    del values["lag_time_fs"]
    with pytest.raises(ValueError, match="found metadata keys"):
        ModelMetadata.from_json(json.dumps(values))
