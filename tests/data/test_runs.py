import pytest

from openmm_diffmd.data.runs import same_run

RUN = {
    "molecule": "a",
    "potential": "p",
    "sha256": {"a.xyz": "1"},
    "temperature_K": 500.0,
    "seed": 3,
}


@pytest.mark.parametrize(
    "other",
    [
        *({**RUN, name: "other"} for name in RUN if name != "sha256"),
        {**RUN, "sha256": {"a.xyz": "2"}},
        {**RUN, "file": "md17_a.npz"},
        {**RUN, "potential_options": {"charge": 1}},
        {},
    ],
)
def test_another_run_is_told(other):
    assert not same_run(RUN, other)
    assert not same_run(other, RUN)


def test_run_made_again_is_the_same():
    assert same_run(RUN, {**RUN, "created": "tomorrow"})


def test_molecule_by_another_name_is_the_same():
    bundled = {**RUN, "molecule": "water", "sha256": {}}
    assert same_run(bundled, {**bundled, "molecule": "Water"})
    file = {**RUN, "molecule": "a.xyz"}
    assert same_run(file, {**file, "molecule": "b.xyz", "sha256": {"b.xyz": "1"}})


def test_files_from_before_hashes_are_known_again():
    # Early files name what they read and do not hash it, later ones of nothing that
    # was read have an empty mapping.
    without = {name: value for name, value in RUN.items() if name != "sha256"}
    assert same_run(without, {**without, "sha256": {}})
    assert same_run(without, RUN)
