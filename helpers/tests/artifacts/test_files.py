"""Files: whole or not at all, swept where a writer died, and measured before they are read."""
import errno
import io
import os
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

from helpers.artifacts import files, paths, store

KILLED_WHILE_SAVING = """
import os, signal, sys
from pathlib import Path
from helpers.artifacts import files
with files.atomic(Path(sys.argv[1])) as partial:
    partial.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_swept_at_the_next_start(made):
    path = paths.place(made, "network-x.y.keras")
    child = subprocess.run([sys.executable, "-c", KILLED_WHILE_SAVING, str(path)], cwd=paths.ROOT)
    left, = path.parent.iterdir()
    assert child.returncode == -signal.SIGKILL and left.name.endswith(".part.keras")
    assert store.find("network-z.keras") is None  # the first look of a process
    assert not left.exists()


@pytest.mark.parametrize("host, process, days, swept", [
    (files._host(), os.getpid(), 0, False), (files._host(), 2**22 + 1, 0, True),
    ("elsewhere", 2**22 + 1, 0, False), ("elsewhere", 2**22 + 1, 2, True), (files._host(), 10**30, 0, True)],
    ids=["its own", "gone", "of another host", "old", "no process at all"])
def test_a_partial_file_is_swept_only_if_nobody_writes_it(tmp_path, host, process, days, swept):
    partial, other = tmp_path / f".a.b.{host}.{process}.part.npz", tmp_path / ".user.part"
    for path in (partial, other):
        path.write_bytes(b"half")
    then = time.time() - days * 24 * 60 * 60
    os.utime(partial, (then, then))
    files.sweep(tmp_path)
    assert partial.exists() != swept and other.exists()


def test_a_name_without_its_host_is_swept_by_age(tmp_path):
    """So were partial files named at first."""
    young, old = (tmp_path / f".network-{name}.4194305.part.keras" for name in "ab")
    for path in (young, old):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    files.sweep(tmp_path)
    assert young.exists() and not old.exists()


@pytest.mark.parametrize("code, words", [(errno.ENOSPC, "the disk is full .*Free some space"),
                                         (errno.EROFS, "must be a folder in which you may write")])
@pytest.mark.parametrize("at", ["write", "replace"])
def test_a_disk_that_takes_nothing_is_told_by_path_and_what_to_do(tmp_path, monkeypatch, code, words, at):
    def fails(*_):
        raise OSError(code, os.strerror(code))
    monkeypatch.setattr(files.os, "replace", fails if at == "replace" else os.replace)
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(OSError, match=f"{path} could not be written.*{words}"):
        with files.atomic(path) as partial:
            partial.write_text("new")
            if at == "write":
                fails()
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.json"]


def test_a_folder_in_a_files_place_and_a_file_in_a_folders_are_told(tmp_path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(OSError, match="a.json could not be written.*must not be a folder"):
        files.write_json(tmp_path / "a.json", {})
    (tmp_path / "made").write_text("")
    with pytest.raises(OSError, match="made/b.json could not be written.*must be a folder"):
        files.write_json(tmp_path / "made" / "b.json", {})


def test_an_error_that_is_not_the_disks_stays_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        with files.atomic(tmp_path / "a.txt"):
            open("nowhere")


def _npz(path, shape, dtype="<f4", content=b"", **more):
    """Write an .npz of one array, with a header of one's own."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", **more) as archive:
        archive.writestr("a.npy", header.getvalue() + content)
    return path


def test_arrays_come_back(tmp_path):
    value = {"a": np.float32([[0, 1, 2], [3, 4, 5]]), "b": np.array(["x", "yz"]), "c": np.array(1.5)}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **value)
        read = files.arrays(tmp_path / "a.npz")
        assert read.keys() == value.keys() and all(np.array_equal(read[key], value[key]) for key in value)
        assert files.arrays(tmp_path / "a.npz", ["b"]).keys() == {"b"}
    with pytest.raises(ValueError, match="no array d"):
        files.arrays(tmp_path / "a.npz", ["d"])


def test_an_archive_that_opens_to_more_is_refused_before_it_is_opened(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.zeros(10**6, np.uint8), b=np.zeros(10**6, np.uint8))
    assert path.stat().st_size < 10**4
    monkeypatch.setattr(np, "load", None)  # nothing is opened
    with pytest.raises(ValueError, match="2,000,000 bytes, and at most 1,999,999"):
        files.arrays(path, most=1_999_999)


@pytest.mark.parametrize("shape, dtype, message", [
    ((2**43,), "<f4", "35,184,372,088,832 bytes"), ((2,), "|O", "Python objects"),
    ((3,), "<f4", "12 bytes.*has 8"), ((-2,), "<f4", "-8 bytes")],
    ids=["32 TB", "objects", "cut", "negative"])
def test_a_header_that_promises_what_is_not_there_is_refused(tmp_path, monkeypatch, shape, dtype, message):
    path = _npz(tmp_path / "a.npz", shape, dtype, bytes(8))
    monkeypatch.setattr(np, "load", None)
    with pytest.raises(ValueError, match=message):
        files.arrays(path)


def test_only_the_compression_that_numpy_writes_is_opened(tmp_path):
    with pytest.raises(ValueError, match="compressed in a way"):
        files.arrays(_npz(tmp_path / "a.npz", (2,), content=bytes(8), compression=zipfile.ZIP_BZIP2))
