"""Replicas of one molecule in memory."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import mdtraj
import numpy as np
from numpy.typing import NDArray

from openmm_diffmd.bond_graphs import bond_graph, match_atoms

FloatArray = NDArray[np.floating]


@dataclass(frozen=True)
class Ensemble:
    """
    Independent trajectories of one molecule, evenly spaced in time.

    Attributes
    ----------
    topology : mdtraj.Topology
        The molecule, with bonds.
    frame_interval : float
        Time between frames, ps.
    positions : sequence of ndarray, shape (n_frames, n_atoms, 3), nm
        One array a replica; lengths may differ. Frame k lies at time
        ``(k + 1) * frame_interval``.
    velocities : sequence of ndarray, shape (n_frames, n_atoms, 3), nm/ps, or None
        Velocities at the times of the positions.

    Raises
    ------
    ValueError
        If shapes disagree, there is no bond, or a number is not finite.
    """

    topology: mdtraj.Topology
    frame_interval: float
    positions: Sequence[FloatArray]
    velocities: Sequence[FloatArray] | None = None

    def __post_init__(self) -> None:
        if not self.positions:
            raise ValueError("found no replica, expected at least one")
        n_atoms = self.topology.n_atoms
        if n_atoms > 1 and self.topology.n_bonds == 0:
            raise ValueError(
                "found a topology without bonds; the analysis needs them: give a "
                "PDB with CONECT records or an MDTraj HDF5 file"
            )
        if not self.frame_interval > 0:
            raise ValueError(
                f"found a frame interval of {self.frame_interval} ps, expected more "
                "than 0"
            )
        for name, arrays in (
            ("positions", self.positions),
            ("velocities", self.velocities),
        ):
            if arrays is None:
                continue
            if len(arrays) != len(self.positions):
                raise ValueError(
                    f"found {name} of {len(arrays)} replicas, expected "
                    f"{len(self.positions)}"
                )
            for index, array in enumerate(arrays):
                expected = (len(self.positions[index]), n_atoms, 3)
                if array.shape != expected:
                    raise ValueError(
                        f"found {name}[{index}] of shape {array.shape}, expected "
                        f"{expected}"
                    )
                if not np.isfinite(array).all():
                    raise ValueError(
                        f"found a number that is not finite in {name}[{index}]"
                    )

    @property
    def n_replicas(self) -> int:
        """Number of replicas."""
        return len(self.positions)

    @property
    def n_frames(self) -> int:
        """Frames of all replicas together."""
        return sum(len(p) for p in self.positions)

    @property
    def length(self) -> float:
        """Time covered by all replicas together, ps."""
        return self.n_frames * self.frame_interval

    @property
    def masses(self) -> NDArray[np.float64]:
        """Masses of the elements, shape (n_atoms,), Da."""
        return np.array([atom.element.mass for atom in self.topology.atoms])

    @property
    def symbols(self) -> list[str]:
        """Element symbol of each atom."""
        return [atom.element.symbol for atom in self.topology.atoms]

    @property
    def bonds(self) -> NDArray[np.int64]:
        """Bonded pairs in ascending order, shape (n_bonds, 2)."""
        pairs = sorted(sorted((a.index, b.index)) for a, b in self.topology.bonds)
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)

    def in_order_of(self, other: "Ensemble") -> "Ensemble":
        """
        Put the atoms in the order of another ensemble of the same molecule.

        Distributions are pooled over elements, so that it does not matter which of the
        atoms that symmetry exchanges is which.

        Parameters
        ----------
        other : Ensemble
            Has the order.

        Returns
        -------
        Ensemble
            The same frames, this one where the order is the same.

        Raises
        ------
        ValueError
            If it is another molecule, or its bonds are others.
        """
        symbols, bonds = self.symbols, self.bonds
        if symbols == other.symbols and np.array_equal(bonds, other.bonds):
            return self
        order = match_atoms(
            bond_graph(symbols, bonds.tolist()),
            bond_graph(other.symbols, other.bonds.tolist()),
        )
        if order is None:
            raise ValueError(
                f"found atoms {'-'.join(symbols)} with bonds {bonds.tolist()}, "
                f"expected {'-'.join(other.symbols)} with bonds "
                f"{other.bonds.tolist()}, as in the reference, in any order"
            )
        return replace(
            self,
            topology=other.topology,
            positions=[x[:, order] for x in self.positions],
            velocities=None
            if self.velocities is None
            else [v[:, order] for v in self.velocities],
        )

    def frames(self) -> mdtraj.Trajectory:
        """
        Put the frames of all replicas in one MDTraj trajectory.

        Returns
        -------
        mdtraj.Trajectory
            Replica after replica; its time axis says nothing.
        """
        return mdtraj.Trajectory(np.concatenate(self.positions), self.topology)

    def trajectories(self) -> list[mdtraj.Trajectory]:
        """
        Give each replica as an MDTraj trajectory with its true time axis.

        Returns
        -------
        list of mdtraj.Trajectory
            One a replica; times in ps.
        """
        return [
            mdtraj.Trajectory(
                p,
                self.topology,
                time=self.frame_interval * np.arange(1, len(p) + 1),
            )
            for p in self.positions
        ]

    def relative_positions(self) -> list[NDArray[np.float64]]:
        """
        Positions relative to the molecule's centre of mass.

        Returns
        -------
        list of ndarray, shape (n_frames, n_atoms, 3), nm
            One a replica.
        """
        return [self._relative(positions) for positions in self.positions]

    def relative_velocities(self) -> list[NDArray[np.float64]]:
        """
        Velocities relative to the molecule's centre of mass.

        Returns
        -------
        list of ndarray, shape (n_frames, n_atoms, 3), nm/ps
            One a replica.

        Raises
        ------
        ValueError
            If the ensemble has no velocities.
        """
        if self.velocities is None:
            raise ValueError(
                "found no velocities; run with velocities kept (the .h5 beside the DCD)"
            )
        return [self._relative(velocities) for velocities in self.velocities]

    def _relative(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        x = np.asarray(values, dtype=np.float64)
        weights = self.masses / self.masses.sum()
        relative: NDArray[np.float64] = x - np.einsum("a,tad->td", weights, x)[:, None]
        return relative

    def window(self, starts: Sequence[int], stops: Sequence[int]) -> "Ensemble":
        """
        Keep frames ``starts[r]:stops[r]`` of replica r; empty replicas go.

        Parameters
        ----------
        starts, stops : sequence of int, length n_replicas
            Frame numbers.

        Returns
        -------
        Ensemble
            The rest, as views.

        Raises
        ------
        ValueError
            If nothing is left.
        """
        kept = [
            (r, slice(a, b))
            for r, (a, b) in enumerate(zip(starts, stops, strict=True))
            if b > a
        ]
        if not kept:
            raise ValueError("found no frame left in any replica")
        return replace(
            self,
            positions=[self.positions[r][s] for r, s in kept],
            velocities=None
            if self.velocities is None
            else [self.velocities[r][s] for r, s in kept],
        )

    def strided(self, stride: int) -> "Ensemble":
        """
        Keep every `stride`-th frame, so that the first lies at the new interval.

        Parameters
        ----------
        stride : int
            Frames of the old interval per frame of the new.

        Returns
        -------
        Ensemble
            The rest, as views.
        """
        return replace(
            self,
            frame_interval=self.frame_interval * stride,
            positions=[p[stride - 1 :: stride] for p in self.positions],
            velocities=None
            if self.velocities is None
            else [v[stride - 1 :: stride] for v in self.velocities],
        )

    def split(self, number: int) -> list["Ensemble"]:
        """
        Split in independent parts of equal length.

        Parameters
        ----------
        number : int
            Parts.

        Returns
        -------
        list of Ensemble, length number
            Frame after frame, replica after replica: whole replicas but for those into
            which a cut falls.

        Raises
        ------
        ValueError
            If there are fewer frames than parts.
        """
        if self.n_frames < number:
            raise ValueError(
                f"found {self.n_frames} frames, expected at least {number} to split in "
                f"{number} parts"
            )
        lengths = np.array([len(p) for p in self.positions])
        before = np.cumsum(lengths) - lengths
        cuts = [
            np.clip(self.n_frames * k // number - before, 0, lengths).tolist()
            for k in range(number + 1)
        ]
        return [self.window(a, b) for a, b in itertools.pairwise(cuts)]
