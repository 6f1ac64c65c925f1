"""Claims in notebooks: which ones are named, which of an executed one do not hold, what its prose lacks."""
import ast
import contextlib

from helpers.report import labels
from helpers.report.claims import record
from helpers.report.claims.record import Judged


def judged(notebook):
    """Return the claims of an executed notebook, each Judged once, in order."""
    told = [claim for cell in notebook.cells for output in cell.get("outputs", ())
            for claim in output.get("metadata", {}).get("prosa", {}).get("claims", ())]
    return list(dict.fromkeys(Judged(**claim) for claim in told))


def broken(notebook):
    """Return the claims of an executed notebook that do not hold, a line each: what was claimed and found."""
    return [f"{claim.name} does not hold here. Published: {claim.says}. Found: {claim.found}."
            for claim in judged(notebook) if claim.holds is False]


def used(notebook):
    """Return the names of the claims that a notebook's cells name, in %%prosa or prose.verdicts, in order."""
    names = []
    for cell in notebook.cells:
        if cell.cell_type == "code" and labels.is_prose(cell):
            names += cell.source.partition("\n")[0].split()[1:]
        elif cell.cell_type == "code":
            names += _of_verdicts(cell.source)
    return list(dict.fromkeys(names))


def faults(notebook, chapter):
    """Return what is amiss with the claims of a notebook, a line each. chapter: its number, "01".

    In a converted notebook, one with %%prosa, each such cell with a number names a claim; a paragraph with a
    claim has no heading and no equation with a label, which would be lost with it. What is named is in the
    chapter's file; what is there is named.
    """
    known, names, lines = record.chapters().get(chapter, {}), used(notebook), []
    for cell in notebook.cells:
        if cell.cell_type == "code" and labels.is_prose(cell):
            first, _, body = cell.source.partition("\n")
            begins = " ".join(body.split()[:8])
            if "{{" in body and len(first.split()) == 1:
                lines.append(f"no claim is named by the text «{begins} …», which has a number")
            if len(first.split()) > 1 and (labels.HEADING.search(body) or "{#" in body):
                lines.append(f"a heading or label would be lost with the claim of the text «{begins} …»")
    lines += [f"there is no claim {name} in chapter_{chapter}.py" for name in names if name not in known]
    return [*lines, *(f"nothing names the claim {name} of chapter_{chapter}.py" for name in known
                      if name not in names)]


def _of_verdicts(source):
    """Return the names that a cell passes to prose.verdicts."""
    tree = ast.Module([], [])
    with contextlib.suppress(SyntaxError):  # of another magic
        tree = ast.parse(source)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [word.value for call in calls if ast.unparse(call.func) == "prose.verdicts"
            for word in call.args if isinstance(word, ast.Constant)]
