"""The page of the explorer, driven by keys in a headless Chromium, offline: it shows what is kept."""
import base64
import io
import random
import time

import numpy as np
import pytest
from PIL import Image

from helpers import datasets, frequency
from helpers.attacks import gradients
from helpers.report import explorer, text
from helpers.study import accuracy, states
from helpers.tests import chromium
from helpers.tests.shown import RECIPES

KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "Home": 36, "End": 35, "Tab": 9}
PANELS = ("original", "shown", "change", "spectrum", "true", "answer")
NUMBERS = ("l2", "linf", "high", "margin", "margin-clean")


@pytest.fixture(scope="module")
def kept(shown):
    """The states of RECIPES."""
    return shown[1]


@pytest.fixture(scope="module")
def path(kept, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "explorador.html"
    explorer.page(kept, path)
    return path


class Explorer(chromium.Tab):
    """The tab that shows the explorer."""

    def wait(self):
        """Return when the page shows what was asked for."""
        until = time.monotonic() + 60
        while self.run("document.querySelector('main')?.getAttribute('aria-busy')") != "false":
            assert time.monotonic() < until, self.events
            time.sleep(0.02)

    def press(self, key, times=1):
        for kind in ("rawKeyDown", "keyUp") * times:
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])
        self.wait()

    def seen(self):
        """Return all that the page shows, by name."""
        return self.run("""Object.fromEntries([
            ...%s.map(id => [id, document.querySelector(`#${id} canvas`).toDataURL()]),
            ...[...%s, "verdict", "logits"].map(id => [id, document.getElementById(id).textContent]),
            ...["imagen", "ataque", "eps", "calidad"].map(
                id => [id, document.getElementById(id).ariaValueText])])"""
                        % (list(PANELS), list(NUMBERS)))

    def pixels(self, panel):
        code = self.run(f"document.querySelector('#{panel} canvas').toDataURL()").partition(",")[2]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(code))).convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with chromium.started(tmp_path_factory.mktemp("chromium"), Explorer) as tab:
        yield tab


def address(recipe, i, attack, level, q):
    return (f"#red={recipe.dataset}-{recipe.model}&imagen={i + 1}&ataque={attack}&eps={level}"
            f"&calidad={('no', *states.QUALITIES)[q]}")


def value(shown):
    """Return (the number that a text states, half a unit of its last digit)."""
    grouped = text.number(1234567.5, 1)
    plain = shown.replace(grouped[1], "").replace(grouped[-2], ".").replace("−", "-")
    number, percent, _ = plain.partition("\u00a0%")
    scale = 100 if percent else 1
    return float(number) / scale, 0.500001 * 10.0 ** -len(number.partition(".")[2]) / scale


@pytest.mark.parametrize("line, message", [
    ("dataset: fashion", "dataset must be .*got 'fashion'"), ("n_explorer: "
                                                              "0", "n_explorer must be .*1..10, got 0"),
    ("epochs: -1", "epochs must be .*got -1"), ("seed: 1.5", "seed must be .*got 1.5"),
    ("just words", "must hold parameters")])
def test_a_wrong_parameter_stops_at_once(tmp_path, monkeypatch, line, message):
    monkeypatch.setattr(states, "states", lambda *_, **__: pytest.fail("it began"))
    (tmp_path / "profile.yaml").write_text(line)
    with pytest.raises(ValueError, match=message):
        explorer.main(tmp_path / "profile.yaml", tmp_path / "out.html")
    assert not (tmp_path / "out.html").exists()


def test_parameters_reach_the_states(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(states, "states", lambda recipe, **given: asked.setdefault(recipe, given))
    monkeypatch.setattr(explorer, "page", lambda kept, path: asked.setdefault("page", (list(kept), path)))
    (tmp_path / "p.yaml").write_text("dataset: mnist\nseed: 4\nepochs: 2\ntrain_size: 300\nn_explorer: "
                                     "3\nn_cw: 8\n")
    explorer.main(tmp_path / "p.yaml", "out.html")
    recipes, path = asked.pop("page")
    assert [recipe.model for recipe in recipes] == ["lenet", "resnet", "lenet-adv"] and path == "out.html"
    assert {(recipe.epochs, recipe.train_size, recipe.seed) for recipe in recipes} == {(2, 300, 4)}
    assert all(given == {"per_class": 3, "seed": 4} for given in asked.values()) and len(asked) == 3


def test_the_page_is_small_quiet_and_asks_for_nothing(tab, path):
    assert path.stat().st_size < 15e6 and list(path.parent.iterdir()) == [path]
    tab.events.clear()
    for wrong in ("", "#red=x&imagen=99&ataque=&eps=-3&calidad=7", "#imagen=x&eps=y"):
        tab.open(path, wrong)
        assert all(tab.seen().values())
    asked = {event["params"]["request"]["url"].partition("#")[0] for event in tab.events
             if event["method"] == "Network.requestWillBeSent"}
    assert {url for url in asked if not url.startswith(("about:", "data:"))} == {path.as_uri()}
    loud = [event for event in tab.events
            if event["method"] in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")]
    assert not loud


def test_sliders_are_reached_and_moved_by_keys(tab, path):
    tab.open(path, address(RECIPES[1], 0, "fgsm", 2, 0))
    order = []
    for _ in range(5):
        tab.press("Tab")
        order.append(tab.run("document.activeElement.id"))
    assert order == ["red", "imagen", "ataque", "eps", "calidad"]
    assert tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    clean = {"original", "margin-clean"}
    moved = {"imagen": ({*PANELS, "l2", "high", "margin", "margin-clean", "verdict"},
                        {"ataque", "eps", "calidad"}),
             "ataque": ({"change", "spectrum", "shown", "l2", "margin"},
                        {*clean, "imagen", "calidad", "eps"}),
             "eps": ({"change", "shown", "l2", "linf", "margin"}, {*clean, "imagen", "ataque", "calidad"}),
             "calidad": ({"change", "shown", "spectrum", "l2", "linf", "margin"},
                         {*clean, "imagen", "ataque", "eps"})}
    for slider, (changed, same) in moved.items():
        tab.run(f"document.getElementById('{slider}').focus()")
        before = tab.seen()
        tab.press("ArrowRight")
        after = tab.seen()
        assert not {name for name in changed | {slider} if before[name] == after[name]}, slider
        assert not {name for name in same if before[name] != after[name]}, slider
        tab.press("ArrowLeft")
        assert tab.seen() == before


def test_the_network_is_chosen_by_keys(tab, path):
    tab.open(path, address(RECIPES[0], 0, "fgsm", 2, 0))
    before = tab.seen()
    tab.run("document.getElementById('red').focus()")
    tab.press("ArrowRight")
    after = tab.seen()
    assert all(before[name] != after[name] for name in (*PANELS, "l2", "logits"))
    assert "cifar10-lenet" in tab.run("location.hash")


def test_carlini_wagner_has_no_eps(tab, path):
    tab.open(path, address(RECIPES[0], 2, "pgd_margin", 3, 0))
    tab.run("document.getElementById('ataque').focus()")
    for key, disabled in (("End", True), ("Home", False)):
        tab.press(key)
        assert tab.run("document.getElementById('eps').disabled") is disabled
    tab.press("End")
    seen = tab.seen()
    assert "no tiene" in seen["eps"] and "se equivoca" in seen["verdict"] and seen["l2"] in seen["eps"]


def test_the_address_keeps_the_view(tab, path):
    tab.open(path, address(RECIPES[1], 1, "noise", 1, 1))
    for slider, key in (("imagen", "End"), ("ataque", "ArrowRight"), ("eps", "End"),
                        ("calidad", "ArrowRight")):
        tab.run(f"document.getElementById('{slider}').focus()")
        tab.press(key)
    seen, kept_address = tab.seen(), tab.run("location.hash")
    tab.open(path)
    assert tab.seen() != seen
    tab.run(f"""new Promise(done => {{
        addEventListener("hashchange", done, {{ once: true }});
        location.hash = {kept_address!r}; }}).then(() => null)""")
    tab.wait()
    assert tab.seen() == seen
    tab.open(path, kept_address)
    assert tab.seen() == seen


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.dataset)
def test_what_is_shown_is_the_artifacts(tab, path, kept, recipe):
    found, kinds, draw = kept[recipe], states.columns(recipe.dataset), random.Random(recipe.dataset)
    names = [name.es for name in datasets.record(recipe.dataset).class_names]
    for kind in [*draw.sample(kinds[:-1], 5), kinds[-1]]:
        i, s, q = draw.randrange(len(found["y"])), kinds.index(kind), draw.randrange(4)
        attack, level = ("fgsm", 0) if kind[0] == "none" else kind
        tab.open(path, address(recipe, i, attack, level or 0, q))
        seen, logits, y = tab.seen(), found["logits"][i, s, q], found["y"][i]
        rows = tab.run("[...document.querySelectorAll('#logits tr')]"
                       ".map(row => [...row.querySelectorAll('td:not(.bar)')].map(cell => cell.textContent))")
        expected = {"l2": found["l2"][i, s, q], "linf": found["linf"][i, s, q],
                    "high": found["high"][i, s, q],
                    "margin": gradients.margins(logits[None], [y])[0],
                    "margin-clean": gradients.margins(found["logits"][i, 0, :1], [y])[0]}
        stated = [(*value(seen[name]), expected[name]) for name in NUMBERS if np.isfinite(expected[name])]
        stated += [(*value(row[k]), z) for k, column in enumerate((logits, found["logits"][i, 0, 0]))
                   for row, z in zip(rows, column, strict=True)]
        probability = seen["verdict"].partition("probabilidad ")[2].partition(":")[0]
        stated += [(*value(probability), accuracy.probabilities(logits[None]).max())]
        assert all(abs(number - true) <= half for number, half, true in stated), stated
        assert f"responde {names[logits.argmax()]} con" in seen["verdict"]
        assert ("se equivoca" in seen["verdict"]) == (logits.argmax() != y)
        assert np.isfinite(expected["high"]) or seen["high"] == "no hay"


def test_pictures_are_the_arrays(tab, path, kept):
    recipe = RECIPES[1]
    found, s, q = kept[recipe], states.columns(recipe.dataset).index(("fgsm", 4)), 3
    # It must be wrong, so that the maps differ.
    wrong = np.flatnonzero(found["logits"][:, s, q].argmax(axis=1) != found["y"])[0]
    tab.open(path, address(recipe, wrong, "fgsm", 4, q))
    shown, x = states.shown_images(found)[wrong, s, q], found["x"][wrong] / 255
    assert np.array_equal(tab.pixels("original"), found["x"][wrong])
    assert np.array_equal(tab.pixels("shown"), found["behind"][wrong, s, q - 1])
    factor = int(tab.run("document.querySelector('#change h2').textContent").partition("×")[2])
    grey = 127.5 + 255 * factor * (shown - x)
    assert factor == 1 or 0 <= grey.min() and grey.max() <= 255
    assert np.abs(tab.pixels("change") - np.clip(grey, 0, 255)).max() <= 1
    power = np.square(np.abs(np.fft.fftshift(np.fft.fft2(frequency.luma((shown - x)[None])[0]))))
    level = np.clip((10 * np.log10(power / power.mean()) / 20 + 1) / 2, 0, 1)
    expected = np.array(explorer.matplotlib.colormaps["viridis"](level, bytes=True)[..., :3], int)
    assert np.abs(tab.pixels("spectrum") - expected).max() <= 4
    for panel, full in zip(("true", "answer"), found["cam"][wrong, s, q] / 255):
        color = explorer.matplotlib.colormaps["inferno"](full, bytes=True)[..., :3]
        alpha = (0.15 + 0.6 * full)[..., None]
        overlay = alpha * color + (1 - alpha) * 255 * shown.mean(axis=2, keepdims=True)
        assert np.abs(tab.pixels(panel) - overlay).max() <= 2


@pytest.mark.parametrize("number, decimals", [
    (0.0314, 4), (1234.5678, 2), (-12345.678, 1), (1234567.5, 1), (99.96, 1), (-7, 0)])
def test_numbers_are_written_as_the_report_writes_them(tab, path, number, decimals):
    tab.open(path)
    assert tab.run(f"number({number}, {decimals})") == text.number(number, decimals)
