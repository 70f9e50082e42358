"""The JSON file beside a rollout's DCD: time axis, replicas, model, settings."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from openmm_diffmd.checks import above, at_least
from openmm_diffmd.outputs import written_whole
from openmm_diffmd.units import FS_PER_PS

SCHEMA_VERSION = 1
GAVE_UP = "OpenMMException: DiffusionIntegrator: lag "
"""How an error begins where the guards refused each draw of a lag."""
UNITS = {"length": "nm", "time": "fs", "temperature": "K", "friction": "1/ps"}


@dataclass(frozen=True, kw_only=True)
class RolloutSidecar:
    """
    What a DCD cannot say about itself.

    The first frame lies one `frame_interval_fs` after the start, as OpenMM's
    reporters write it.

    Attributes
    ----------
    lag_time_fs : float
        Time moved by one step of the integrator, fs.
    frame_interval_fs : float
        Time between frames, fs.
    num_frames : int
        Good frames in the DCD.
    num_replicas : int
        Copies of the molecule, one after the other in the DCD.
    atoms_per_replica : int
        Atoms of one copy.
    model_name : str
        Name of the model.
    model_sha256 : str
        SHA-256 of the model's file.
    temperature_K : float
        Temperature of the heat bath, K.
    friction_per_ps : float
        Collision rate, 1/ps; 0 is no heat bath.
    seed : int
        Seed of the integrator; 0 if the Context picked one, which nothing tells.
    sampler : str
        Name of the sampler.
    num_sampling_steps : int
        Sampling steps per lag; 0 takes the mean.
    resamples : int
        Redraws that the guards asked for, over all replicas; a lag redrawn three
        times counts three.
    rescues : int
        Lags that could not be drawn and were run with the reference force, over all
        replicas.
    dcd_per_replica : bool
        Whether there is one DCD for each replica, ``NAME_0.dcd`` and so on, and the
        ``.pdb`` is of one replica; else both are of all.
    start_temperature_K : float or None
        Temperature of the first velocities, K; None in files from before it was kept.
    from_geometry : bool
        Whether positions were those of a molecule's file or name, of no temperature,
        and the potential energy had to be filled first.
    potential : str or None
        The force that the model learned, as its references name it; None where they do
        not, or name several, and in files from before it was kept.
    potential_options : mapping
        Its options, such as a charge.
    forces : sequence of str
        Names of the System's forces that acted on top of what was learned; none in
        files from before it was kept.
    hottest_bond : mapping or None
        The bond whose stretch had the most energy over 0.2 ps, kinetic and potential:
        ``energy_kT``, ``atoms`` (two, counted over all replicas), ``molecule`` and
        ``time_ps``; None where there was none, and in files from before it was kept.
    error : str or None
        Why the run ended early, or has not ended; None where all frames were made.
    versions : mapping
        Versions of the libraries.
    units : mapping
        Units of the numbers here and of positions once read by MDTraj.
    schema_version : int
        Version of this form.

    Raises
    ------
    ValueError
        If the schema version is another one, or a number is out of range.
    """

    lag_time_fs: float
    frame_interval_fs: float
    num_frames: int
    num_replicas: int
    atoms_per_replica: int
    model_name: str
    model_sha256: str
    temperature_K: float
    friction_per_ps: float
    seed: int
    sampler: str
    num_sampling_steps: int
    resamples: int
    rescues: int = 0
    dcd_per_replica: bool = False
    start_temperature_K: float | None = None
    from_geometry: bool = False
    potential: str | None = None
    potential_options: Mapping[str, Any] = field(default_factory=dict)
    forces: Sequence[str] = field(default_factory=list)
    hottest_bond: Mapping[str, Any] | None = None
    error: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=lambda: dict(UNITS))
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(
                f"found rollout schema {self.schema_version}, expected "
                f"{SCHEMA_VERSION}; read it with the version that wrote it"
            )
        above(
            0,
            lag_time_fs=self.lag_time_fs,
            frame_interval_fs=self.frame_interval_fs,
            num_replicas=self.num_replicas,
            atoms_per_replica=self.atoms_per_replica,
        )
        at_least(
            0,
            num_frames=self.num_frames,
            resamples=self.resamples,
            rescues=self.rescues,
            friction_per_ps=self.friction_per_ps,
        )

    @property
    def num_lags(self) -> int:
        """Lags that one replica made up to the last good frame."""
        return round(self.num_frames * self.frame_interval_fs / self.lag_time_fs)

    @property
    def length_ps(self) -> float:
        """Time of the last good frame, ps."""
        return self.num_frames * self.frame_interval_fs / FS_PER_PS

    @property
    def gave_up(self) -> str | None:
        """Why the integrator gave up; None where it did not: the run may be stopped."""
        # Not a force of the System that is not finite, say.
        ours = self.error is not None and self.error.startswith(GAVE_UP)
        return self.error if ours else None

    @property
    def redraws(self) -> tuple[int, int]:
        """Redraws that the guards asked for, and lags of all replicas."""
        return self.resamples, self.num_lags * self.num_replicas

    @property
    def redrawn(self) -> float:
        """Redraws that the guards asked for, a lag of one replica."""
        redraws, lags = self.redraws
        return redraws / max(lags, 1)

    def dcd_files(self, path: str | Path) -> list[Path]:
        """
        Name the DCD files of a rollout.

        Parameters
        ----------
        path : path-like
            The sidecar, or any file that differs from it by the suffix only.

        Returns
        -------
        list of Path
            One of all replicas, or one of each.
        """
        path = Path(path)
        if not self.dcd_per_replica:
            return [path.with_suffix(".dcd")]
        return [
            path.with_name(f"{path.stem}_{replica}.dcd")
            for replica in range(self.num_replicas)
        ]

    def write(self, path: str | Path) -> None:
        """
        Write the JSON file, whole or not at all.

        Parameters
        ----------
        path : path-like
            File to write or replace.
        """
        with written_whole(path) as part:
            part.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """
        Read the JSON file.

        Parameters
        ----------
        path : path-like
            File written by `write`.

        Returns
        -------
        RolloutSidecar
            What it says.

        Raises
        ------
        ValueError
            If keys are missing or unknown, or the schema version is another one.
        """
        try:
            content: dict[str, Any] = json.loads(Path(path).read_text())
        except ValueError as error:
            raise ValueError(
                f"{path} is not JSON ({error}), expected the sidecar that a rollout "
                "writes"
            ) from error
        if not isinstance(content, dict):
            raise ValueError(
                f"{path} is no JSON object (found {type(content).__name__}), expected "
                "the sidecar that a rollout writes"
            )
        known = {f.name for f in dataclasses.fields(cls)}
        required = {
            f.name
            for f in dataclasses.fields(cls)
            if f.default is dataclasses.MISSING
            and f.default_factory is dataclasses.MISSING
        } | {"schema_version"}
        missing, unknown = required - set(content), set(content) - known
        if missing or unknown:
            raise ValueError(
                f"{path} is no rollout sidecar of this version: missing "
                f"{sorted(missing)}, unknown {sorted(unknown)}"
            )
        try:
            for name in sorted(required):
                if content[name] is None:
                    raise TypeError(f"{name} is null")
            return cls(**content)
        except TypeError as error:
            raise ValueError(
                f"{path} has a value of another type than a rollout writes ({error}); "
                "copy or make it again"
            ) from error
