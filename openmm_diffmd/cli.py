"""The console script ``openmm-diffmd``: one verb, one function of the package."""

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

from openmm_diffmd.findings import FINDINGS

VERBS = {
    "reference": ("openmm_diffmd.reference.driver", "make_reference"),
    "force": ("openmm_diffmd.training.force", "train_force"),
    "train": ("openmm_diffmd.training.train", "train"),
    "export": ("openmm_diffmd.export.export", "export_model"),
    "balance": ("openmm_diffmd.balancing.rollouts", "balance_model"),
    "run": ("openmm_diffmd.integrator.run", "run"),
    "revisit": ("openmm_diffmd.revisiting.bursts", "revisit"),
    "analyze": ("openmm_diffmd.analysis.analyze", "analyze"),
}
"""Module and function of each verb; a module is imported when its verb is asked."""

USAGE = """\
usage: openmm-diffmd VERB [--config FILE.yaml] [--key value ...]

verbs:
  reference   make reference trajectories of a molecule
  force       train a force on frames, for reference
  train       train a model on them
  export      write a trained model as one file
  balance     take from a model the heat that its rollouts show
  run         run a model in OpenMM and write a trajectory
  revisit     run the reference force where trajectories went furthest out, for train
  analyze     compare trajectories with a reference

openmm-diffmd VERB --help          the keys of a verb
openmm-diffmd VERB --print_config  them as YAML, to edit
openmm-diffmd --version"""


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the console script.

    Parameters
    ----------
    arguments : sequence of str, optional
        Command line without the program; default: the process's own.

    Returns
    -------
    int
        Exit status: 0, 1 where the work failed, 2 where the command line is wrong.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)  # noqa: T201
        return 0 if words else 2
    if words[0] == "--version":
        print(f"openmm_diffmd {version('openmm_diffmd')}")  # noqa: T201
        return 0
    if words[0] not in VERBS:
        return _refuse(
            f"found verb {words[0]!r}, expected one of {', '.join(VERBS)}", 2
        )
    verb = words[0]
    try:
        with _one_line_warnings(verb):
            return _run_verb(verb, words[1:])
    except KeyboardInterrupt as error:
        where = f" {error}" if str(error) else ""
        return _refuse(f"{verb}: interrupted{where}; what was written is kept", 130)


@contextmanager
def _one_line_warnings(verb: str) -> Iterator[None]:
    """Show warnings as errors are shown, without the line of code that warned."""
    usual = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: (
        f"openmm-diffmd: {verb}: warning: {message}\n"
    )
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _run_verb(verb: str, words: list[str]) -> int:
    module, name = VERBS[verb]
    if verb in ("reference", "revisit"):
        # tblite reads it when it is loaded. For a small molecule more threads cost more
        # than they give, most of all beside other work.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        function: Callable[..., Any] = getattr(import_module(module), name)
    except ImportError as error:
        return _refuse(f"{verb}: {error}", 1)
    words = dashes_to_underscores(words)
    if problem := _ambiguous(words):
        return _refuse(f"{verb}: {problem}", 2)
    try:
        words = _with_bundled_configs(verb, words)
    except FileNotFoundError as error:
        return _refuse(f"{verb}: {error}", 2)
    try:
        result = function(**_parse(verb, function, words))
    except user_errors() as error:
        return _refuse(f"{verb}: {_message(error)}", 1)
    for item in result if isinstance(result, tuple) else (result,):
        if isinstance(item, str | Path):
            print(item)  # noqa: T201
    if verb in FINDINGS:
        print("\n" + FINDINGS[verb](result))  # noqa: T201
    return 0


def dashes_to_underscores(words: Sequence[str]) -> list[str]:
    """
    Let people type ``--length-ps`` for ``--length_ps``.

    Parameters
    ----------
    words : sequence of str
        Command line.

    Returns
    -------
    list of str
        The same with underscores in the names of options; values are as they were.
    """
    return [
        re.sub(r"^--[^=]+", lambda name: "--" + name[0][2:].replace("-", "_"), word)
        for word in words
    ]


def _ambiguous(words: Sequence[str]) -> str | None:
    """Find values that would be lost in silence, or refused without the way out."""
    options = [word.split("=")[0] for word in words if word.startswith("--")]
    single = [name for name in options if name != "--config" and name[-1] != "+"]
    repeated = next((name for name in single if single.count(name) > 1), None)
    if repeated:
        return (
            f"found {repeated} twice, expected once: for one of several give "
            f"{repeated}+ each time"
        )
    for option, value, more in zip(words, words[1:], words[2:], strict=False):
        is_value = not (value.startswith("--") or more.startswith("--"))
        if option.startswith("--") and "=" not in option and is_value:
            return (
                f"found {more!r} after {option} {value}, expected one value of each "
                f"option: for one of several give {option.rstrip('+')}+ before each"
            )
    return None


def _parse(
    verb: str, function: Callable[..., Any], words: Sequence[str]
) -> dict[str, Any]:
    # Imported here: it costs more than the rest of the start.
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(
        prog=f"openmm-diffmd {verb}",
        usage="%(prog)s [--config FILE.yaml] [--key value ...]",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", action="config", help="YAML file of the keys, or a bundled one"
    )
    parser.add_function_arguments(function, fail_untyped=True)
    values = dict(vars(parser.instantiate(parser.parse_args(words))))
    values.pop("config", None)
    return values


def _with_bundled_configs(verb: str, words: Sequence[str]) -> list[str]:
    bundled = {
        name: str(item)
        for item in files("openmm_diffmd.configs").iterdir()
        if item.name.endswith(".yaml")
        for name in (item.name, item.name.removesuffix(".yaml"))
    }
    # Both spellings: --config NAME and --config=NAME.
    split = [
        part
        for word in words
        for part in (word.split("=", 1) if word.startswith("--config=") else [word])
    ]
    found = []
    for previous, word in pairwise(["", *split]):
        if previous != "--config" or Path(word).is_file():
            found.append(word)
        elif word in bundled:
            found.append(bundled[word])
        else:
            own = sorted({Path(path).stem for path in bundled.values()})
            own = [name for name in own if name.startswith(f"{verb}_")]
            raise FileNotFoundError(
                f"found no config {word!r}, expected a YAML file"
                + (f", or of the package one of {', '.join(own)}" if own else "")
            )
    return found


def user_errors() -> tuple[type[Exception], ...]:
    """
    List the errors whose message is for the user, without a traceback.

    Returns
    -------
    tuple of type
        Those of wrong input and of files, and, once they are imported, OpenMM's and
        HDF5's.
    """
    errors: list[type[Exception]] = [ValueError, OSError]
    if openmm := sys.modules.get("openmm"):
        errors.append(openmm.OpenMMException)
    if tables := sys.modules.get("tables"):
        errors.append(tables.HDF5ExtError)
    return tuple(errors)


def _message(error: Exception) -> str:
    """Say what happened: of HDF5 the last line, after where in its library."""
    if type(error).__name__ == "HDF5ExtError":
        return f"{str(error).strip().splitlines()[-1]}: is the disk full?"
    return str(error)


def _refuse(message: str, status: int) -> int:
    print(f"openmm-diffmd: {message}", file=sys.stderr)  # noqa: T201
    return status


if __name__ == "__main__":
    sys.exit(main())
