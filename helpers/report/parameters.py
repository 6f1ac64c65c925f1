"""The check of parameters, which papermill leaves out: of a notebook, and of a profile for all notebooks."""
import ast
import contextlib
import difflib
import sys
from pathlib import Path

import nbformat
import yaml

from helpers import datasets
from helpers.artifacts import paths, progress
# Notebooks know the first two as parameters.FILE and parameters.Listed.
from helpers.artifacts.values import FILE, Listed, require  # noqa: F401

NOTEBOOKS = paths.ROOT / "notebooks"
EXPLORER = {"n_explorer": range(1, 11)}  # what the explorer takes of a profile that no notebook has
# How many of the first images a notebook takes, and no more than are at hand.
OF_TEST = ("n_attack", "n_blind", "n_aware", "n_aware_resnet", "n_gain", "n_study")


def check(namespace, **allowed):
    """Raise ValueError, naming the parameter, if one is unknown or not what it may be.

    Call it as `parameters.check(globals(), seed=range(1000), ...)` in the cell after the parameters, with
    every parameter of the notebook. What a value may be: a list of choices, each a value or again one of
    these; a range of integers; a tuple (low, high) of real numbers, ends included; Listed(what, least); FILE.
    Unknown are the names that papermill injected and that are not in `allowed`. The sizes of OF_TEST, and
    train_size, must not exceed the images at hand of the data set that `dataset` names ("all": of that which
    has fewest; without such a parameter: of that which has most).
    """
    try:
        _check(namespace, allowed)
    except ValueError as error:  # its message says all: no traceback in the notebook, first in the terminal
        error._render_traceback_ = lambda message=str(error): [f"ValueError: {message}"]
        progress.announce(str(error))
        raise


def _check(namespace, allowed):
    unknown = [name for name in _injected(namespace.get("In", [])) if name not in allowed]
    if unknown:
        raise ValueError(f"unknown parameter {_meant(unknown, allowed)}: this notebook has "
                         + ", ".join(allowed) + _whole_profile(unknown))
    for name in allowed:
        if name not in namespace:
            raise ValueError(f"parameter {name} is missing from the parameters cell")
    _check_values({name: namespace[name] for name in allowed}, allowed)


def of_profile(profile, notebooks):
    """Return what each notebook takes of a profile: dict of its name without .ipynb to its own parameters.

    profile: path of a YAML file of names and values; notebooks: paths of all those that share it. A notebook
    has the parameters of its cell tagged so, and says in its call of `check` what they may be. Raises
    ValueError, naming the file, where it is no such file, gives a name twice or one that no notebook has, or
    a value that a notebook refuses.
    """
    given, own = read_yaml(profile), {Path(path).stem: _declared(path) for path in notebooks}
    known = [*EXPLORER, *(name for defaults, _ in own.values() for name in defaults)]
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"{profile}: no notebook has the parameter {_meant(unknown, known)}")
    for stem, (defaults, allowed) in {**own, "explorer": ({}, EXPLORER)}.items():
        try:
            _check_values(_known(defaults | given), allowed)
        except ValueError as error:
            raise ValueError(f"{profile}: {error} ({stem})") from error
    return {stem: {name: given[name] for name in given if name in defaults}
            for stem, (defaults, _) in own.items()}


def check_given(path, given):
    """Raise ValueError where the notebook at `path` has not all parameters given, or refuses their values."""
    defaults, allowed = _declared(path)
    unknown = [name for name in given if name not in defaults]
    if unknown:
        raise ValueError(f"{Path(path).name} has no parameter {_meant(unknown, defaults)}; "
                         f"it has {', '.join(defaults)}")
    _check_values(_known(defaults | given), allowed)


def read_yaml(path):
    """Return the names and values of a YAML file; raise ValueError where it does not hold just these."""
    try:
        text = Path(path).read_text("utf8")
        given, node = yaml.safe_load(text), yaml.compose(text, yaml.SafeLoader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is not a readable YAML file: {' '.join(str(error).split())}") from error
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ValueError(f"{path} must hold parameters, a name and a value a line, got {given!r}")
    names = [key.value for key, _ in node.value]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise ValueError(f"{path} gives {', '.join(twice)} twice")
    return given


def _check_values(values, allowed):
    """Check those of the values that there are, each by itself, then against the images at hand."""
    for name, what in allowed.items():
        if name in values:
            require(name, values[name], what)
    named, dataset = "dataset" in allowed, values.get("dataset")
    names, of_all = [dataset] if dataset in datasets.NAMES else datasets.NAMES, min if named else max
    here, official = (_counts(names, of_all, file) for file in (
        datasets.at_hand, lambda name: datasets.record(name).full))
    for name, which in {"train_size": 0, **dict.fromkeys(OF_TEST, 1)}.items():
        if name in allowed and (values.get(name) or 0) > here[which]:
            raise ValueError(f"{name} must be at most {here[which]}, the images at hand"
                             + (f" with dataset = {dataset!r}" if named else "") + f", got {values[name]}"
                             + (" (`make data` brings all)" if official[which] > here[which] else ""))


def _counts(names, of_all, file):
    """Return how many (training, test) images these data sets have in their file(name), of_all the numbers.

    Training images are the first of each class, as many as there are of the rarest.
    """
    held = [(datasets.record(name), file(name)) for name in names]
    return (of_all(record.classes * images.rarest for record, images in held),
            of_all(images.test for _, images in held))


def _injected(history):
    """Return the names that papermill's cell set, the last of such, from the kernel's executed cells."""
    return next((names for names in map(_of_papermill, reversed(history)) if names is not None), [])


def _of_papermill(source):
    """Return the names that a cell sets, if it is as papermill writes it, of plain values; else None."""
    comment, _, rest = str(source).partition("\n")
    if comment.rstrip() != "# Parameters":
        return None
    try:
        body = ast.parse(rest).body
    except (SyntaxError, ValueError):
        return None
    plain = all(isinstance(one, ast.Assign) and len(one.targets) == 1 and isinstance(one.targets[0], ast.Name)
                and all(part.id == "float" for part in ast.walk(one.value) if isinstance(part, ast.Name))
                for one in body)  # float('nan') is papermill's
    return [one.targets[0].id for one in body] if plain else None


def _meant(names, known):
    """Return names as a list in words, each with the known ones that look alike."""
    alike = {name: difflib.get_close_matches(str(name), known, n=2) for name in names}
    return ", ".join(f"{name} (did you mean {' or '.join(found)}?)" if found else str(name)
                     for name, found in alike.items())


def _whole_profile(unknown):
    """Return what to do if the unknown parameters are other notebooks', of a profile passed whole."""
    others = yaml.safe_load((NOTEBOOKS / "report.yaml").read_text("utf8"))
    if len(unknown) == 1 or not all(name in others for name in unknown):
        return ""
    return ("; of a whole profile, such as smoke.yaml, make passes each notebook its own: "
            "make notebooks/executed/smoke/01_datos.ipynb PROFILE=smoke")


def _declared(path):
    """Return a notebook's (defaults, allowed): the values of its parameters cell, what its `check` allows.

    What only the running notebook could evaluate is left out of either: there it is checked.
    """
    defaults, allowed = {}, {}
    for cell in nbformat.read(path, 4).cells:
        body = _parsed(cell)
        if "parameters" in cell.metadata.get("tags", []):
            defaults = {target.id: _evaluated(one.value)
                        for one in body.body if isinstance(one, (ast.Assign, ast.AnnAssign))
                        for target in getattr(one, "targets", None) or [one.target]
                        if isinstance(target, ast.Name)}
        for call in ast.walk(body):
            if isinstance(call, ast.Call) and ast.unparse(call.func) in ("parameters.check", "prose.start"):
                allowed = {word.arg: _evaluated(word.value) for word in call.keywords}
    return defaults, {name: what for name, what in allowed.items() if what is not NotImplemented}


def _known(values):
    return {name: value for name, value in values.items() if value is not NotImplemented}


def _parsed(cell):
    with contextlib.suppress(SyntaxError):  # a cell of a magic, which is no Python
        if cell.cell_type == "code":
            return ast.parse(cell.source)
    return ast.Module([], [])


def _evaluated(node):
    """Return the value of an expression of literals, ranges, this module, datasets; else NotImplemented."""
    try:
        return eval(compile(ast.Expression(node), "<notebook>", "eval"),
                    {"__builtins__": {}, "range": range, "datasets": datasets,
                     "parameters": sys.modules[__name__]})
    except (NameError, AttributeError):
        return NotImplemented
