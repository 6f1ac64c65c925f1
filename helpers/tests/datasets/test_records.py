"""A data set is a record: nobody asks for its name, and a third serves without another file being touched."""
import ast

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest

from helpers import attacks, datasets, frequency, jpeg, networks, saliency
from helpers.artifacts import paths, store
from helpers.attacks import gradients
from helpers.jpeg import attacker
from helpers.report import figures, parameters, text
from helpers.study import accuracy, behind_jpeg, maps, states, under_attack, waves

SIDE, CLASSES = 20, 3
SOURCES = sorted(path for path in (paths.ROOT / "helpers").rglob("*.py")
                 if not {"datasets", "tests"} & set(path.relative_to(paths.ROOT).parts))
NOTEBOOKS = sorted((paths.ROOT / "notebooks").glob("[0-9]*.ipynb"))


ASKING = {ast.Compare: lambda node: [node.left, *node.comparators], ast.Dict: lambda node: node.keys,
          ast.DictComp: lambda node: [node.key], ast.match_case: lambda node: [node.pattern],
          ast.arguments: lambda node: [*node.defaults, *node.kw_defaults]}


def _code(path):
    """Return the Python of a module or notebook, without the cells of magics."""
    if path.suffix == ".py":
        return path.read_text("utf8")
    cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    return "\n".join(source for source in cells if not source.startswith("%"))


def _asked(code):
    """Return the lines that ask for a data set by its name.

    They compare with it, match it, key a dict by it, or have it as the default of an argument.
    """
    found = set()
    for node in ast.walk(ast.parse(code)):
        for part in ASKING.get(type(node), lambda node: [])(node):
            found |= {inner.lineno for inner in ast.walk(part or ast.Pass())
                      if isinstance(inner, ast.Constant) and inner.value in datasets.NAMES}
    return sorted(found)


@pytest.mark.parametrize("code, lines", [
    ("if name == 'mnist': pass", [1]), ("if 'cifar10' in shown: pass", [1]),
    ("name in ('mnist', 'cifar10')", [1]), ("\nRADII = {'mnist': 1}", [2]),
    ("RADII = {('mnist', 2): 1, **more}", [1]), ("def f(name='mnist'): pass", [1]),
    ("def f(*, name='mnist'): pass", [1]), ("match name:\n    case 'mnist':\n        pass", [2]),
    ("datasets.load('mnist'), RECIPES['mnist', 'lenet'], Recipe('cifar10', 'lenet')", []),
    ("name == 'lenet', {'other': 'mnist'}, 1 in names, None == names", [])])
def test_asking_is_found(code, lines):
    assert _asked(code) == lines


@pytest.mark.parametrize("path", [*SOURCES, *NOTEBOOKS], ids=lambda path: str(path.relative_to(paths.ROOT)))
def test_nobody_asks_for_the_name_of_a_data_set(path):
    assert not _asked(_code(path))


def test_the_records_are_of_the_images():
    for name, record in datasets.RECORDS.items():
        data, file = datasets.load(name), datasets.at_hand(name)
        assert (len(data.x_train), len(data.x_test)) == (file.train, file.test)
        assert data.x_test.shape[1:] == record.shape and data.class_names is record.class_names
        assert np.bincount(data.y_train, minlength=record.classes).min() == file.rarest


def _record(name="tiny", *, file, shape=(SIDE, SIDE, 1), **more):
    """Return the record of a data set of CLASSES classes."""
    return datasets.DataSet(**{
        "name": name, "title": "Diminuto", "full": file, "shape": shape, "radius_unit": 255,
        "class_names": tuple(datasets.ClassName(es, es) for es in ("uno", "dos", "tres")[:CLASSES]),
        "small": 0.1, "reference": 0.3, "reference_l2": 1.0, "near_l2": 0.5,
        "ladders": {np.inf: (0, 0.1, 0.3), 2: (0, 1, 4)}, "jpeg_ladder": (0, 0.1, 0.3),
        "drawn_radii": (0, 0.1), "shown_radii": (0, 0.1, 0.3), "explorer_radii": (0, 0.1),
        "amplitudes": (0.5, 1.0),
        "largest_amplitude": 8.0, "error_amplitude": 1.0, "pairs": ((0, 1),), "examples": (0, 1)} | more)


def _images(n, channels, seed):
    """Return n images, a bright square in one of CLASSES corners and noise, and their classes: uint8."""
    rng = np.random.default_rng(seed)
    y = (np.arange(n) % CLASSES).astype(np.uint8)
    x = rng.integers(0, 120, (n, SIDE, SIDE, channels)).astype(np.uint8)
    for image, label in zip(x, y, strict=True):
        top, left = (2 + 10 * (label // 2), 2 + 10 * (label % 2))
        image[top:top + 6, left:left + 6] += 100
    return x, y


def _arrays(channels, seed=0):
    parts = *_images(300, channels, seed), *_images(60, channels, seed + 1)
    return dict(zip(datasets.ARRAYS, parts, strict=True))


@pytest.fixture
def register(tmp_path):
    """A function that registers a data set of so many channels, from a file of its own; gone afterwards."""
    added = []

    def of(name, channels):
        np.savez(tmp_path / f"{name}.npz", **_arrays(channels))
        file = datasets.image_file(tmp_path / f"{name}.npz")
        assert (file.train, file.test, file.rarest) == (300, 60, 100)
        added.append(datasets.register(_record(name, file=file, shape=(SIDE, SIDE, channels))).name)
        return networks.Recipe(name, "lenet", epochs=1, batch_size=16, learning_rate=0.02, warmup_epochs=0)
    yield of
    for name in added:
        datasets.RECORDS.pop(name)


def test_a_third_data_set_is_one_record(register, made, monkeypatch):
    monkeypatch.setattr(under_attack, "NB_ITER", 5)
    monkeypatch.setattr(attacker, "NB_ITER", 5)
    recipe = register("tiny", 1)
    data, record = datasets.load("tiny"), datasets.record("tiny")
    assert data.record is record and data.complete and "tiny" in datasets.NAMES
    assert data.x_test.shape == (60, SIDE, SIDE, 1)
    allowed = {"dataset": ["all", *datasets.NAMES], "n_gain": range(1, 1000)}
    parameters.check({"dataset": "tiny", "n_gain": 60}, **allowed)
    with pytest.raises(ValueError, match="n_gain must be at most 60, .* dataset = 'tiny', got 61$"):
        parameters.check({"dataset": "tiny", "n_gain": 61}, **allowed)
    assert text.radius("tiny", 2 / 255) == "2/255" and text.network_name(recipe) == "LeNet-5 en Diminuto"

    model, history = networks.load_or_train(recipe)
    x, y = data.x_test[:12], data.y_test[:12]
    assert model.output_shape == (None, CLASSES) and len(history["loss"]) == 1
    logits, _ = accuracy.test_logits(recipe)
    assert logits.shape == (60, CLASSES) and (logits.argmax(axis=1) == data.y_test).mean() > 0.8

    for x_adv in (attacks.fgsm(model, x, y, eps=record.reference),
                  attacks.pgd(model, x, y, eps=record.reference, eps_iter=0.05, nb_iter=10)):
        assert attacks.linf(x_adv - x).max() <= record.reference + 1e-6
        assert (gradients.logits(model, x_adv).argmax(axis=1) != y).mean() > 0.5
    kept = under_attack.answers(recipe, "pgd_margin", norm=np.inf, n=12)
    assert kept["eps"].tolist() == list(record.ladders[np.inf]) and kept["answer"].max() < CLASSES

    _behind_jpeg(recipe, model, x, y)
    _its_waves_and_maps(recipe, model, x, y)
    counts = datasets.statistics("tiny").query("split == 'test' and quantity.str.startswith('class')").value
    assert counts.tolist() == [20] * CLASSES


def _behind_jpeg(recipe, model, x, y):
    behind = behind_jpeg.aware(recipe, "identity", 50, n=12)
    assert behind["eps"].tolist() == list(datasets.record("tiny").jpeg_ladder)
    assert np.array_equal(behind["answer"][0], gradients.logits(model, jpeg.compress(x, 50)).argmax(axis=1))


def _its_waves_and_maps(recipe, model, x, y):
    gain = frequency.gain(model, x, y)
    assert gain.G.shape == (12, 1, SIDE, SIDE)
    assert saliency.grad_cam(model, x, y).shape == x.shape[:3]
    assert saliency.input_gradient(model, x, y).shape == x.shape
    assert waves.waves(recipe, n=1)["amplitude"].tolist() == list(datasets.record("tiny").amplitudes)
    assert waves.codec_waves("tiny", 50, n=2)["matrix"].shape[1:] == (8, 8)  # with a border, of 24 pixels


def test_its_targets_are_its_own_classes(register, made, monkeypatch):
    monkeypatch.setattr(under_attack, "CARLINI_WAGNER", under_attack.CARLINI_WAGNER | {
        "max_iterations": 50, "binary_search_steps": 2})
    recipe = register("tiny", 1)
    model, _ = networks.load_or_train(recipe)
    data, kept = datasets.load("tiny"), under_attack.targeted_set(recipe, per_class=2)
    assert kept["target"].shape == kept["l2"].shape == (2 * CLASSES, CLASSES - 1)
    answer = gradients.logits(model, kept["x_adv"].reshape(-1, SIDE, SIDE, 1)).argmax(axis=1)
    hit = answer == kept["target"].ravel()
    assert hit[kept["l2"].ravel() > 0].all() and hit.mean() > 0.5
    again = under_attack.targeted_set(recipe, per_class=1)  # of those kept, which are proved
    assert np.array_equal(again["l2"], kept["l2"][::2])
    assert maps.cosine_to_classes(recipe, 0, 1, n=2).shape == (2, CLASSES)
    assert maps.random_share("tiny") == pytest.approx(2 / 3)
    kinds = [kind for kind, _ in states.columns("tiny")]
    assert kinds == ["none", "noise", "fgsm", "pgd_margin", "carlini_wagner"]

    x, index = data.x_test, kept["index"]
    grid = [[x[index[2 * i]] if i == j else kept["x_adv"][2 * i, j - (j > i)] for j in range(CLASSES)]
            for i in range(CLASSES)]
    with plt.rc_context({"figure.constrained_layout.use": True}):
        axes = figures.class_grid(grid, [name.es for name in data.class_names])
    assert axes.shape == (CLASSES, CLASSES) and axes[0, 2].get_title() == "tres"
    ax = figures.radius_axis(plt.subplots()[1], (0, 1 / 255, 4 / 255, 0.5), "tiny", np.inf)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1", "4", "127.5"]
    plt.close("all")


def test_two_channels_serve_but_to_jpeg(register, made):
    recipe = register("pairs", 2)
    model, _ = networks.load_or_train(recipe)
    data = datasets.load("pairs")
    x, y = data.x_test[:6], data.y_test[:6]
    x_adv = attacks.pgd(model, x, y, eps=2.0, eps_iter=0.5, nb_iter=5, norm=2)
    assert attacks.l2(x_adv - x).max() <= 2 + 1e-5
    assert (gradients.margins(gradients.logits(model, x_adv), y)
            < gradients.margins(gradients.logits(model, x), y)).all()
    assert frequency.gain(model, x, y).G.shape == (6, 2, SIDE, SIDE)
    assert saliency.grad_cam(model, x, y).shape == (6, SIDE, SIDE)
    assert under_attack.answers(recipe, "fgsm", norm=2, n=6)["answer"].shape == (3, 6)
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        jpeg.compress(x, 50)


def test_afterwards_it_is_unknown():
    assert list(datasets.NAMES) == ["mnist", "cifar10"]
    with pytest.raises(ValueError, match="dataset must be one of mnist, cifar10, got 'tiny'"):
        datasets.record("tiny")
    with pytest.raises(ValueError, match="dataset must be one of mnist, cifar10, got 'tiny'"):
        networks.Recipe("tiny", "lenet")


FILE = datasets.ImageFile("x.npz", ("",) * 4, 1, 1, 1)


@pytest.mark.parametrize("wrong, message", [
    ({"name": "mnist"}, "name must be none of all, mnist, cifar10.*got 'mnist'"),
    ({"name": "all"}, "got 'all'"), ({"name": ""}, "got ''"),
    ({"shape": (20, 20)}, r"shape must be \(H, W, C\), got \(20, 20\)"),
    ({"class_names": (datasets.ClassName("uno", "one"),)}, "two classes at least"),
    ({"pairs": ((0, 3),)}, r"classes in 0..2, got \(0, 3\)"), ({"radius_unit": 0}, "radius_unit .* got 0"),
    ({"ladders": {2: (0, 1)}}, "norms inf and 2"),
    ({"drawn_radii": (0.1, 0.2)}, "drawn_radii must increase from 0"),
    ({"jpeg_ladder": (0, 0.3, 0.1)}, "jpeg_ladder must increase from 0"),
    ({"small": 0.2}, "small must be in jpeg_ladder"),
    ({"reference": 0.2}, r"reference must be in ladders\[inf\].* got 0.2")])
def test_a_record_that_does_not_fit_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        datasets.register(_record(**{"file": FILE} | wrong))
    assert list(datasets.NAMES) == ["mnist", "cifar10"]


def test_a_file_of_other_images_is_refused(register, tmp_path):
    register("tiny", 1)
    record = datasets.record("tiny")
    datasets.RECORDS["tiny"] = record._replace(shape=(SIDE, SIDE, 3))
    with pytest.raises(ValueError, match=r"tiny.npz must hold .* shape \(20, 20, 3\), got \(20, 20, 1\)"):
        datasets.load("tiny")
    arrays = _arrays(1, seed=5)
    np.savez(tmp_path / "tiny.npz", **arrays)
    datasets.RECORDS["tiny"] = record
    with pytest.raises(ValueError, match="tiny.npz is damaged: x_train"):
        datasets.load("tiny")
    np.savez(tmp_path / "wide.npz", **arrays | {"x_train": arrays["x_train"].astype(float)})
    with pytest.raises(ValueError, match="wide.npz must hold arrays of uint8, got x_train of float64"):
        datasets.image_file(tmp_path / "wide.npz")


def test_each_shipped_network_is_of_a_registered_data_set():
    shipped = paths.SHIPPED.rglob("network-*.keras")
    names = {store.read_record(path)["parameters"]["dataset"] for path in shipped}
    assert names == set(datasets.NAMES)
