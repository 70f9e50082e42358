import pytest

from openmm_diffmd.integrator.versions import compare_versions


def test_local_part_of_a_version_does_not_count():
    compare_versions("torch", "2.13.0+cpu", "2.13.0+cu130")


@pytest.mark.parametrize("found", ["2.13.1", "2.9.0+cpu", "3.0"])
def test_another_version_is_refused_saying_both_and_how_to_rebuild(found):
    match = rf"built for torch 2\.13\.0\+cpu, found torch {found[0]}.*pip install"
    with pytest.raises(ImportError, match=match):
        compare_versions("torch", "2.13.0+cpu", found)
