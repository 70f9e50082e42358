"""Rollouts to be judged: of this package, or trajectories from elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.loading import load_reference, load_rollout
from openmm_diffmd.checks import above
from openmm_diffmd.data.readers import (
    DCD,
    HDF5,
    WITHOUT_TIMES,
    is_numbered,
    read_reference,
)
from openmm_diffmd.sidecar import RolloutSidecar


@dataclass(frozen=True)
class Rollout:
    """
    A trajectory to be judged, and what is known of how it was made.

    Attributes
    ----------
    ensemble : Ensemble
        Its frames.
    temperature : float
        Temperature of its heat bath, K.
    friction : float or None
        Friction of its heat bath, 1/ps; None where it is not known.
    maker : str
        The model that made it, or the file.
    sidecar : RolloutSidecar or None
        What this package wrote of it; None of a trajectory from elsewhere, whose
        redraws, if it has any, are not known.
    """

    ensemble: Ensemble
    temperature: float
    friction: float | None
    maker: str
    sidecar: RolloutSidecar | None

    @property
    def length_ps(self) -> float:
        """Length of the longest replica, ps."""
        return max(map(len, self.ensemble.positions)) * self.ensemble.frame_interval

    @property
    def redraws(self) -> tuple[int, int] | None:
        """Redraws, and lags of all replicas; None where they are not known."""
        return None if self.sidecar is None else self.sidecar.redraws

    @property
    def gave_up(self) -> str | None:
        """Why the guards ended the run; None where they did not."""
        return None if self.sidecar is None else self.sidecar.gave_up

    @property
    def rescues(self) -> int:
        """Lags that were run with the reference force."""
        return 0 if self.sidecar is None else self.sidecar.rescues


def read_rollout(
    path: str | Path,
    frame_interval_fs: float | None = None,
    temperature_K: float | None = None,
) -> Rollout:
    """
    Read a rollout of this package, or a trajectory from elsewhere.

    Parameters
    ----------
    path : path-like
        The ``.json`` or ``.dcd`` of a rollout, as `load_rollout` takes it, or its
        ``.h5``; else a file as `load_reference` reads it.
    frame_interval_fs : float, optional
        Time between frames of a trajectory from elsewhere that does not tell, fs; not
        used where it does.
    temperature_K : float, optional
        Temperature of its heat bath, K, where it does not tell.

    Returns
    -------
    Rollout
        The rollout.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is damaged or disagrees with others, or a trajectory from elsewhere
        has no temperature or times, or another temperature than is given, or a number
        is out of range.
    """
    above(0, rollout_interval_fs=frame_interval_fs, rollout_temperature_K=temperature_K)
    path = Path(path)
    suffix = path.suffix.lower()
    if _is_ours(path):
        ensemble, sidecar = load_rollout(path)
        _check_said(path, sidecar.temperature_K, temperature_K)
        return Rollout(
            ensemble,
            sidecar.temperature_K,
            sidecar.friction_per_ps,
            sidecar.model_name,
            sidecar,
        )
    if frame_interval_fs is None and suffix in WITHOUT_TIMES:
        raise ValueError(
            f"found {path}, which has no times, expected rollout_interval_fs, the time "
            "between its frames"
            + ("; or what openmm-diffmd run writes beside it" if suffix == DCD else "")
        )
    asked = frame_interval_fs is not None
    if asked and suffix in HDF5 and not is_numbered(read_reference(path)):
        frame_interval_fs = None
    # A molecule that broke is to be judged.
    ensemble, provenance = load_reference(path, frame_interval_fs, whole=False)
    said = provenance.get("temperature_K")
    temperature = said if temperature_K is None else temperature_K
    if temperature is None:
        raise ValueError(
            f"found {path}, which does not tell the temperature of its heat bath, "
            "expected rollout_temperature_K"
        )
    _check_said(path, said, temperature_K)
    friction = provenance.get("friction_per_ps")
    return Rollout(ensemble, temperature, friction, path.stem, None)


def _is_ours(path: Path) -> bool:
    """Whether `load_rollout` reads it, or says what it lacks."""
    suffix = path.suffix.lower()
    if suffix == DCD:
        pdb = path.with_suffix(".pdb")
        return path.with_suffix(".json").is_file() or not pdb.is_file()
    if suffix in HDF5:
        return path.with_suffix(".json").is_file()
    return suffix not in (".npz", *WITHOUT_TIMES)


def _check_said(path: Path, said: float | None, given: float | None) -> None:
    if said is not None and given is not None and abs(said - given) > 1:
        raise ValueError(
            f"found {path} of {said:g} K, expected rollout_temperature_K {given:g}: "
            "leave it out"
        )


def row_names(paths: Sequence[Path]) -> list[str]:
    """
    Name rollouts by their files, and by their folders where files are called alike.

    Parameters
    ----------
    paths : sequence of Path
        Their sidecars.

    Returns
    -------
    list of str
        A name of its own for each.

    Raises
    ------
    ValueError
        If folders are called alike too.
    """
    stems = [path.stem for path in paths]
    names = [
        stem if stems.count(stem) == 1 else f"{path.absolute().parent.name}/{stem}"
        for path, stem in zip(paths, stems, strict=True)
    ]
    if len(set(names)) < len(names):
        raise ValueError(
            f"found rollouts called {', '.join(names)}, expected that each has a name, "
            "or a folder's name, of its own; rename one, or analyze them one by one"
        )
    return names
