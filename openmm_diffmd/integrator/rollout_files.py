"""The files of a rollout: their names, what may be replaced, the PDB."""

from pathlib import Path

import mdtraj
from openmm import app

from openmm_diffmd.sidecar import RolloutSidecar

SUFFIXES = (".dcd", ".pdb", ".json", ".h5")


def with_suffix(output: Path, suffix: str) -> Path:
    """
    Name a file of a rollout.

    Parameters
    ----------
    output : Path
        What the files of a run are called, without suffixes; dots are of the name.
    suffix : str
        Suffix.

    Returns
    -------
    Path
        The file.
    """
    return output.with_name(output.name + suffix)


def write_pdb(path: Path, shown: app.Modeller) -> None:
    """
    Write a PDB file whose bonds can be read back.

    Parameters
    ----------
    path : Path
        The file.
    shown : openmm.app.Modeller
        Topology and positions.
    """
    topology = shown.topology
    with path.open("w") as pdb:
        app.PDBFile.writeFile(topology, shown.positions, pdb)
    if mdtraj.load_pdb(str(path)).topology.n_bonds == topology.getNumBonds():
        return
    # Bonds of residues with a standard name are left out of a PDB file.
    renamed = app.Topology()
    chain = renamed.addChain()
    residues = {r: renamed.addResidue("MOL", chain) for r in topology.residues()}
    atoms = {
        a: renamed.addAtom(a.name, a.element, residues[a.residue])
        for a in topology.atoms()
    }
    for first, second in topology.bonds():
        renamed.addBond(atoms[first], atoms[second])
    with path.open("w") as pdb:
        app.PDBFile.writeFile(renamed, shown.positions, pdb)


def check_free(output: Path, n_files: int | None, overwrite: bool) -> None:
    """
    Leave alone what is no earlier run's: another file of this name, an input.

    Parameters
    ----------
    output : Path
        What the files of a run are to be called, without suffixes.
    n_files : int or None
        DCD files, numbered from 0; None for one that has no number.
    overwrite : bool
        Whether the files of an earlier run may be replaced.

    Raises
    ------
    FileExistsError
        If there is a run called `output` and `overwrite` is off, or another file that
        would be replaced.
    IsADirectoryError
        If `output` is a folder.
    ValueError
        If it has one of the suffixes, or the JSON file to be replaced is no rollout's.
    """
    if output.is_dir():
        raise IsADirectoryError(
            f"found the folder {output}, expected what files in it are to be called: "
            f"give {output / 'run'}, say"
        )
    if output.suffix in SUFFIXES:
        raise ValueError(
            f"found output {output} with a suffix, expected the name that all files of "
            f"the run begin with ({', '.join(SUFFIXES)}): give "
            f"{output.with_suffix('')}"
        )
    numbers = [""] if n_files is None else [f"_{index}" for index in range(n_files)]
    suffixes = [".json", ".pdb", ".h5", *(f"{number}.dcd" for number in numbers)]
    files = [with_suffix(output, suffix) for suffix in suffixes]
    there = [file for file in files if file.exists()]
    if files[0] in there:
        if not overwrite:
            raise FileExistsError(
                f"found a run in {files[0]}; choose another output, or set overwrite"
            )
        own = RolloutSidecar.read(files[0]).dcd_files(files[0])
        there = [file for file in there if file.suffix == ".dcd" and file not in own]
    if there:
        raise FileExistsError(
            f"found {there[0]}, which is of no run that {files[0]} tells of, "
            "expected a name that is free; choose another output"
        )


def remove_frames(sidecar: Path) -> None:
    """
    Leave no DCD of an earlier run that a new one does not replace.

    Parameters
    ----------
    sidecar : Path
        The JSON sidecar of both, which need not be there.

    Raises
    ------
    ValueError
        If it is no rollout's.
    """
    if sidecar.exists():
        for file in RolloutSidecar.read(sidecar).dcd_files(sidecar):
            file.unlink(missing_ok=True)
