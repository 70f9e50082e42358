"""
See whether the energy of a bond warns before the guards refuse a lag.

Replicas run in OpenMM at a friction lower than the model's own, where energy gathers in
bonds, until the guards refuse draws; one that breaks begins anew. After each lag the
energy of each bond's stretch over the last 0.2 ps is looked at, as
`openmm_diffmd.DiffusionReporter` and ``openmm-diffmd run`` do. An *alarm* is the
hottest bond of a molecule above a threshold, and holds for ``--horizon-ps``. Prints how
many refusals had one before, how long before, and how many alarms a refusal followed;
writes ``bond_warning.json``:

    OMP_NUM_THREADS=1 python benchmarks/bond_warning.py --output rollout
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import openmm
from command_line import one_line_errors, write_results
from early_warning import measure_alarms
from machine import describe_run
from numpy.typing import NDArray
from openmm import app, unit
from tqdm import tqdm

from openmm_diffmd.analysis.report import format_columns
from openmm_diffmd.checks import above, at_least
from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.integrator import DiffusionIntegrator, create_system, replicate
from openmm_diffmd.integrator.bond_watch import (
    WARNING_ENERGY_KT,
    StretchEnergies,
    kinds_of_bonds,
)
from openmm_diffmd.integrator.particles import read_particles
from openmm_diffmd.outputs import make_folder
from openmm_diffmd.reference.molecules import load_molecule
from openmm_diffmd.testing import read_frame
from openmm_diffmd.threads import set_threads
from openmm_diffmd.units import (
    BOLTZMANN,
    FS_PER_PS,
    PS_PER_NS,
)

Array = NDArray[np.float64]
THRESHOLDS_KT = (12.0, 15.0, WARNING_ENERGY_KT, 21.0)


@dataclass(frozen=True)
class Case:
    """
    What is run.

    Attributes
    ----------
    model : str
        Name of a bundled model, or its file.
    molecule : str
        Name of a molecule, or its file; the model's own if empty.
    friction : float
        1/ps.
    """

    model: str
    molecule: str
    friction: float

    @classmethod
    def read(cls, text: str) -> "Case":
        """
        Read MODEL:FRICTION or MODEL:MOLECULE:FRICTION.

        Parameters
        ----------
        text : str
            Of the command line.

        Returns
        -------
        Case
            What it says.

        Raises
        ------
        argparse.ArgumentTypeError
            If it says something else.
        """
        try:
            model, *middle, last = text.split(":")
            friction = float(last)
            at_least(0, friction=friction)
            (molecule,) = middle or [""]
        except ValueError as error:
            raise argparse.ArgumentTypeError(
                f"found {text!r}, expected MODEL:FRICTION or MODEL:MOLECULE:FRICTION, "
                "the friction in 1/ps, 0 or more"
            ) from error
        return cls(model, molecule, friction)

    @property
    def name(self) -> str:
        """As tables name it."""
        of = f" of {self.molecule}" if self.molecule else ""
        return f"{self.model}{of}, {self.friction:g}/ps"


DEFAULT_CASES = (
    Case("md17", "aspirin", 0.1),
    Case("md17", "salicylic", 0.1),
    Case("alanine_dipeptide", "", 0.1),
    Case("ethanol", "", 1.0),
)


@dataclass(frozen=True)
class Watched:
    """
    A run.

    Attributes
    ----------
    energies : ndarray, shape (n_lags, n_replicas), kT
        Of the hottest bond of each molecule after each lag.
    refusals, breaks : list of tuple
        (lag, replica) of each lag with a draw refused; of each that could not be drawn.
    """

    energies: Array
    refusals: list[tuple[int, int]]
    breaks: list[tuple[int, int]]


def load(case: Case) -> tuple[DiffusionModel, app.Topology, unit.Quantity]:
    """Load the model and the molecule of a case."""
    model = load_model(case.model)
    molecule = load_molecule(case.molecule) if case.molecule else model.example()
    return model, *molecule


def watch(case: Case, arguments: argparse.Namespace) -> Watched:
    """Run replicas and watch their bonds."""
    model, topology, positions = load(case)
    n_replicas = arguments.replicas
    r = replicate(topology, create_system(topology), positions, n_replicas)
    integrator = DiffusionIntegrator(
        model, r.topology, molecules=r.molecules, friction=case.friction
    )
    integrator.setRandomNumberSeed(arguments.seed)
    context = openmm.Context(
        r.system, integrator, openmm.Platform.getPlatform("Reference")
    )
    start = np.array(r.positions.value_in_unit(unit.nanometer))
    context.setPositions(start)
    context.setVelocitiesToTemperature(model.temperature, arguments.seed)
    particles = read_particles(integrator)
    bonds, masses = particles.bonds, particles.masses
    own = [slice(*np.searchsorted(r.molecules, [m, m + 1])) for m in range(n_replicas)]
    bonds_of = [
        slice(*np.searchsorted(r.molecules[bonds[:, 0]], [m, m + 1]))
        for m in range(n_replicas)
    ]
    lag_time = model.metadata.lag_time_fs / FS_PER_PS
    kinds = kinds_of_bonds(bonds, particles.species, particles.molecules)
    stretches = StretchEnergies(masses, bonds, kinds, lag_time)
    kT = BOLTZMANN * model.metadata.temperature_K
    generator = np.random.default_rng(arguments.seed)
    energies, refusals, breaks = [], [], []
    counts = np.zeros(n_replicas, int)
    x, v = read_frame(context)
    for lag in tqdm(
        range(round(arguments.length_ps / lag_time)),
        case.name,
        unit="lag",
        disable=None,
    ):
        while True:
            try:
                integrator.step(1)
                break
            except openmm.OpenMMException:
                refusal = integrator.getLastRefusalDetails()
                if refusal is None:
                    raise
                molecule = refusal.molecule
                breaks.append((lag, molecule))
                x, v = x.copy(), v.copy()
                x[own[molecule]] = start[own[molecule]]
                speeds = np.sqrt(kT / masses[own[molecule]])[:, None]
                v[own[molecule]] = speeds * generator.normal(size=(len(speeds), 3))
                context.setPositions(x)
                context.setVelocities(v)
                stretches.forget(bonds_of[molecule])
        found = np.array([integrator.getNumResamples(m) for m in range(n_replicas)])
        refusals += [(lag, int(m)) for m in np.flatnonzero(found > counts)]
        counts = found
        x, v = read_frame(context)
        mean = stretches.add(x[None], v[None])[0] / kT
        energies.append([mean[own_bonds].max() for own_bonds in bonds_of])
    return Watched(np.array(energies), refusals, breaks)


def measure(watched: Watched, lag_time: float, horizon: int) -> list[dict]:
    """Measure the alarms of each threshold."""
    rows = []
    for threshold in THRESHOLDS_KT:
        found = measure_alarms(watched.energies, watched.refusals, threshold, horizon)
        lead = found.lead * lag_time
        quartiles = np.quantile(lead, [0.25, 0.5, 0.75]).tolist() if len(lead) else None
        rows.append(
            {
                "threshold_kT": threshold,
                **{k: v for k, v in asdict(found).items() if k != "lead"},
                "n_warned": len(lead),
                "lead_quartiles_ps": quartiles,
            }
        )
    return rows


def format_table(results: dict[str, dict]) -> str:
    """Format the alarms of the threshold that a run warns at, and of the others."""
    header = ["", "ns", "broken", "refusals", "alarm\nabove, kT", "warned of\nthem"]
    header += ["lead, ps\n(quartiles)", "alarms", "followed\nby one"]
    lines = []
    for name, result in results.items():
        for row in result["alarms"]:
            lead = row["lead_quartiles_ps"]
            lines.append(
                [
                    name if row is result["alarms"][0] else "",
                    f"{result['ns']:.3g}",
                    f"{result['broken']}",
                    f"{row['n_events']}",
                    f"{row['threshold_kT']:g}",
                    f"{row['n_warned']}",
                    "-" if lead is None else "{1:.2g} ({0:.2g}, {2:.2g})".format(*lead),
                    f"{row['n_alarms']}",
                    f"{row['n_followed']}",
                ]
            )
    return format_columns(header, lines)


def main(words: Sequence[str] | None = None) -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cases",
        type=Case.read,
        nargs="+",
        default=list(DEFAULT_CASES),
        metavar="MODEL[:MOLECULE]:FRICTION",
        help="what to run, friction in 1/ps",
    )
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument(
        "--length-ps", type=float, default=100.0, help="of each replica"
    )
    parser.add_argument(
        "--horizon-ps", type=float, default=5.0, help="for which an alarm holds"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("rollout"))
    arguments = parser.parse_args(words)
    with one_line_errors("bond_warning"):
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Measure what the command line says."""
    at_least(1, replicas=arguments.replicas)
    above(0, length_ps=arguments.length_ps, horizon_ps=arguments.horizon_ps)
    set_threads(arguments.threads)
    make_folder(arguments.output)
    # What is wrong with any of them is told before the first is run.
    models = [load(case)[0] for case in arguments.cases]
    lag_times = [m.metadata.lag_time_fs / FS_PER_PS for m in models]
    horizons = [round(arguments.horizon_ps / lag_time) for lag_time in lag_times]
    at_least(1, lags_of_horizon=min(horizons))
    results = {}
    cases = zip(arguments.cases, models, lag_times, horizons, strict=True)
    for case, model, lag_time, horizon in cases:
        watched = watch(case, arguments)
        results[case.name] = {
            **asdict(case),
            "model_sha256": model.sha256,
            "ns": watched.energies.size * lag_time / PS_PER_NS,
            "refused_lags": len(watched.refusals),
            "broken": len(watched.breaks),
            "alarms": measure(watched, lag_time, horizon),
        }
    print("\n" + format_table(results))
    path = arguments.output / "bond_warning.json"
    written = {
        **describe_run(__file__),
        "replicas": arguments.replicas,
        "length_ps": arguments.length_ps,
        "horizon_ps": arguments.horizon_ps,
        "seed": arguments.seed,
        "cases": results,
    }
    write_results(path, written)
    print(f"In {path}")


if __name__ == "__main__":
    main()
