"""What TensorFlow says as it is loaded passes a filter: what says nothing that one can mend is left out.

Its C++ part writes these lines to standard error before any setting of TensorFlow's own can hold it back.
The filter is a process apart, so that what TensorFlow says last, should it crash there, is seen all the same.
"""
import importlib.abc
import importlib.util
import os
import subprocess
import sys
from contextlib import contextmanager, suppress

NOTES = {  # parts of lines, each with the reason why it is left out
    rb"All log messages before absl::InitializeLog\(\) is called": "of the log itself",
    rb"oneDNN custom operations are on": "helpers turned them on",
    rb"Could not find cuda drivers on your machine": "there is no graphics card; a processor is enough",
    rb"failed call to cuInit: .*UNKNOWN ERROR \(303\)": "the same again: no CUDA library is installed",
    rb"This TensorFlow binary is optimized to use available CPU": "of how TensorFlow was built",
    rb"^To enable the following instructions:.*rebuild TensorFlow": "the same, its second line",
}
FILTER = """
import re, sys
notes = re.compile(sys.argv[1].encode("latin1"))
for line in sys.stdin.buffer:
    if not notes.search(line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""


@contextmanager
def without_noise():
    """Within the block, what this process writes to descriptor 2, standard error, passes the filter."""
    try:
        before = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    notes = b"|".join(NOTES).decode("latin1")
    sys.stderr.flush()
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", FILTER, notes], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=before, start_new_session=True)  # Ctrl-C is not for it
    os.dup2(process.stdin.fileno(), 2)
    process.stdin.close()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)
        with suppress(subprocess.TimeoutExpired):  # if another process holds the pipe, it goes on without us
            process.wait(5)


class Finder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow as Python would, once, and has it loaded within the filter."""

    def find_spec(self, name, path=None, target=None):
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec and spec.loader:
            load = spec.loader.exec_module
            spec.loader.exec_module = lambda module: _load(load, module)
        return spec


def _load(load, module):
    with without_noise():
        load(module)
        module.config.list_physical_devices()  # it looks for graphics cards, and says so when it first does


def silence():
    """Have TensorFlow loaded within the filter, whoever imports it, unless it is loaded already."""
    if "tensorflow" not in sys.modules and not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())
