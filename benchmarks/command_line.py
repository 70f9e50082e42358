"""What commands share: wrong input is one line, and found before the work."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli

from openmm_diffmd.analysis.report import to_plain
from openmm_diffmd.cli import dashes_to_underscores, user_errors
from openmm_diffmd.outputs import check_output_file, make_folder, written_whole


@contextmanager
def one_line_errors(name: str) -> Iterator[None]:
    """
    End the program with one line where its input is wrong, as ``openmm-diffmd`` does.

    Parameters
    ----------
    name : str
        Name of the command, which begins the line.

    Raises
    ------
    SystemExit
        Status 1 with the message; 130 where the user interrupts.
    """
    try:
        yield
    except user_errors() as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        print(f"{name}: interrupted; what was written is kept", file=sys.stderr)
        sys.exit(130)


def run_command(
    function: Callable[..., Any], arguments: Sequence[str] | None = None
) -> None:
    """
    Call a function with the options of the command line that are its parameters.

    Parameters
    ----------
    function : callable
        The command, of the command's name.
    arguments : sequence of str, optional
        Command line without the program; the process's own unless given.
    """
    words = dashes_to_underscores(sys.argv[1:] if arguments is None else arguments)
    with one_line_errors(function.__name__):
        auto_cli(function, args=words, as_positional=False)


def output_file(text: str) -> Path:
    """
    Read the name of a file to write from the command line, for `argparse`.

    Parameters
    ----------
    text : str
        The name.

    Returns
    -------
    Path
        The file; its folder is made.

    Raises
    ------
    argparse.ArgumentTypeError
        If it could not be written, before the work instead of after it.
    """
    try:
        check_output_file(text)
        return make_folder(Path(text).parent) / Path(text).name
    except OSError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def whole_frames(length: float | None, default: float, interval: float) -> float:
    """
    Take a length of whole frames, or refuse one that is not.

    Parameters
    ----------
    length : float or None
        What the command line names, ps.
    default : float
        What is taken to the nearest whole frame where it names none, ps.
    interval : float
        Time between frames, ps.

    Returns
    -------
    float
        The length, ps.

    Raises
    ------
    ValueError
        If the given one is no whole number of frames.
    """
    frames = max(1, round((default if length is None else length) / interval))
    # 667 times 0.03 ps are 20.01.
    whole = round(frames * interval, 9)
    if length is None:
        return whole
    if abs(whole - length) > 1e-6 * length:
        raise ValueError(
            f"found length_ps {length:g}, expected a whole number of frames of "
            f"{interval:g} ps, such as {whole:g}"
        )
    return length


def require_same_molecule(
    what: str,
    found: Sequence[str],
    expected: Sequence[str],
    *,
    any_order: bool = False,
) -> None:
    """
    Refuse frames of another molecule.

    Parameters
    ----------
    what : str
        What the frames are, for the message.
    found, expected : sequence of str
        Symbols of the atoms, and those that were expected.
    any_order : bool
        Compare formulas alone.

    Raises
    ------
    ValueError
        If atoms differ.
    """
    order = sorted if any_order else list
    if order(found) != order(expected):
        raise ValueError(
            f"found {what} of atoms {'-'.join(found)}, expected {'-'.join(expected)}: "
            "give files of one molecule"
        )


def read_results(path: Path, *keys: str) -> dict[str, Any]:
    """
    Read what an earlier call of a command wrote.

    Parameters
    ----------
    path : path-like
        JSON file.
    *keys : str
        What it must have.

    Returns
    -------
    dict
        Its content.

    Raises
    ------
    ValueError
        If it is damaged or something else.
    """
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(
            f"found {path}, which is no JSON that can be read ({error}), expected "
            "results of this command: choose another output, or remove the file"
        ) from error
    if not isinstance(content, dict) or not content.keys() >= set(keys):
        raise ValueError(
            f"found {path} without {', '.join(keys) or 'keys'}, expected results of "
            "this command: choose another output, or remove the file"
        )
    return content


def write_results(path: Path, result: Any) -> None:
    """
    Write what a command found, whole or not at all.

    Parameters
    ----------
    path : path-like
        JSON file.
    result : object
        Dataclasses, mappings, sequences, numbers, strings, None.
    """
    with written_whole(path) as part:
        part.write_text(json.dumps(to_plain(result), indent=1) + "\n")


def print_goals(goals: Mapping[str, bool]) -> None:
    """
    Print which goals are met.

    Parameters
    ----------
    goals : mapping of str to bool
        Whether each is met.
    """
    for name, met in goals.items():
        print(f"{'met' if met else 'MISSED':8}{name}")
