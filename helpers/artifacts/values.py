"""What a value may be, and the error that names it: the parameters of notebooks and of the study.

A list of choices, each a value or again one of these; a range of integers; a tuple (low, high) of real
numbers, ends included; Listed(what, least); FILE.
"""
import math
from pathlib import Path
from typing import NamedTuple

from helpers.artifacts import files

FILE = Path  # the path of a network's file that is there


class Listed(NamedTuple):
    """What a parameter may be: a list of `least` or more values that increase, each of them `what`."""
    what: object
    least: int = 1


def require(name, value, what):
    """Raise ValueError, naming the parameter and its value, if it is not `what` it may be."""
    if not _fits(value, what):
        raise ValueError(f"{name} must be {_describe(what)}, got {value!r}")


def _fits(value, what):
    if isinstance(what, list):
        return any(_fits(value, choice) for choice in what)
    if isinstance(what, Listed):
        return (type(value) is list and all(_fits(entry, what.what) for entry in value)
                and len(value) >= what.least and value == sorted(set(value)))
    if what is FILE:
        return type(value) is str and Path(value).suffix in files.NETWORKS and Path(value).is_file()
    if isinstance(what, range):
        return type(value) is int and value in what
    if isinstance(what, tuple):
        return (type(value) in (int, float) and math.isfinite(value)
                and what[0] <= value <= what[1])
    return type(value) is type(what) and value == what


def _describe(what):
    if isinstance(what, list):
        return " or ".join(_describe(choice) for choice in what)
    if isinstance(what, Listed):
        return f"a list of {what.least} or more that increase, each {_describe(what.what)}"
    if what is FILE:
        return f"the path of a file ({', '.join(files.NETWORKS)})"
    if isinstance(what, range):
        return f"an integer in {what[0]}..{what[-1]}" + (f" in steps of {what.step}" if what.step > 1 else "")
    if isinstance(what, tuple):
        return f"a number in [{what[0]}, {what[1]}]"
    return repr(what)
