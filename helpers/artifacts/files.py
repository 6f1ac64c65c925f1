"""Files: written whole or not at all, cleared away where a writer died, and measured before they are read."""
import errno
import functools
import json
import math
import os
import platform
import re
import time
import zipfile
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

NETWORKS = (".keras", ".h5", ".hdf5")  # ends of the names of their files

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EIO)
DAY = 24 * 60 * 60
BYTES = 2**31  # of an archive's arrays: more than any artifact here has


@contextmanager
def atomic(path):
    """Yield a partial path beside `path`, renamed to `path` only if the block succeeds.

    The partial name keeps the suffix of `path`, since Keras and NumPy look at it, and tells the host and the
    process. Raises OSError, with the path and what to do, where the disk is full or the folder refuses it.
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}.{_host()}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        yield partial
        os.replace(partial, path)
    except OSError as error:
        if error.errno in FULL:
            raise OSError(f"{path} could not be written: the disk is full ({error.strerror}). Free some "
                          "space and run again: what was kept stays, and the run goes on from it.") from error
        if error.errno in REFUSED:
            raise OSError(f"{path} could not be written ({error.strerror}): {path.parent} must be a folder "
                          f"in which you may write, and {path.name} must not be a folder.") from error
        raise
    finally:
        with suppress(OSError):
            partial.unlink()


def write_json(path, content):
    """Write `content` as readable JSON, atomically."""
    with atomic(path) as partial:
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf8")


@functools.cache
def sweep(folder):
    """Remove from a folder, once a process, the partial files (of `atomic`) whose writers are gone.

    A process of this host that runs no more is; of another host, or of an unknown one, only age tells: no
    file is written for a day.
    """
    for partial in Path(folder).glob(".*.part*"):
        found = re.fullmatch(r"\..+?(?:\.([\w-]+))?\.(\d+)\.part(\.\w+)?", partial.name)
        with suppress(OSError):  # another process may have swept it, or may own it
            if found and (_gone(found[1], int(found[2])) or time.time() - partial.stat().st_mtime > DAY):
                partial.unlink()


def _gone(host, process):
    if host != _host() or os.name != "posix":
        return False
    try:
        os.kill(process, 0)  # sends nothing
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False


def _host():
    return re.sub(r"\W+", "-", platform.node())[:40] or "host"


def arrays(path, names=None, most=BYTES):
    """Return the arrays of an .npz, by name: those of `names`, or all.

    What each holds is read from its header before its data. Raises ValueError (or what zipfile raises) where
    one is missing, is damaged or holds objects, or where all together would take more than `most` bytes.
    """
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()] if names is None else names
        size = sum(_size(archive, name) for name in names)
    if size > most:
        raise ValueError(f"its arrays would take {size:,} bytes, and at most {most:,} are read")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in names}


def _size(archive, name):
    """Return the bytes of an array in an .npz, on which its header and the archive must agree."""
    try:
        member = archive.getinfo(f"{name}.npy")
    except KeyError:
        raise ValueError(f"it has no array {name}") from None
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed in a way that NumPy does not write")
    with archive.open(member) as file:
        read = {(1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0}.get(np.lib.format.read_magic(file))
        if read is None:
            raise ValueError(f"{name} is of a version of .npy that is not read here")
        shape, _, dtype = read(file)
        start = file.tell()
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, which are not read")
    size = math.prod(shape) * dtype.itemsize
    if size != member.file_size - start:
        raise ValueError(f"{name} should take {size:,} bytes, of shape {shape} and type {dtype}, "
                         f"and has {member.file_size - start:,}")
    return size
