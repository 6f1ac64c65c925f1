"""The house: which room may know which, what their doors hand on, and how their files are written."""
import ast
import importlib
import json
import re
from collections import defaultdict

import pytest

from helpers.artifacts import paths

HELPERS = paths.ROOT / "helpers"
GROUND = {"artifacts", "statistics", "datasets"}
MEANS = {"jpeg", "frequency", "saliency", "certify"}
KNOWS = {  # room: the rooms that its modules may import
    "artifacts": set(), "statistics": set(), "datasets": {"artifacts", "statistics"},
    "attacks": GROUND,
    **dict.fromkeys(MEANS, GROUND | {"attacks"}), "frequency": GROUND | {"attacks", "jpeg"},
    "networks": GROUND | MEANS | {"attacks"},
    "study": GROUND | MEANS | {"attacks", "networks"},
    **dict.fromkeys(("bench", "report"),
                    GROUND | MEANS | {"attacks", "networks", "study", "bench", "report"})}
BESIDE = {  # file: the room that it may know beyond, and why
    "study/verify.py": {"bench"}}  # It computes again whatever ships, the comparison with others too.
FORGERS = {"tests/forgery.py"}  # They reach into rooms, to change what lies there with all its traces.
TOP = {"quiet", "lock"}  # modules that lie beside the rooms
SAME = {  # name: why several modules define it
    "main": "where a module that make runs begins"}
NAMED_BY_WHAT_THEY_SHOW = re.compile(  # whose functions may bear the name of a fact of another room
    "report/(figures/|tables|filling)")  # Figures, tables and numbers in prose show what it computes.
SPANISH = re.compile("[áéíóúñü¿¡«»]", re.I)
NAMES_IN_SPANISH = {"datasets/records.py"}  # the titles and the names of the classes
LINE, FUNCTION = 110, 50  # characters, and lines, at most; of functions the aim is 30

FILES = {path.relative_to(HELPERS).as_posix(): path.read_text("utf8")
         for path in sorted(HELPERS.rglob("*.py"))}
TREES = {name: ast.parse(source) for name, source in FILES.items()}
NOTEBOOKS = sorted((paths.ROOT / "notebooks").glob("*.ipynb"))
ROOMS = sorted({path.parent.name for path in HELPERS.glob("*/__init__.py")} - {"tests"})


def room(name):
    """Return the room of a file of helpers, "tests/room" for a test of it; None where it lies in none."""
    first, *rest = name.split("/")
    if first == "tests":
        return f"tests/{rest[0]}" if rest[0] in ROOMS else None
    return first if rest else None


def imports(tree):
    """Return what a module imports of helpers, inside functions too: (dotted name, what it is called here).

    A name that is given as text to import_module counts.
    """
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(one.name, one.asname or one.name) for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(f"{'.' * node.level}{node.module or ''}.{one.name}", one.asname or one.name)
                      for one in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found += [(node.args[0].value, "")] if isinstance(node.args[0], ast.Constant) else []
    return [(name, called) for name, called in found if re.match(r"helpers\b|\.", name)]


def wrong_arrows(name, tree):
    """Return what a file of helpers imports of a room that its own must not know."""
    own = room(name)
    if name.startswith("tests/"):
        return []
    allowed = KNOWS.get(own, set()) | BESIDE.get(name, set()) | TOP | ({own} if own else set())
    return [dotted for dotted, _ in imports(tree)
            if dotted.startswith(".") or (dotted.split(".") + [""])[1] not in allowed]


def door(of):
    """Return what a room hands on: the names in its __all__."""
    return importlib.import_module(f"helpers.{of}").__all__


def past_the_door(own, tree):
    """Return what a module uses of rooms other than its own beyond what they hand on.

    own: its room, None where it lies in none, as a notebook. Of a room, a name outside its __all__ counts;
    of a module that stands there, a private name.
    """
    found, called = set(), {}
    for dotted, name in imports(tree):
        parts = dotted.split(".")[1:]
        if not parts or parts[0] not in ROOMS or own in (parts[0], f"tests/{parts[0]}"):
            continue
        called[name] = parts
        if len(parts) > 1 and parts[1] not in door(parts[0]) or any(map(_private, parts)):
            found.add(".".join(parts))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (parts := called.get(ast.unparse(node.value))):
            if len(parts) == 1 and node.attr not in door(parts[0]) or _private(node.attr):
                found.add(".".join([*parts, node.attr]))
    return sorted(found)


def _private(name):
    return name.startswith("_") and not name.startswith("__")


def definitions(tree):
    """Return the public functions and classes that a module defines at its top."""
    return [node.name for node in tree.body
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not _private(node.name)]


def spanish(tree):
    """Return the string constants that hold a letter of Spanish, docstrings apart."""
    told = {id(node.body[0].value) for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef))
            and ast.get_docstring(node) is not None}
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)
            and isinstance(node.value, str) and id(node) not in told and SPANISH.search(node.value)]


def too_long(source):
    """Return the lines, by number, and the functions, by name, that are too long."""
    lines = [number for number, line in enumerate(source.splitlines(), 1) if len(line) > LINE]
    return lines + [node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)
                    and node.end_lineno - node.lineno + 1 > FUNCTION]


def _code(path):
    """Return the tree of a notebook's cells of Python."""
    cells = [cell for cell in json.loads(path.read_text("utf8"))["cells"] if cell["cell_type"] == "code"]
    return ast.parse("\n".join(source for cell in cells
                               if not (source := "".join(cell["source"])).lstrip().startswith("%%")))


def _readme():
    """Return the tree of the indented blocks of README.md that are Python."""
    blocks = re.findall(r"(?:^ {4}.*\n)+", (paths.ROOT / "README.md").read_text("utf8"), re.M)
    return ast.parse("\n".join(re.sub("^ {4}", "", block, flags=re.M) for block in blocks
                               if "from helpers" in block))


def _each(find, names=FILES):
    """Return what `find` finds in each of the files, where it finds any."""
    found = {name: find(name) for name in names}
    return {name: wrong for name, wrong in found.items() if wrong}


def test_arrows_run_down():
    assert not _each(lambda name: wrong_arrows(name, TREES[name]))


def test_rooms_are_entered_by_their_doors():
    others = [name for name in FILES if name not in FORGERS]
    assert not _each(lambda name: past_the_door(room(name), TREES[name]), others)


def test_notebooks_and_the_readme_enter_by_the_doors():
    assert not _each(lambda path: past_the_door(None, _code(path)), NOTEBOOKS)
    assert imports(_readme()) and not past_the_door(None, _readme())


@pytest.mark.parametrize("of", ROOMS)
def test_a_door_says_what_its_room_is_for_and_what_it_hands_on(of):
    module = importlib.import_module(f"helpers.{of}")
    assert of in KNOWS and module.__doc__.strip()
    for name in door(of):
        if not hasattr(module, name):
            importlib.import_module(f"helpers.{of}.{name}")
    assert len(set(door(of))) == len(door(of)) and not any(map(_private, door(of)))


def test_a_name_has_one_address():
    homes = defaultdict(list)
    for name, tree in TREES.items():
        if not name.startswith("tests/") and not NAMED_BY_WHAT_THEY_SHOW.match(name):
            for defined in definitions(tree):
                homes[defined].append(name)
    several = {defined: found for defined, found in homes.items() if len(found) > 1}
    assert several.keys() >= SAME.keys()
    assert not {defined: found for defined, found in several.items() if defined not in SAME}


def test_spanish_stands_in_the_report_alone():
    others = [name for name in FILES if not re.match("tests/|report/", name) and name not in NAMES_IN_SPANISH]
    assert not _each(lambda name: spanish(TREES[name]), others)


def test_lines_and_functions_are_short():
    assert not _each(lambda name: too_long(FILES[name]))


def test_what_is_wrong_would_be_seen():
    up = ast.parse("def f():\n    from helpers.report import text\n")
    assert wrong_arrows("study/new.py", up) == ["helpers.report.text"]
    assert not wrong_arrows("report/new.py", up) and not wrong_arrows("tests/study/test_new.py", up)
    for name, line in (("jpeg/new.py", "from helpers import frequency"),
                       ("lock.py", "from helpers import jpeg"),
                       ("attacks/new.py", "from . import square"),
                       ("datasets/new.py", "import helpers.attacks"),
                       ("jpeg/new.py", "importlib.import_module('helpers.study.maps')")):
        assert wrong_arrows(name, ast.parse(line)), line
    assert not wrong_arrows("frequency/new.py", ast.parse("from helpers import jpeg, quiet"))
    code = ast.parse("from helpers import attacks\nfrom helpers.attacks import gradients\n"
                     "from helpers.attacks.minimal import x\n"
                     "attacks.pgd, attacks.fgsm_pgd, gradients.logits, gradients._door, x._y")
    assert past_the_door(None, code) == past_the_door("tests/jpeg", code) == [
        "attacks.fgsm_pgd", "attacks.gradients._door", "attacks.minimal.x", "attacks.minimal.x._y"]
    assert not past_the_door("tests/attacks", code) and not past_the_door("attacks", code)
    assert definitions(ast.parse("def _f(): pass\ndef g():\n    def h(): pass\nclass K: pass")) == ["g", "K"]
    assert spanish(ast.parse('"""á"""\ndef f():\n    """é"""\n    return f"{x} está"\n')) == [" está"]
    assert too_long("x = 1\n" + "#" * 111 + "\ndef f():\n" + "    pass\n" * 50) == [2, "f"]
