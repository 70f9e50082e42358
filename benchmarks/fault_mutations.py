"""Files with random damage: models, what is inside them, XML, checkpoints."""

import json
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

CANARY = "code_was_run"


class _Payload:
    """What runs a command when Python's own pickle reads it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch '{self.marker}'",)


def damage_bytes(content: bytes, random: Random) -> bytes:
    """
    Flip, cut, overwrite, insert, remove or repeat bytes at a random place.

    Parameters
    ----------
    content : bytes
        What the file held.
    random : random.Random
        Where the choices come from.

    Returns
    -------
    bytes
        Something else.
    """
    damaged = bytearray(content)
    place = random.randrange(len(content))
    length = min(random.choice((1, 2, 8, 64, 1024)), len(content) - place)
    kind = random.choice(("flip", "cut", "overwrite", "zero", "insert", "remove"))
    if kind == "flip":
        damaged[place] ^= 1 << random.randrange(8)
    elif kind == "cut":
        del damaged[place:]
    elif kind == "overwrite":
        damaged[place : place + length] = random.randbytes(length)
    elif kind == "zero":
        damaged[place : place + length] = bytes(length)
    elif kind == "insert":
        damaged[place:place] = random.randbytes(length)
    else:
        del damaged[place : place + length]
    if bytes(damaged) == content:
        return damage_bytes(content, random)
    return bytes(damaged)


def damage_json(text: str, random: Random) -> str:
    """
    Replace, remove or add one value at a random place of a JSON object.

    Parameters
    ----------
    text : str
        What it held.
    random : random.Random
        Where the choices come from.

    Returns
    -------
    str
        Well-formed JSON (as Python writes it: NaN and Infinity included) that holds
        something else.
    """
    document = json.loads(text)
    places: list[tuple[Any, Any]] = []

    def collect(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in items:
            places.append((node, key))
            # Provenance is text for people; what is in it is of no consequence.
            if isinstance(value, dict | list) and key not in PROVENANCE:
                collect(value)

    collect(document)
    places = [(node, key) for node, key in places if key not in PROVENANCE]
    node, key = random.choice(places)
    nonsense = [None, -1, 0, 1e300, float("nan"), float("inf"), "", "x", [], {}, True]
    nonsense += [[1, 2], {"a": 1}, 2.5, "\u0000", 10**30, "../../etc/passwd"]
    kind = random.choice(("replace", "replace", "replace", "remove", "add"))
    if kind == "remove":
        del node[key]
    elif kind == "add" and isinstance(node, dict):
        node["unheard_of"] = random.choice(nonsense)
    else:
        node[key] = random.choice(nonsense)
    written = json.dumps(document)
    return (
        written
        if written != json.dumps(json.loads(text))
        else damage_json(text, random)
    )


PROVENANCE = ("reference", "versions", "git_hash", "config", "acceptance", "name")


def damage_numbers(text: str, random: Random) -> tuple[str, str]:
    """
    Edit one attribute of an XML file by hand, so to say.

    Parameters
    ----------
    text : str
        XML whose values stand in double quotes.
    random : random.Random
        Where the choices come from.

    Returns
    -------
    damaged : str
        XML with another value, or without the attribute.
    what : str
        Name of the attribute, a colon, what it was and what it is.
    """
    found = random.choice(list(re.finditer(r'(\w+)="([^"]*)"', text)))
    value = found[2]
    nonsense = [
        "",
        "-1",
        "0",
        "1e300",
        "nan",
        "inf",
        "x",
        "999999999999",
        "-0.5",
        "&lt;",
    ]
    new = random.choice([*nonsense, value + "1", value[:-1]])
    replacement = "" if random.random() < 0.1 else f'{found[1]}="{new}"'
    if replacement == found[0]:
        return damage_numbers(text, random)
    damaged = text[: found.start()] + replacement + text[found.end() :]
    return damaged, f"{found[1]}: {value!r}, {replacement}"


def rewrite_archive(
    source: Path, target: Path, changes: Callable[[str, bytes], bytes]
) -> None:
    """
    Write an archive anew, with checksums that fit what it then holds.

    Parameters
    ----------
    source, target : Path
        Model files.
    changes : callable
        From the name and content of a member to its new content.
    """
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            new.writestr(info, changes(info.filename, old.read(info.filename)))


def damage_member(source: Path, target: Path, pattern: str, random: Random) -> str:
    """
    Damage one member of a model file; the archive stays whole.

    Parameters
    ----------
    source, target : Path
        Model files.
    pattern : str
        Regular expression that the member's name holds.
    random : random.Random
        Where the choices come from.

    Returns
    -------
    str
        Name of the member.
    """
    with zipfile.ZipFile(source) as archive:
        names = [n for n in archive.namelist() if re.search(pattern, n)]
    chosen = random.choice([n for n in names if zip_size(source, n)])

    def change(name: str, content: bytes) -> bytes:
        if name != chosen:
            return content
        if name.endswith("metadata.json"):
            if random.random() < 0.2:
                return damage_bytes(content, random)
            return damage_json(content.decode(), random).encode()
        return damage_bytes(content, random)

    rewrite_archive(source, target, change)
    return chosen


def zip_size(path: Path, name: str) -> int:
    """
    Size of a member of an archive.

    Parameters
    ----------
    path : Path
        The archive.
    name : str
        The member.

    Returns
    -------
    int
        Bytes.
    """
    with zipfile.ZipFile(path) as archive:
        return archive.getinfo(name).file_size


def plant_payload(source: Path, target: Path, random: Random) -> str:
    """
    Put a pickle that runs a command into a model file, or in its place.

    Parameters
    ----------
    source, target : Path
        Model files.
    random : random.Random
        Where the choices come from.

    Returns
    -------
    str
        Where it was put.
    """
    payload = pickle.dumps(_Payload(target.parent / CANARY), random.choice((0, 2, 4)))
    with zipfile.ZipFile(source) as archive:
        pickles = [n for n in archive.namelist() if n.endswith(".pkl")]
    place = random.choice([*pickles, "the file"])
    if place == "the file":
        target.write_bytes(payload)
        return place
    behind = random.random() < 0.5

    def change(name: str, content: bytes) -> bytes:
        if name != place:
            return content
        return payload[:-1] + content if behind else payload

    rewrite_archive(source, target, change)
    return place


def make_case(folder: Path, originals: Path, index: int, seed: int) -> dict[str, str]:
    """
    Damage one file of a set of three.

    Parameters
    ----------
    folder : Path
        An empty folder for the set ``model.pt``, ``integrator.xml``, ``run.chk``.
    originals : Path
        The folder of the undamaged set. The XML names the model by its path there.
    index : int
        Number of the case; kinds take turns.
    seed : int
        Seed of all cases.

    Returns
    -------
    dict
        ``kind``, ``through`` (``python`` loads the model by `load_model`, ``xml`` by
        the integrator's XML) and ``what`` was done.
    """
    random = Random(f"{seed}-{index}")
    kind = KINDS[index % len(KINDS)]
    for name in ("model.pt", "integrator.xml", "run.chk"):
        shutil.copy(originals / name, folder / name)
    xml = (folder / "integrator.xml").read_text()
    xml = xml.replace(str(originals / "model.pt"), str(folder / "model.pt"))
    (folder / "integrator.xml").write_text(xml)
    source, model = originals / "model.pt", folder / "model.pt"
    what, through = kind, "python"
    if kind == "model bytes":
        model.write_bytes(damage_bytes(source.read_bytes(), random))
    elif kind == "model bytes behind XML":
        model.write_bytes(damage_bytes(source.read_bytes(), random))
        through = "xml"
    elif kind == "metadata":
        what = damage_member(source, model, r"metadata\.json$", random)
    elif kind == "code and pickles":
        what = damage_member(source, model, r"(\.py|\.pkl|version)$", random)
    elif kind == "payload":
        what = plant_payload(source, model, random)
    elif kind == "XML bytes":
        damaged = damage_bytes(xml.encode(), random)
        (folder / "integrator.xml").write_bytes(damaged)
        through = "xml"
    elif kind == "XML values":
        damaged_text, what = damage_numbers(xml, random)
        (folder / "integrator.xml").write_text(damaged_text)
        through = "xml"
    else:
        content = (originals / "run.chk").read_bytes()
        (folder / "run.chk").write_bytes(damage_bytes(content, random))
        through = "xml"
    return {"kind": kind, "through": through, "what": what}


KINDS = (
    "model bytes",
    "metadata",
    "XML values",
    "checkpoint",
    "model bytes behind XML",
    "metadata",
    "XML bytes",
    "checkpoint",
    "code and pickles",
    "payload",
)
"""Kinds of damage, in turns: of ten cases two are of metadata, two of checkpoints."""
