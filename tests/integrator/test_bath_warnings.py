from pathlib import Path

import pytest
from openmm import unit

from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.integrator.diffusion_integrator import DiffusionIntegrator
from openmm_diffmd.integrator.run import run


def test_a_bath_far_below_the_models_is_told(stub: Path, tmp_path: Path):
    options = {"length_ps": 0.1, "progress": False}
    with pytest.warns(
        UserWarning, match=r"temperature 150 K, expected some 300 K, which"
    ):
        run(str(stub), tmp_path / "a", temperature_K=150, **options)


def test_a_bath_of_300_K_is_not_told_of_a_model_of_500_K():
    model = load_model("ethanol")
    # Warnings are errors here.
    integrator = DiffusionIntegrator(model, model.example()[0], temperature=300.0)
    assert integrator.getTemperature() == 300.0 * unit.kelvin
    with pytest.warns(UserWarning, match=r"temperature 1000 K, expected some 500 K"):
        integrator.setTemperature(1000.0)


@pytest.mark.parametrize(("inside", "outside"), [(300.0, 299.0), (625.0, 626.0)])
def test_baths_from_300_to_625_K_are_near_enough_for_500(inside, outside):
    model = load_model("ethanol")
    # Warnings are errors here.
    integrator = DiffusionIntegrator(model, model.example()[0], temperature=inside)
    with pytest.warns(UserWarning, match=rf"temperature {outside:g} K, expected some"):
        integrator.setTemperature(outside)


def test_a_bath_far_above_the_models_is_told_though_data_were_hotter():
    model = load_model("ethanol")
    assert model.metadata.max_temperature_K > 1000.0
    with pytest.warns(UserWarning, match=r"temperature 1000 K, expected some 500 K"):
        DiffusionIntegrator(model, model.example()[0], temperature=1000.0)


def test_a_weaker_bath_than_the_models_is_told():
    model = load_model("ethanol_5fs")
    with pytest.warns(UserWarning, match=r"friction 1/ps, expected at least 2/ps"):
        integrator = DiffusionIntegrator(model, model.example()[0], friction=1.0)
    # Warnings are errors here.
    integrator.setFriction(2.0)
    with pytest.warns(UserWarning, match=r"friction 0/ps, expected at least 2/ps"):
        integrator.setFriction(0 / unit.picosecond)


def test_a_sampler_that_the_noise_is_not_calibrated_for_is_told():
    model = load_model("ethanol")
    topology, _ = model.example()
    told = r"found sampler heun of 2 steps, expected exponential of 2, for which"
    with pytest.warns(UserWarning, match=told):
        integrator = DiffusionIntegrator(model, topology, sampler="heun")
    with pytest.warns(UserWarning, match="found sampler heun of 4 steps"):
        integrator.setNumSamplingSteps(4)
    integrator.setNumSamplingSteps(0)
    integrator.setSampler("exponential")
    integrator.setNumSamplingSteps(8)
    with pytest.warns(UserWarning, match="found sampler euler of 8 steps"):
        integrator.setSampler("euler")
