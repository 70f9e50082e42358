"""Isomers of one file: who is unseen, and a short reference of each."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
from ase import Atoms
from ase.io import read, write
from ase.io.extxyz import XYZError
from ase.io.formats import UnknownFileTypeError

from openmm_diffmd.bond_graphs import bond_graph
from openmm_diffmd.elements import bonds_from_radii
from openmm_diffmd.reference.driver import make_reference
from openmm_diffmd.units import ANGSTROM

RUN, BURSTS = "thermostatted.h5", "bursts.h5"
HOT_BONDS, HOT_BONDS_SEED = "hot_bonds", 1000
BURST_PS = 0.1
HOT_BONDS_SPACING_PS = 0.05


@dataclass(frozen=True)
class ReferenceBudget:
    """
    References of the isomers: chained bursts of 0.1 ps, and bursts with hot bonds.

    Attributes
    ----------
    potential : str
        As in `make_reference`.
    temperature : float
        Temperature of the heat bath, K.
    friction : float
        Collision rate, 1/ps.
    equilibration_ps : float
        Time before the first frame, ps; isomers begin at rest in a minimum.
    train_ps, unseen_ps : float
        Length of each reference, ps.
    hot_bursts : int
        Bursts of 0.1 ps in which some bonds are hot, training data only; 0 for none.
    bond_energy_kT : float
        Upper limit of what each such bond gets, as in `make_reference`.
    seed : int
        Seed of the first isomer; the next one has the next.
    """

    potential: str = "GFN2-xTB"
    temperature: float = 500.0
    friction: float = 5.0
    equilibration_ps: float = 0.5
    train_ps: float = 1.5
    unseen_ps: float = 4.0
    hot_bursts: int = 15
    bond_energy_kT: float = 20.0
    seed: int = 101

    @property
    def hot_ps(self) -> float:
        """Length of all bursts with hot bonds, ps."""
        return self.hot_bursts * BURST_PS


def read_isomers(path: Path) -> dict[str, Atoms]:
    """
    Read the isomers of a file, each once.

    Parameters
    ----------
    path : path-like
        Geometries, one after the other, in a format that ASE reads.

    Returns
    -------
    dict of str to ase.Atoms
        ``01``, ``02``, ... in the order of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If formulas differ, a geometry is in pieces, or two have the same bonds: an
        isomer that is in the training under another number is not unseen.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"found no {path}; expected the geometries of some isomers, such as the "
            "equilibrium geometries of ISO17"
        )
    try:
        frames = read(path, ":")
    except (OSError, UnknownFileTypeError, ValueError, XYZError) as error:
        raise ValueError(
            f"found {path}, which cannot be read as geometries ({error}), expected an "
            "xyz file or another that ASE reads"
        ) from error
    if not frames:
        raise ValueError(f"found no geometry in {path}, expected several")
    graphs: dict[str, str] = {}
    isomers: dict[str, Atoms] = {}
    for index, atoms in enumerate(frames, 1):
        name = f"{index:02d}"
        formula, expected = (a.get_chemical_formula() for a in (atoms, frames[0]))
        if formula != expected:
            raise ValueError(
                f"found {formula} as geometry {name} of {path}, expected {expected} as "
                "the first: give isomers of one formula"
            )
        bonds = bonds_from_radii(atoms.numbers, ANGSTROM * atoms.positions[None])
        graph = bond_graph(atoms.get_chemical_symbols(), bonds.tolist())
        if not nx.is_connected(graph):
            raise ValueError(
                f"found geometry {name} of {path} in pieces, expected one molecule"
            )
        # Equal graphs have equal hashes; unequal ones that collide would be refused.
        key = nx.weisfeiler_lehman_graph_hash(graph, node_attr="element")
        if key in graphs:
            raise ValueError(
                f"found the bonds of geometry {graphs[key]} of {path} in {name} again, "
                "expected each isomer once"
            )
        graphs[key] = name
        isomers[name] = atoms
    return isomers


def split_isomers(
    names: Sequence[str], num_unseen: int, seed: int
) -> tuple[list[str], list[str]]:
    """
    Draw the isomers that nothing is trained on.

    Parameters
    ----------
    names : sequence of str
        All isomers.
    num_unseen : int
        How many are unseen.
    seed : int
        Seed of the draw.

    Returns
    -------
    train, unseen : list of str
        Each in the order of `names`.

    Raises
    ------
    ValueError
        If one of them would be empty.
    """
    if not 0 < num_unseen < len(names):
        raise ValueError(
            f"found {num_unseen} unseen of {len(names)} isomers, expected at least one "
            "unseen and one to train on"
        )
    order = np.random.default_rng(seed).permutation(len(names))
    drawn = {names[index] for index in order[:num_unseen]}
    return [n for n in names if n not in drawn], [n for n in names if n in drawn]


def make_references(
    isomers: Mapping[str, Atoms],
    unseen: Sequence[str],
    budget: ReferenceBudget,
    output: Path,
) -> dict[str, Path]:
    """
    Make the reference of each isomer, unless it is there.

    Parameters
    ----------
    isomers : mapping of str to ase.Atoms
        The isomers, by their numbers.
    unseen : sequence of str
        Those whose references are `unseen_ps` long.
    budget : ReferenceBudget
        How.
    output : path-like
        Folder for a folder of each isomer.

    Returns
    -------
    dict of str to Path
        Folder of each isomer, with ``bursts.h5`` and ``thermostatted.h5``; in it
        ``hot_bonds``, a folder of the same, of which only the bursts are used.
    """
    folders = {}
    for name, atoms in isomers.items():
        folder = folders[name] = Path(output) / name
        if folder.is_dir():
            continue
        # Renamed when it is whole: what a kill leaves behind is made anew.
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        geometry = part / f"isomer_{name}.xyz"
        write(geometry, atoms, format="xyz")
        length = budget.unseen_ps if name in unseen else budget.train_ps
        seed = budget.seed + int(name) - 1
        _make(geometry, part, budget, seed, length_ps=length, chained=True)
        if budget.hot_bursts:
            _make(
                geometry,
                part / HOT_BONDS,
                budget,
                seed + HOT_BONDS_SEED,
                length_ps=budget.hot_bursts * HOT_BONDS_SPACING_PS,
                num_bursts=budget.hot_bursts,
                bond_energy_kT=budget.bond_energy_kT,
            )
        part.rename(folder)
        print(f"reference of isomer {name}: {length:g} ps", flush=True)
    return folders


def _make(
    geometry: Path,
    output: Path,
    budget: ReferenceBudget,
    seed: int,
    **options: Any,
) -> None:
    make_reference(
        str(geometry),
        output,
        potential=budget.potential,
        temperature_K=budget.temperature,
        friction_per_ps=budget.friction,
        equilibration_ps=budget.equilibration_ps,
        burst_length_ps=BURST_PS,
        seed=seed,
        progress=False,
        **options,
    )
