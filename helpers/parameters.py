"""The check of a notebook's parameters, which papermill itself leaves out."""
import ast
import math

import yaml

from helpers import store

NOTEBOOKS = store.ROOT / "notebooks"


def check(namespace, **allowed):
    """Raise ValueError, naming the parameter, if one is unknown or out of range.

    Call it as `parameters.check(globals(), seed=range(1000), ...)` in the cell after the
    parameters, with every parameter of the notebook. What a value may be: a list of choices, each
    a value or again one of these; a range of integers; a tuple (low, high) of real numbers, ends
    included; a set {what}, a list of such values, at least one; a type, any value of it. Unknown are the names
    that papermill injected and that are not in `allowed`; those of a whole profile (notebooks/smoke.yaml, say)
    are let through, since all notebooks share it.
    """
    injected = _injected(namespace.get("In", []))
    unknown = [name for name in injected if name not in allowed and not _of_profile(name, injected)]
    if unknown:
        raise ValueError(f"unknown parameter {', '.join(unknown)}: this notebook has "
                         f"{', '.join(allowed)}")
    for name, what in allowed.items():
        if name not in namespace:
            raise ValueError(f"parameter {name} is missing from the parameters cell")
        if not _fits(namespace[name], what):
            raise ValueError(f"{name} must be {_describe(what)}, got {namespace[name]!r}")


def _injected(history):
    """Return the parameters that papermill's cell set, from the kernel's list of executed cells."""
    for source in history:
        if source.startswith("# Parameters"):
            return {statement.targets[0].id: _literal(statement.value)
                    for statement in ast.parse(source).body if isinstance(statement, ast.Assign)}
    return {}


def _literal(node):
    try:
        return ast.literal_eval(node)
    except ValueError:  # papermill writes float('nan') and the like
        return _ABSENT


_ABSENT = object()


def _of_profile(name, injected):
    for path in NOTEBOOKS.glob("*.yaml"):
        profile = yaml.safe_load(path.read_text("utf8")) or {}
        if name in profile and all(injected.get(key, _ABSENT) == profile[key] for key in profile):
            return True
    return False


def _fits(value, what):
    if isinstance(what, list):
        return any(_fits(value, choice) for choice in what)
    if isinstance(what, set):
        return type(value) is list and len(value) > 0 and all(_fits(entry, list(what)) for entry in value)
    if isinstance(what, type):
        return type(value) is what
    if isinstance(what, range):
        return type(value) is int and value in what
    if isinstance(what, tuple):
        return (type(value) in (int, float) and math.isfinite(value)
                and what[0] <= value <= what[1])
    return type(value) is type(what) and value == what


def _describe(what):
    if isinstance(what, list):
        return " or ".join(_describe(choice) for choice in what)
    if isinstance(what, set):
        return "a list, each entry " + _describe(list(what))
    if isinstance(what, type):
        return {"str": "a text"}.get(what.__name__, what.__name__)
    if isinstance(what, range):
        return f"an integer in {what.start}..{what.stop - 1}"
    if isinstance(what, tuple):
        return f"a number in [{what[0]}, {what[1]}]"
    return repr(what)
