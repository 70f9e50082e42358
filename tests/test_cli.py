import functools
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import tables
import yaml

from openmm_diffmd import cli
from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.reference import driver

QUICK = {
    "potential": "ase.calculators.lj.LennardJones",
    "potential_options": {"sigma": 0.9, "rc": 20.0},
    "temperature_K": 10.0,
    "equilibration_ps": 0.0,
    "length_ps": 0.02,
    "frame_interval_fs": 10.0,
    "num_bursts": 1,
    "burst_length_ps": 0.01,
    "progress": False,
}


def configure(folder, **changes):
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**QUICK, "molecule": "water", **changes}))
    return str(path)


def test_reference_runs_from_a_yaml_file(tmp_path, capsys):
    config = configure(tmp_path, output=str(tmp_path / "out"))
    assert cli.main(["reference", "--config", config, "--seed", "5"]) == 0
    run = tmp_path / "out" / "thermostatted.h5"
    assert read_reference(run).provenance["seed"] == 5
    assert capsys.readouterr().out.split() == [str(run), str(run.parent / "bursts.h5")]


def test_help_lists_the_verbs(capsys):
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {verb} " in shown for verb in cli.VERBS)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_of_a_verb_comes_from_its_docstring(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "--help"])
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    options = [line for line in lines if line.startswith("  --")]
    assert len(options) > 3


def test_help_of_reference_says_units(capsys):
    with pytest.raises(SystemExit):
        cli.main(["reference", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "Bath temperature, K. (type: float, default: 500.0)" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rfeerence"], "found verb 'rfeerence', expected one of reference, force"),
        (["reference", "--temprature_K", "300"], "temprature_K"),
        (["reference", "--seed", "one"], "seed"),
    ],
)
def test_wrong_command_lines_exit_with_2(tmp_path, arguments, message, capsys):
    config = ["--config", configure(tmp_path, output=str(tmp_path / "out"))]
    try:
        status = cli.main(arguments + (config if arguments[0] in cli.VERBS else []))
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert message in capsys.readouterr().err


def test_wrong_options_are_told_in_a_few_lines(capsys):
    with pytest.raises(SystemExit):
        cli.main(["run", "--lenth_ps", "3"])
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) < 8
    assert lines[0] == "usage: openmm-diffmd run [--config FILE.yaml] [--key value ...]"


def test_warnings_are_one_line(tmp_path):
    script = Path(sys.executable).with_name("openmm-diffmd")
    words = ["run", "--molecule", "methanol", "--output", "a", "--length-ps=0.02"]
    done = subprocess.run(
        [script, *words, "--progress=false"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("openmm-diffmd: run: warning: found CH4O, bonded as no mol")


def test_platforms_are_found_in_any_case(tmp_path, capsys):
    words = ["run", "--length-ps=0.02", "--progress", "false"]
    done = cli.main(
        [*words, "--output", str(tmp_path / "a"), "--platform", "reference"]
    )
    assert done == 0
    assert cli.main([*words, "--output", str(tmp_path / "b"), "--platform", "no"]) == 1
    found = capsys.readouterr().err
    assert "found platform 'no', expected one that OpenMM has here (Reference" in found


def test_dashes_do_for_underscores(capsys):
    with pytest.raises(SystemExit):
        cli.main(["run", "--length-ps", "3", "--model=my-model.pt", "--print-config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["length_ps"], printed["model"]) == (3.0, "my-model.pt")


def test_an_option_given_again_is_refused(capsys):
    """Of two --data the last would be all that is trained on."""
    words = ["train", "--output", "none", "--data", "a.h5", "--data=b.h5"]
    assert cli.main(words) == 2
    assert "found --data twice, expected once: for" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--rollouts", "--rollouts+"])
def test_files_that_a_shell_lists_are_refused_with_the_way_out(capsys, option):
    assert cli.main(["analyze", option, "a.json", "b.json", "--output", "none"]) == 2
    told = f"found 'b.json' after {option} a.json, expected one value of each option: "
    assert (
        told + "for one of several give --rollouts+ before" in capsys.readouterr().err
    )
    assert cli.main(["run", "--length-ps", "1", "--length_ps", "2"]) == 2
    assert "found --length_ps twice" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["train", "force"])
@pytest.mark.parametrize("words", [["--data", "a.h5"], ["--data+", "a.h5"]])
def test_one_file_is_data(words, verb, tmp_path, capsys):
    assert cli.main([verb, *words, "--output", str(tmp_path / "none")]) == 1
    assert "a.h5" in capsys.readouterr().err


def test_unknown_key_of_a_config_is_refused(tmp_path, capsys):
    config = configure(tmp_path, output=str(tmp_path), temprature_K=300)
    with pytest.raises(SystemExit) as stop:
        cli.main(["reference", "--config", config])
    assert stop.value.code == 2
    assert "temprature_K" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"molecule": "watr"}, "found no molecule 'watr'"),
        ({"seed": 0}, "found seed 0, expected a whole number from 1"),
        ({"potential": "GFN2"}, "found potential 'GFN2'"),
        ({"potential": "absent.xml", "potential_options": None}, "absent.xml"),
    ],
)
def test_errors_of_users_are_one_line_and_exit_with_1(
    tmp_path, changes, message, capsys
):
    config = configure(tmp_path, output=str(tmp_path / "out"), **changes)
    assert cli.main(["reference", "--config", config]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("openmm-diffmd: reference: ")
    assert message in lines[0]


def test_options_out_of_range_are_one_line_and_exit_with_1(capsys):
    words = ["train", "--data+", "none.h5", "--output", "none"]
    assert cli.main([*words, "--optimizer.batch_size", "0"]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines == [
        "openmm-diffmd: train: found batch_size 0, expected at least 1",
    ]


def test_failing_force_exits_with_1(tmp_path, capsys):
    config = configure(
        tmp_path,
        output=str(tmp_path / "out"),
        potential="GFN2-xTB",
        potential_options={"max_iterations": 2},
    )
    assert cli.main(["reference", "--config", config]) == 1
    assert "SCF not converged in 2 cycles; use other options" in capsys.readouterr().err


def merged(values, changes):
    """Nested `values` with those of `changes` in their place."""
    if not isinstance(changes, dict):
        return changes
    assert changes.keys() <= values.keys()
    return values | {key: merged(values[key], changes[key]) for key in changes}


def test_both_spellings_find_a_bundled_config(capsys):
    for words in (["--config", "train_ethanol"], ["--config=train_ethanol"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(["train", *words, "--print_config"])
        assert stop.value.code == 0
        assert yaml.safe_load(capsys.readouterr().out)["output"] == "runs/ethanol"


def test_unknown_config_is_told_with_those_there_are(capsys):
    assert cli.main(["train", "--config", "train_molecul"]) == 2
    told = capsys.readouterr().err
    assert "found no config 'train_molecul', expected a YAML file, or of" in told
    assert "train_molecule" in told
    assert "export_" not in told


@pytest.mark.parametrize(
    "name", [item.name for item in files("openmm_diffmd.configs").iterdir()]
)
def test_bundled_configs_are_valid(name, tmp_path, capsys):
    verb = name.split("_")[0]
    assert verb in cli.VERBS
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "--config", name.removesuffix(".yaml"), "--print_config"])
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    bundled = yaml.safe_load(files("openmm_diffmd.configs").joinpath(name).read_text())
    assert printed == merged(printed, bundled)


def test_reference_takes_one_thread_unless_told(monkeypatch):
    for told, expected in ((None, "1"), ("2", "2")):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if told:
            monkeypatch.setenv("OMP_NUM_THREADS", told)
        with pytest.raises(SystemExit):
            cli.main(["reference", "--help"])
        assert os.environ["OMP_NUM_THREADS"] == expected


def test_start_is_quick_and_imports_no_torch():
    code = (
        "import sys; from openmm_diffmd.cli import main; main(['--help']); "
        "sys.exit(bool({'torch', 'openmm', 'jsonargparse'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_analyses_need_no_torch():
    code = (
        "import sys, openmm_diffmd.analysis.analyze; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "script",
    [
        [Path(sys.executable).with_name("openmm-diffmd")],
        [sys.executable, "-m", "openmm_diffmd"],
    ],
)
def test_console_script_is_installed(script):
    shown = subprocess.run(
        [*script, "--version"], check=True, capture_output=True, text=True
    )
    assert shown.stdout.startswith("openmm_diffmd 0.")


def test_of_hdf5_the_last_line_is_told(tmp_path, monkeypatch, capsys):
    @functools.wraps(driver.make_reference)
    def fill_the_disk(**_):
        raise tables.HDF5ExtError("HDF5 error back trace\n\n  File a.c\n\nCannot write")

    monkeypatch.setattr(driver, "make_reference", fill_the_disk)
    config = configure(tmp_path, output=str(tmp_path / "out"))
    assert cli.main(["reference", "--config", config]) == 1
    found = capsys.readouterr().err.strip().splitlines()[-1]
    assert found == "openmm-diffmd: reference: Cannot write: is the disk full?"


@pytest.mark.parametrize("said", ["", "at step 7"])
def test_an_interruption_is_told_in_one_line(said, monkeypatch, capsys):
    # Also one of the first seconds, in which modules are imported.
    def interrupted(module):
        raise KeyboardInterrupt(said)

    monkeypatch.setattr(cli, "import_module", interrupted)
    assert cli.main(["run"]) == 130
    told = f" {said}" if said else ""
    expected = f"openmm-diffmd: run: interrupted{told}; what was written is kept\n"
    assert capsys.readouterr().err == expected
