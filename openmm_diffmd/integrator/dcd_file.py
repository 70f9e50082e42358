"""A DCD file that survives a kill and can be continued from a checkpoint."""

import os
import struct
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

AKMA_TIME = 0.04888821
"""The unit of time of a DCD's header, ps, with the digits that its readers use."""

COUNT_OFFSET = 8
"""Of the number of frames; first step, interval and last step follow it."""
TIME_STEP_OFFSET = 44
NUM_ATOMS_OFFSET = 268
HEADER_SIZE = 276
MAX_STEP = 2**31 - 1


class ResumableDCDFile:
    """
    Frames of one molecule, in the layout that OpenMM writes, without a unit cell.

    The file is open only while a frame is written, so that there may be any number of
    them, and the header counts a frame after the frame is whole: a process that is
    killed leaves at most a part of one frame behind those that are counted.

    Parameters
    ----------
    path : path-like
        The file.
    n_atoms : int
        Atoms of a frame.
    time_step : float
        Time of one step, ps.
    interval : int
        Steps between frames.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        n_atoms: int,
        time_step: float,
        interval: int,
    ) -> None:
        self.path = Path(path)
        self._n_atoms = n_atoms
        self._time_step = time_step
        self._interval = interval
        self._first_step = 0
        self._num_frames = 0

    @property
    def frame_size(self) -> int:
        """Bytes of a frame: three records of float32."""
        return 3 * (4 * self._n_atoms + 8)

    def create(self, first_step: int) -> None:
        """
        Write a header, in place of what the file held.

        Parameters
        ----------
        first_step : int
            Step of the first frame.
        """
        self._first_step, self._num_frames = first_step, 0
        integers = [0] * 9
        integers[1:3] = min(first_step, MAX_STEP), self._interval
        header = struct.pack("<i4s9i", 84, b"CORD", *integers)
        header += struct.pack("<f10i", self._time_step / AKMA_TIME, *[0] * 9, 24)
        date = time.asctime().encode()
        header += struct.pack(
            "<3i80s80si",
            84,
            164,
            2,
            b"Created by openmm_diffmd",
            b"Created " + date,
            164,
        )
        self.path.write_bytes(header + struct.pack("<3i", 4, self._n_atoms, 4))

    def resume(self, step: int) -> None:
        """
        Cut the file behind its last whole frame before a step, to write on from there.

        Parameters
        ----------
        step : int
            Step of the next frame.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it holds something else, or lacks frames before `step`, or has none but
            later ones.
        """
        header = self._read_header()
        expected = {
            "atoms": self._n_atoms,
            "steps between frames": self._interval,
            "time step": np.float32(self._time_step / AKMA_TIME),
        }
        (count,) = struct.unpack_from("<i", header, NUM_ATOMS_OFFSET)
        self._first_step, interval = struct.unpack_from("<2i", header, COUNT_OFFSET + 4)
        (time_step,) = struct.unpack_from("<f", header, TIME_STEP_OFFSET)
        found = {
            "atoms": count,
            "steps between frames": interval,
            "time step": np.float32(time_step),
        }
        if found != expected:
            raise ValueError(
                f"found {self.path} with {found}, expected {expected}; "
                "write to a new file"
            )
        whole = (self.path.stat().st_size - HEADER_SIZE) // self.frame_size
        wanted = (step - self._first_step) // interval
        if whole < wanted or wanted < 0:
            raise ValueError(
                f"found {whole} frames from step {self._first_step} on in {self.path}, "
                f"expected {wanted} before step {step}; start from the checkpoint that "
                "belongs to it, or write to a new file"
            )
        if whole and not wanted:
            raise ValueError(
                f"found {whole} frames from step {self._first_step} on in {self.path}, "
                f"expected some before step {step}, to go on from: load the "
                "checkpoint that belongs to it (positions alone have no step), or "
                "write to a new file"
            )
        self._num_frames = wanted
        os.truncate(self.path, HEADER_SIZE + wanted * self.frame_size)
        file = os.open(self.path, os.O_RDWR)
        try:
            self._count_frames(file)
        finally:
            os.close(file)

    def _read_header(self) -> bytes:
        with self.path.open("rb") as file:
            header = file.read(HEADER_SIZE)
        if len(header) < HEADER_SIZE or header[:8] != struct.pack("<i4s", 84, b"CORD"):
            raise ValueError(
                f"found {self.path}, which does not begin as a DCD file does, expected "
                "one to continue; write to a new file"
            )
        return header

    def write(self, positions: NDArray[np.floating]) -> None:
        """
        Write one frame.

        Parameters
        ----------
        positions : ndarray, shape (n_atoms, 3), nm
            Positions.

        Raises
        ------
        ValueError
            If the shape is another one, or a number is not finite.
        """
        if positions.shape != (self._n_atoms, 3):
            raise ValueError(
                f"found positions {positions.shape}, expected ({self._n_atoms}, 3)"
            )
        if not np.isfinite(positions).all():
            raise ValueError(
                f"found positions for {self.path} that are not finite, expected "
                "numbers; shorten the step of what moved them"
            )
        record = struct.pack("<i", 4 * self._n_atoms)
        angstrom = (10.0 * positions).astype("<f4")
        frame = b"".join(record + axis.tobytes() + record for axis in angstrom.T)
        # Without Python's buffers, which would cost more than the writing.
        file = os.open(self.path, os.O_RDWR)
        try:
            place = HEADER_SIZE + self._num_frames * self.frame_size
            _write_at(file, frame, place)
            self._num_frames += 1
            self._count_frames(file)
        finally:
            os.close(file)

    def _count_frames(self, file: int) -> None:
        first, interval = self._first_step, self._interval
        last = first + max(0, self._num_frames - 1) * interval
        steps = min(first, MAX_STEP), interval, min(last, MAX_STEP)
        _write_at(file, struct.pack("<4i", self._num_frames, *steps), COUNT_OFFSET)


def _write_at(file: int, content: bytes, place: int) -> None:
    while content:
        written = os.pwrite(file, content, place)
        content, place = content[written:], place + written
