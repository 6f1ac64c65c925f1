"""Tables of the report's appendix, made from the executed notebooks and this machine, as Markdown."""
import importlib.metadata
import os
import platform
from itertools import zip_longest

from helpers.artifacts import store
from helpers.report import page, text

PACKAGES = ("tensorflow", "keras", "numpy", "scipy", "imagecodecs", "matplotlib", "seaborn", "papermill",
            "nbconvert",
            "pypandoc_binary", "typst")


def parameter_table(executed):
    """Return a table of the parameters of the executed notebooks, with the notebooks that read each."""
    readers = {}
    for name, metadata in _papermill(executed).items():
        for parameter, default in metadata["defaults"].items():
            value = str(metadata["parameters"].get(parameter, default))
            readers.setdefault((parameter, value), []).append(name[:2])
    rows = [[f"`{name}`", value.strip("\"'").replace("None", "–"), ", ".join(notebooks)]
            for (name, value), notebooks in readers.items()]
    return _halved(rows, ["parámetro", "valor", "cuadernos"])


def times(executed):
    """Return a table of the minutes that each executed notebook took, with their sum."""
    minutes = {name: metadata["duration"] / 60 for name, metadata in _papermill(executed).items()}
    rows = [[f"`{name}`", text.number(value, 1)]
            for name, value in (minutes | {"total": sum(minutes.values())}).items()]
    return _halved(rows, ["cuaderno", "minutos"])


def machine(executed):
    """Return a table of this machine and of the versions of the packages."""
    rows = [["procesador", store.processor()], ["núcleos", os.cpu_count()],
            ["memoria", f"{_memory():.0f} GB"],
            ["sistema", platform.platform(terse=True)], ["Python", platform.python_version()]]
    return _halved([*rows, *([name, importlib.metadata.version(name)] for name in PACKAGES)], ["", "versión"])


def command(executed):
    """Return the command that makes the report again, as a block of code."""
    return f"```\nmake report PROFILE={executed.name}\n```"


def notebooks(executed):
    """Return the paths of the notebooks in the folder `executed` that ran to their end, in order."""
    return [path for path in sorted(executed.glob("[0-9]*.ipynb")) if "." not in path.stem]


def _papermill(executed):
    """Return what papermill wrote down of each executed notebook, and "defaults", its cell of parameters."""
    return {path.stem: _told(page.executed(path)) for path in notebooks(executed)}


def _told(notebook):
    source, = (cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    values = (line.split("#")[0].split("=", 1) for line in source.splitlines())
    return notebook.metadata.papermill | {"defaults": {name.strip(): value.strip() for name, value in values}}


def _halved(rows, header):
    """Return a long and narrow table as Markdown, its second half beside its first."""
    half = -(-len(rows) // 2)
    pairs = zip_longest(rows[:half], rows[half:], fillvalue=[""] * len(header))
    return text.markdown([left + right for left, right in pairs], header * 2)


def _memory():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


TABLES = {"command": command, "parameters": parameter_table, "times": times, "machine": machine}
