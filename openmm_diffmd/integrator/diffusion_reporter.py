"""A reporter of what tells whether a learned run is sound."""

import csv
import io
import os
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit

from openmm_diffmd.integrator.bond_watch import BondWatch
from openmm_diffmd.integrator.diffusion_integrator import DiffusionIntegrator
from openmm_diffmd.integrator.periodic_reporter import PeriodicReporter
from openmm_diffmd.units import BOLTZMANN, to_float

SECONDS_PER_DAY = 86400.0
NO_NUMBER = float("nan")

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class _Run:
    """What a report needs of the Simulation that it is on."""

    context: weakref.ref[openmm.Context]
    integrator: DiffusionIntegrator
    watch: BondWatch
    particles: "_Particles"


@dataclass(frozen=True)
class _Particles:
    """What a report needs to know about the particles."""

    masses: Array
    molecules: Indices
    elements: Sequence[str]
    element_of_atom: Indices
    bonds: Indices
    bond_ranges: Array


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
        if len(separator) != 1 or separator in '"\r\n':
            raise ValueError(
                f"found separator {separator!r}, expected one character that ends no "
                "line and quotes no text: choose another, such as ','"
            )
        self.last_refusal = ""
        self._separator = separator
        self._append = append
        self._named = None if integrator is None else _find_integrator(integrator)
        self._run: _Run | None = None
        self._elements: Sequence[str] | None = None
        self._num_refused = 0
        self._clock: tuple[float, float] | None = None
        self._path: Path | None = None
        self._stream: TextIO | None = None
        if isinstance(file, str | os.PathLike):
            self._path = Path(file)
            # Fails now where it would fail after the first lags.
            with self._path.open("r+" if append else "w"):
                pass
        elif append:
            raise ValueError(
                "found a file object to continue, expected the path of the file"
            )
        else:
            self._stream = file

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
        integrator, watch, particles = run.integrator, run.watch, run.particles
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        velocities = state.getVelocities(asNumpy=True).value_in_unit(
            unit.nanometer / unit.picosecond
        )
        now = state.getTime().value_in_unit(unit.picosecond)
        watch.look(now, positions, velocities)
        if simulation.currentStep % self._interval:
            return
        if self._elements is None:
            self._begin(particles.elements, simulation.currentStep)
            self._elements = particles.elements
        deviation, bond = _largest_bond_deviation(particles, positions)
        row = [simulation.currentStep, f"{now:.12g}"]
        row += [f"{t:.6g}" for t in _temperatures(particles, velocities)]
        row += [f"{deviation:.6g}", bond]
        hottest = watch.now
        row.append(f"{NO_NUMBER if hottest is None else hottest.energy_kT:.6g}")
        row.append("" if hottest is None else "{}-{}".format(*hottest.atoms))
        row += [integrator.getNumResamples(), integrator.getNumRescues()]
        row += [integrator.getNumEvaluations(), f"{self._measure_speed(now):.4g}"]
        row.append(self._read_refusal(integrator))
        line = io.StringIO()
        csv.writer(line, delimiter=self._separator, lineterminator="\n").writerow(row)
        self._write(line.getvalue())

    def _find(self, simulation: app.Simulation) -> _Run:
        """Look the Simulation over; again, where the reporter is on another one."""
        context = simulation.context
        if self._run is not None and self._run.context() is context:
            return self._run
        integrator = _find_integrator(simulation.integrator, self._named)
        particles = _read_particles(simulation, integrator)
        if self._elements not in (None, particles.elements):
            raise ValueError(
                f"found a Simulation of {', '.join(particles.elements)}, expected "
                f"{', '.join(self._elements or ())} as in the one before: give it a "
                "reporter of its own"
            )
        self._run = _Run(
            weakref.ref(context), integrator, BondWatch(integrator), particles
        )
        self._clock = time.perf_counter(), _picoseconds(context)
        self._num_refused = _count_refused(integrator)
        return self._run

    def _begin(self, elements: Sequence[str], step: int) -> None:
        columns = ["Step", "Time (ps)", "Temperature (K)"]
        columns += [f"Temperature of {e} (K)" for e in elements]
        columns += ["Largest Bond Deviation", "Bond"]
        columns += ["Hottest Bond Energy (kT)", "Hottest Bond"]
        columns += ["Redrawn Lags", "Rescued Lags", "Network Evaluations"]
        columns += ["Speed (ns/day)", "Last Refusal"]
        header = "#" + self._separator.join(f'"{column}"' for column in columns)
        path = self._path
        # Empty: the run before ended before its first report.
        if self._append and path is not None and path.stat().st_size:
            _cut_rows(path, header, step, self._separator)
        else:
            self._write(header + "\n")

    def _write(self, line: str) -> None:
        # One write a line: a run that is killed leaves whole lines.
        if self._path is not None:
            with self._path.open("a", newline="\n") as file:
                file.write(line)
        elif self._stream is not None:
            self._stream.write(line)
            self._stream.flush()

    def _measure_speed(self, now: float) -> float:
        """ns/day since the last report, or since the first step."""
        clock = time.perf_counter()
        begin, simulated = self._clock or (clock, now)
        self._clock = clock, now
        nanoseconds = (now - simulated) * 1e-3
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


def _read_particles(
    simulation: app.Simulation, integrator: DiffusionIntegrator
) -> _Particles:
    number = integrator.getNumParticles()
    parameters = [integrator.getParticleParameters(i) for i in range(number)]
    bonds = [integrator.getBondParameters(i) for i in range(integrator.getNumBonds())]
    symbols = [atom.element.symbol for atom in simulation.topology.atoms()]
    # In order of mass, so that hydrogen comes first.
    elements = sorted(set(symbols), key=lambda e: app.Element.getBySymbol(e).mass)
    return _Particles(
        masses=np.array([to_float(mass, unit.dalton) for _, mass, _ in parameters]),
        molecules=np.array([molecule for _, _, molecule in parameters], np.int64),
        elements=elements,
        element_of_atom=np.array([elements.index(e) for e in symbols], np.int64),
        bonds=np.array([b[:2] for b in bonds], np.int64).reshape(-1, 2),
        bond_ranges=np.array(
            [[to_float(length, unit.nanometer) for length in b[2:]] for b in bonds]
        ).reshape(-1, 2),
    )


def _temperatures(particles: _Particles, velocities: Array) -> list[float]:
    """Temperature of all atoms, then of each element, K."""
    masses, molecules = particles.masses, particles.molecules
    total = np.bincount(molecules, masses)
    centre = np.column_stack(
        [np.bincount(molecules, masses * v) / total for v in velocities.T]
    )
    twice_energy = masses * ((velocities - centre[molecules]) ** 2).sum(1)
    freedom = 3.0 * (1.0 - masses / total[molecules])
    every = np.zeros_like(molecules)
    result = []
    for group in (every, particles.element_of_atom):
        energies = np.bincount(group, twice_energy)
        for energy, degrees in zip(energies, np.bincount(group, freedom), strict=True):
            # Rounding leaves some 1e-16 for a molecule of one atom.
            good = degrees > 1e-9
            result.append(energy / (BOLTZMANN * degrees) if good else NO_NUMBER)
    return result


def _largest_bond_deviation(
    particles: _Particles, positions: Array
) -> tuple[float, str]:
    if not len(particles.bonds):
        return NO_NUMBER, ""
    first, second = particles.bonds.T
    lengths = np.linalg.norm(positions[first] - positions[second], axis=1)
    low, high = particles.bond_ranges.T
    deviations = np.abs(2.0 * lengths - low - high) / (high - low)
    worst = int(np.argmax(deviations))
    return float(deviations[worst]), f"{first[worst]}-{second[worst]}"


def _cut_rows(path: Path, header: str, step: int, separator: str) -> None:
    """Cut the file behind its last whole row of a step before `step`."""
    lines = path.read_bytes().splitlines(keepends=True)
    found = lines[0].decode().rstrip("\n") if lines else ""
    if found != header:
        raise ValueError(
            f"found a table in {path} that begins {found!r}, expected {header!r}; "
            "write to a new file"
        )
    size = len(lines[0])
    rows = [line for line in lines[1:] if line.endswith(b"\n")]
    steps = [int(row.split(separator.encode(), 1)[0]) for row in rows]
    if steps and steps[0] >= step:
        raise ValueError(
            f"found a table in {path} from step {steps[0]} on, expected rows before "
            f"step {step}, to go on from: load the checkpoint that belongs to it "
            "(positions alone have no step), or write to a new file"
        )
    for row, made in zip(rows, steps, strict=True):
        if made >= step:
            break
        size += len(row)
    os.truncate(path, size)
