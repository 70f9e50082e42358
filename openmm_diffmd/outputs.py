"""Folders and files that results go to: refused before the work, not after it."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_output_folder(folder: str | os.PathLike[str]) -> None:
    """
    Refuse a folder that could not be written in, without making it.

    Parameters
    ----------
    folder : path-like
        Where results are to go; need not exist.

    Raises
    ------
    NotADirectoryError
        If it, or what it would lie in, is a file.
    PermissionError
        If it, or the nearest folder above it that exists, cannot be written in.
    OSError
        If it could not be made for another reason, such as the length of its name.
    """
    path = Path(folder)
    try:
        nearest = next(p for p in (path, *path.absolute().parents) if p.exists())
    except OSError as error:
        raise _cannot_make(path, error) from error
    if not nearest.is_dir():
        raise NotADirectoryError(
            f"found the file {nearest}, expected a folder, to write {path} there: "
            "choose another output"
        )
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(
            f"found the folder {nearest} without permission to write in it, expected "
            f"one that {path} can be written in: choose another output"
        )


def make_folder(folder: str | os.PathLike[str]) -> Path:
    """
    Make a folder for results, with those above it, unless it is there.

    Parameters
    ----------
    folder : path-like
        The folder.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    OSError
        If it cannot be made or written in.
    """
    check_output_folder(folder)
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        # What no permission tells: a read-only disk, say.
        raise _cannot_make(path, error) from error
    return path


def _cannot_make(path: Path, error: OSError) -> OSError:
    return OSError(
        f"found no way to make the folder {path} ({error.strerror}), expected one "
        "that can be written in: choose another output"
    )


def check_output_file(file: str | os.PathLike[str], overwrite: bool = True) -> None:
    """
    Refuse a file that could not be written, without making it or its folder.

    Parameters
    ----------
    file : path-like
        Where a result is to go; it, and folders above it, need not exist.
    overwrite : bool
        Whether it may be replaced.

    Raises
    ------
    FileExistsError
        If it exists and `overwrite` is off.
    IsADirectoryError
        If it is a folder.
    OSError
        If its folder cannot be made or written in.
    """
    path = Path(file)
    if path.is_dir():
        raise IsADirectoryError(
            f"found the folder {path}, expected the name of a file to write: add one "
            "to it"
        )
    check_output_folder(path.parent)
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"found a file {path}; choose another output, or set overwrite"
        )
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(
            f"found the file {path} without permission to write it, expected one that "
            "can be replaced: choose another output"
        )


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """
    Write a file whole or not at all: what a kill or an error cuts passes for no result.

    Parameters
    ----------
    path : path-like
        The file; replaced, if it exists, when the block ends.

    Yields
    ------
    Path
        What to write instead, of the same suffix, in the same folder; removed where
        the block fails.
    """
    path = Path(path)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def file_sha256(path: str | os.PathLike[str]) -> str:
    """
    Hash a file.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    str
        Its SHA-256, hexadecimal.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
