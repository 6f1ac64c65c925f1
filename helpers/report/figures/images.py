"""Figures of the images themselves: rows by class, and the distances between images."""
import matplotlib.pyplot as plt
import numpy as np

from helpers.report import text
from helpers.report.figures import common


def class_rows(data, chosen, order):
    """Draw images of each class in a row of its own, with its name in Spanish and English; return the axes.

    data: a loaded data set; chosen: indices of training images, (classes, columns); order: the class of each
    row.
    """
    columns = chosen.shape[1]
    axes = common.image_grid(data.x_train[chosen.ravel()], columns=columns, width=0.6 * common.WIDTH)
    names = [data.class_names[k] for k in order]
    return common.row_labels(axes, [f"{name.es}\n$\\it{{{name.en}}}$" for name in names], columns)


def misclassified(data, logits, chosen, columns=10):
    """Draw test images, each with its true class → the answer; return the axes.

    logits: of the first test images; chosen: indices into them. Where there are none, nothing is drawn.
    """
    if not len(chosen):
        return ()
    names = [name.es for name in data.class_names]
    return common.image_grid(data.x_test[chosen], columns=columns, titles=[
        f"{names[data.y_test[i]]} → {names[logits[i].argmax()]}" for i in chosen])


def distances(scales):
    """Draw how far images are from the nearest of another class, a panel a data set; return the axes.

    scales: dict of a data set's title to its study.images.Distances. The dashed line is the median.
    """
    _, axes = plt.subplots(1, len(scales), figsize=(common.WIDTH, 2.2), squeeze=False)
    for ax, (title, scale) in zip(axes.flat, scales.items(), strict=True):
        ax.hist(scale.other, bins=40, color=common.COLORS["data"])
        ax.axvline(np.median(scale.other), color="black", linestyle="--")
        common.decorate(ax, "distancia $L_2$ a otra clase (unidades de píxel)", "imágenes", title)
        ax.yaxis.set_major_formatter(lambda value, _: text.number(value))
    return axes.flat[:]
