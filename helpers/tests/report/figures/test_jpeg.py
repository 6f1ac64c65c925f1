"""The steps that are drawn are those that the codec takes."""
import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from helpers import datasets, jpeg
from helpers.bench import codec
from helpers.report import figures


@pytest.mark.parametrize("name, planes", [("mnist", 1), ("cifar10", 3)])
@pytest.mark.parametrize("quality", [25, 75])
def test_the_steps_lead_to_the_decoded_luma(name, planes, quality):
    x = datasets.load(name).x_test[3]
    steps = jpeg.steps(x, quality)
    assert len(steps) == planes and all(np.array_equal(p["coded"], np.round(p["coded"])) for p in steps)
    file = io.BytesIO()
    Image.fromarray(np.round(255 * x).astype(np.uint8).squeeze()).save(file, "JPEG", quality=quality)
    with Image.open(file) as image:
        image.draft("L" if planes == 1 else "YCbCr", None)  # as it is coded
        decoded = np.asarray(image, float).reshape(*x.shape[:2], planes)[..., 0]
    basis = jpeg.dct_matrix()
    kept = steps[0]["coded"] * steps[0]["table"]
    pixels = np.einsum("ui,rcuv,vs->rics", basis, kept, basis).reshape(steps[0]["plane"].shape) + 128
    height, width = x.shape[:2]
    assert np.abs(np.clip(pixels, 0, 255)[:height, :width] - decoded).mean() < 1


def test_the_lower_the_quality_the_paler():
    shades = [sum(figures.quality_style(q, (0, 10, 50, 90))["color"]) for q in (10, 50, 90)]
    assert shades[0] > shades[1] > shades[2]
    assert figures.quality_style(0, (0, 10))["color"] == "black"
    assert [figures.quality_label(q) for q in (0, 25)] == ["sin JPEG", "q = 25"]


def test_a_curve_is_drawn_of_every_quality():
    right, ax = np.ones((3, 4, 5), bool), plt.figure().subplots()
    figures.curves_by_quality([0, 1, 2], right, (0, 10, 25, 50), ax, lambda count, n: (0, 1))
    assert len(ax.lines) == 4
    with pytest.raises(ValueError, match="zip"):  # one was computed that would not be seen
        figures.curves_by_quality([0, 1, 2], right, (0, 10, 25), ax, lambda count, n: (0, 1))
    plt.close()


def test_what_is_above_zero_decibels_has_a_dot():
    values = np.full((8, 8), -3.0)
    values[2, 5] = 0.1
    ax, _ = figures.map_of_decibels(values, plt.figure().subplots())
    assert np.array_equal(ax.lines[0].get_xydata(), [[5, 2]])
    plt.close()


def test_pillow_in_a_loop_gives_the_same_images():
    for name in ("mnist", "cifar10"):
        x = datasets.load(name).x_test[:20]
        assert np.array_equal(codec.with_pillow(x, 75), jpeg.compress(x, 75))
    ratios = codec.against_pillow(x, repeats=2)
    assert ratios.shape == (2,) and (ratios > 0).all()
