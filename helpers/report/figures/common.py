"""Figures: one style for the whole report. Functions take data and axes, draw, and return the axes.

Colours are Okabe and Ito's, safe for the colour-blind; a second sign (line, marker) tells the same
where the figure is printed in grey.
"""
import matplotlib.pyplot as plt
import numpy as np
import seaborn
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from helpers.report import text

WIDTH = 6.7  # inches: a figure across the text, printed at its own size
HALF = 0.49 * WIDTH  # of two side by side

# One colour for one thing, everywhere.
COLORS = {
    "lenet": "#0072B2", "resnet": "#D55E00",
    "lenet-adv": "#00344F", "resnet-adv": "#6B2F00",  # trained adversarially: the same, darker
    "lenet-jpeg": "#7FA8C9", "resnet-jpeg": "#E8A06B",  # trained on JPEG images: the same, paler
    "fgsm": "#E69F00", "pgd": "#CC79A7", "carlini_wagner": "#009E73", "noise": "#7F7F7F",
    "blind": "#B8A13A", "identity": "#332288", "differentiable": "#882255",  # attackers of JPEG
    "probabilities": "#A6761D", "cross_entropy": "#E69F00", "tempered": "#999933",  # FGSM by its loss
    "float64": "#44AA99", "margin": "#117733", "pgd_margin": "#CC79A7",
    "grad_cam": "#5E3C99", "gradient": "#CC6677", "integrated": "#7A6A00", "smooth": "#AA4499",  # maps
    "worst": "#000000", "data": "#56B4E9", "true_class": "#222222", "other_class": "#BDBDBD",
}
LINES = {"lenet": "-", "resnet": "--", "lenet-adv": "-.", "resnet-adv": ":",
         "lenet-jpeg": (0, (5, 1)), "resnet-jpeg": (0, (3, 1, 1, 1)),
         "fgsm": "--", "pgd": "-", "carlini_wagner": "-.", "noise": ":",
         "probabilities": ":", "cross_entropy": "--", "tempered": (0, (5, 1)),
         "float64": (0, (3, 1, 1, 1)), "margin": "-.", "pgd_margin": "-",
         "grad_cam": "-", "gradient": "--", "integrated": "-.", "smooth": ":",
         "blind": ":", "identity": "--", "differentiable": "-.", "worst": "-"}
MARKERS = {"lenet": "o", "resnet": "s", "lenet-adv": "p", "resnet-adv": "P",
           "lenet-jpeg": "h", "resnet-jpeg": "*",
           "fgsm": "^", "pgd": "v", "carlini_wagner": "D", "noise": "x",
           "probabilities": "X", "cross_entropy": "^", "tempered": "d", "float64": "<",
           "margin": "s", "pgd_margin": "v",
           "grad_cam": "o", "gradient": "s", "integrated": "D", "smooth": "^",
           "blind": "o", "identity": "s", "differentiable": "^", "worst": "."}


def style():
    """Set the report's style for this process: call it once, at a notebook's head."""
    from matplotlib_inline.backend_inline import set_matplotlib_formats
    set_matplotlib_formats("svg", metadata={"Date": None}, bbox_inches=None)  # at its own size
    seaborn.set_theme(context="paper", style="ticks", rc={
        "figure.figsize": (WIDTH, 2.8), "figure.constrained_layout.use": True, "figure.dpi": 200,
        "figure.constrained_layout.h_pad": 0.07, "figure.constrained_layout.w_pad": 0.07,
        "savefig.dpi": 200, "svg.hashsalt": "report", "font.family": "DejaVu Sans",
        "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 7,
        "ytick.labelsize": 7, "legend.fontsize": 7, "legend.frameon": False,
        "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.4,
        "image.cmap": "gray", "image.interpolation": "none", "image.composite_image": False})


def show():
    """Show the current figure beneath the cell."""
    plt.show()


def decorate(ax, xlabel=None, ylabel=None, title=None):
    """Set labels (with their units) and title; return ax."""
    ax.set(**{key: words for key, words in
              {"xlabel": xlabel, "ylabel": ylabel, "title": title}.items() if words is not None})
    return ax


def percent_axis(axis):
    """Write the ticks of an axis of proportions as percentages; return the axis."""
    axis.set_major_formatter(FuncFormatter(
        lambda value, _: f"{100 * value:.4g}\u00a0%"))
    return axis


def image(x, ax, title=None):
    """Draw one image (H, W, C) in [0, 1] without ticks; return ax."""
    ax.imshow(x.squeeze(), vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=True, linewidth=0.4, color="0.6")
    if title is not None:
        ax.set_title(title, pad=2, fontsize=7)
    return ax


def image_grid(x, titles=None, columns=10, width=WIDTH):
    """Draw images (N, H, W, C) in rows of `columns`, each with its title; return the axes, (N,)."""
    rows = -(-len(x) // columns)
    height = rows * (1.03 * width / columns + (0.16 if titles is not None else 0))
    fig, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
    fig.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0.02, hspace=0.02)
    for i, ax in enumerate(axes.flat):
        if i < len(x):
            image(x[i], ax, None if titles is None else titles[i])
        else:
            ax.axis("off")
    return axes.flat[:len(x)]


def row_labels(axes, labels, columns):
    """Write labels to the left of the rows of a grid of `columns` images; return the axes."""
    for ax, label in zip(axes[::columns], labels, strict=True):
        ax.set_ylabel(label, rotation=0, ha="right", va="center", labelpad=4)
    return axes


def class_counts(table, names):
    """Draw the counts of each class, training and test; return the two axes.

    table: of datasets.statistics. names: what to write below the bars.
    """
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 1.8))
    for ax, split, title in zip(axes, ("train", "test"), ("entrenamiento", "prueba"), strict=True):
        is_count = (table.split == split) & table.quantity.str.startswith("class")
        counts = table[is_count].value.astype(int).to_numpy()
        bars = ax.bar(range(len(counts)), counts, color=COLORS["data"], width=0.75)
        for label in ax.bar_label(bars, map(text.number, counts), fontsize=5.3, padding=1):
            label.set_bbox({"color": "white", "pad": 0.5})
        ax.margins(y=0.12)
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text.number(value)))
        ax.set_xticks(range(len(counts)), names,
                      rotation=90 if max(len(str(name)) for name in names) > 2 else 0)
        ax.axhline(counts.mean(), color="black", linewidth=0.7, linestyle=":", zorder=0)
        decorate(ax, "clase", "imágenes", title)
    return axes


def learning_curve(history, metric, ax, color):
    """Draw a metric against the epoch: training (thin, dotted) and validation; return ax."""
    epochs = np.arange(1, len(history[metric]) + 1)
    marker = "." if len(epochs) < 15 else None
    ax.plot(epochs, history[metric], color=color, linestyle=":", marker=marker, label="entrenamiento")
    ax.plot(epochs, history[f"val_{metric}"], color=color, marker=marker, label="validación")
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    return decorate(ax, xlabel="época")


def log_axis(axis, subs=(1, 2, 5)):
    """Make an axis logarithmic, with plain numbers at `subs` times 10^k; return it."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    return axis


def confusion(matrix, names, ax):
    """Draw a confusion matrix in % of each true class, with the errors written; return ax."""
    share = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    errors = np.where(np.eye(len(matrix), dtype=bool), np.nan, share)
    top = max(np.nanmax(errors), 1e-9)
    ax.imshow(errors, cmap="Greys", vmin=0, vmax=1.3 * top)
    for i in range(len(matrix)):
        for j in range(len(matrix)):
            if i == j or share[i, j] > 0.12 * top:
                written = text.number(share[i, j], 0 if i == j or top > 5 else 1)
                ax.text(j, i, written, ha="center", va="center", fontsize=5.5,
                        fontweight="bold" if i == j else "normal",
                        color="white" if i != j and share[i, j] > 0.7 * top else "black")
    ax.set_xticks(range(len(names)), names, rotation=90 if len(names[0]) > 1 else 0)
    ax.set_yticks(range(len(names)), names)
    return decorate(ax, xlabel="clase predicha", ylabel="clase verdadera")


def probability_bars(p, y, names, ax, top=3):
    """Draw the `top` most probable classes of one image as bars, the true class y told by colour."""
    order = np.argsort(p)[::-1][:top]
    ax.barh(range(top), p[order], height=0.8,
            color=[COLORS["true_class" if k == y else "other_class"] for k in order])
    for i, k in enumerate(order):
        ax.text(1.04, i, f"{names[k]}: {text.percent(p[k], 1)}", va="center", fontsize=6,
                fontweight="bold" if k == y else "normal")
    ax.set(xlim=(0, 1), ylim=(top - 0.5, -0.5), xticks=[], yticks=[])
    ax.spines["bottom"].set_visible(False)
    return ax


def reliability(table, ax, color):
    """Draw accuracy against confidence, with intervals and the diagonal; return ax.

    table: of accuracy.reliability. A dot's area grows with the number of its images.
    """
    ax.plot([0, 1], [0, 1], color="black", linewidth=0.7, linestyle=":")
    error = np.abs(table[["accuracy_low", "accuracy_high"]].to_numpy().T - table.accuracy.to_numpy())
    ax.errorbar(table.confidence, table.accuracy, error, color=color, linewidth=0.9, fmt="-")
    ax.scatter(table.confidence, table.accuracy, s=3 + 60 * table.n / table.n.max(), color=color,
               edgecolor="white", linewidth=0.4, zorder=3)
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    return decorate(ax, xlabel="confianza", ylabel="precisión")


def margin_density(margins, ax, kind, label):
    """Draw the distribution of margins of a network (kind: its architecture); return ax."""
    seaborn.kdeplot(x=margins, ax=ax, color=COLORS[kind], linestyle=LINES[kind], label=label,
                    fill=True, alpha=0.15, linewidth=1.3, bw_adjust=0.7)
    return decorate(ax, xlabel="margen $F$ (logits)", ylabel="densidad")


def architecture(blocks, ax, color):
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
