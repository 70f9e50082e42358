import csv
import gc
import io
import math
import re
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.integrator import (
    DiffusionIntegrator,
    DiffusionReporter,
    create_system,
    replicate,
)
from openmm_diffmd.testing import FaultyModel, HarmonicModel, save_stub_model
from openmm_diffmd.units import BOLTZMANN

LARGEST = "Largest Bond Deviation"


def read_table(text: str, separator: str = ",") -> list[dict[str, str]]:
    """Rows as a user would read them."""
    assert text.startswith('#"Step"')
    return list(csv.DictReader(io.StringIO(text[1:]), delimiter=separator))


def make_simulation(model: DiffusionModel, num_replicas: int = 1, seed: int = 5):
    topology, positions = model.example()
    replicas = replicate(topology, create_system(topology), positions, num_replicas)
    integrator = DiffusionIntegrator(
        model, replicas.topology, molecules=replicas.molecules
    )
    integrator.setRandomNumberSeed(seed)
    simulation = app.Simulation(
        replicas.topology,
        replicas.system,
        integrator,
        openmm.Platform.getPlatform("Reference"),
    )
    simulation.context.setPositions(replicas.positions)
    simulation.context.setVelocitiesToTemperature(model.temperature, seed)
    return simulation


@pytest.fixture(scope="module")
def harmonic(tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    path = tmp_path_factory.mktemp("stub") / "harmonic.pt"
    return load_model(save_stub_model(path, HarmonicModel(friction=20.0)))


def test_each_number_is_what_the_state_says(harmonic: DiffusionModel, tmp_path: Path):
    simulation = make_simulation(harmonic, num_replicas=3)
    path = tmp_path / "run.csv"
    simulation.reporters.append(DiffusionReporter(path, 5))
    simulation.step(10)
    first, last = read_table(path.read_text())
    assert [first["Step"], last["Step"]] == ["5", "10"]
    assert float(last["Time (ps)"]) == pytest.approx(0.1, rel=1e-9)
    state = simulation.context.getState(positions=True, velocities=True)
    x = state.getPositions(asNumpy=True)._value.reshape(3, 9, 3)
    v = state.getVelocities(asNumpy=True)._value.reshape(3, 9, 3)
    masses = np.array([a.element.mass._value for a in simulation.topology.atoms()][:9])
    centre = (masses[:, None] * v).sum(1) / masses.sum()
    twice = (masses * ((v - centre[:, None]) ** 2).sum(2)).sum(0)
    freedom = 3 * 3 * (1 - masses / masses.sum())
    assert freedom.sum() == pytest.approx(3 * (27 - 3))
    for name, atoms in {
        "Temperature (K)": range(9),
        "Temperature of C (K)": [0, 1],
        "Temperature of O (K)": [2],
        "Temperature of H (K)": range(3, 9),
    }.items():
        chosen = list(atoms)
        expected = twice[chosen].sum() / (BOLTZMANN * freedom[chosen].sum())
        assert float(last[name]) == pytest.approx(expected, rel=1e-5)
    # The stub allows every bond 0 to 5 nm.
    deviations = {}
    for bond in simulation.topology.bonds():
        i, j = bond.atom1.index, bond.atom2.index
        length = np.linalg.norm(x.reshape(-1, 3)[i] - x.reshape(-1, 3)[j])
        deviations[f"{i}-{j}"] = abs(length - 2.5) / 2.5
    worst = max(deviations, key=deviations.__getitem__)
    assert last["Bond"] == worst
    assert float(last[LARGEST]) == pytest.approx(deviations[worst], rel=1e-5)
    assert last["Network Evaluations"] == str(simulation.integrator.getNumEvaluations())
    assert last["Redrawn Lags"] == "0"
    assert last["Last Refusal"] == ""
    assert float(last["Speed (ns/day)"]) > 0


@pytest.mark.statistical
def test_each_element_has_the_temperature_of_the_bath(
    harmonic: DiffusionModel, tmp_path: Path
):
    # Stochastic. Reports are 30 lags, 0.3 ps, apart, and friction is 20/ps: a velocity
    # keeps exp(-0.5 * 20 * 0.3) = 0.05 of itself, so reports are independent.
    simulation = make_simulation(harmonic, num_replicas=16)
    path = tmp_path / "run.csv"
    simulation.step(50)
    simulation.reporters.append(DiffusionReporter(path, 30))
    simulation.step(30 * 60)
    rows = read_table(path.read_text())
    for element in ("H", "C", "O"):
        values = np.array([float(r[f"Temperature of {element} (K)"]) for r in rows])
        error = values.std(ddof=1) / np.sqrt(len(values))
        assert abs(values.mean() - 300.0) < 4 * error
        # Without the correction of the degrees of freedom C and O would be off by
        # m/M: 26 % and 35 %, 78 K and more. That has to be seen.
        assert 4 * error < 60


def test_refusals_name_atoms_and_values(tmp_path: Path):
    stub = FaultyModel("bond", friction=20.0)
    model = load_model(save_stub_model(tmp_path / "m.pt", stub))
    simulation = make_simulation(model, num_replicas=2)
    reporter = DiffusionReporter(tmp_path / "run.csv", 2)
    simulation.reporters.append(reporter)
    simulation.step(4)
    rows = read_table((tmp_path / "run.csv").read_text())
    assert [row["Redrawn Lags"] for row in rows] == ["4", "8"]
    pattern = (
        r"lag 3, molecule 1: the bond between atoms 9 and 10 is [\d.]+ nm long, "
        r"expected 0 to 5 nm"
    )
    assert re.fullmatch(pattern, rows[1]["Last Refusal"])
    assert reporter.last_refusal == rows[1]["Last Refusal"]


def test_a_refusal_is_told_once(tmp_path: Path):
    # Spoilt while an atom is beyond 1 nm, which setPositions sees to once.
    stub = FaultyModel("nan", min_displacement=1.0, friction=20.0)
    model = load_model(save_stub_model(tmp_path / "m.pt", stub))
    simulation = make_simulation(model)
    simulation.reporters.append(DiffusionReporter(tmp_path / "run.csv", 1))
    start = simulation.context.getState(positions=True).getPositions(asNumpy=True)
    stretched = np.array(start._value)
    stretched[4] += 0.75
    simulation.context.setPositions(stretched)
    simulation.step(1)
    simulation.context.setPositions(start)
    simulation.step(2)
    rows = read_table((tmp_path / "run.csv").read_text())
    assert [row["Redrawn Lags"] for row in rows] == ["1", "1", "1"]
    assert [bool(row["Last Refusal"]) for row in rows] == [True, False, False]


def test_rescues_are_counted_and_name_the_refusal(tmp_path: Path):
    stub = FaultyModel("nan", below_level=2.0)
    path = save_stub_model(tmp_path / "m.pt", stub, max_resamples=0)
    simulation = make_simulation(load_model(path))
    # Free flight will do: no force is asked for here.
    rescue = openmm.Context(
        create_system(simulation.topology),
        openmm.VerletIntegrator(0.001),
        openmm.Platform.getPlatform("Reference"),
    )
    simulation.integrator.setRescueContext(rescue)
    simulation.reporters.append(DiffusionReporter(tmp_path / "run.csv", 2))
    simulation.step(4)
    rows = read_table((tmp_path / "run.csv").read_text())
    assert [row["Rescued Lags"] for row in rows] == ["2", "4"]
    assert [row["Redrawn Lags"] for row in rows] == ["0", "0"]
    assert rows[1]["Last Refusal"].startswith("lag 3, molecule 0: atom 0 has position")


def test_rows_are_on_disk_at_each_report(harmonic: DiffusionModel, tmp_path: Path):
    path = tmp_path / "run.csv"
    simulation = make_simulation(harmonic)
    simulation.reporters.append(DiffusionReporter(path, 1))
    for steps in (1, 2, 3):
        simulation.step(1)
        assert len(read_table(path.read_text())) == steps


@pytest.mark.parametrize("separator", [";", "\t"])
def test_separator_and_stream(harmonic: DiffusionModel, separator: str):
    stream = io.StringIO()
    simulation = make_simulation(harmonic)
    simulation.reporters.append(DiffusionReporter(stream, 1, separator=separator))
    simulation.step(2)
    rows = read_table(stream.getvalue(), separator)
    assert [row["Step"] for row in rows] == ["1", "2"]
    plain = np.genfromtxt(
        io.StringIO(stream.getvalue()),
        delimiter=separator,
        skip_header=1,
        usecols=range(6),
    )
    assert np.isfinite(plain).all()


def test_append_continues_from_a_checkpoint(harmonic: DiffusionModel, tmp_path: Path):
    whole, parts = tmp_path / "whole.csv", tmp_path / "parts.csv"

    def run(path: Path, steps: int, **options: bool) -> app.Simulation:
        simulation = make_simulation(harmonic)
        if options:
            simulation.loadCheckpoint(str(tmp_path / "state.chk"))
        simulation.reporters.append(DiffusionReporter(path, 2, **options))
        simulation.step(steps)
        return simulation

    run(whole, 12)
    first = run(parts, 6)
    first.saveCheckpoint(str(tmp_path / "state.chk"))
    first.step(4)
    with parts.open("a") as file:
        file.write("12,0.12,29")  # what a kill may leave
    run(parts, 6, append=True)

    def physics(path: Path) -> list[list[str]]:
        # The speed is another one; evaluations are counted since the Context was made,
        # and bonds watched since the reporter was.
        skipped = ("Speed", "Network Evaluations", "Hottest Bond")
        rows = read_table(path.read_text())
        return [
            [v for k, v in row.items() if not k.startswith(skipped)] for row in rows
        ]

    assert len(physics(whole)) == 6
    assert physics(parts) == physics(whole)


def test_append_begins_what_ended_before_its_first_report(
    harmonic: DiffusionModel, tmp_path: Path
):
    path = tmp_path / "run.csv"
    simulation = make_simulation(harmonic)
    simulation.reporters.append(DiffusionReporter(path, 4))
    simulation.step(3)
    simulation.reporters[:] = [DiffusionReporter(path, 4, append=True)]
    simulation.step(5)
    steps = [row["Step"] for row in read_table(path.read_text())]
    assert steps == ["4", "8"]


def test_append_keeps_a_table_that_only_later_steps_are_in(
    harmonic: DiffusionModel, tmp_path: Path
):
    path = tmp_path / "run.csv"
    simulation = make_simulation(harmonic)
    simulation.reporters.append(DiffusionReporter(path, 2))
    simulation.step(6)
    before = path.read_bytes()
    # From old positions alone steps are counted from 0.
    simulation = make_simulation(harmonic)
    simulation.reporters.append(DiffusionReporter(path, 2, append=True))
    with pytest.raises(ValueError, match="from step 2 on, expected rows before step 2"):
        simulation.step(6)
    assert path.read_bytes() == before


@pytest.mark.filterwarnings("ignore:found O, bonded as no molecule")
def test_molecules_without_bonds_or_freedom_have_no_number(
    harmonic: DiffusionModel,
):
    topology = app.Topology()
    residue = topology.addResidue("OXY", topology.addChain())
    topology.addAtom("O", app.Element.getBySymbol("O"), residue)
    integrator = DiffusionIntegrator(harmonic, topology)
    system = openmm.System()
    system.addParticle(app.Element.getBySymbol("O").mass)
    simulation = app.Simulation(
        topology, system, integrator, openmm.Platform.getPlatform("Reference")
    )
    simulation.context.setPositions(np.zeros((1, 3)))
    stream = io.StringIO()
    simulation.reporters.append(DiffusionReporter(stream, 1))
    simulation.step(1)
    (row,) = read_table(stream.getvalue())
    assert math.isnan(float(row["Temperature of O (K)"]))
    assert math.isnan(float(row[LARGEST]))
    assert row["Bond"] == ""


def test_the_integrator_of_a_compound_is_found_and_two_need_a_name(
    harmonic: DiffusionModel,
):
    topology, positions = harmonic.example()
    replicas = replicate(topology, create_system(topology), positions, 1)
    diffusion = DiffusionIntegrator(harmonic, topology)
    compound = openmm.CompoundIntegrator()
    compound.addIntegrator(diffusion)
    compound.addIntegrator(openmm.VerletIntegrator(0.001 * unit.picosecond))
    compound.addIntegrator(DiffusionIntegrator(harmonic, topology))
    simulation = app.Simulation(
        topology, replicas.system, compound, openmm.Platform.getPlatform("Reference")
    )
    simulation.context.setPositions(positions)
    stream = io.StringIO()
    simulation.reporters.append(DiffusionReporter(stream, 1, integrator=diffusion))
    simulation.step(2)
    assert len(read_table(stream.getvalue())) == 2
    simulation.reporters[0] = DiffusionReporter(io.StringIO(), 1)
    with pytest.raises(ValueError, match="found 2 DiffusionIntegrators in a Compound"):
        simulation.step(1)
    one = openmm.CompoundIntegrator()
    one.addIntegrator(openmm.VerletIntegrator(0.001 * unit.picosecond))
    one.addIntegrator(DiffusionIntegrator(harmonic, topology))
    one.setCurrentIntegrator(1)
    simulation = app.Simulation(
        topology, replicas.system, one, openmm.Platform.getPlatform("Reference")
    )
    simulation.context.setPositions(positions)
    stream = io.StringIO()
    simulation.reporters.append(DiffusionReporter(stream, 1))
    simulation.reporters.append(DiffusionReporter(io.StringIO(), 1, integrator=one))
    simulation.step(2)
    assert len(read_table(stream.getvalue())) == 2
    with pytest.raises(ValueError, match="found 0 DiffusionIntegrators in a Verlet"):
        DiffusionReporter(io.StringIO(), 1, integrator=openmm.VerletIntegrator(0.001))


def test_another_simulation_is_looked_over_anew(harmonic: DiffusionModel):
    stream = io.StringIO()
    reporter = DiffusionReporter(stream, 2)
    first = make_simulation(harmonic)
    first.reporters.append(reporter)
    first.step(4)
    del first
    gc.collect()
    second = make_simulation(harmonic, num_replicas=2)
    second.reporters.append(reporter)
    second.step(2)
    *_, last = read_table(stream.getvalue())
    # Two molecules make one batch; the counters are the second one's.
    integrator = second.integrator
    assert int(last["Network Evaluations"]) == integrator.getNumEvaluations()
    assert float(last["Temperature (K)"]) > 0.0
    third = make_simulation(load_model("benzene"))
    third.reporters.append(reporter)
    with pytest.raises(
        ValueError, match="found a Simulation of H, C, expected H, C, O"
    ):
        third.step(2)
    named = DiffusionReporter(io.StringIO(), 1, integrator=integrator)
    fourth = make_simulation(harmonic)
    fourth.reporters.append(named)
    with pytest.raises(ValueError, match="without the integrator that the reporter"):
        fourth.step(1)


def test_what_cannot_be_written_is_refused(harmonic: DiffusionModel, tmp_path: Path):
    with pytest.raises(ValueError, match="interval of 0, expected a whole"):
        DiffusionReporter(tmp_path / "run.csv", 0)
    for separator in ("::", "", "\n", '"'):
        with pytest.raises(ValueError, match=r"found separator .*, expected one char"):
            DiffusionReporter(tmp_path / "run.csv", 1, separator=separator)
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError):
        DiffusionReporter(tmp_path / "run.csv", 1, append=True)
    with pytest.raises(ValueError, match="found a file object to continue, expected"):
        DiffusionReporter(io.StringIO(), 1, append=True)
    other = tmp_path / "other.csv"
    other.write_text("something else\n")
    simulation = make_simulation(harmonic)
    simulation.reporters.append(DiffusionReporter(other, 1, append=True))
    with pytest.raises(ValueError, match="begins 'something else', expected"):
        simulation.step(1)
    assert other.read_text() == "something else\n"


def test_bundled_model_is_warm_and_whole(tmp_path: Path):
    model = load_model("ethanol")
    simulation = make_simulation(model, num_replicas=4)
    path = tmp_path / "run.csv"
    simulation.reporters.append(DiffusionReporter(path, 5))
    simulation.step(20)
    rows = read_table(path.read_text())
    assert all(0 < float(row[LARGEST]) < 1 for row in rows)
    # 4 replicas of 24 degrees of freedom: 0.2 ps leave it within 5 sigma of 500 K.
    limit = 5 * 500 * math.sqrt(2 / (4 * 24))
    assert all(abs(float(row["Temperature (K)"]) - 500) < limit for row in rows)
    counted = str(simulation.integrator.getNumEvaluations())
    assert rows[-1]["Network Evaluations"] == counted
