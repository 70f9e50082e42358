"""The pieces of a reference: equilibration, the thermostatted run, the bursts."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import openmm
from tqdm import tqdm

from openmm_diffmd.checks import count_intervals
from openmm_diffmd.reference.dynamics import (
    DynamicsError,
    ReferenceFrame,
    VelocityBath,
    run_segment,
)
from openmm_diffmd.reference.storage import ReferenceWriter
from openmm_diffmd.units import FS_PER_PS


@dataclass(frozen=True)
class Recording:
    """
    How much of a piece of dynamics is recorded, and how often.

    Attributes
    ----------
    num_frames : int
        Frames recorded.
    steps_per_frame : int
        Integration steps between them.
    """

    num_frames: int
    steps_per_frame: int

    @classmethod
    def lasting(
        cls,
        length_ps: float,
        frame_interval_fs: float,
        step_size_fs: float,
        prefix: str = "",
    ) -> Self:
        """
        Count frames and steps.

        Parameters
        ----------
        length_ps : float
            Time recorded, ps.
        frame_interval_fs, step_size_fs : float
            Time between frames, and of a step, fs.
        prefix : str
            Of the names that an error gives to the first two.

        Returns
        -------
        Recording
            The numbers.

        Raises
        ------
        ValueError
            If the length is not a positive whole number of frames, or a frame of steps.
        """
        length = f"{prefix}length_ps", length_ps * FS_PER_PS
        interval = f"{prefix}frame_interval_fs", frame_interval_fs
        return cls(
            count_intervals(*length, frame_interval_fs),
            count_intervals(*interval, step_size_fs),
        )


def equilibrate(
    context: openmm.Context, length_ps: float, step_size_fs: float, progress: bool
) -> None:
    """
    Step a Context without recording.

    Parameters
    ----------
    context : openmm.Context
        Context whose positions and velocities are set.
    length_ps : float
        How long, ps; rounded up to whole blocks of 100 steps.
    step_size_fs : float
        Step size of its integrator, fs.
    progress : bool
        Show a progress bar, if in a terminal.

    Raises
    ------
    DynamicsError
        If the dynamics stops.
    """
    blocks = math.ceil(length_ps * FS_PER_PS / step_size_fs / 100 - 1e-9)
    for _ in tqdm(
        run_segment(context, context.getIntegrator(), blocks, 100),
        "equilibration",
        blocks,
        unit="block",
        disable=None if progress and blocks else True,
    ):
        pass


def run_thermostatted(
    context: openmm.Context,
    recording: Recording,
    writer: ReferenceWriter,
    num_starts: int,
    progress: bool,
) -> list[ReferenceFrame]:
    """
    Record one unbroken run and keep evenly spaced frames of it.

    Parameters
    ----------
    context : openmm.Context
        Context whose positions and velocities are set.
    recording : Recording
        How much to record.
    writer : ReferenceWriter
        Where to; all frames are segment 0.
    num_starts : int
        Frames to keep.
    progress : bool
        Show a progress bar, if in a terminal.

    Returns
    -------
    list of ReferenceFrame
        The `num_starts` frames kept.

    Raises
    ------
    DynamicsError
        If the dynamics stops; the frames before are in the file.
    """
    starts: list[ReferenceFrame] = []
    kept = {index * recording.num_frames // num_starts for index in range(num_starts)}
    with tqdm(
        total=recording.num_frames,
        desc="thermostatted",
        unit="frame",
        disable=None if progress else True,
    ) as bar:
        for index, frame in enumerate(_segment(context, recording, writer)):
            writer.write(0, frame)
            if index in kept:
                starts.append(frame)
            bar.update()
    return starts


def run_bursts(
    context: openmm.Context,
    recording: Recording,
    writer: ReferenceWriter,
    starts: list[ReferenceFrame],
    progress: bool,
) -> None:
    """
    Record one burst from each start, as one segment each.

    Parameters
    ----------
    context : openmm.Context
        Context of a frictionless integrator.
    recording : Recording
        How much of each burst to record.
    writer : ReferenceWriter
        Where to.
    starts : list of ReferenceFrame
        Where from: positions and velocities.
    progress : bool
        Show a progress bar, if in a terminal.

    Raises
    ------
    DynamicsError
        If the dynamics stops; the frames before are in the file.
    """
    for segment, start in enumerate(
        tqdm(starts, "bursts", unit="burst", disable=None if progress else True)
    ):
        run_burst(context, recording, writer, segment, start)


def run_burst(
    context: openmm.Context,
    recording: Recording,
    writer: ReferenceWriter,
    segment: int,
    start: ReferenceFrame,
) -> None:
    """
    Record one burst.

    Parameters
    ----------
    context : openmm.Context
        Context of a frictionless integrator.
    recording : Recording
        How much to record.
    writer : ReferenceWriter
        Where to.
    segment : int
        Number of the burst there.
    start : ReferenceFrame
        Where from: positions and velocities.

    Raises
    ------
    DynamicsError
        If the dynamics stops; the frames before are in the file.
    """
    context.setPositions(start.positions)
    context.setVelocities(start.velocities)
    for frame in _segment(context, recording, writer):
        writer.write(segment, frame)


def run_chain(
    context: openmm.Context,
    recording: Recording,
    num_bursts: int,
    stride: int,
    bath: VelocityBath,
    run_writer: ReferenceWriter,
    burst_writer: ReferenceWriter,
    progress: bool,
) -> None:
    """
    Record bursts that go on from each other, their velocities refreshed in between.

    Parameters
    ----------
    context : openmm.Context
        Context of a frictionless integrator, positions and velocities set.
    recording : Recording
        How much of each burst to record.
    num_bursts : int
        Bursts, one segment each.
    stride : int
        Every which frame of the chain goes into the thermostatted run as well; it
        divides the frames of a burst.
    bath : VelocityBath
        What refreshes the velocities between bursts.
    run_writer, burst_writer : ReferenceWriter
        Where to: the chain as one run, its bursts.
    progress : bool
        Show a progress bar, if in a terminal.

    Raises
    ------
    DynamicsError
        If the dynamics stops; the frames before are in the files.
    """
    elapsed = 0.0
    for segment in tqdm(
        range(num_bursts),
        "chained bursts",
        unit="burst",
        disable=None if progress else True,
    ):
        frames: list[ReferenceFrame] = []
        for frame in _segment(context, recording, burst_writer):
            burst_writer.write(segment, frame)
            frames.append(frame)
        for frame in frames[stride - 1 :: stride]:
            run_writer.write(0, replace(frame, time=elapsed + frame.time))
        elapsed += frames[-1].time
        context.setVelocities(bath.refresh(frames[-1].velocities))


def _segment(
    context: openmm.Context, recording: Recording, writer: ReferenceWriter
) -> Iterator[ReferenceFrame]:
    try:
        yield from run_segment(
            context,
            context.getIntegrator(),
            recording.num_frames,
            recording.steps_per_frame,
        )
    except DynamicsError as error:
        raise DynamicsError(
            f"{error}. The {writer.num_frames} frames before it are kept in "
            f"{writer.path}"
        ) from error
