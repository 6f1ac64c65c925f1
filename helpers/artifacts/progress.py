"""Bars of long work: in the notebook, in the terminal where papermill runs it, and as lines in a log.

`tqdm` is that of tqdm.auto. A notebook's bar is a widget, which nobody sees while papermill executes a cell
for twenty minutes; so a kernel that no Jupyter server runs shows the bar a second time, where it was started:
below papermill's own on a terminal, else as a line now and then.
"""
import contextlib
import os
import re
import sys
import time

from tqdm.auto import tqdm as auto
from tqdm.notebook import tqdm_notebook

EVERY = 30  # seconds between two lines of a log
DRAWN = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|\|[^|]*\|(?= *\d)")  # colours, and the bar itself
_last = time.monotonic()  # when a line was written to the log


class tqdm(auto):
    """The bar of tqdm.auto, seen in a terminal and in a log too."""

    def __init__(self, *args, **kwargs):
        if not isinstance(self, tqdm_notebook):
            kwargs.setdefault("file", stream())
        super().__init__(*args, **kwargs)

    def display(self, *args, **kwargs):
        shown = super().display(*args, **kwargs)
        if isinstance(self, tqdm_notebook) and time.time() - self.start_t >= self.delay:
            _second(self)
        return shown

    def close(self):
        shown = not self.disable and isinstance(self, tqdm_notebook)
        super().close()
        if shown:
            _second(self, close=True)


class Log:
    """Standard error for bars where it is no terminal: a line of what they show, every EVERY seconds."""
    encoding = "utf8"  # by it tqdm chooses its characters

    def write(self, text):
        words = DRAWN.sub("", text).strip()
        if words and _due():
            print(words, file=sys.stderr, flush=True)

    def flush(self):
        pass


def stream():
    """Return where bars outside notebooks are drawn: standard error if it is a terminal, else a Log."""
    return sys.stderr if sys.stderr.isatty() else Log()


def _due():
    """Return whether it is time for a line in the log, which then counts as written."""
    global _last
    due = time.monotonic() - _last >= EVERY
    if due:
        _last = time.monotonic()
    return due


def announce(text):
    """Write a line where this kernel was started, above a bar that is there; nothing outside such kernels."""
    descriptor = _descriptor() if "ipykernel" in sys.modules else None
    if descriptor is not None:
        _write(descriptor, f"\r\x1b[K{text}\n" if os.isatty(descriptor) else f"\n{text}\n")


def _second(bar, close=False):
    """Show a notebook's bar where its kernel was started, below the bar that is there."""
    descriptor = _descriptor()
    if descriptor is None:
        return
    terminal = os.isatty(descriptor)
    width = (os.get_terminal_size(descriptor).columns or 80) - 1 if terminal else 0
    text = "" if close else bar.format_meter(**bar.format_dict | {"ncols": width, "bar_format": None}).strip()
    if terminal:
        _write(descriptor, f"\n\r\x1b[K{text}\x1b[A\r")
    elif text and _due():
        _write(descriptor, f"{text}\n")


def _descriptor():
    """Return that of the standard error this kernel was started with; None if it has none, or a server's."""
    if "JPY_SESSION_NAME" in os.environ:  # a Jupyter server's own log is no place for bars
        return None
    with contextlib.suppress(OSError):
        return sys.stderr.fileno()  # ipykernel gives that of the original


def _write(descriptor, text):
    with contextlib.suppress(OSError):  # nobody reads it any more: the work goes on without
        os.write(descriptor, text.encode())
