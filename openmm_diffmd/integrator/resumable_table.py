"""A table that a reporter writes row by row, and goes on with from a checkpoint."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO


class ResumableTable:
    """
    Table whose first column is the step, flushed at each row.

    Parameters
    ----------
    file : str, path-like or text file
        Where to write.
    separator : str
        One character between columns; a text that holds it is quoted.
    append : bool
        Continue the file of an earlier run.

    Raises
    ------
    ValueError
        If the separator is not one character that can separate columns, or a file
        object is to be continued.
    FileNotFoundError
        If there is no file to continue.
    """

    def __init__(
        self, file: str | os.PathLike[str] | TextIO, separator: str, append: bool
    ) -> None:
        if len(separator) != 1 or separator in '"\r\n':
            raise ValueError(
                f"found separator {separator!r}, expected one character that ends no "
                "line and quotes no text: choose another, such as ','"
            )
        self._separator = separator
        self._append = append
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

    def begin(self, columns: Sequence[str], step: int) -> None:
        """
        Write the header, or cut a continued file behind the rows before a step.

        Parameters
        ----------
        columns : sequence of str
            Names of the columns.
        step : int
            The one of the next row.

        Raises
        ------
        ValueError
            If the file to continue has other columns, or no row before that step.
        """
        header = "#" + self._separator.join(f'"{column}"' for column in columns)
        path = self._path
        # Empty: the run before ended before its first report.
        if self._append and path is not None and path.stat().st_size:
            _cut_rows(path, header, step, self._separator)
        else:
            self._write(header + "\n")

    def add_row(self, row: Sequence[Any]) -> None:
        """
        Write a row.

        Parameters
        ----------
        row : sequence
            A cell for each column, the step first.
        """
        line = io.StringIO()
        csv.writer(line, delimiter=self._separator, lineterminator="\n").writerow(row)
        self._write(line.getvalue())

    def _write(self, line: str) -> None:
        # One write a line: a run that is killed leaves whole lines.
        if self._path is not None:
            with self._path.open("a", newline="\n") as file:
                file.write(line)
        elif self._stream is not None:
            self._stream.write(line)
            self._stream.flush()


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
