"""A reporter of what tells whether a learned run is sound."""

import os
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit

from openmm_diffmd.integrator.bond_watch import BondWatch
from openmm_diffmd.integrator.diffusion_integrator import DiffusionIntegrator
from openmm_diffmd.integrator.particles import Particles, read_particles
from openmm_diffmd.integrator.periodic_reporter import PeriodicReporter
from openmm_diffmd.integrator.resumable_table import ResumableTable
from openmm_diffmd.units import (
    BOLTZMANN,
    PS_PER_NS,
    SECONDS_PER_DAY,
)

NO_NUMBER = float("nan")

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class _Run:
    """What a report needs of the Simulation that it is on."""

    context: weakref.ref[openmm.Context]
    integrator: DiffusionIntegrator
    watch: BondWatch
    particles: Particles
    elements: Sequence[str]
    """In the order of mass, so that hydrogen comes first."""

    element_of_atom: Indices


class DiffusionReporter(PeriodicReporter):
    """
    Write temperatures, bonds, redraws and speed of a run, one line a report.

    The file is a table as `openmm.app.StateDataReporter` writes it, flushed at each
    report. Its columns:

    - ``Step`` and ``Time (ps)``;
    - ``Temperature (K)`` and ``Temperature of E (K)`` for each element E: T(E) =
      sum_i m_i abs(v_i - v_c)^2 / (k sum_i f_i) over the element's atoms of all
      molecules, v_c the velocity of the centre of mass of the atom's molecule,
      f_i = 3 (1 - m_i/M) its degrees of freedom there, M the mass of its molecule. In
      equilibrium each is the temperature of the heat bath; ``nan`` where there is no
      degree of freedom;
    - ``Largest Bond Deviation``: the largest abs(l - middle)/(half the width) of the
      range that the guards allow each bond: 0 in the middle, beyond 1 is refused; and
      ``Bond``, the atoms that it joins; ``nan`` and nothing where there are no bonds;
    - ``Hottest Bond Energy (kT)``: the energy of the stretch that has the most, mean
      over the 0.2 ps before the report, and ``Hottest Bond``; ``nan`` and nothing until
      2 ps have been seen of all molecules together, of a run that goes on too. Each of
      these lags is looked at, and a warning given, once, if a bond has more than 18 kT:
      many had so before they broke;
    - ``Redrawn Lags`` and ``Rescued Lags``, of all molecules since the Context was
      made;
    - ``Network Evaluations``: calls of the denoising head, each for a batch of
      molecules, since the Context was made; each lag has one call of the encoder too;
    - ``Speed (ns/day)`` of each trajectory: simulated over wall time since the report
      before, or since the run began; all that the process did counts;
    - ``Last Refusal``: lag, molecule, atoms and values of the last draw that the guards
      refused since the report before; empty where there was none.

    Parameters
    ----------
    file : str, path-like or text file
        Where to write.
    reportInterval : int
        Steps between reports.
    separator : str
        One character between columns; a text that holds it is quoted.
    append : bool
        Continue the file of an earlier run, named by its path: rows of steps that are
        made again, from a checkpoint say, and a last row that was cut are taken out.
    integrator : openmm.Integrator, optional
        The DiffusionIntegrator to report on, where the Simulation has several; its own,
        or the one of its CompoundIntegrator, unless given.

    Attributes
    ----------
    last_refusal : str
        What ``Last Refusal`` said last; empty if nothing was refused yet.

    Raises
    ------
    ValueError
        If the interval is less than 1, the separator is not one character that can
        separate columns, a file object is to be continued, or the integrator is none.
    FileNotFoundError
        If there is no file to continue.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | TextIO,
        reportInterval: int,
        separator: str = ",",
        append: bool = False,
        integrator: openmm.Integrator | None = None,
    ) -> None:
        super().__init__(reportInterval, "positions", "velocities")
        self.last_refusal = ""
        self._named = None if integrator is None else _find_integrator(integrator)
        self._run: _Run | None = None
        self._elements: Sequence[str] | None = None
        self._num_refused = 0
        self._clock: tuple[float, float] | None = None
        self._table = ResumableTable(file, separator, append)

    def _steps_to_next(self, simulation: app.Simulation) -> int:
        # Asked before the first step, when the clock begins.
        watch = self._find(simulation).watch
        return watch.steps_to_look(simulation.currentStep, self._interval)

    def report(self, simulation: app.Simulation, state: Any) -> None:
        """
        Look at the bonds, and write one line where it is due.

        Parameters
        ----------
        simulation : openmm.app.Simulation
            The simulation.
        state : openmm.State
            Its positions and velocities.

        Raises
        ------
        ValueError
            If the file to continue has other columns, or the Simulation other elements
            than the one before, or it has no DiffusionIntegrator, or several, or not
            the one that was named.
        """
        run = self._find(simulation)
        integrator, watch = run.integrator, run.watch
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        velocities = state.getVelocities(asNumpy=True).value_in_unit(
            unit.nanometer / unit.picosecond
        )
        now = state.getTime().value_in_unit(unit.picosecond)
        watch.look(now, positions, velocities)
        if simulation.currentStep % self._interval:
            return
        if self._elements is None:
            self._table.begin(_columns(run.elements), simulation.currentStep)
            self._elements = run.elements
        deviation, bond = _largest_bond_deviation(run.particles, positions)
        row = [simulation.currentStep, f"{now:.12g}"]
        row += [f"{t:.6g}" for t in _temperatures(run, velocities)]
        row += [f"{deviation:.6g}", bond]
        hottest = watch.now
        row.append(f"{NO_NUMBER if hottest is None else hottest.energy_kT:.6g}")
        row.append("" if hottest is None else "{}-{}".format(*hottest.atoms))
        row += [integrator.getNumResamples(), integrator.getNumRescues()]
        row += [integrator.getNumEvaluations(), f"{self._measure_speed(now):.4g}"]
        row.append(self._read_refusal(integrator))
        self._table.add_row(row)

    def _find(self, simulation: app.Simulation) -> _Run:
        """Look the Simulation over; again, where the reporter is on another one."""
        context = simulation.context
        if self._run is not None and self._run.context() is context:
            return self._run
        integrator = _find_integrator(simulation.integrator, self._named)
        symbols = [atom.element.symbol for atom in simulation.topology.atoms()]
        elements = sorted(set(symbols), key=lambda e: app.Element.getBySymbol(e).mass)
        if self._elements not in (None, elements):
            raise ValueError(
                f"found a Simulation of {', '.join(elements)}, expected "
                f"{', '.join(self._elements or ())} as in the one before: give it a "
                "reporter of its own"
            )
        self._run = _Run(
            context=weakref.ref(context),
            integrator=integrator,
            watch=BondWatch(integrator),
            particles=read_particles(integrator),
            elements=elements,
            element_of_atom=np.array([elements.index(e) for e in symbols], np.int64),
        )
        self._clock = time.perf_counter(), _picoseconds(context)
        self._num_refused = _count_refused(integrator)
        return self._run

    def _measure_speed(self, now: float) -> float:
        """ns/day since the last report, or since the first step."""
        clock = time.perf_counter()
        begin, simulated = self._clock or (clock, now)
        self._clock = clock, now
        nanoseconds = (now - simulated) / PS_PER_NS
        elapsed = clock - begin
        # Backwards where an earlier checkpoint was loaded.
        forward = elapsed > 0 and nanoseconds >= 0
        return nanoseconds * SECONDS_PER_DAY / elapsed if forward else NO_NUMBER

    def _read_refusal(self, integrator: Any) -> str:
        count = _count_refused(integrator)
        if count == self._num_refused:
            return ""
        self._num_refused = count
        self.last_refusal = str(integrator.getLastRefusal())
        return self.last_refusal


def _columns(elements: Sequence[str]) -> list[str]:
    return [
        "Step",
        "Time (ps)",
        "Temperature (K)",
        *(f"Temperature of {e} (K)" for e in elements),
        "Largest Bond Deviation",
        "Bond",
        "Hottest Bond Energy (kT)",
        "Hottest Bond",
        "Redrawn Lags",
        "Rescued Lags",
        "Network Evaluations",
        "Speed (ns/day)",
        "Last Refusal",
    ]


def _count_refused(integrator: DiffusionIntegrator) -> int:
    # A rescue follows a refusal, also where no lag is drawn again.
    return integrator.getNumResamples() + integrator.getNumRescues()


def _picoseconds(context: openmm.Context) -> float:
    return float(context.getTime().value_in_unit(unit.picosecond))


def _find_integrator(
    integrator: openmm.Integrator, named: openmm.Integrator | None = None
) -> DiffusionIntegrator:
    """Find the one that is named, or the only one."""
    parts = [integrator]
    if isinstance(integrator, openmm.CompoundIntegrator):
        count = integrator.getNumIntegrators()
        parts = [integrator.getIntegrator(i) for i in range(count)]
    found = []
    for part in parts:
        with suppress(TypeError):
            found.append(DiffusionIntegrator.cast(part, owner=integrator))
    if named is not None:
        found = [part for part in found if int(part.this) == int(named.this)]
        if not found:
            raise ValueError(
                "found a Simulation without the integrator that the reporter was "
                "given, expected its own: give it a reporter of its own"
            )
    if len(found) != 1:
        raise ValueError(
            f"found {len(found)} DiffusionIntegrators in a {type(integrator).__name__},"
            " expected one; of several name it: DiffusionReporter(..., integrator=...)"
        )
    return found[0]


def _temperatures(run: _Run, velocities: Array) -> list[float]:
    """Temperature of all atoms, then of each element, K."""
    masses, molecules = run.particles.masses, run.particles.molecules
    total = np.bincount(molecules, masses)
    centre = np.column_stack(
        [np.bincount(molecules, masses * v) / total for v in velocities.T]
    )
    twice_energy = masses * ((velocities - centre[molecules]) ** 2).sum(1)
    freedom = 3.0 * (1.0 - masses / total[molecules])
    every = np.zeros_like(molecules)
    result = []
    for group in (every, run.element_of_atom):
        energies = np.bincount(group, twice_energy)
        for energy, degrees in zip(energies, np.bincount(group, freedom), strict=True):
            # Rounding leaves some 1e-16 for a molecule of one atom.
            good = degrees > 1e-9
            result.append(energy / (BOLTZMANN * degrees) if good else NO_NUMBER)
    return result


def _largest_bond_deviation(
    particles: Particles, positions: Array
) -> tuple[float, str]:
    if not len(particles.bonds):
        return NO_NUMBER, ""
    first, second = particles.bonds.T
    lengths = np.linalg.norm(positions[first] - positions[second], axis=1)
    low, high = particles.bond_ranges.T
    deviations = np.abs(2.0 * lengths - low - high) / (high - low)
    worst = int(np.argmax(deviations))
    return float(deviations[worst]), f"{first[worst]}-{second[worst]}"
