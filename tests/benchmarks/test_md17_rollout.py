import json
import shutil
from pathlib import Path

import matplotlib.image
import md17_molecules as molecules
import md17_rollout as benchmark
import molecules_figure as figure
import numpy as np
import openmm
import partial_rollouts
import pytest
from bundled_reference import reference_of

from openmm_diffmd.analysis.analyze import analyze
from openmm_diffmd.analysis.comparable import common_interval
from openmm_diffmd.analysis.loading import BUNDLED, load_rollout
from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.integrator.rollout import RolloutSettings, roll_out
from openmm_diffmd.integrator.run import run
from openmm_diffmd.reference.dynamics import ReferenceFrame
from openmm_diffmd.reference.storage import ReferenceWriter
from openmm_diffmd.testing import FaultyModel, HarmonicModel, save_stub_model

TEMPERATURE = 300.0
FREQUENCY = 400.0  # 1/ps: stiff, so that no bond leaves its mean by 0.05 nm


@pytest.fixture(scope="module")
def harmonic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model that is exact, and 30 ps of its own dynamics as the reference."""
    folder = tmp_path_factory.mktemp("harmonic")
    stub = save_stub_model(
        folder / "harmonic.pt",
        HarmonicModel(angular_frequency=FREQUENCY, temperature=TEMPERATURE),
    )
    return stub, write_reference(stub, folder)


def write_reference(stub: Path, folder: Path) -> Path:
    model = load_model(stub)
    topology, _ = model.example()
    settings = RolloutSettings(
        length_ps=32.0,
        friction_per_ps=5.0,
        seed=11,
        keep_velocities=True,
        progress=False,
    )
    made = roll_out(model, topology, np.zeros((1, 9, 3)), folder / "made", settings)
    ensemble, _ = load_rollout(made.path)
    assert ensemble.velocities is not None
    path = folder / "reference.h5"
    provenance = {"temperature_K": TEMPERATURE, "potential": "harmonic"}
    with ReferenceWriter(path, topology, ensemble.masses, provenance, 3000) as writer:
        frames = zip(ensemble.positions[0], ensemble.velocities[0], strict=True)
        for k, (x, v) in enumerate(list(frames)[200:]):
            writer.write(0, ReferenceFrame(0.01 * (k + 1), x, v, x, 0.0))
    return path


@pytest.fixture(scope="module")
def results(
    harmonic: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict, Path]:
    output = tmp_path_factory.mktemp("rollout")
    stub, reference = harmonic
    benchmark.main(
        [
            f"--model={stub}",
            f"--reference={reference}",
            f"--output={output}",
            "--length-ps=8",
            "--replicas",
            "4",
            "--friction-per-ps=5",
            "--progress=false",
        ]
    )
    return json.loads((output / "results.json").read_text()), output


def test_benchmark_writes_trajectory_picture_and_results(results: tuple[dict, Path]):
    found, output = results
    assert matplotlib.image.imread(output / "rollout.png").shape[1] == 1760
    ensemble, sidecar = load_rollout(output / "diffmd.dcd")
    assert (ensemble.n_replicas, ensemble.n_frames) == (4, 3200)
    assert found["rollouts"]["diffmd"]["seed"] == sidecar.seed == 1
    assert found["machine"]["openmm"] == openmm.__version__
    assert found["machine"]["load"] >= 0
    assert len(found["reference"]["sha256"]) == 64
    assert [c["name"] for c in found["cost"]] == ["diffmd", "regression", "single"]
    assert all(c["ns_per_day"] > 0 for c in found["cost"])
    assert [c["evaluations"] for c in found["cost"]] == [3, 1, 3]
    # The reference's potential is none that can be timed, and that is said.
    assert "left out: found potential 'harmonic'" in found["notes"][0]


@pytest.mark.statistical
def test_exact_model_meets_the_goals_and_controls_do_not(results: tuple[dict, Path]):
    # stochastic; temperatures within 4 standard errors of equipartition.
    rows = results[0]["rows"]
    assert list(rows) == ["diffmd", "regression", "last frame", "constant velocity"]
    for name in ("diffmd", "regression"):
        assert rows[name]["n_broken"] == 0
        assert rows[name]["h_r_error"] < 2 * rows[name]["h_r_expected"]
        assert rows[name]["spectrum_overlap"] > 0.85
        for t in rows[name]["temperatures"].values():
            assert abs(t["value"] - t["expected"]) < 4 * t["error"]
    assert rows["last frame"]["h_r_error"] > 3 * rows["diffmd"]["h_r_error"]
    assert rows["last frame"]["n_broken"] == 0
    assert rows["constant velocity"]["n_broken"] == 4
    assert rows["constant velocity"]["first_break_ps"] < 0.2
    goals = {goal["name"]: goal["passed"] for goal in results[0]["goals"]}
    assert goals["no broken bond"]
    assert goals["at most 1e-05 of lags redrawn"]


def test_analyze_repeats_the_benchmarks_figures(
    results: tuple[dict, Path], harmonic: tuple[Path, Path], tmp_path: Path
):
    found, output = results
    path = analyze(
        [output / "diffmd.json", output / "regression.dcd"],
        harmonic[1],
        tmp_path / "a",
        equilibration_ps=found["equilibration_ps"],
    )
    again = json.loads(path.read_text())
    for name in ("diffmd", "regression"):
        assert again["rollouts"][name]["figures"] == found["rows"][name]
    assert again["floor"] == found["floor"]
    assert "goals met" in (path.parent / "report.txt").read_text()
    assert (path.parent / "report.png").is_file()


def test_rollouts_of_one_name_are_told_by_their_folders(
    results: tuple[dict, Path], harmonic: tuple[Path, Path], tmp_path: Path
):
    twin = shutil.copytree(results[1], tmp_path / "twin")
    path = analyze(
        [results[1] / "diffmd.json", twin / "diffmd.json"], harmonic[1], tmp_path / "a"
    )
    names = [f"{results[1].name}/diffmd", "twin/diffmd"]
    assert list(json.loads(path.read_text())["rollouts"]) == names
    assert path.with_suffix(".txt").read_text().count("goals met") == 2
    with pytest.raises(ValueError, match="found rollouts called twin/diffmd, twin/"):
        analyze([twin / "diffmd.json"] * 2, harmonic[1], tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_unlike_intervals_are_compared_at_a_common_one(
    harmonic: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    # A lag of 4 fs beside frames each 10: what both have is every 20 fs.
    model = HarmonicModel(FREQUENCY, 0.0, TEMPERATURE, lag_time=0.004)
    stub = save_stub_model(tmp_path / "short.pt", model)
    words = [f"--model={stub}", f"--reference={harmonic[1]}", f"--output={tmp_path}"]
    benchmark.main([*words, "--length-ps=1", "--replicas=2", "--regression=false"])
    assert "frames each 20 fs" in capsys.readouterr().out
    settings = RolloutSettings(length_ps=1.0, keep_velocities=True, progress=False)
    loaded = load_model(stub)
    topology, _ = loaded.example()
    made = roll_out(loaded, topology, np.zeros((2, 9, 3)), tmp_path / "run", settings)
    found = json.loads(analyze(made.path, harmonic[1], tmp_path / "a").read_text())
    # 50 frames of each.
    assert found["rollouts"]["run"]["figures"]["analyzed_ps"] == pytest.approx(2.0)
    assert common_interval(0.01, 0.004) == 0.02
    assert common_interval(0.01, 0.0005, 0.01) == 0.01


def test_run_that_the_guards_end_is_reported_all_the_same(
    harmonic: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    # A hydrogen farther than 0.017 nm from the centre, 4 standard deviations, is
    # spoilt beyond repair.
    faulty = FaultyModel(
        fault="bond",
        below_level=2.0,
        min_displacement=0.017,
        angular_frequency=FREQUENCY,
        temperature=TEMPERATURE,
    )
    stub = save_stub_model(tmp_path / "faulty.pt", faulty)
    benchmark.main(
        [
            f"--model={stub}",
            f"--reference={harmonic[1]}",
            f"--output={tmp_path}",
            "--length-ps=20",
            "--replicas=2",
            "--friction-per-ps=5",
            "--progress=false",
        ]
    )
    printed = capsys.readouterr().out
    assert "diffmd ended at" in printed
    assert "MISSED     no broken bond: 0 of 2 replicas broke" in printed
    found = json.loads((tmp_path / "results.json").read_text())
    sidecar = found["rollouts"]["diffmd"]
    assert 0 < sidecar["num_frames"] < 2000
    assert sidecar["error"].startswith("OpenMMException")


def test_control_that_cannot_begin_costs_its_own_row_only(
    harmonic: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def only_ours(model, topology, positions, output, settings):
        if output.name != "diffmd":
            raise openmm.OpenMMException(f"{output.name} was refused")
        return roll_out(model, topology, positions, output, settings)

    monkeypatch.setattr(partial_rollouts, "roll_out", only_ours)
    stub, reference = harmonic
    benchmark.main(
        [
            f"--model={stub}",
            f"--reference={reference}",
            f"--output={tmp_path}",
            "--length-ps=2",
            "--replicas=2",
            "--friction-per-ps=5",
            "--progress=false",
        ]
    )
    found = json.loads((tmp_path / "results.json").read_text())
    assert list(found["rows"]) == ["diffmd", "last frame", "constant velocity"]
    controls = ("regression", "single")
    assert found["not_begun"] == {name: f"{name} was refused" for name in controls}
    printed = capsys.readouterr().out
    for name in controls:
        note = f"{name} ended before its first frame: {name} was refused"
        assert note in found["notes"]
        assert note in printed


def test_run_without_a_first_frame_is_told_from_one_that_cannot_be_set_up(
    harmonic: tuple[Path, Path], tmp_path: Path
):
    spoilt = FaultyModel(
        "bond", 2.0, angular_frequency=FREQUENCY, temperature=TEMPERATURE
    )
    stub = str(save_stub_model(tmp_path / "spoilt.pt", spoilt))
    options = {"length_ps": 1.0, "replicas": 1, "progress": False}
    with pytest.raises(benchmark.NoFirstFrameError, match="bond"):
        benchmark.md17_rollout(stub, harmonic[1], tmp_path, **options)
    with pytest.raises(ValueError, match="found platform 'Abacus', expected one that"):
        benchmark.md17_rollout(
            stub, harmonic[1], tmp_path, platform="Abacus", **options
        )


def test_files_that_are_no_rollout_are_left_alone(
    harmonic: tuple[Path, Path], tmp_path: Path
):
    stub, reference = harmonic
    mine = tmp_path / "single.json"
    mine.write_text('{"mine": 1}')
    with pytest.raises(ValueError, match=r"single\.json is no rollout sidecar"):
        benchmark.md17_rollout(str(stub), reference, tmp_path, length_ps=1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["single.json"]
    assert mine.read_text() == '{"mine": 1}'


def test_a_second_run_takes_the_place_of_the_first(
    harmonic: tuple[Path, Path], tmp_path: Path
):
    stub, reference = harmonic
    options = {"length_ps": 1.0, "replicas": 2, "progress": False}
    for seed in (3, 4):
        benchmark.md17_rollout(str(stub), reference, tmp_path, seed=seed, **options)
        assert load_rollout(tmp_path / "diffmd.json")[1].seed == seed
        found = json.loads((tmp_path / "results.json").read_text())
        assert found["settings"]["seed"] == seed


def test_the_bundled_reference_has_a_name():
    model = load_model("ethanol")
    assert reference_of(model, Path("ethanol")) == BUNDLED["ethanol"]
    assert reference_of(model, Path("mine.h5")) == Path("mine.h5")
    assert reference_of(load_model("md17"), None) == BUNDLED["ethanol"]


def test_the_bundled_reference_is_of_one_molecule_and_force():
    told = r"trained on .*aspirin by GFN2-xTB; the bundled .* --molecule aspirin --pot"
    with pytest.raises(ValueError, match=told):
        reference_of(load_model("aspirin"), None)
    with pytest.raises(ValueError, match=r"trained on .*ethanol by force\.pt; the bun"):
        reference_of(load_model("ethanol_pbe"), None)


def test_default_length_is_of_whole_frames(
    harmonic: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    # A lag of 15 fs beside frames each 10: every 30 fs, of which 20 ps are no multiple.
    model = HarmonicModel(FREQUENCY, 0.0, TEMPERATURE, lag_time=0.015)
    stub = str(save_stub_model(tmp_path / "long.pt", model))
    asked = []

    def stop(model, topology, positions, output, settings):
        asked.append(settings.length_ps)
        raise ValueError("far enough")

    monkeypatch.setattr(partial_rollouts, "roll_out", stop)
    with pytest.raises(ValueError, match="far enough"):
        benchmark.md17_rollout(stub, harmonic[1], tmp_path)
    assert asked == [pytest.approx(20.01)]
    # An explicit one is refused before the reference is measured.
    monkeypatch.setattr(benchmark, "prepare_reference", lambda *_: 1 / 0)
    with pytest.raises(ValueError, match=r"found length_ps 20, expected a whole"):
        benchmark.md17_rollout(stub, harmonic[1], tmp_path, length_ps=20.0)


def test_reference_of_another_temperature_is_refused(
    harmonic: tuple[Path, Path], tmp_path: Path
):
    stub, reference = harmonic
    arguments = [f"--model={stub}", f"--reference={reference}", "--temperature-K=250"]
    with pytest.raises(SystemExit, match="found a reference at 300 K, expected 250 K"):
        benchmark.main([*arguments, f"--output={tmp_path}"])


def test_analyze_refuses_a_reference_of_another_temperature(
    harmonic: tuple[Path, Path], tmp_path: Path
):
    stub, reference = harmonic
    path = run(
        str(stub), tmp_path / "cold", length_ps=0.1, temperature_K=250, progress=False
    )
    with pytest.raises(ValueError, match="found a reference at 300 K, expected 250 K"):
        analyze(path, reference, tmp_path / "analysis")
    with pytest.raises(ValueError, match="window_ps 0, expected"):
        analyze(path, reference, tmp_path / "analysis", window_ps=0.0)
    assert not (tmp_path / "analysis").exists()


def test_option_that_is_not_built_is_refused():
    with pytest.raises(SystemExit):
        benchmark.main(["--molecule=aspirin"])


def test_molecules_get_a_row_each_and_are_not_run_twice(
    harmonic: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stub, reference = harmonic
    folder = tmp_path / "references" / "ethanol_300K"
    folder.mkdir(parents=True)
    (folder / "thermostatted.h5").write_bytes(reference.read_bytes())
    (tmp_path / "ethanol.pt").write_bytes(stub.read_bytes())
    words = [
        f"--model={tmp_path}/{{molecule}}.pt",
        f"--references={tmp_path / 'references'}",
        f"--output={tmp_path / 'out'}",
        "--molecules=[ethanol,aspirin]",
        "--length-ps=4",
        "--replicas=2",
        "--temperature-K=300",
        "--friction-per-ps=5",
    ]
    molecules.main(words)
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.startswith("ethanol  ")]
    assert [row[1] for row in rows] == ["K=2", "K=0", "methyl", "hydroxyl"]
    assert rows[0][2] == "0/2"
    assert lines[-1] == "left out, for lack of a reference: aspirin"
    assert matplotlib.image.imread(tmp_path / "out" / "table.png").ndim == 3
    made = tmp_path / "out" / "ethanol" / "results.json"
    before = made.stat().st_mtime_ns
    molecules.main(words)
    assert made.stat().st_mtime_ns == before
    capsys.readouterr()
    with pytest.raises(SystemExit, match=r"friction_per_ps 5.0, not 1.0: choose an"):
        molecules.main([*words, "--friction-per-ps=1"])
    assert made.stat().st_mtime_ns == before
    alone = [*words, f"--output={tmp_path / 'alone'}", "--regression=false"]
    molecules.main(alone)
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.startswith("ethanol  ")]
    assert [row[1] for row in rows] == ["K=2", "methyl", "hydroxyl"]
    with pytest.raises(SystemExit, match="make references"):
        molecules.main([*words, "--molecules=[aspirin]"])
    tables = {name: str(tmp_path / name / "table.json") for name in ("out", "alone")}
    both = tmp_path / "both.png"
    figure.main([f"--tables={json.dumps(tables)}", f"--output={both}"])
    single, double = (
        matplotlib.image.imread(path)
        for path in (tmp_path / "alone" / "table.png", both)
    )
    assert double.shape[0] > single.shape[0]
    with pytest.raises(SystemExit, match=r"molecules_figure: .*absent"):
        figure.main([f"--tables={{a: {tmp_path / 'absent'}}}", f"--output={both}"])
