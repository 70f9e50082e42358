"""What one rollout is summed up in: numbers for the table, curves for the picture."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from statistics import fmean

from openmm_diffmd.analysis.bond_energies import HottestBond
from openmm_diffmd.analysis.contacts import Contact
from openmm_diffmd.analysis.distributions import Histogram
from openmm_diffmd.analysis.dynamics import Spectrum
from openmm_diffmd.analysis.modes import StepResidual
from openmm_diffmd.analysis.rare_events import EventRate
from openmm_diffmd.analysis.stability import Stability
from openmm_diffmd.analysis.temperature import KineticEnergyTest, KineticTemperature


@dataclass(frozen=True)
class Figures:
    """
    The numbers of one row of the table. None is what could not be measured.

    Attributes
    ----------
    n_replicas : int
        Replicas run.
    watched_ps : float
        Time each replica was watched for broken bonds (the longest), ps.
    analyzed_ps : float
        Time, over all replicas, that the distributions come from, ps: without the
        equilibration, and up to the first broken bond.
    n_broken : int
        Replicas with a broken bond.
    first_break_ps : float or None
        Earliest broken bond, ps; None where none breaks.
    stable_ps : float
        Mean time without a broken bond, ps.
    n_atoms : int or None
        Atoms of the molecule; None in results from before it was kept.
    closest_contact : Contact or None
        The atoms, not bonded, that come closest to being so.
    h_r_error : float or None
        Integral of |h(r) - h_ref(r)|.
    h_r_halves : float or None
        The same of the first against the second half of this row's own frames.
    h_r_expected : float or None
        What sampling alone explains of `h_r_error`.
    divergences : mapping or None
        Jensen-Shannon divergence of each group of bonds, angles, dihedrals, bits.
    divergences_expected : mapping or None
        What sampling alone explains of each.
    turns : mapping or None
        Turns of the slowest torsion of each group of dihedrals.
    temperatures : mapping or None
        Temperature of each element in the centre-of-mass frame.
    modes : mapping or None
        Temperature of the rotation, and of the stretch of each kind of bond.
    step_residual : StepResidual or None
        What velocities leave of the steps between frames.
    hottest_bond : HottestBond or None
        The bond whose stretch has the most energy.
    kinetic_energy : KineticEnergyTest or None
        Test of the distribution of the kinetic energy.
    spectrum_overlap : float or None
        Common area of the velocity spectra.
    spectrum_expected : float or None
        What it would be by sampling alone.
    flat_spectrum_overlap : float or None
        What it would be of white noise.
    events : mapping or None
        Rates of turning groups and of protons; empty where the molecule has none.
    """

    n_replicas: int
    watched_ps: float
    analyzed_ps: float
    n_broken: int
    first_break_ps: float | None
    stable_ps: float
    n_atoms: int | None = None
    closest_contact: Contact | None = None
    h_r_error: float | None = None
    h_r_halves: float | None = None
    h_r_expected: float | None = None
    divergences: Mapping[str, Mapping[str, float]] | None = None
    divergences_expected: Mapping[str, Mapping[str, float]] | None = None
    turns: Mapping[str, int] | None = None
    temperatures: Mapping[str, KineticTemperature] | None = None
    modes: Mapping[str, KineticTemperature] | None = None
    step_residual: StepResidual | None = None
    hottest_bond: HottestBond | None = None
    kinetic_energy: KineticEnergyTest | None = None
    spectrum_overlap: float | None = None
    spectrum_expected: float | None = None
    flat_spectrum_overlap: float | None = None
    events: Mapping[str, EventRate] | None = None

    def mean_divergence(self, kind: str, without: Collection[str] = ()) -> float | None:
        """
        Mean divergence over the groups of one kind.

        Parameters
        ----------
        kind : str
            ``bonds``, ``angles`` or ``dihedrals``.
        without : collection of str, optional
            Groups that are left out.

        Returns
        -------
        float or None
            Bits; None where the kind was not measured or no group is left.
        """
        return _mean_of(self.divergences, kind, without)

    def mean_expected_divergence(
        self, kind: str, without: Collection[str] = ()
    ) -> float | None:
        """
        Mean over the groups of one kind of what sampling explains of the divergence.

        Parameters
        ----------
        kind : str
            ``bonds``, ``angles`` or ``dihedrals``.
        without : collection of str, optional
            Groups that are left out.

        Returns
        -------
        float or None
            Bits; None where the kind was not measured or no group is left.
        """
        return _mean_of(self.divergences_expected, kind, without)


def _mean_of(
    found: Mapping[str, Mapping[str, float]] | None, kind: str, without: Collection[str]
) -> float | None:
    if found is None:
        return None
    values = [value for name, value in found[kind].items() if name not in without]
    return fmean(values) if values else None


@dataclass(frozen=True)
class Curves:
    """
    What the picture shows of one row.

    Attributes
    ----------
    stability : Stability
        Break times.
    h_r : Histogram or None
        Pair distances.
    marginals : mapping or None
        Bonds, angles and dihedrals.
    spectrum : Spectrum or None
        Velocity spectrum.
    """

    stability: Stability
    h_r: Histogram | None = None
    marginals: Mapping[str, Mapping[str, Histogram]] | None = None
    spectrum: Spectrum | None = None


@dataclass(frozen=True)
class Row:
    """
    One row of the table and its curves.

    Attributes
    ----------
    name : str
        What was run.
    figures : Figures
        Numbers.
    curves : Curves
        Curves.
    """

    name: str
    figures: Figures
    curves: Curves
