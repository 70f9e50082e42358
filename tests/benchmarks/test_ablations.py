import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import ablation_cells as cells
import ablation_runs as runs
import ablation_table as table
import ablation_training as training
import ablations as benchmark
import numpy as np
import openmm
import pytest
from openmm import unit

from openmm_diffmd.analysis.loading import load_reference, load_rollout
from openmm_diffmd.analysis.measure import prepare_reference
from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.export.torchscript import load_model, save_model
from openmm_diffmd.integrator.rollout import RolloutSettings, roll_out
from openmm_diffmd.models import TransitionModel
from openmm_diffmd.reference.dynamics import ReferenceFrame
from openmm_diffmd.reference.storage import ReferenceWriter
from openmm_diffmd.testing import HarmonicModel, save_stub_model
from openmm_diffmd.training.config import ModelConfig

TEMPERATURE = 300.0
FREQUENCY = 400.0  # 1/ps: stiff, so that no bond leaves its mean by 0.05 nm
N_BURSTS, BURST_FRAMES = 40, 40


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An exact model, its dynamics as reference and bursts, its potential."""
    folder = tmp_path_factory.mktemp("harmonic")
    exact = HarmonicModel(angular_frequency=FREQUENCY, temperature=TEMPERATURE)
    stub = save_stub_model(folder / "harmonic.pt", exact)
    model = load_model(stub)
    topology, _ = model.example()
    settings = RolloutSettings(
        length_ps=8.0,
        friction_per_ps=5.0,
        seed=11,
        keep_velocities=True,
        progress=False,
    )
    made = roll_out(model, topology, np.zeros((1, 9, 3)), folder / "made", settings)
    ensemble, _ = load_rollout(made.path)
    assert ensemble.velocities is not None
    masses = ensemble.masses
    potential = write_potential(masses, folder / "harmonic.xml")
    said = {"temperature_K": TEMPERATURE, "friction_per_ps": 5.0}
    said["potential"] = str(potential)
    x, v = ensemble.positions[0][200:], ensemble.velocities[0][200:]
    reference = folder / "reference.h5"
    with ReferenceWriter(reference, topology, masses, said, len(x)) as writer:
        for k, (x_k, v_k) in enumerate(zip(x, v, strict=True)):
            writer.write(0, ReferenceFrame(0.01 * (k + 1), x_k, v_k, x_k, 0.0))
    step, _ = HarmonicModel(FREQUENCY, lag_time=0.001).exact_transition()
    bursts = folder / "bursts.h5"
    frictionless = said | {"friction_per_ps": 0.0}
    with ReferenceWriter(
        bursts, topology, masses, frictionless, N_BURSTS * BURST_FRAMES
    ) as writer:
        for burst in range(N_BURSTS):
            z = np.stack([x[10 * burst], v[10 * burst]]).astype(np.float64)
            z -= np.einsum("a,pad->pd", masses / masses.sum(), z)[:, None]
            for k in range(BURST_FRAMES):
                energy = 0.5 * FREQUENCY**2 * float(masses @ (z[0] ** 2).sum(1))
                frame = ReferenceFrame(0.001 * (k + 1), z[0], z[1], z[0], energy)
                writer.write(burst, frame)
                z = np.einsum("pq,qad->pad", step, z)
    return {"model": stub, "reference": reference, "bursts": bursts}


def write_potential(masses: np.ndarray, path: Path) -> Path:
    """Springs between all pairs are springs to the centre of mass."""
    system, springs = openmm.System(), openmm.HarmonicBondForce()
    for i, mass in enumerate(masses):
        system.addParticle(mass)
        for j in range(i):
            constant = mass * masses[j] / masses.sum() * FREQUENCY**2
            springs.addBond(i, j, 0.0, constant)
    system.addForce(springs)
    path.write_text(openmm.XmlSerializer.serialize(system))
    return path


def run(files: dict[str, Path], output: Path, *options: str):
    benchmark.main(
        [
            f"--data=[{files['bursts']}]",
            f"--model={files['model']}",
            f"--reference={files['reference']}",
            f"--output={output}",
            "--replicas=4",
            "--length-ps=2",
            "--budget.num_steps=4",
            "--budget.batch_size=8",
            "--network.n_layers=1",
            "--network.channels=8",
            "--network.edge_channels=8",
            "--network.n_heads=2",
            "--network.head_channels=4",
            *options,
        ]
    )
    return json.loads((output / "results.json").read_text())


@pytest.fixture(scope="module")
def exact(files, tmp_path_factory) -> dict:
    output = tmp_path_factory.mktemp("exact")
    return run(files, output, '--groups=["controls","friction"]')


def test_exact_flow_keeps_the_energy_and_is_right_after_a_lag(exact: dict):
    cells = {key: cell for key, cell in exact["cells"].items() if "bundled" in key}
    assert len(cells) == 8
    for key, cell in cells.items():
        assert cell["n_broken"] == 0
        assert cell["one_lag_error"] < 1e-4
        # Four replicas move by a lag of 10 fs each in that time.
        lags_per_day = 86_400_000 / cell["cpu_ms_per_lag"]
        assert cell["cpu_ns_per_day"] == pytest.approx(4 * 1e-5 * lags_per_day)
        assert ("energy_drift" in cell) == ("/0/seed" in key)
    # A lag of 10 fs is 4 radians: kinetic and potential energy come and go.
    for steps in ("mean/0", "exponential/4"):
        drift = cells[f"friction/bundled/{steps}/0/seed 1"]["energy_drift"]
        assert abs(drift["value"]) < 0.02
        assert drift["rms"] < 0.05
    assert abs(exact["floor"]["energy_drift"]["value"]) < 0.02


def test_friction_that_the_reference_does_not_have_is_refused_before_the_work(
    files, tmp_path
):
    options = (
        '--groups=["training"]',
        '--variants=["thermostatted"]',
        "--friction-per-ps=2",
    )
    with pytest.raises(SystemExit, match=r"friction 2 for the variant 'thermostatted'"):
        run(files, tmp_path, *options)
    assert not (tmp_path / "results.json").exists()


def test_controls_are_wrong_in_their_own_ways(exact: dict):
    last, constant = (
        exact["cells"][f"controls/{name}"]
        for name in ("last frame", "constant velocity")
    )
    # The scale of the errors is how far free flight misses.
    assert constant["one_lag_error"] == pytest.approx(1.0, abs=1e-3)
    assert last["n_broken"] == 0
    assert constant["n_broken"] == 4
    assert last["h_r_error"] > 10 * exact["floor"]["h_r_error"] / 4


def test_trained_variants_are_kept_and_gone_on_with(
    files, tmp_path, monkeypatch, capsys
):
    options = ('--groups=["training"]', '--variants=["no velocity features"]')
    own = [tmp_path / "rollout.md", tmp_path / "rollout" / "rollout.png"]
    own[1].parent.mkdir()
    for file in own:
        file.touch()
    first = run(files, tmp_path, *options)
    assert all(file.is_file() for file in own)
    assert list(first["cells"]) == [
        f"training/no velocity features/{k}/1/seed 1"
        for k in ("mean/0", "exponential/2")
    ]
    folder = tmp_path / "trainings" / "no_velocity_features_1"
    config = json.loads((folder / "training.json").read_text())["config"]
    model = TransitionModel(3, 0.01, **config["model"])
    n_parameters = sum(weight.numel() for weight in model.parameters())
    for cell in first["cells"].values():
        assert cell["training"]["parameters"] == n_parameters
        assert cell["one_lag_error"] > 0.01
    # A second call trains and runs nothing of this again, only what is new.
    killed = {**first, "cells": dict(list(first["cells"].items())[:1])}
    (tmp_path / "results.json").write_text(json.dumps(killed))
    monkeypatch.setattr(training, "train", lambda *_, **__: 1 / 0)
    again = run(files, tmp_path, *options)
    for key, cell in first["cells"].items():
        timed = {"cpu_ms_per_lag", "cpu_ns_per_day"}
        kept = {name for name in cell if name not in timed}
        assert {n: again["cells"][key][n] for n in kept} == {n: cell[n] for n in kept}
    assert "no velocity features" in (tmp_path / "table.txt").read_text()
    with pytest.raises(SystemExit, match="found results of another budget"):
        run(files, tmp_path, *options, "--budget.num_steps=5")
    with pytest.raises(SystemExit, match=r"found a result of 4 x 2 ps .* expected 3"):
        run(files, tmp_path, *options, "--replicas=3")
    # Trainings without results, as a kill leaves them, say of what they are.
    for option, message in (
        ("--budget.learning_rate=1e-5", r"optimizer\.learning_rate 0\.002, not 1e-05"),
        ("--budget.perturbed=0.9", r"data\.perturbed 0\.1, not 0\.9"),
        ("--network.channels=16", r"model\.channels 8, not 16"),
        (f"--data=[{files['bursts']},{files['reference']}]", "other data"),
    ):
        (tmp_path / "results.json").unlink()
        with pytest.raises(SystemExit, match=f"found a training of {message} in"):
            run(files, tmp_path, *options, option)


def test_variants_of_one_training_are_models_of_their_own(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(training, "export_model", lambda *args, **_: made.append(args))
    monkeypatch.setattr(training, "load_model", lambda path: None)
    variants = [variant for variant, _ in cells.TRAINED[:2]]
    for variant in variants:
        cell = cells.Cell("training", variant)
        training.export_cell(cell, variant, tmp_path, [], 300.0, 1.0)
    names = [name for _, _, name, *_ in made]
    assert names == ["learned_prior", "last_layer_refitted"]
    files = [path.name for _, path, *_ in made]
    assert files == [f"{name}_exponential_4.pt" for name in names]


def test_rows_of_the_data_train_with_the_option_they_name(tmp_path, monkeypatch):
    asked = {}

    def train(data, output, model, options, *_, **__):
        asked[output.name] = options
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", train)
    budget = training.Budget(perturbed=0.0)
    for variant, _ in cells.TRAINED:
        with pytest.raises(KeyboardInterrupt):
            training.train_variant(variant, 1, [], ModelConfig(), budget, tmp_path)
    default = asked.pop("learned_prior_1")
    assert default.time_reversal
    changes = {
        "states_perturbed_1": {"perturbed": 0.1},
        "no_time_reversal_1": {"time_reversal": False},
        "four_lags_unrolled_1": {"unrolled_lags": 4},
        "thermostatted_1": {"dynamics": "thermostatted", "time_reversal": False},
    }
    for name, options in asked.items():
        assert options == replace(default, **changes.pop(name, {}))
    assert not changes


def test_first_segment_is_whole_or_not_there(files, tmp_path, monkeypatch):

    def kill(*_):
        raise KeyboardInterrupt

    output = tmp_path / "segment.h5"
    with monkeypatch.context() as patch:
        # At the last thing that is written.
        patch.setattr(training, "json", SimpleNamespace(dumps=kill))
        with pytest.raises(KeyboardInterrupt):
            training.first_segment(files["bursts"], output)
    assert not output.exists()
    found = read_reference(training.first_segment(files["bursts"], output))
    assert found.n_frames == BURST_FRAMES
    assert found.provenance["temperature_K"] == TEMPERATURE


def test_one_frame_has_figures_without_halves(files):
    frames, _ = load_reference(files["reference"])
    reference = prepare_reference(frames, TEMPERATURE)
    found = runs.figures_of(frames.window([0], [1]), reference, 0.0)
    assert found["n_broken"] == 0
    assert found["h_r_error"] > reference.figures.h_r_error
    assert "h_r_by_sampling" not in found
    found = runs.figures_of(frames.window([0], [2]), reference, 0.0)
    assert found["h_r_by_sampling"] > 0
    # All of it is equilibration.
    found = runs.figures_of(frames.window([0], [2]), reference, 1.0)
    assert sorted(found) == ["n_broken", "stable_ps"]


def test_model_of_more_elements_and_another_lag_is_run(files, tmp_path, monkeypatch):
    # 15 fs beside frames each 10: every 30 fs.
    harmonic = HarmonicModel(FREQUENCY, temperature=TEMPERATURE, lag_time=0.015)
    stub = save_stub_model(tmp_path / "many.pt", harmonic)
    more = replace(load_model(stub).metadata, elements=["H", "He", "C", "O"])
    save_model(harmonic, more, stub)
    cell = benchmark.Cell("friction", None)
    monkeypatch.setattr(benchmark, "cells", lambda *_: [cell])
    words = ('--groups=["sampler"]', f"--model={stub}")
    with pytest.raises(SystemExit, match=r"found length_ps 2, .* such as 2\.01"):
        run(files, tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()
    found = run(files, tmp_path / "out", *words, "--length-ps=2.01")
    (result,) = found["cells"].values()
    assert result["lag_time_fs"] == 15.0
    assert result["n_broken"] == 0
    assert result["ended_ps"] == pytest.approx(2.01)
    assert result["one_lag_error"] < 1e-4


def test_thermostatted_variant_learns_from_the_reference(files, tmp_path):
    found = run(
        files,
        tmp_path,
        '--groups=["training"]',
        '--variants=["thermostatted"]',
        "--friction-per-ps=5",
    )
    written = tmp_path / "trainings" / "thermostatted_1" / "training.json"
    description = json.loads(written.read_text())
    assert description["data"][0]["n_frames"] == 600
    assert description["config"]["data"]["dynamics"] == "thermostatted"
    assert not description["config"]["data"]["time_reversal"]
    assert len(found["cells"]) == 2


def test_drift_is_the_slope_in_mev_per_atom_and_ps():
    mev = unit.AVOGADRO_CONSTANT_NA * 0.001 * 1.602176634e-19 * unit.joule
    slope = mev.value_in_unit(unit.kilojoule_per_mole)
    times = 0.25 * np.arange(9)
    series = [3 * slope * times, 7 * slope * times + 5, -slope * times[:3]]
    found = runs.energy_drift(series, 0.25, 5)
    # The third is too short to have a slope.
    assert found["value"] == pytest.approx(1.0, rel=1e-6)
    assert found["error"] == pytest.approx(0.4, rel=1e-6)
    assert found["rms"] == pytest.approx(np.sqrt((0.6**2 + 1.4**2) / 2), rel=1e-6)
    assert runs.energy_drift(series[1:], 0.25, 5) is None


def test_energies_are_a_quarter_of_a_picosecond_apart(files):
    frames, _ = load_reference(files["reference"])
    context = runs.reference_context(
        frames.topology.to_openmm(), read_reference(files["reference"]).provenance
    )
    (energies,), interval = runs.total_energies(frames.window([0], [60]), context)
    assert frames.frame_interval == pytest.approx(0.01)
    assert len(energies) == 2
    assert interval == pytest.approx(0.25)


def test_table_averages_seeds_and_counts_what_broke():
    row = ["training", "learned prior", "exponential", "2", "1"]
    cell = {"row": row, "lag_time_fs": 10.0, "n_replicas": 8, "length_ps": 5.0}
    floor = cell | {"n_broken": 0}
    cell["training"] = {"cpu_s": 1.0}
    cells = {
        "a": {**cell, "n_broken": 1, "h_r_error": 0.1, "temperatures": {"H": [490, 5]}},
        "b": {**cell, "n_broken": 2, "h_r_error": 0.2, "temperatures": {"H": [510, 5]}},
        # The guards refused its first lag: nothing could be watched.
        "c": {**cell, "error": "refused", "ended_ps": 0.0},
    }
    cells = {name: {**c, "seed": name} for name, c in cells.items()}

    def columns(cells):
        text = table.make_table(cells, floor, ["H"])
        line = next(line for line in text.splitlines() if "learned prior" in line)
        return re.split(r"\s{2,}", line.strip())

    found = columns(cells)
    assert found[5] == "3"
    assert "11 of 24" in found
    assert "0.150 +- 0.071 (2 of 3)" in found
    assert "500 +- 14 (2 of 3)" in found
    # One of them ended early: its short run is no run of the whole length.
    cells["b"] |= {"error": "refused", "ended_ps": 1.0}
    found = columns(cells)
    assert "0.100 (1 of 3)" in found
    assert "490 +- 5 (1 of 3)" in found
    # Both did: brackets, also for the mean of two.
    cells["a"] |= {"error": "refused", "ended_ps": 2.0}
    assert "[0.150 +- 0.071]" in columns(cells)
    assert "2, 1, 0" in columns(cells)
    # A whole run of the bundled model has no seed of a training.
    own = {k: v for k, v in cells["a"].items() if k not in ("error", "training")}
    found = columns({"a": own})
    assert found[5] == "-"
    assert "0.100" in found
    assert "490 +- 5" in found


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ('--groups=["sampler","speed"]', "found groups .* expected some of"),
        ('--variants=["magic"]', "found variants .* expected some of"),
    ],
)
def test_unknown_rows_are_refused(files, tmp_path, option, message):
    with pytest.raises(SystemExit, match=message):
        run(files, tmp_path, option)
