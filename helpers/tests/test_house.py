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
    **dict.fromkeys(("bench", "report"), GROUND | MEANS | {"attacks", "networks", "study", "bench", "report"})}
BESIDE = {  # file: what it may import beyond, and why
    "study/verify.py": {"bench"}}  # It computes again whatever ships, the comparison with other libraries too.
TOP = {"quiet", "lock"}  # modules that lie beside the rooms; the first of them every import brings
SAME = {  # name: why several modules may define it
    "main": "where a module that make runs begins",
}
SPANISH = re.compile("[áéíóúñü¿¡«»]", re.I)
NAMES_IN_SPANISH = {"datasets/records.py"}  # the titles and the names of the classes
LINE, FUNCTION = 110, 50  # characters, lines at most; of functions the aim is 30

FILES = sorted(HELPERS.rglob("*.py"))
NOTEBOOKS = sorted((paths.ROOT / "notebooks").glob("*.ipynb"))


def _name(path):
    return path.relative_to(HELPERS).as_posix()


def _room(name):
    """Return the room of a file of helpers, "tests/room" for a test of it; its own name where it lies in none."""
    first, *rest = name.split("/")
    return f"tests/{_room('/'.join(rest))}" if first == "tests" and rest else first.removesuffix(".py")


ROOMS = sorted({path.parent.name for path in HELPERS.glob("*/__init__.py")} - {"tests"})


def imports(source):
    """Return what a module imports of helpers, inside functions too: (dotted name, what it is called here).

    A name that is given as text to import_module counts.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(one.name, one.asname or one.name) for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(f"{'.' * node.level}{node.module or ''}.{one.name}", one.asname or one.name)
                      for one in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found += [(ast.literal_eval(node.args[0]), "")] if isinstance(node.args[0], ast.Constant) else []
    return [(name, called) for name, called in found if re.match(r"helpers\b|\.", name)]


def wrong_arrows(name, source):
    """Return what a file of helpers imports of a room that its own must not know."""
    own = _room(name)
    if own.startswith("tests"):
        return []
    allowed = KNOWS.get(own, set()) | BESIDE.get(name, set()) | {own} | TOP
    return [dotted for dotted, _ in imports(source)
            if dotted.startswith(".") or (dotted.split(".") + [""])[1] not in allowed]


def door(room):
    """Return what a room hands on: the names in its __all__."""
    return importlib.import_module(f"helpers.{room}").__all__


def past_the_door(room, source):
    """Return what a text of this room (None: of none, as a notebook) uses of others beyond what they hand on.

    Of a room, a name outside its __all__; of a module that stands there, a private name.
    """
    found, called = [], {}
    for dotted, name in imports(source):
        parts = dotted.split(".")[1:]
        if not parts or parts[0] not in ROOMS or room in (parts[0], f"tests/{parts[0]}"):
            continue
        called[name] = parts
        if len(parts) > 1 and parts[1] not in door(parts[0]) or any(part.startswith("_") for part in parts[1:]):
            found.append(dotted)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and (parts := called.get(ast.unparse(node.value))):
            outside = len(parts) == 1 and node.attr not in door(parts[0])
            if outside or node.attr.startswith("_") and not node.attr.startswith("__"):
                found.append(".".join([*parts, node.attr]))
    return sorted(set(found))


def definitions(source):
    """Return the public functions and classes that a module defines at its top."""
    return [node.name for node in ast.parse(source).body
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")]


def spanish(source):
    """Return the string constants that hold a letter of Spanish, docstrings apart."""
    tree = ast.parse(source)
    told = {id(node.body[0].value) for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef))
            and ast.get_docstring(node) is not None}
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)
            and isinstance(node.value, str) and id(node) not in told and SPANISH.search(node.value)]


def _code(path):
    """Return the code of a notebook: its cells of Python."""
    cells = [cell for cell in json.loads(path.read_text("utf8"))["cells"] if cell["cell_type"] == "code"]
    return "\n".join(source for cell in cells
                     if not (source := "".join(cell["source"])).lstrip().startswith("%%"))


def _readme():
    """Return the indented blocks of README.md that are Python."""
    blocks = re.findall(r"(?:^ {4}.*\n)+", (paths.ROOT / "README.md").read_text("utf8"), re.M)
    return "\n".join(re.sub("^ {4}", "", block, flags=re.M) for block in blocks if "import " in block)


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_arrows_run_down(path):
    assert not wrong_arrows(_name(path), path.read_text("utf8"))


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_rooms_are_entered_by_their_doors(path):
    assert not past_the_door(_room(_name(path)), path.read_text("utf8"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_enter_by_the_doors(path):
    assert not past_the_door(None, _code(path))


def test_the_readme_enters_by_the_doors():
    assert "helpers" in _readme() and not past_the_door(None, _readme())


@pytest.mark.parametrize("room", ROOMS)
def test_a_door_says_what_its_room_is_for_and_what_it_hands_on(room):
    module = importlib.import_module(f"helpers.{room}")
    assert module.__doc__ and module.__doc__.strip()
    for name in door(room):
        if not hasattr(module, name):
            importlib.import_module(f"helpers.{room}.{name}")
    assert len(set(door(room))) == len(door(room)) and not any(name.startswith("_") for name in door(room))


def test_every_room_is_known():
    assert set(ROOMS) <= set(KNOWS)


def test_a_name_has_one_address():
    homes = defaultdict(list)
    for path in FILES:
        if not _room(_name(path)).startswith("tests"):
            for name in definitions(path.read_text("utf8")):
                homes[name].append(_name(path))
    several = {name: found for name, found in homes.items() if len(found) > 1}
    assert not {name: found for name, found in several.items() if name not in SAME}
    assert several.keys() >= SAME.keys()


@pytest.mark.parametrize("path", [path for path in FILES if not re.match("tests|report/", _name(path))], ids=_name)
def test_spanish_stands_in_the_report_alone(path):
    assert _name(path) in NAMES_IN_SPANISH or not spanish(path.read_text("utf8"))


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_lines_and_functions_are_short(path):
    source = path.read_text("utf8")
    assert not [line for line in source.splitlines() if len(line) > LINE]
    lengths = {node.name: node.end_lineno - node.lineno + 1 for node in ast.walk(ast.parse(source))
               if isinstance(node, ast.FunctionDef)}
    assert not {name: length for name, length in lengths.items() if length > FUNCTION}


def test_what_is_wrong_would_be_seen():
    up = "def f():\n    from helpers.report import text\n"
    assert wrong_arrows("study/new.py", up) == ["helpers.report.text"] and not wrong_arrows("report/new.py", up)
    assert wrong_arrows("jpeg/new.py", "from helpers import frequency") == ["helpers.frequency"]
    assert not wrong_arrows("frequency/new.py", "import helpers.jpeg")
    assert wrong_arrows("attacks/new.py", "from . import square") == ["..square"]
    assert wrong_arrows("jpeg/new.py", "importlib.import_module('helpers.study.maps')") == ["helpers.study.maps"]
    code = "from helpers import attacks\nfrom helpers.attacks import gradients\nfrom helpers.attacks.minimal import x\n"
    uses = "attacks.pgd, attacks.fgsm_pgd, gradients.logits, gradients._door, x._y"
    assert past_the_door(None, code + uses) == [
        "attacks.fgsm_pgd", "attacks.gradients._door", "attacks.minimal.x._y", "helpers.attacks.minimal.x"]
    assert not past_the_door("tests/attacks", code + uses) and not past_the_door("attacks", code + uses)
    assert definitions("def _f(): pass\ndef g():\n    def h(): pass\nclass K: pass") == ["g", "K"]
    assert spanish('"""á"""\ndef f():\n    """é"""\n    return f"{x} está"\n') == [" está"]
