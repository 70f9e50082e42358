"""Official MD17, rMD17 and ISO17 files: resumable downloads, checked where known."""

import urllib.error
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from http.client import IncompleteRead
from pathlib import Path

from tqdm import tqdm

from openmm_diffmd.outputs import file_sha256, make_folder

BLOCK = 1 << 18
TIMEOUT_SECONDS = 60
MAGIC = {".npz": b"PK", ".bz2": b"BZh", ".gz": b"\x1f\x8b"}
"""What files begin with, by suffix."""


@dataclass(frozen=True)
class RemoteFile:
    """
    A file to download.

    Attributes
    ----------
    url : str
        Where from.
    name : str
        Its name on disk.
    size : int or None
        Size in bytes, where known.
    sha256 : str or None
        Checksum in hexadecimal, where known.
    """

    url: str
    name: str
    size: int | None = None
    sha256: str | None = None


MD17_URL = "http://www.quantum-machine.org/gdml/data/npz"
MD17 = {
    molecule: RemoteFile(f"{MD17_URL}/md17_{molecule}.npz", f"md17_{molecule}.npz")
    for molecule in (
        "azobenzene",
        "benzene2017",
        "ethanol",
        "malonaldehyde",
        "naphthalene",
        "paracetamol",
        "salicylic",
        "toluene",
        "uracil",
    )
} | {
    "aspirin": RemoteFile(
        f"{MD17_URL}/md17_aspirin.npz",
        "md17_aspirin.npz",
        size=202_398_748,
        sha256="af4ce531bf8cf07610c0bd876cb5b321f3c301d2365720967d98d45e1db1f748",
    )
}
"""MD17 (Chmiela et al. 2017), by molecule."""

RMD17 = RemoteFile("https://figshare.com/ndownloader/files/23950376", "rmd17.tar.bz2")
"""rMD17 (Christensen and von Lilienfeld 2020), all molecules, CC0."""

ISO17 = RemoteFile(
    "http://www.quantum-machine.org/datasets/iso17.tar.gz", "iso17.tar.gz"
)
"""ISO17 (Schuett et al. 2017), MD of C7O2H10 isomers."""


def download(file: RemoteFile, folder: str | Path, progress: bool = True) -> Path:
    """
    Download a file, going on where an earlier attempt stopped.

    Parameters
    ----------
    file : RemoteFile
        One of `MD17`, `RMD17`, `ISO17`, or one of your own.
    folder : path-like
        Where to; made if absent. Until it is whole and checked, the file is called
        ``<name>.part``.
    progress : bool
        Show a progress bar, if in a terminal.

    Returns
    -------
    Path
        The file. One that is there already is checked, not fetched.

    Raises
    ------
    ValueError
        If size or checksum are not the known ones. A partial file is removed.
    ConnectionError
        If the transfer ends early; call again to go on.
    OSError
        If the server cannot be reached or refuses.
    """
    target = Path(folder) / file.name
    if target.exists():
        _check(target, file, "remove it to download it again")
        return target
    make_folder(target.parent)
    part = target.with_name(f"{file.name}.part")
    _fetch(file, part, progress)
    try:
        _check(part, file, "it is removed; try again, or ask its publisher")
    except ValueError:
        part.unlink()
        raise
    return part.replace(target)


def _fetch(file: RemoteFile, part: Path, progress: bool) -> None:
    have = part.stat().st_size if part.exists() else 0
    if file.size is not None and have >= file.size:
        return
    request = urllib.request.Request(file.url)
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if have and error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return
        raise OSError(
            f"{file.url} answers {error.code} {error.reason}, expected the file; look "
            "on its site whether it has moved"
        ) from error
    with response:
        # A server that knows no ranges sends the file from its start.
        resumed = response.status == HTTPStatus.PARTIAL_CONTENT
        start = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else file.size
        with (
            part.open("ab" if resumed else "wb") as output,
            tqdm(
                desc=file.name,
                total=total,
                initial=start,
                unit="B",
                unit_scale=True,
                disable=None if progress else True,
            ) as bar,
        ):
            try:
                while block := response.read(BLOCK):
                    output.write(block)
                    bar.update(len(block))
            except IncompleteRead as error:
                raise ConnectionError(
                    f"{file.url} ended within a block; call again to go on"
                ) from error
    size = part.stat().st_size
    if total is not None and size < total:
        raise ConnectionError(
            f"{file.url} ended after {size} of {total} bytes; call again to go on"
        )


def _check(path: Path, file: RemoteFile, remedy: str) -> None:
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        raise ValueError(
            f"{path} has {size} bytes, expected {file.size} of {file.url}: {remedy}"
        )
    if file.sha256 is None:
        with path.open("rb") as content:
            start = content.read(4)
        if not start.startswith(MAGIC.get(Path(file.name).suffix, b"")):
            raise ValueError(
                f"{path} begins with {start!r}, expected a {Path(file.name).suffix} "
                f"file of {file.url}, and no page that says why there is none: {remedy}"
            )
        return
    digest = file_sha256(path)
    if digest != file.sha256:
        raise ValueError(
            f"{path} has SHA-256 {digest}, expected {file.sha256} of {file.url}: "
            f"{remedy}"
        )
