"""A model file is balanced on its own rollouts, or says what it wants."""

import dataclasses

import pytest
import torch

from openmm_diffmd import cli
from openmm_diffmd.analysis.loading import after_equilibration, load_rollout
from openmm_diffmd.analysis.modes import stretch_temperatures
from openmm_diffmd.analysis.temperature import element_temperatures
from openmm_diffmd.balancing import rollouts
from openmm_diffmd.balancing.rollouts import balance_model
from openmm_diffmd.export.torchscript import load_model, save_model
from openmm_diffmd.export.update import build_exported
from openmm_diffmd.integrator.run import run
from openmm_diffmd.model_files import read_weights
from openmm_diffmd.sidecar import RolloutSidecar
from openmm_diffmd.testing import save_stub_model


@pytest.fixture(scope="module")
def hot(tmp_path_factory):
    """Ethanol whose kicks are 2 % too strong."""
    loaded = load_model("ethanol")
    network = build_exported(loaded)
    with torch.no_grad():
        for kick in network.encoder.kick:
            kick.weight *= 1.02
    path = tmp_path_factory.mktemp("models") / "hot.pt"
    return save_model(network, loaded.metadata, path)


@pytest.fixture(scope="module")
def rollout_of(tmp_path_factory):
    """Make a rollout of a model, of 20 replicas x 6 ps at 5/ps."""
    folder = tmp_path_factory.mktemp("rollouts")

    def make(model, name, **settings):
        asked = {
            "replicas": 20,
            "length_ps": 6.0,
            "friction_per_ps": 5.0,
            "velocities": True,
            "seed": 11,
            "threads": 1,
            "progress": False,
            **settings,
        }
        return run(model=str(model), output=folder / name, **asked)

    return make


@pytest.fixture(scope="module")
def of_hot(hot, rollout_of):
    return rollout_of(hot, "hot")


@pytest.fixture
def few_states(monkeypatch):
    """Quick where only the form of a file is looked at."""
    monkeypatch.setattr(rollouts, "GRADIENT_STATES", 8)


def heat_of(model):
    (found,) = model.metadata.config["balanced_on"][-1]["rollouts"]
    return {name: (one["value"], one["error"]) for name, one in found["heat"].items()}


def test_the_heat_of_a_model_goes_by_its_own_rollouts(
    hot, of_hot, rollout_of, tmp_path, capsys
):
    words = ["--model", str(hot), "--rollouts", str(of_hot), "--equilibration_ps", "1"]
    first = tmp_path / "first.pt"
    assert cli.main(["balance", *words, "--output", str(first)]) == 0
    shown = capsys.readouterr().out
    assert "Beyond the heat bath's temperature before balancing, %:" in shown
    assert "C2H6O, 100 ps:  C-C " in shown
    before = heat_of(load_model(first))
    after = heat_in(rollout_of(first, "first", seed=12))
    assert before.keys() == after.keys() == {"C-C", "C-H", "C-O", "H-O", "C", "H", "O"}
    assert before["H"][0] > 5 * before["H"][1]
    assert after["H"][0] < 0.5 * before["H"][0]
    for name in before:
        chance = (before[name][1] ** 2 + after[name][1] ** 2) ** 0.5
        assert abs(after[name][0]) < 0.25 * abs(before[name][0]) + 3 * chance, name


def heat_in(path):
    """Heat of a rollout, beside the balance's own way of it."""
    ensemble = after_equilibration(path, load_rollout(path)[0], 1.0)
    found = {
        **stretch_temperatures(ensemble, 500.0),
        **element_temperatures(ensemble, 500.0),
    }
    return {
        name: (one.value / one.expected - 1, one.error / one.expected)
        for name, one in found.items()
    }


@pytest.mark.usefixtures("few_states")
def test_only_the_encoder_changes_and_by_little(hot, of_hot, tmp_path):
    output = balance_model(hot, of_hot, tmp_path / "mine.pt")
    _, weights = read_weights(output)
    _, old = read_weights(hot)
    assert weights.keys() == old.keys()
    changed = {name for name in weights if not weights[name].equal(old[name])}
    assert changed
    assert all(name.startswith("encoder.") for name in changed)
    norm = torch.cat([old[name].flatten() for name in changed]).norm()
    change = torch.cat([(weights[n] - old[n]).flatten() for n in changed]).norm()
    assert change < 1e-3 * norm
    before, after = load_model(hot).metadata, load_model(output).metadata
    assert after.guards == before.guards
    assert after.acceptance["one_lag"] == before.acceptance["one_lag"]
    assert after.acceptance["heat"] == []


@pytest.mark.usefixtures("few_states")
def test_a_file_lists_all_rounds(hot, of_hot, rollout_of, tmp_path, monkeypatch):
    first = balance_model(hot, of_hot, tmp_path / "first.pt")
    # There may be nothing left to take away.
    monkeypatch.setattr(rollouts, "excess_of", lambda *_: 1.0)
    again = rollout_of(first, "again", length_ps=3.0)
    second = balance_model(first, again, tmp_path / "second.pt", equilibration_ps=1.0)
    rounds = load_model(second).metadata.config["balanced_on"]
    assert [one["model_sha256"] for one in rounds[-2:]] == [
        load_model(path).sha256 for path in (hot, first)
    ]


@pytest.mark.usefixtures("few_states")
def test_two_rollouts_of_a_molecule_are_one(hot, of_hot, rollout_of, tmp_path):
    other = rollout_of(hot, "short", replicas=4, seed=3)
    output = balance_model(hot, [of_hot, other], tmp_path / "mine.pt")
    (found,) = load_model(output).metadata.config["balanced_on"][-1]["rollouts"]
    assert (found["replicas"], found["friction_per_ps"]) == (24, 5.0)
    assert found["length_ps"] == pytest.approx(24.0)


@pytest.mark.usefixtures("few_states")
def test_the_new_file_is_for_the_temperature_of_the_rollouts(hot, rollout_of, tmp_path):
    made = rollout_of(hot, "warm", replicas=12, temperature_K=600.0)
    output = balance_model(hot, made, tmp_path / "mine.pt", equilibration_ps=1.0)
    assert load_model(output).metadata.temperature_K == 600.0


def test_a_rollout_of_another_file_is_refused(of_hot, tmp_path):
    with pytest.raises(ValueError, match=r"hot\.json made by another file \('ethanol'"):
        balance_model("ethanol", of_hot, tmp_path / "mine.pt")
    assert not (tmp_path / "mine.pt").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"friction_per_ps": 0.0, "length_ps": 0.3},
            "without a heat bath, expected friction",
        ),
        ({"velocities": False}, "without velocities, expected them"),
        ({"num_sampling_steps": 0}, "'exponential' and 0 steps, expected .* and 2,"),
        ({"length_ps": 0.5}, r"of 0\.5 ps, expected more than equilibration_ps 1"),
        ({"length_ps": 1.1}, r"found 0\.2 ps of C2H6O, expected more: too short"),
        ({"friction_per_ps": 2.0}, r"frictions 5 and 2/ps, expected one"),
        ({"temperature_K": 450.0}, r"rollouts at \[450\.0, 500\.0\] K, expected one"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*friction")
def test_rollouts_that_do_not_tell_heat_are_refused(
    hot, of_hot, rollout_of, tmp_path, settings, message, request
):
    made = rollout_of(hot, request.node.name, **{"replicas": 2, **settings})
    both = "expected one" in message
    with pytest.raises(ValueError, match=message):
        balance_model(hot, [of_hot, made] if both else made, tmp_path / "mine.pt", 1.0)
    assert not (tmp_path / "mine.pt").exists()


@pytest.mark.parametrize(
    ("times", "equilibration_ps", "message"),
    [
        (0, 1.0, "found no rollout, expected at least one"),
        (2, 1.0, r"same frames in .*hot\.json and .*hot\.json, expected each"),
        (1, -3.0, "equilibration_ps -3, expected at least 0"),
    ],
)
def test_no_rollout_one_given_twice_or_a_start_before_it_is_refused(
    hot, of_hot, tmp_path, times, equilibration_ps, message
):
    with pytest.raises(ValueError, match=message):
        balance_model(hot, times * [of_hot], tmp_path / "mine.pt", equilibration_ps)


def test_heat_within_its_errors_is_left_and_told(hot, of_hot, tmp_path, monkeypatch):
    measured = rollouts._heat

    def uncertain(*asked):
        heat, error = measured(*asked)
        return heat, 0.0 * error + heat.abs().max()

    monkeypatch.setattr(rollouts, "_heat", uncertain)
    with pytest.raises(ValueError, match="found no heat beyond its errors, expected"):
        balance_model(hot, of_hot, tmp_path / "mine.pt", 1.0)
    assert not (tmp_path / "mine.pt").exists()


def test_a_file_is_replaced_only_where_asked_to(hot, of_hot, tmp_path):
    output = tmp_path / "mine.pt"
    output.touch()
    with pytest.raises(FileExistsError, match=r"found a file .*mine\.pt; choose"):
        balance_model(hot, of_hot, output)


def test_a_model_that_is_no_network_of_ours_is_refused(of_hot, tmp_path):
    stub = save_stub_model(tmp_path / "stub.pt")
    sidecar = RolloutSidecar.read(of_hot)
    for file in of_hot.parent.glob("hot.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    own = dataclasses.replace(sidecar, model_sha256=load_model(stub).sha256)
    own.write(tmp_path / "hot.json")
    with pytest.raises(ValueError, match=r"stub\.pt without the sizes of its network"):
        balance_model(stub, tmp_path / "hot.json", tmp_path / "mine.pt")
