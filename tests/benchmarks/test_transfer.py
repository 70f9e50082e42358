import dataclasses
import importlib
import json
from pathlib import Path

import ablation_training as training
import numpy as np
import openmm
import pytest
import transfer as benchmark
import transfer_isomers as isomers
import transfer_table as table
from ase import Atoms
from ase.io import write

from openmm_diffmd.bundled import PRETRAINED
from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.sidecar import RolloutSidecar

SPRINGS = '''
import numpy as np
from ase.calculators.calculator import Calculator, all_changes


class Springs(Calculator):
    """Springs between all atoms, at rest in the first geometry that it is asked for."""

    implemented_properties = ("energy", "forces")
    rest = None

    def calculate(self, atoms, properties, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        x = atoms.positions
        apart = x[:, None] - x[None]
        lengths = np.linalg.norm(apart, axis=-1) + np.eye(len(x))
        if self.rest is None:
            self.rest = lengths
        pull = 20.0 * (lengths - self.rest)
        self.results = {
            "energy": 0.25 * float((pull * (lengths - self.rest)).sum()),
            "forces": -((pull / lengths)[..., None] * apart).sum(1),
        }
'''
# C, O and two H: on C both, one each, on O both.
ISOMERS = [
    Atoms("COH2", [[0, 0, 0], [1.2, 0, 0], [-0.6, 0.9, 0], [-0.6, -0.9, 0]]),
    Atoms("COH2", [[0, 0, 0], [1.3, 0, 0], [-0.6, 0.9, 0], [1.6, -0.9, 0]]),
    Atoms("COH2", [[0, 0, 0], [1.3, 0, 0], [1.7, 0.9, 0], [1.7, -0.9, 0]]),
]
MIDDLE = next(s for s in range(9) if np.random.default_rng(s).permutation(3)[0] == 1)


@pytest.fixture(scope="module", autouse=True)
def springs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calculator")
    (folder / "springs.py").write_text(SPRINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield


@pytest.fixture(scope="module")
def geometries(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("isomers") / "isomers.xyz"
    write(path, ISOMERS, format="extxyz")
    return path


def run(geometries: Path, output: Path, *options: str) -> dict:
    benchmark.main(
        [
            f"--isomers={geometries}",
            f"--output={output}",
            "--num-unseen=1",
            f"--split-seed={MIDDLE}",
            "--references.potential=springs.Springs",
            "--references.train-ps=0.5",
            "--references.unseen-ps=2.5",
            "--references.hot-bursts=4",
            "--references.equilibration-ps=0.01",
            "--training.initialize_from=null",
            "--training.num_steps=40",
            "--training.noise_steps=2",
            "--training.own_steps=4",
            "--training.own_noise_steps=2",
            "--training.batch_size=8",
            "--training.compile=false",
            "--network.n_layers=1",
            "--network.channels=8",
            "--network.edge_channels=8",
            "--network.n_heads=2",
            "--network.head_channels=4",
            "--replicas=2",
            "--length-ps=1",
            *options,
        ]
    )
    return json.loads((output / "results.json").read_text())


def test_tiny_run_trains_on_the_others_and_is_not_done_again(
    geometries, tmp_path, monkeypatch
):
    first = run(geometries, tmp_path)
    assert first["settings"]["split"]["unseen"] == ["02"]
    lengths = {n: r["length_ps"] for n, r in first["references"].items()}
    assert lengths == {"01": 0.5, "02": 2.5, "03": 0.5}
    assert all(r["broken_at_ps"] is None for r in first["references"].values())
    assert {m: list(c) for m, c in first["cells"].items()} == {
        "2_isomers": ["02"],
        "own": ["02"],
    }
    trained = {
        name: [
            file["provenance"]["molecule"]
            for file in json.loads(
                (tmp_path / "trainings" / name / "mean" / "training.json").read_text()
            )["data"]
        ]
        for name in ("2_isomers", "own_02")
    }
    assert trained == {
        "2_isomers": 2 * ["isomer_01.xyz", "isomer_03.xyz"],
        "own_02": 2 * ["isomer_02.xyz"],
    }
    for module, name in (
        ("transfer_isomers", "make_reference"),
        ("transfer_models", "train"),
        ("transfer_models", "export_model"),
        ("transfer", "md17_rollout"),
    ):
        monkeypatch.setattr(
            importlib.import_module(module), name, lambda *_, **__: 1 / 0
        )
    assert run(geometries, tmp_path)["cells"] == first["cells"]
    with pytest.raises(SystemExit, match="of another training"):
        run(geometries, tmp_path, "--training.num_steps=5")


def test_split_is_drawn_by_the_seed_and_leaves_nobody_out():
    names = [f"{i:02d}" for i in range(1, 41)]
    splits = [isomers.split_isomers(names, 8, seed) for seed in (1, 1, 2)]
    assert splits[0] == splits[1] != splits[2]
    for train, unseen in splits:
        assert (len(train), len(unseen)) == (32, 8)
        assert sorted(train + unseen) == names
        assert unseen == sorted(unseen)
    # What the results in this tree are of.
    assert splits[0][1] == ["01", "07", "08", "10", "18", "23", "24", "29"]
    for count in (0, 40):
        with pytest.raises(ValueError, match="one to train on"):
            isomers.split_isomers(names, count, 1)


def test_isomers_are_of_one_formula_whole_and_different(geometries, tmp_path):
    assert list(isomers.read_isomers(geometries)) == ["01", "02", "03"]
    turned = ISOMERS[0][[3, 1, 0, 2]]
    turned.rotate(40, "y")
    apart = ISOMERS[0].copy()
    apart.positions[3] += [0, -3, 0]
    for bad, message in (
        (turned, "found the bonds of geometry 01 of .* in 04 again"),
        (apart, "04 of .* in pieces"),
        (Atoms("CO", [[0, 0, 0], [1.2, 0, 0]]), "found CO as geometry 04"),
    ):
        path = tmp_path / "bad.xyz"
        write(path, [*ISOMERS, bad], format="extxyz")
        with pytest.raises(ValueError, match=message):
            isomers.read_isomers(path)
    with pytest.raises(FileNotFoundError, match="geometries of some isomers"):
        isomers.read_isomers(tmp_path / "nothing.xyz")


def test_reference_that_was_cut_short_is_made_anew(geometries, tmp_path):
    budget = isomers.ReferenceBudget(
        "springs.Springs", train_ps=0.1, unseen_ps=0.2, hot_bursts=2
    )
    left = tmp_path / "01.part"
    left.mkdir()
    (left / "bursts.h5").write_text("cut short")
    found = isomers.make_references(
        isomers.read_isomers(geometries), ["02"], budget, tmp_path
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["01", "02", "03"]
    assert {
        n: len(read_reference(f / "bursts.h5").times) for n, f in found.items()
    } == {
        "01": 100,
        "02": 200,
        "03": 100,
    }
    made = [
        read_reference(folder / file).provenance
        for folder in found.values()
        for file in ("bursts.h5", "hot_bonds/bursts.h5")
    ]
    assert len({p["seed"] for p in made}) == 6
    assert [p["bond_energy_kT"] for p in made] == 3 * [0.0, 20.0]


def figures(n_broken: int, h_r: float, hot: float) -> dict:
    return {
        "n_replicas": 4,
        "n_broken": n_broken,
        "h_r_error": h_r,
        "h_r_halves": h_r,
        "h_r_expected": 0.01,
        "temperatures": {"H": {"value": 490 * hot, "error": 4.9, "expected": 490.0}},
    }


def result(n_broken: int, h_r: float, hot: float, error: str | None) -> dict:
    sidecar = RolloutSidecar(
        lag_time_fs=10.0,
        frame_interval_fs=10.0,
        num_frames=5000 if error is None else 120,
        num_replicas=4,
        atoms_per_replica=9,
        model_name="model",
        model_sha256="0",
        temperature_K=500.0,
        friction_per_ps=1.0,
        seed=1,
        sampler="exponential",
        num_sampling_steps=4,
        resamples=2,
        error=error,
    )
    return {
        "model": {"sha256": "0"},
        "reference": {"provenance": {}, "length_ps": 4.0},
        "floor": figures(0, 0.05, 1.0),
        "rows": {"diffmd": figures(n_broken, h_r, hot)},
        "rollouts": {"diffmd": dataclasses.asdict(sidecar)},
        "seconds": 1.0,
    }


def test_table_says_what_survived_and_sums_up():
    cells = {
        "01": table.summarize(result(0, 0.06, 1.02, None), 0.03),
        "02": table.summarize(result(1, 0.10, 1.06, "a bond"), 0.05),
        "03": table.summarize({"error": "the first lag", "replicas": 4}, 0.40),
    }
    assert cells["01"]["rows"]["diffmd"]["redrawn"] == pytest.approx(2 / 20000)
    assert cells["02"]["rows"]["diffmd"]["ended_ps"] == pytest.approx(1.2)
    lines = {
        line.split()[1]: line
        for line in table.make_table({"x": cells}).splitlines()[3:]
    }
    assert "0/4" in lines["01"]
    assert "H +2(1)" in lines["01"]
    assert "1.20" in lines["02"]
    assert lines["03"].split()[2:6] == ["-", "0.400", "4/4", "0.00"]
    # Replicas that could not begin are not unbroken.
    assert "5/12" in lines["all"]
    assert "2 of 3" in lines["all"]
    assert "0.080" in lines["all"]
    assert "H +4(2)" in lines["all"]


def test_control_that_could_not_begin_is_counted_and_ours_is_kept():
    found = result(0, 0.06, 1.02, None) | {
        "not_begun": {"regression": "refused", "single": "refused"},
        "replicas": 4,
    }
    cell = table.summarize(found, 0.03)
    assert list(cell["rows"]) == ["diffmd", "regression"]
    assert cell["rows"]["diffmd"]["n_broken"] == 0
    assert cell["rows"]["regression"]["n_broken"] == 4
    ours, control = table.make_table({"x": {"01": cell}}).splitlines()[3:]
    assert ours.split()[2:5] == ["4", "0.030", "0/4"]
    assert control.split()[2:6] == ["-", "0.030", "4/4", "0.00"]


def test_only_a_run_without_a_frame_is_a_result(tmp_path, monkeypatch):
    reference = tmp_path / "thermostatted.h5"
    reference.touch()
    model = load_model("ethanol")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(benchmark, "md17_rollout", fail)
    error = openmm.OpenMMException("no such platform")
    with pytest.raises(openmm.OpenMMException, match="no such platform"):
        benchmark._rolled_out(model, reference, tmp_path / "out", replicas=4)
    error = benchmark.NoFirstFrameError("the first lag")
    found = benchmark._rolled_out(model, reference, tmp_path / "out", replicas=4)
    assert found == {"error": "the first lag", "replicas": 4}


def test_references_too_short_to_test_on_are_refused(geometries, tmp_path):
    with pytest.raises(SystemExit, match=r"found train_ps of 0\.2 ps, expected"):
        run(geometries, tmp_path, "--references.train-ps=0.2")
    with pytest.raises(SystemExit, match=r"found hot_ps of 0\.2 ps, expected"):
        run(geometries, tmp_path, "--references.hot-bursts=2")


def test_one_lag_error_does_not_depend_on_the_order_of_elements(tmp_path):
    reference = training.first_segment(
        PRETRAINED / "ethanol_reference.h5", tmp_path / "reference.h5"
    )
    for name in ("ethanol", "md17"):
        model = load_model(name)
        first, second = (
            training.model_error(model, reference, symbols, "exponential", 0)
            for symbols in (("C", "H", "O"), ("O", "H", "C"))
        )
        assert first == pytest.approx(second, rel=1e-4)
        # The reference has a heat bath, which no model foresees; constant velocity: 1.
        assert first < 0.4
