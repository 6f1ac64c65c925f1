"""What the figures of saliency draw is what they were given."""
import matplotlib.pyplot as plt
import numpy as np
import pytest

from helpers.report import figures


@pytest.fixture
def axes():
    _, axes = plt.subplots(1, 3)
    yield axes
    plt.close("all")


def test_maps_of_one_row_have_one_scale(axes):
    images, weak, strong = np.zeros((3, 4, 4, 1)), np.full((4, 4), 0.5), np.full((4, 4), 2.0)
    figures.before_after(images, [None, weak, strong], ["imagen", "antes", "después"], axes)
    assert [len(ax.images) for ax in axes] == [1, 2, 2]
    assert [ax.images[1].get_array().max() for ax in axes[1:]] == [0.25, 1]
    figures.before_after(images, [0 * weak] * 3, [""] * 3, axes)  # nothing anywhere: no division by zero
    assert axes[0].images[-1].get_array().max() == 0


def test_no_map_is_left_out(axes):
    images, maps = np.zeros((4, 4, 4, 1)), np.ones((4, 4, 4))
    with pytest.raises(ValueError, match="zip"):
        figures.before_after(images, maps, [""] * 4, axes)


def test_dots_lie_on_their_rows(axes):
    values = [(0.5, 0.4, 0.7), (0.1, 0.0, 0.2)]
    ax = figures.dots(["uno", "dos"], values, axes[0], "fgsm", "FGSM", 0.25)
    line, _, (bars,) = ax.containers[0]
    assert line.get_xydata().tolist() == [[0.5, 0.25], [0.1, 1.25]]
    np.testing.assert_allclose([bar[:, 0] for bar in bars.get_segments()], [[0.4, 0.7], [0.0, 0.2]])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["uno", "dos"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1] and line.get_color() == figures.COLORS["fgsm"]


def test_similarity_leaves_out_maps_of_nothing(axes):
    values = np.array([[1.0, 1.0, 1.0], [0.2, 0.4, np.nan]])
    ax = figures.similarity([0, 5], values, axes[0], "grad_cam", "Grad-CAM")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [1, 0.3])
    assert ax.get_xlabel() == "capas al azar"
