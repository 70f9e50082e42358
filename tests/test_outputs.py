import hashlib
import os

import pytest

from openmm_diffmd import cli
from openmm_diffmd.outputs import (
    check_output_file,
    check_output_folder,
    file_sha256,
    make_folder,
    written_whole,
)


def test_folder_is_made_with_those_above_it(tmp_path):
    folder = tmp_path / "a" / "b"
    check_output_folder(folder)
    check_output_file(folder / "model.pt")
    assert not list(tmp_path.iterdir())
    assert make_folder(folder) == folder
    assert make_folder(folder).is_dir()


@pytest.mark.parametrize("below", ["", "b", "b/c"])
def test_file_in_the_way_is_named(tmp_path, below):
    (tmp_path / "a").touch()
    with pytest.raises(NotADirectoryError, match=r"found the file .*a, expected a f"):
        make_folder(tmp_path / "a" / below)


def test_folder_in_place_of_a_file_is_refused(tmp_path):
    with pytest.raises(
        IsADirectoryError, match=r"found the folder .*expected the name"
    ):
        check_output_file(tmp_path)


def test_what_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "model.pt").touch()
    # Root may write everywhere, also where tests are run by root.
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(PermissionError, match="without permission to write in it, exp"):
        make_folder(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    monkeypatch.setattr(os, "access", lambda path, mode: path == tmp_path)
    with pytest.raises(PermissionError, match=r"found the file .*expected one that"):
        check_output_file(tmp_path / "model.pt")


def test_folder_that_cannot_be_made_is_told(tmp_path):
    with pytest.raises(OSError, match=r"no way to make the folder .*name too long"):
        make_folder(tmp_path / ("a" * 300))


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("before")

    def fail():
        with written_whole(path) as part:
            assert (part.parent, part.suffix) == (tmp_path, ".json")
            part.write_text("cut")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "before"
    with written_whole(path) as part:
        part.write_text("after")
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert file_sha256(path) == hashlib.sha256(b"abc").hexdigest()


WORDS = {
    "reference": ["--molecule", "water"],
    "force": ["--data+", "absent.h5"],
    "train": ["--data+", "absent.h5"],
    "export": ["--data+", "absent.h5", "--name", "a"],
    "balance": ["--model", "absent.pt", "--rollouts+", "absent.json"],
    "run": [],
    "revisit": ["--rollouts+", "absent.json"],
    "analyze": ["--rollouts+", "absent.json", "--reference", "absent.h5"],
}
"""Inputs that are looked at later: a long work must not end at its output."""


@pytest.mark.parametrize("verb", cli.VERBS)
def test_verbs_refuse_an_output_below_a_file_before_the_work(verb, tmp_path, capsys):
    (tmp_path / "file").touch()
    words = [verb, *WORDS[verb], "--output", str(tmp_path / "file" / "out")]
    if verb == "export":
        (tmp_path / "last.ckpt").touch()
        words += ["--training", str(tmp_path)]
    assert cli.main(words) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(
        f"openmm-diffmd: {verb}: found the file {tmp_path}/file, exp"
    )
