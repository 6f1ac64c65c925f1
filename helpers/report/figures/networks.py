"""Figures of trained networks, a panel or a row for each: layers, learning, errors, calibration, margins.

measured: dict of Recipe to (logits, y) of its first test images.
"""
import matplotlib.pyplot as plt
import numpy as np
import seaborn
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

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
        _architecture(models.blocks(model), ax, common.COLORS[recipe.architecture])
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
        _learning_curve(history, "loss", column[0], color).set(xlabel="", title=two_lines(recipe))
        common.log_axis(column[0].yaxis)
        _learning_curve(history, "accuracy", column[1], color)
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
        _confusion(errors.confusion(*answers), names, ax).set_title(text.network_name(recipe))
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
            _probability_bars(p[i], y[i], names, bars)
        row[0].axis("on")
        row[0].set(xticks=[], yticks=[])
        row[0].set_ylabel(two_lines(recipe), fontsize=7)
    return axes


def reliabilities(measured):
    """Draw accuracy against confidence, a panel a network, with 95 % intervals; return the axes."""
    _, axes = plt.subplots(1, len(measured), figsize=(common.WIDTH, 2.1), squeeze=False, sharey=True)
    for ax, (recipe, answers) in zip(axes.flat, measured.items(), strict=True):
        _reliability(accuracy.reliability(*answers), ax, common.COLORS[recipe.architecture])
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
                _margin_density(gradients.margins(logits, y), ax, recipe.architecture,
                                      text.NETWORKS[recipe.model])
        ax.axvline(0, color="black", linewidth=0.8)
        ax.axvline(errors.VANISHING, color="black", linewidth=0.8, linestyle=":")
        ax.set_title(datasets.record(name).title)
        ax.legend()
    return np.ravel(axes)


def _learning_curve(history, metric, ax, color):
    """Draw a metric against the epoch: training (thin, dotted) and validation; return ax."""
    epochs = np.arange(1, len(history[metric]) + 1)
    marker = "." if len(epochs) < 15 else None
    ax.plot(epochs, history[metric], color=color, linestyle=":", marker=marker, label="entrenamiento")
    ax.plot(epochs, history[f"val_{metric}"], color=color, marker=marker, label="validación")
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    return common.decorate(ax, xlabel="época")


def _confusion(matrix, names, ax):
    """Draw a confusion matrix in % of each true class, with the errors written; return ax."""
    share = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    missed = np.where(np.eye(len(matrix), dtype=bool), np.nan, share)
    top = max(np.nanmax(missed), 1e-9)
    ax.imshow(missed, cmap="Greys", vmin=0, vmax=1.3 * top)
    for i in range(len(matrix)):
        for j in range(len(matrix)):
            if i == j or share[i, j] > 0.12 * top:
                written = text.number(share[i, j], 0 if i == j or top > 5 else 1)
                ax.text(j, i, written, ha="center", va="center", fontsize=5.5,
                        fontweight="bold" if i == j else "normal",
                        color="white" if i != j and share[i, j] > 0.7 * top else "black")
    ax.set_xticks(range(len(names)), names, rotation=90 if len(names[0]) > 1 else 0)
    ax.set_yticks(range(len(names)), names)
    return common.decorate(ax, xlabel="clase predicha", ylabel="clase verdadera")


def _probability_bars(p, y, names, ax, top=3):
    """Draw the `top` most probable classes of one image as bars, the true class y told by colour."""
    order = np.argsort(p)[::-1][:top]
    ax.barh(range(top), p[order], height=0.8,
            color=[common.COLORS["true_class" if k == y else "other_class"] for k in order])
    for i, k in enumerate(order):
        ax.text(1.04, i, f"{names[k]}: {text.percent(p[k], 1)}", va="center", fontsize=6,
                fontweight="bold" if k == y else "normal")
    ax.set(xlim=(0, 1), ylim=(top - 0.5, -0.5), xticks=[], yticks=[])
    ax.spines["bottom"].set_visible(False)
    return ax


def _reliability(table, ax, color):
    """Draw accuracy against confidence, with intervals and the diagonal; return ax.

    table: of accuracy.reliability. A dot's area grows with the number of its images.
    """
    ax.plot([0, 1], [0, 1], color="black", linewidth=0.7, linestyle=":")
    error = np.abs(table[["accuracy_low", "accuracy_high"]].to_numpy().T - table.accuracy.to_numpy())
    ax.errorbar(table.confidence, table.accuracy, error, color=color, linewidth=0.9, fmt="-")
    ax.scatter(table.confidence, table.accuracy, s=3 + 60 * table.n / table.n.max(), color=color,
               edgecolor="white", linewidth=0.4, zorder=3)
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    return common.decorate(ax, xlabel="confianza", ylabel="precisión")


def _margin_density(margins, ax, kind, label):
    """Draw the distribution of margins of a network (kind: its architecture); return ax."""
    seaborn.kdeplot(x=margins, ax=ax, color=common.COLORS[kind], linestyle=common.LINES[kind], label=label,
                    fill=True, alpha=0.15, linewidth=1.3, bw_adjust=0.7)
    return common.decorate(ax, xlabel="margen $F$ (logits)", ylabel="densidad")


def _architecture(blocks, ax, color):
    """Draw a network as boxes: height for the side of its maps, width for their number; return ax.

    blocks: of networks.blocks, rows (name, shape, parameters).
    """
    x, tallest = 0.0, max(shape[0] for _, shape, _ in blocks if len(shape) == 3)
    for name, shape, parameters in blocks:
        maps = len(shape) == 3
        height = shape[0] / tallest if maps else 0.12 + 0.06 * np.log2(shape[0])
        width = 0.16 + 0.13 * np.log2(shape[-1]) if maps else 0.22
        ax.add_patch(Rectangle((x, -height / 2), width, height, facecolor=color, edgecolor="white",
                               alpha=0.9 if parameters else 0.4))
        middle = x + width / 2
        ax.text(middle, 0.56, text.LAYERS.get(name, name), ha="center", va="bottom", fontsize=6)
        ax.text(middle, -0.56, "×".join(map(str, shape)), ha="center", va="top", fontsize=6)
        if parameters:
            ax.text(middle, -0.70, text.number(parameters), ha="center", va="top", fontsize=6,
                    color="0.35")
        x += max(width, 0.62) + 0.1
    ax.set(xlim=(-0.35, x), ylim=(-0.8, 0.72), xticks=[], yticks=[])
    ax.axis("off")
    return ax
