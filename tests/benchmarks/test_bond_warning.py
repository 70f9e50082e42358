"""Whether the energy of a bond is seen to warn, in a run where it must and must not."""

import argparse
import json
from pathlib import Path

import bond_warning
import numpy as np
import pytest

from openmm_diffmd.testing import FaultyModel, HarmonicModel, save_stub_model


def test_a_molecule_that_breaks_begins_anew_and_is_counted(tmp_path: Path):
    # Each draw of a molecule with an atom beyond 0.26 nm is spoilt; the start has none.
    stub = FaultyModel("bond", below_level=2.0, min_displacement=0.26, friction=20.0)
    path = save_stub_model(tmp_path / "faulty.pt", stub, max_resamples=1)
    arguments = argparse.Namespace(replicas=2, length_ps=1.4, seed=3)
    watched = bond_warning.watch(bond_warning.Case(str(path), "", 20.0), arguments)
    assert watched.energies.shape == (140, 2)
    assert {molecule for _, molecule in watched.breaks} == {0, 1}
    assert watched.refusals == watched.breaks
    # A window has 20 lags since the start or the last break; 2 ps, of two molecules,
    # have to be seen first.
    for molecule, energies in enumerate(watched.energies.T):
        begun = [0] + [lag for lag, m in watched.breaks if m == molecule]
        known = [
            lag >= 99 and all(lag - start + 1 >= 20 for start in begun if start <= lag)
            for lag in range(140)
        ]
        assert any(known)
        assert np.isfinite(energies).tolist() == known


@pytest.mark.filterwarnings("ignore:found friction")
def test_figures_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = save_stub_model(tmp_path / "harmonic.pt", HarmonicModel())
    words = ["--cases", f"{path}:0.5", "--replicas", "2", "--length-ps", "1"]
    bond_warning.main([*words, "--horizon-ps", "0.3", "--output", str(tmp_path)])
    found = json.loads((tmp_path / "bond_warning.json").read_text())
    (case,) = found["cases"].values()
    assert case["ns"] == pytest.approx(2e-3)
    assert case["friction"] == 0.5
    assert (case["refused_lags"], case["broken"]) == (0, 0)
    thresholds = [row["threshold_kT"] for row in case["alarms"]]
    assert thresholds == list(bond_warning.THRESHOLDS_KT)
    assert all(row["n_warned"] == row["n_events"] == 0 for row in case["alarms"])
    assert "harmonic.pt, 0.5/ps" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["ethanol", "ethanol:-1", "a:b:c:1", "md17:aspirin"])
def test_a_case_that_says_no_friction_is_refused(text: str):
    with pytest.raises(argparse.ArgumentTypeError, match="expected MODEL:FRICTION or"):
        bond_warning.Case.read(text)
    assert bond_warning.Case.read("md17:aspirin:0.1").name == "md17 of aspirin, 0.1/ps"
