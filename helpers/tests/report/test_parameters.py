"""Parameters: what may be is let through, all else is refused by name, of a notebook and of a profile."""
import copy
import re

import nbformat
import pytest
import yaml
from papermill.translators import PythonTranslator

from helpers.artifacts import paths
from helpers.report import parameters
from helpers.report.parameters import FILE, Listed
from helpers.study import overfitting

NOTEBOOKS = sorted(parameters.NOTEBOOKS.glob("[0-9]*.ipynb"))
PROFILES = {path.stem: yaml.safe_load(path.read_text("utf8")) for path in parameters.NOTEBOOKS.glob("*.yaml")}


@pytest.mark.parametrize("what, good, bad, said", [
    ([None, range(1, 10)], (None, 1, 9), (0, 10, 1.0, True, "1", [1], float("nan")),
     "None or an integer in 1..9"),
    (range(100, 201, 10), (100, 200), (105, 210), "an integer in 100..200 in steps of 10"),
    ((0.0, 1.0), (0, 0.5, 1), (1.5, -1e-9, float("nan"), float("inf"), "0.5", False, None),
     r"a number in \[0.0, 1.0\]"),
    (["all", "mnist"], ("all", "mnist"), ("cifar", None, 0), "'all' or 'mnist'"),
    (Listed((0, 1000)), ([0], [0, 2.5]),
     ([], [0, 0], [0, 0.0], [2, 1], [0, 1001], [True], [0, float("nan")], ["0"], (0,), 0, None, {"0": 0}),
     r"a list of 1 or more that increase, each a number in \[0, 1000\]"),
    ([None, Listed(range(101), 3)], (None, [0, 2, 4]), ([], [0, 2], [0, 2, 100_000], [0, 0, 2], [2, 0, 4]),
     "None or a list of 3 or more that increase, each an integer in 0..100")])
def test_what_a_value_may_be(what, good, bad, said):
    for value in good:
        parameters.check({"a": value}, a=what)
    for value in bad:
        with pytest.raises(ValueError, match=f"^a must be {said}, got "):
            parameters.check({"a": value}, a=what)


def test_a_file_must_be_there(tmp_path):
    there = tmp_path / "net.keras"
    there.write_text("")
    for value in (None, str(there)):
        parameters.check({"checkpoint": value}, checkpoint=[None, FILE])
    readme = tmp_path / "README.md"
    readme.write_text("a file of another kind")
    for value in ("", " ", str(tmp_path), str(tmp_path / "other.keras"), there, 3, str(readme)):
        with pytest.raises(ValueError,
                           match=r"checkpoint must be None or the path of a file \(\.keras, .*\), got"):
            parameters.check({"checkpoint": value}, checkpoint=[None, FILE])


def _cell(**values):
    return PythonTranslator.codify(values)  # as papermill itself writes it


def test_only_the_last_cell_of_papermill_counts():
    wrong, right = _cell(sed=3), _cell(seed=4)
    check = lambda *history: parameters.check({"In": ["", *history, "check()"], "seed": 1}, seed=range(10))
    with pytest.raises(ValueError,
                       match=r"unknown parameter sed \(did you mean seed\?\): this notebook has seed$"):
        check(wrong)
    check(wrong, right)
    check()
    with pytest.raises(ValueError, match="unknown parameter sed"):
        check(right, wrong)
    with pytest.raises(ValueError, match="unknown parameter a, b, c"):  # whatever papermill can write
        check(_cell(a=float("nan"), b=[1, {"x": -float("inf")}], c="two\nlines", seed=-1))
    for own in ("# Parameters of my figures\nsize.width = 3\nsed = 4", "# Parameters\nsize.width = 3",
                "#Parameters\nsed = 4",
                "# Parameters\nsed = 4 *", "# Parameters\na, sed = 1, 2", "# Parameters\nsed += 1",
                "# Parameters\nsed = other",
                "# Parameters\nimport sed", "# Parameters\n%matplotlib inline", "# Parameters\nsed = 'a\0'",
                "%%prosa\n# Parameters"):
        check(own)
        check(right, own)
        with pytest.raises(ValueError, match="unknown parameter sed"):
            check(wrong, own)


def test_a_whole_profile_by_hand_says_what_to_do():
    with pytest.raises(ValueError, match="make notebooks/executed/smoke/01_datos.ipynb PROFILE=smoke"):
        parameters.check({"In": [_cell(**PROFILES["smoke"])], "epochs": 1}, epochs=range(9))


@pytest.mark.parametrize("given, message", [
    ({"dataset": "mnist", "n_gain": 10_000, "train_size": 54_210}, None),
    ({"dataset": "cifar10", "n_gain": 2_000, "train_size": 5_000}, None),
    ({"dataset": "all", "n_gain": 2_001}, "n_gain must be at most 2000, the images at hand with dataset = "
                                          "'all', got 2001"),
    ({"dataset": "cifar10", "train_size": 5_010}, "train_size must be at most 5000, .*got 5010 .`make data` "
                                                  "brings all")])
def test_no_more_images_than_are_at_hand(given, message, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DATA", tmp_path)
    given = {"n_gain": 10, "train_size": None} | given
    check = lambda: parameters.check(given, dataset=["all", "mnist", "cifar10"], n_gain=range(10, 10_001),
                                     train_size=[None, range(100, 54_211, 10)])
    if not message:
        return check()
    with pytest.raises(ValueError, match=message):
        check()
    (tmp_path / "cifar10.npz").write_text("")  # the full set
    check()


def _notebook(path, first="seed = 0  # seed\nsize = 3", check="parameters.check(globals(), seed=range(9), "
                                                              "size=other)"):
    cells = [nbformat.v4.new_code_cell(first, metadata={"tags": ["parameters"]}),
             nbformat.v4.new_code_cell("%%prosa\n{a b"),
             nbformat.v4.new_markdown_cell("parameters.check(globals())"), nbformat.v4.new_code_cell(check)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


@pytest.fixture
def refused(tmp_path):
    """A function that returns why a profile of this text is refused."""
    def why(text, notebooks=NOTEBOOKS):
        profile = tmp_path / "mine.yaml"
        profile.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ValueError) as raised:
            parameters.of_profile(profile, notebooks)
        assert "mine.yaml" in str(raised.value) and "\n" not in str(raised.value)
        return str(raised.value)
    return why


def test_each_notebook_gets_its_own_of_a_profile(tmp_path):
    for name, given in PROFILES.items():
        own = parameters.of_profile(parameters.NOTEBOOKS / f"{name}.yaml", NOTEBOOKS)
        assert list(own) == [path.stem for path in NOTEBOOKS]
        assert own["01_datos"] == {name: given[name] for name in ("epochs", "train_size", "n_test")}
        assert {key for values in own.values() for key in values} == given.keys() - parameters.EXPLORER.keys()
    mine = tmp_path / "mine.yaml"
    mine.write_text("")
    assert parameters.of_profile(mine, NOTEBOOKS[:2]) == {"01_datos": {}, "02_entrenamiento": {}}
    mine.write_text("size: [what, else]\nn_explorer: 2\n")  # what only that notebook's own cells can judge
    assert parameters.of_profile(str(mine),
                                 [_notebook(tmp_path / "9 ñ.ipynb")]) == {"9 ñ": {"size": ["what", "else"]}}
    bare = _notebook(tmp_path / "bare.ipynb", "seed: int = 0\na = b = seed", "print(seed)")
    mine.write_text("b: 2\nseed: 1\n")
    assert parameters.of_profile(mine, [bare]) == {"bare": {"b": 2, "seed": 1}}


@pytest.mark.parametrize("text, message", [
    ("nn_attack: 5", r"no notebook has the parameter nn_attack \(did you mean n_attack"),
    ("zzzz: 5\n3: 4\n", "no notebook has the parameter zzzz, 3"), ("n_attack: "
                                                                   "20\nseed: 1\nn_attack: 30",
                                                                   "gives n_attack twice"),
    ("- 1\n- 2\n", r"must hold parameters, a name and a value a line, got \[1, 2\]"),
    ("n_attack 5", "must hold parameters"),
    ("n_attack: [1", "is not a readable YAML file"), (b"n: \xff", "is not a readable YAML file"),
    ("a: 1\n---\nb: 2", "is not a readable YAML file"), ("{1: 2", "is not a readable"),
    ("? [1, 2]\n: 3", "is not a readable")])
def test_a_file_that_is_no_profile(refused, text, message):
    assert re.search(message, refused(text))


def test_values_that_a_notebook_would_refuse(refused, tmp_path):
    """Of every notebook, every parameter: something that it cannot be."""
    for path in NOTEBOOKS:
        defaults, allowed = parameters._declared(path)
        assert defaults.keys() == allowed.keys()  # so that all are checked before anything runs
        for name in defaults:
            assert f"{name} must be" in refused(f"{name}: [-1, -1]", [path])
            assert f"{name} must be" in refused(f"{name}: .nan", [path])
            assert f"{name} must be" in refused(f"{name}: ''", [path])
            assert f"{name} must be" in refused(f"{name}: true", [path])
    for text in ("confidences: [0, 0]", "study_layers: [0, 2, 100000]", "study_epochs: "
                                                                        "[]", "study_widths: [1, 2]",
                 "checkpoint: none.keras", "n_explorer: 0", "seed: 1e3", "train_size: 105", "dataset: no"):
        assert " must be " in refused(text)
    assert "(9)" in refused("seed: 9", [_notebook(tmp_path / "9.ipynb")])
    with pytest.raises(ValueError, match="there.yaml is not a readable YAML file: .*No such file"):
        parameters.of_profile(tmp_path / "there.yaml", NOTEBOOKS)
    with pytest.raises(ValueError, match="is not a readable YAML file: .*directory"):
        parameters.of_profile(tmp_path, NOTEBOOKS)


def test_what_ships_passes_its_own_check():
    for path in NOTEBOOKS:
        defaults, _ = parameters._declared(path)
        before = copy.deepcopy(defaults)
        parameters.check_given(path, defaults)
        assert defaults == before
    with pytest.raises(ValueError,
                       match=r"01_datos.ipynb has no parameter sed \(did you mean seed\?\); it has seed, "):
        parameters.check_given(NOTEBOOKS[0], {"sed": 1})
    with pytest.raises(ValueError, match="epochs must be"):
        parameters.check_given(NOTEBOOKS[0], {"epochs": -1})


def test_chapter_6_and_the_study_allow_the_same():
    _, allowed = parameters._declared(parameters.NOTEBOOKS / "06_sobreajuste.ipynb")
    named = {"study_epochs": "epochs", "study_layers": "layers", "study_widths": "width"}
    assert all(allowed[name] == [None, overfitting.ALLOWED[axis]] for name, axis in named.items())
