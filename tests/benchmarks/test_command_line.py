"""Wrong input of the measuring commands: one line, and nothing lost."""

import importlib
import json
from pathlib import Path
from typing import Any

import bench_cost
import command_line
import md17_molecules as molecules
import mdtraj
import molecules_figure
import numpy as np
import pytest
import short_horizon
import short_horizon_cases as cases
import umbrella_runs as runs
from matplotlib.figure import Figure
from mdtraj.formats import HDF5TrajectoryFile

from openmm_diffmd.analysis.loading import load_reference
from openmm_diffmd.integrator.guards import LagRefusedError
from openmm_diffmd.reference.dynamics import ReferenceFrame
from openmm_diffmd.reference.molecules import load_molecule
from openmm_diffmd.reference.storage import ReferenceWriter
from openmm_diffmd.testing import HarmonicModel, save_stub_model

SAID = {"temperature_K": 300.0, "friction_per_ps": 1.0, "kind": "thermostatted"}


def write(path: Path, molecule: str, said: dict[str, Any] = SAID) -> None:
    topology, loaded = load_molecule(molecule)
    positions = loaded._value
    masses = np.array([a.element.mass._value for a in topology.atoms()])
    with ReferenceWriter(path, topology, masses, said, 50) as writer:
        for k in range(50):
            x = positions + 0.001 * np.sin(k + np.arange(positions.size)).reshape(-1, 3)
            writer.write(0, ReferenceFrame(0.01 * (k + 1), x, 0 * x, x, 0.0))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    stub = HarmonicModel(400.0, temperature=300.0)
    made = {"model": save_stub_model(folder / "ethanol.pt", stub)}
    for name in ("ethanol", "water"):
        made[name] = folder / f"{name}.h5"
        write(made[name], name)
    made["bursts"] = folder / "bursts.h5"
    write(made["bursts"], "ethanol", SAID | {"kind": "bursts", "friction_per_ps": 0.0})
    made["web page"] = folder / "page.pt"
    made["web page"].write_text("<html>not found</html>")
    made["isomers"] = folder / "isomers.xyz"
    made["isomers"].write_text(
        "3\n\nH 0 0 0\nC 0 0 1.07\nN 0 0 2.22\n3\n\nH 0 0 0\nN 0 0 1.00\nC 0 0 2.17\n"
    )
    return made


ABSENT = "absent.h5"
CASES = [
    ("reliability", ["--reference", ABSENT], "found no file absent.h5"),
    ("reliability", ["--model", "{web page}"], "no readable TorchScript file"),
    ("reliability", ["--reference", "{bursts}"], "found the frictionless bursts"),
    ("reliability", ["--replicas", "0"], "found replicas 0, expected at least 1"),
    ("reliability", ["--draws", "1"], "found draws 1, expected at least 2"),
    ("reliability", ["--lags", "-1"], "found lags -1, expected at least 0"),
    ("reliability", ["--threads", "0"], "found threads 0, expected at least 1"),
    ("reliability", ["--temperatures-K", "nan"], "found temperature nan, expected"),
    (
        "reliability",
        ["--temperatures-K", "9", "300"],
        "found the runs 300 K twice, exp",
    ),
    ("umbrella", ["--replicas", "0"], "found replicas 0, expected at least 1"),
    ("umbrella", ["--length-ps", "15"], "expected a multiple of 10 ps"),
    ("umbrella", ["--length-ps", "-10"], "expected a multiple of 10 ps"),
    ("umbrella", ["--segments", "1"], "found segments 1, expected at least 2"),
    ("bench_cost", ["--force", ABSENT], "found no absent.h5, expected a file of"),
    ("bench_cost", ["--force", "{web page}"], "no trained force that can be read"),
    ("bench_cost", ["--reference", "{water}"], "found .*water.h5 of atoms O-H-H, exp"),
    ("bench_cost", ["--reference", ABSENT], "found no file absent.h5"),
    ("bench_cost", ["--replicas", "0"], "found replicas 0, expected at least 1"),
    ("bench_cost", ["--length-ps", "-1"], "found length_ps -1, expected more than 0"),
    ("bench_cost", ["--output", "{web page}"], "no JSON that can be read"),
    ("bond_warning", ["--cases", "none:1"], "found no model 'none', expected"),
    ("bond_warning", ["--horizon-ps", "0.004"], "found lags_of_horizon 0, expected"),
    ("bond_warning", ["--replicas", "0"], "found replicas 0, expected at least 1"),
    ("real_md17", ["--data", ABSENT], "absent.h5"),
    (
        "real_md17",
        ["--data", "{water}"],
        "found real frames of H2O, bonded as no",
    ),
    ("real_md17", ["--data", "{ethanol}", "--replicas", "0"], "found replicas 0"),
    ("real_md17", ["--data", "{ethanol}", "--rollout", "no.json"], "found no no.json"),
    ("short_horizon", ["--models", "{web page}"], "no readable TorchScript file"),
    ("short_horizon", ["--references", ABSENT], "found no file absent.h5"),
    ("short_horizon", ["--cases", "0"], "found cases 0, expected at least 1"),
    ("short_horizon", ["--samples", "0"], "found samples 0, expected at least 1"),
    (
        "short_horizon",
        ["--data", "{ethanol}", "--references", "{ethanol}"],
        "found --data and --references, expected one or the other",
    ),
    (
        "short_horizon",
        ["--frame-interval-fs", "1"],
        "found --frame-interval-fs without --data",
    ),
    ("md17_rollout", ["--replicas", "0"], "found replicas 0, expected at least 1"),
    ("md17_rollout", ["--length-ps", "-1"], "found length_ps -1, expected more than 0"),
    ("md17_rollout", ["--length-ps", "0.105"], "found length_ps 0.105, expected a who"),
    ("md17_rollout", ["--reference", "{bursts}"], "found the frictionless bursts"),
    ("md17_molecules", ["--molecules", "[ethanl]"], "found molecules ..ethanl.., exp"),
    ("md17_molecules", ["--replicas", "0"], "found replicas 0, expected at least 1"),
    ("md17_molecules", ["--references", "none"], "found no reference of"),
    ("ablations", ["--data", "[]"], "found number_of_data_files 0, expected at lea"),
    ("ablations", ["--data", "[absent.h5]"], "found no file absent.h5"),
    ("ablations", ["--data", "[{water}]"], "found .*water.h5 of atoms O-H-H, expected"),
    ("ablations", ["--data", "[{bursts}]", "--seeds", "0"], "found seeds 0, expected"),
    (
        "ablations",
        ["--data", "[{bursts}]", "--model", "{web page}"],
        "no readable Torch",
    ),
    ("transfer", ["--isomers", "absent.xyz"], "found no absent.xyz; expected the geom"),
    (
        "transfer",
        [
            "--isomers",
            "{isomers}",
            "--num-unseen",
            "1",
            "--training.initialize_from",
            "{model}",
        ],
        "found isomers with N, expected some of H, C, O",
    ),
    ("transfer", ["--isomers", "{web page}"], "cannot be read as geometries"),
    (
        "transfer",
        ["--isomers", "a.xyz", "--replicas", "0"],
        "found replicas 0, expected",
    ),
    (
        "transfer",
        ["--isomers", "a.xyz", "--num-train", "0"],
        "found num_train 0, expect",
    ),
]
DEFAULTS = {
    "--model": ("reliability", "bench_cost", "real_md17", "md17_rollout", "ablations"),
    "--models": ("short_horizon",),
    "--reference": (
        "reliability",
        "bench_cost",
        "real_md17",
        "md17_rollout",
        "ablations",
    ),
    "--references": ("short_horizon",),
}
"""The small files, where a case names nothing else."""


@pytest.mark.parametrize(("name", "words", "message"), CASES)
def test_wrong_input_is_one_line(name, words, message, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [word.format(**files) for word in words]
    for option, commands in DEFAULTS.items():
        if name in commands and option not in words:
            words += [option, str(files["model" if "model" in option else "ethanol"])]
    if name != "bench_cost" and "--output" not in words:
        words += ["--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match=f"^{name}: .*{message}") as stop:
        importlib.import_module(name).main(words)
    # A text is what Python prints to stderr, with status 1.
    assert len(str(stop.value.code).splitlines()) == 1
    made = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert not made


@pytest.mark.parametrize(
    "name",
    [
        "bench_cost",
        "bench_fourier_bessel",
        "bench_integrator",
        "bench_reference",
        "bench_training",
        "fault_injection",
    ],
)
def test_output_that_cannot_be_written_is_told_at_once(name, files, capsys):
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(name).main(["--output", f"{files['model']}/a.json"])
    assert stop.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"found the file {files['model']}, expected a folder" in last


def test_interrupt_is_one_line(capsys):
    with pytest.raises(SystemExit) as stop, command_line.one_line_errors("a"):
        raise KeyboardInterrupt
    assert stop.value.code == 130
    assert capsys.readouterr().err == "a: interrupted; what was written is kept\n"


def test_faults_of_the_program_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), command_line.one_line_errors("a"):
        raise ZeroDivisionError


def test_damaged_coordinates_are_told_and_kept(tmp_path):
    path = tmp_path / "umbrella_model.npz"
    ones = np.ones((2, 3, 2))
    np.testing.assert_array_equal(runs.keep(path, "a", lambda: ones), ones)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with pytest.raises(ValueError, match="of a, expected b: choose another output"):
        runs.keep(path, "b", lambda: ones)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"cannot be read .*remove the file, and they"):
        runs.keep(path, "a", lambda: ones)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("found a lag"), r"short_horizon: .*h5: found a lag"),
        (
            LagRefusedError(3, 0, "a bond", 11),
            r"h5: lag 3, molecule 0: a bond, after 1",
        ),
    ],
)
def test_results_of_the_first_model_outlive_the_second(
    files, tmp_path, monkeypatch, error, message
):
    monkeypatch.setattr(short_horizon, "reference_cases", lambda *_: one_case())
    monkeypatch.setattr(short_horizon, "print_rows", lambda *_, **__: None)
    answers = iter([{"diffmd": 1.0}])

    def measure(*_: Any, **__: Any) -> dict[str, float]:
        for answer in answers:
            return answer
        raise error

    monkeypatch.setattr(short_horizon, "measure", measure)
    twice = [str(files["model"])] * 2, [str(files["ethanol"])] * 2
    words = ["--models", *twice[0], "--references", *twice[1]]
    with pytest.raises(SystemExit, match=message):
        short_horizon.main([*words, "--output", str(tmp_path)])
    written = json.loads((tmp_path / "short_horizon.json").read_text())
    assert [r["rows"] for r in written["results"]] == [{"diffmd": 1.0}]


def one_case() -> Any:
    topology, positions = load_molecule("ethanol")
    x = positions._value
    return cases.Cases("ethanol", topology, x[None], x[None], x[None], 5.0, 1.0, {})


def test_cost_outlives_rollouts_that_fail(tmp_path, monkeypatch):

    def fail(*_: Any) -> dict[str, Any]:
        raise ValueError("the guards gave up")

    monkeypatch.setattr(bench_cost, "measure_costs", lambda *_: {"1": {"rows": []}})
    monkeypatch.setattr(bench_cost, "measure_rollouts", fail)
    monkeypatch.setattr(bench_cost, "print_errors", lambda *_: None)
    output = tmp_path / "new" / "cost.json"
    with pytest.raises(SystemExit, match="bench_cost: the guards gave up"):
        bench_cost.main(["--output", str(output)])
    assert json.loads(output.read_text())["cost"]["1"]["rows"] == []


def test_molecules_run_on_where_one_ends_at_once(files, tmp_path, monkeypatch, capsys):
    for name in ("ethanol", "uracil"):
        (tmp_path / f"{name}_300K").mkdir()
        (tmp_path / f"{name}_300K" / "thermostatted.h5").touch()

    def refuse(**options: Any) -> None:
        raise molecules.NoFirstFrameError(f"{options['output'].name} refused")

    monkeypatch.setattr(molecules, "md17_rollout", refuse)
    molecules.main(
        [
            f"--model={files['model']}",
            f"--references={tmp_path}",
            f"--output={tmp_path / 'out'}",
            "--temperature-K=300",
        ]
    )
    printed = capsys.readouterr().out
    for name in ("ethanol", "uracil"):
        assert f"{name} ended before its first frame: {name} refused" in printed
    assert (tmp_path / "out" / "table.txt").read_text() in printed


def test_length_is_of_whole_frames():
    whole_frames = command_line.whole_frames
    assert whole_frames(None, 20.0, 0.01) == 20.0
    assert whole_frames(None, 20.0, 0.03) == pytest.approx(20.01)
    assert whole_frames(None, 0.01, 0.03) == 0.03
    assert whole_frames(0.3, 20.0, 0.03) == 0.3
    with pytest.raises(ValueError, match=r"length_ps 20, .* 0\.03 ps, such as 20\.01"):
        whole_frames(20.0, 20.0, 0.03)


def test_kept_molecule_has_the_files_and_options_asked_for(tmp_path):
    check_kept = molecules.check_kept
    path = tmp_path / "results.json"

    def keep(rows: dict[str, Any], steps: int, **more: Any) -> None:
        kept = {
            "model": {"sha256": "m"},
            "reference": {"sha256": "r"},
            "replicas": 2,
            "settings": {"length_ps": 20.01, "frame_interval_fs": 30.0},
            "rows": rows,
            "rollouts": {"diffmd": {"num_sampling_steps": steps}},
        }
        path.write_text(json.dumps(kept | more))

    asked = {"model": "m", "reference": "r", "replicas": 2, "length_ps": None}
    keep({"diffmd": {}, "regression": {}}, 4)
    check_kept(path, asked, regression=True)
    with pytest.raises(ValueError, match=r"length_ps 20\.01, not 20\.0: choose"):
        check_kept(path, asked | {"length_ps": 20.0}, regression=True)
    with pytest.raises(ValueError, match="of reference r, not another: choose"):
        check_kept(path, asked | {"reference": "another"}, regression=True)
    keep({"diffmd": {}}, 4)
    check_kept(path, asked, regression=False)
    with pytest.raises(ValueError, match="of regression False, not True: choose"):
        check_kept(path, asked, regression=True)
    # A mean that ended at once was run, and a model without draws has no other.
    keep({"diffmd": {}}, 4, not_begun={"regression": "refused"})
    check_kept(path, asked, regression=True)
    keep({"diffmd": {}}, 0)
    check_kept(path, asked, regression=True)


def test_picture_shows_the_molecules_of_all_tables(tmp_path, monkeypatch):
    draw = molecules_figure.draw
    drawn = []
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda figure, path, **_: (drawn.append(figure), path.touch()),
    )
    one = {"rows": {}, "reference": {"length_ps": 5.0}}
    tables = {"a": {"ethanol": one}, "b": {"aspirin": one, "ethanol": one}}
    draw(tables, tmp_path / "table.png")
    labels = [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    assert [label.split()[0] for label in labels] == ["ethanol", "aspirin"]
    with pytest.raises(ValueError, match="found 5 tables, expected at most 4"):
        draw(dict.fromkeys("abcde", tables["a"]), tmp_path / "table.png")
    with pytest.raises(ValueError, match="found no molecule"):
        draw({"a": {}}, tmp_path / "table.png")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("md17_rollout", ["--model", "aspirin"]),
        ("short_horizon", ["--models", "aspirin"]),
        ("reliability", ["--model", "aspirin"]),
    ],
)
def test_ethanol_does_not_pass_for_another_molecule(files, tmp_path, name, words):
    words = [word.format(**files) for word in words]
    command = importlib.import_module(name)
    with pytest.raises(SystemExit, match=f"{name}: found no reference for aspirin, wh"):
        command.main([*words, "--output", str(tmp_path)])


def test_real_frames_are_of_a_molecule_that_the_model_knows(files, tmp_path):
    words = ["--model", "aspirin", "--data", str(files["ethanol"])]
    with pytest.raises(SystemExit, match=r"found real frames of C2H6O, bonded as no"):
        importlib.import_module("real_md17").main([*words, "--output", str(tmp_path)])


def test_bursts_are_no_reference_of_an_analysis(files):
    with pytest.raises(ValueError, match=r"expected the thermostatted run .*thermost"):
        load_reference(files["bursts"])
    assert load_reference(files["ethanol"])[0].n_frames == 50


def test_file_without_provenance_passes(tmp_path):
    path = tmp_path / "plain.h5"
    topology = mdtraj.Topology.from_openmm(load_molecule("water")[0])
    with HDF5TrajectoryFile(str(path), "w") as file:
        file.topology = topology
        water = [[0.0, 0.0, 0.0], [0.096, 0.0, 0.0], [-0.024, 0.093, 0.0]]
        file.write(coordinates=np.tile(water, (3, 1, 1)), time=[0.0, 0.5, 1.0])
    assert load_reference(path)[0].n_frames == 3
