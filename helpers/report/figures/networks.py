"""Figures of trained networks, a panel or a row for each: layers, learning, errors, calibration, margins.

measured: dict of Recipe to (logits, y) of its first test images.
"""
import matplotlib.pyplot as plt
import numpy as np

from helpers import datasets
from helpers.attacks import gradients
from helpers.networks import models
from helpers.report import text
from helpers.report.figures import common
from helpers.study import accuracy, errors


def two_lines(recipe):
    """Return a network's name for a narrow panel: "LeNet-5" above "MNIST"."""
    return text.network_name(recipe).replace(" en ", "\n")


def architectures(trained):
    """Draw the layers of networks, a row each, with their shapes and parameters; return the axes.

    trained: dict of Recipe to (model, history).
    """
    _, axes = plt.subplots(len(trained), 1, figsize=(common.WIDTH, 1.45 * len(trained)), squeeze=False)
    for ax, (recipe, (model, _)) in zip(axes.flat, trained.items(), strict=True):
        common.architecture(models.blocks(model), ax, common.COLORS[recipe.architecture])
        ax.set_title(f"{text.network_name(recipe)}: "
                     f"{text.number(model.count_params())} parámetros", loc="left")
    return axes.flat[:]


def learning_curves(trained):
    """Draw loss (above) and accuracy against the epoch, a column a network; return the axes (2, N).

    trained: as for `architectures`.
    """
    _, axes = plt.subplots(2, len(trained), figsize=(common.WIDTH, 3.6), squeeze=False, sharex="col")
    for column, (recipe, (_, history)) in zip(axes.T, trained.items(), strict=True):
        color = common.COLORS[recipe.architecture]
        common.learning_curve(history, "loss", column[0], color).set(xlabel="", title=two_lines(recipe))
        common.log_axis(column[0].yaxis)
        common.learning_curve(history, "accuracy", column[1], color)
        common.percent_axis(column[1].yaxis)
    axes[0, 0].set_ylabel("pérdida (nats)")
    axes[1, 0].set_ylabel("precisión")
    axes[1, -1].legend(loc="lower right")
    return axes


def confusions(measured):
    """Draw the confusion matrix of each network, two in a row; return the axes."""
    rows = -(-len(measured) // 2)
    _, axes = plt.subplots(rows, min(len(measured), 2), squeeze=False, figsize=(common.WIDTH, 3.4 * rows))
    for ax, (recipe, answers) in zip(axes.flat, measured.items(), strict=False):
        names = [name.es for name in datasets.record(recipe.dataset).class_names]
        common.confusion(errors.confusion(*answers), names, ax).set_title(text.network_name(recipe))
    for ax in axes.flat[len(measured):]:
        ax.axis("off")
    return axes.flat[:len(measured)]


def surest_errors(measured, count=3):
    """Draw the surest errors of networks on test images at hand, a row each, with bars; return the axes."""
    _, axes = plt.subplots(len(measured), 2 * count, figsize=(common.WIDTH, 1.15 * len(measured)),
                           squeeze=False,
                           width_ratios=[1, 1.1] * count)
    for ax in axes.flat:
        ax.axis("off")
    for row, (recipe, answers) in zip(axes, measured.items(), strict=True):
        data = datasets.load(recipe.dataset)
        logits, y = (part[:len(data.y_test)] for part in answers)
        p, names = accuracy.probabilities(logits), [name.es for name in data.class_names]
        for i, left, bars in zip(errors.surest(logits, y, count), row[::2], row[1::2], strict=False):
            left.axis("on"), bars.axis("on")
            common.image(data.x_test[i], left)
            common.probability_bars(p[i], y[i], names, bars)
        row[0].axis("on")
        row[0].set(xticks=[], yticks=[])
        row[0].set_ylabel(two_lines(recipe), fontsize=7)
    return axes


def reliabilities(measured):
    """Draw accuracy against confidence, a panel a network, with 95 % intervals; return the axes."""
    _, axes = plt.subplots(1, len(measured), figsize=(common.WIDTH, 2.1), squeeze=False, sharey=True)
    for ax, (recipe, answers) in zip(axes.flat, measured.items(), strict=True):
        common.reliability(accuracy.reliability(*answers), ax, common.COLORS[recipe.architecture])
        ax.set(title=two_lines(recipe), ylabel="precisión" if ax is axes[0, 0] else "")
    return axes.flat[:]


def margins(measured):
    """Draw the distribution of the margins of networks, a panel a data set; return the axes.

    The solid line is the boundary; beyond the dotted one, errors.VANISHING, float32 loses part of the
    gradient.
    """
    shown = list(dict.fromkeys(recipe.dataset for recipe in measured))
    _, axes = plt.subplots(1, len(shown), figsize=(common.WIDTH, 1.9), squeeze=False)
    for ax, name in zip(axes.flat, shown, strict=True):
        for recipe, (logits, y) in measured.items():
            if recipe.dataset == name:
                common.margin_density(gradients.margins(logits, y), ax, recipe.architecture,
                                      text.NETWORKS[recipe.model])
        ax.axvline(0, color="black", linewidth=0.8)
        ax.axvline(errors.VANISHING, color="black", linewidth=0.8, linestyle=":")
        ax.set_title(datasets.record(name).title)
        ax.legend()
    return np.ravel(axes)
