"""Tables show the facts that they are given."""
import numpy as np

from helpers import networks
from helpers.report import tables
from helpers.statistics import intervals
from helpers.study import errors, images

RESNET = networks.RECIPES["cifar10", "resnet"]


def _shown(monkeypatch, show, *arguments):
    said = []
    monkeypatch.setattr("helpers.report.text.display",
                        lambda markdown: said.append(markdown.data.replace("\u00a0", " ")))
    show(*arguments)
    return said


def test_a_spread_is_the_median_and_percentiles():
    assert tables.spread(np.arange(101) / 10) == "5.00 [0.50; 9.50]"


def test_recipes_tell_all_images_of_the_data_set_where_none_are_left_out(monkeypatch):
    said, = _shown(monkeypatch, tables.recipes, [RESNET])
    assert "| ResNet-20 en CIFAR-10 | 50,000 | 5 % | 45 | 128 | 0.10 | 0.005 | ±4 px | sí |" in said


def test_distances_and_margins_are_those_given(monkeypatch):
    scale = images.Distances(np.full(7, 1.5), np.full(21, 2.5), np.full(7, 3.5))
    said, = _shown(monkeypatch, tables.distances, {"MNIST": scale})
    assert "| MNIST | 7 | 1.50 [1.50; 1.50] | 2.50 [2.50; 2.50] | 3.50 [3.50; 3.50] |" in said
    logits, y = 20 * np.eye(10, dtype=np.float32)[[0, 1]], np.array([0, 1])
    said, = _shown(monkeypatch, tables.margins, {RESNET: (logits, y)}, {RESNET: errors.vanishing(logits, y)})
    assert "20.00 [20.00; 20.00] | 100.00 %" in said


def test_without_a_published_error_nothing_is_shown(monkeypatch):
    said = []
    monkeypatch.setattr("helpers.report.prose.display",
                        lambda data, raw, metadata: said.append((data, metadata)))
    tables.error_beside_published(None)
    assert said == []
    ours = intervals.Estimate(0.09, 0.08, 0.1)
    tables.error_beside_published(errors.Reported(RESNET, 0.0875, ours, "he2016, tabla 6"))
    (shown, metadata), = said
    words = shown["text/markdown"].replace("\u00a0", " ")
    assert "8.75 %" in words and "9.00 % [8.00; 10.00]" in words
    assert "(He y otros, 2016, tabla 6)" in words  # and for pages as it is written
    assert "[@he2016, tabla 6]" in metadata["prosa"]["markdown"]
