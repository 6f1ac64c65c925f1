"""Computed sentences and tables, in Spanish, shown as Markdown by notebooks."""
import re
from numbers import Integral, Real

import numpy as np
from IPython.display import Markdown, display

from helpers import datasets


def number(value, decimals=None):
    """Return a number as in Mexico: decimal point, comma between thousands.

    decimals: None leaves integers whole and gives the other numbers 3. A true minus sign. A dash where
    there is no number (NaN), "∞" where it is infinite.
    """
    if not np.isfinite(value):
        return "–" if np.isnan(value) else "∞" if value > 0 else "−∞"
    if decimals is None:
        decimals = 0 if float(value).is_integer() else 3
    return f"{round(float(value), decimals) + 0.0:,.{decimals}f}".replace("-", "−")  # -0.0 + 0.0 is 0.0


def significant(value, digits=2):
    """Return a number as Spanish text with so many significant digits; "∞" where it is infinite."""
    if not np.isfinite(value):
        return "∞" if value > 0 else "−∞"
    if value == 0 or abs(value) >= 10 ** (digits - 1):
        return number(value, 0 if value == round(value) else 1)
    text = f"{value:.{digits}g}"
    if "e" not in text:
        return text.replace("-", "−")
    mantissa, exponent = text.split("e")
    return f"{mantissa.replace('-', '−')} × 10^{int(exponent)}^".replace("^-", "^−")


def percent(value, decimals=2):
    """Return a proportion as a percentage, "91.25 %"."""
    return f"{number(100 * value, decimals)}\u00a0%"


def with_interval(value, low, high, decimals=2):
    """Return a proportion and its 95 % interval: "91.25 % [90.68; 91.79]". A dash of NaN."""
    if np.isnan(value):
        return "–"
    return (f"{percent(value, decimals)} [{number(100 * low, decimals)}; "
            f"{number(100 * high, decimals)}]")


def bracketed(value, low, high, decimals=None):
    """Return a number and its interval, "91.3 [90.7; 91.8]"; decimals as in `number`.

    A dash of NaN; the number alone where the interval is NaN.
    """
    if np.isnan(value) or np.isnan(low):
        return number(value, decimals)
    value, low, high = (number(v, decimals) for v in (value, low, high))
    return f"{value} [{low};\u00a0{high}]"


def radius(dataset, eps):
    """Return an L-infinity radius as the field writes it: "8/255" on CIFAR-10, "0.3" on MNIST."""
    unit = datasets.record(dataset).radius_unit
    if unit == 1 or eps in (0, 0.5):
        return number(eps, 2).rstrip("0").rstrip(".") if eps else "0"
    return f"{number(unit * eps, 1 if eps < 1 / unit else 0)}/{unit}"


def listing(words):
    """Return words as a Spanish enumeration: "a, b y c"; "e" before the sound of an i."""
    words = list(map(str, words))
    joint = " e " if words and re.match("h?[ií](?![aeo])", words[-1], re.I) else " y "
    return joint.join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def say(sentence):
    """Show a sentence (Markdown) whose numbers the cell computed."""
    display(Markdown(sentence))


def table(rows, header):
    """Show rows of values as a Markdown table under `header`, as `markdown` writes it."""
    display(Markdown(markdown(rows, header)))


def markdown(rows, header):
    """Return rows of values as a Markdown table under `header`; text to the left, numbers right.

    Of floats one decimal is written: format those that need another number of them beforehand. Text may
    hold Markdown and mathematics; what would break its cell is escaped, and line breaks become spaces.
    Raises ValueError for a row that is longer or shorter than the header, since pandoc would drop the rest.
    """
    rows = [list(row) for row in rows]
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row of {len(row)} values under a header of {len(header)}: {row}")
    numeric = [all(isinstance(row[i], Real) for row in rows) for i in range(len(header))]
    lines = [map(_cell, header), ["---:" if right else ":---" for right in numeric]]
    lines += [[number(v, 0 if isinstance(v, Integral) else 1) if isinstance(v, Real) else _cell(v)
               for v in row] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# Where pandoc lets a pipe stand in a table: escaped, in code, in mathematics. Else a pipe ends the cell, and
# a backtick, dollar or comment that its own cell does not close would join it to the next.
SPAN = re.compile(r"""\\. | (?P<ticks>(?<!`)`+(?!`)).+?(?<!`)(?P=ticks)(?!`)
    | \$\$(?:\\.|[^$\\])+\$\$ | \$(?=\S)(?:\\.|[^$\\])+?(?<=\S)\$(?!\d) | (?P<loose>`+|[|$]|<!--)""", re.X)


def _cell(value):
    """Return a value as text that stays in one cell of a table of pandoc's."""
    line = " ".join(part.strip(" \t") for part in str(value).splitlines())
    return SPAN.sub(lambda found: re.sub("([`|$<])", r"\\\1", found[0]) if found["loose"] else found[0], line)


def claims(rows):
    """Show claims of the 2021 draft, rows (claim, what was measured, verdict): the report joins them."""
    table(rows, CLAIMS)


def published(rows):
    """Show our numbers against published ones, rows (what, published, ours, source), which it joins too."""
    table(rows, PUBLISHED)


def provenance(ledger):
    """Show as a table what a notebook loaded and what it computed (of store.ledger).

    Artifacts of one name and action are one row, with their number and total.
    """
    if ledger.empty:
        return say("Nada se cargó ni se calculó.")
    actions = {"loaded": "cargado", "computed": "calculado"}
    kind = ledger.artifact.str.partition("-")[0]
    rows = []
    for (name, action), group in ledger.groupby([kind, ledger.action], sort=False):
        if len(group) > 1:
            rows.append([f"`{name}-…` ({len(group)})", actions[action], float(group.seconds.sum()),
                         group.made.max()])
        else:
            row, = group.itertuples()
            rows.append([f"`{row.artifact}`", actions[action], float(row.seconds), row.made])
    table(rows, ["artefacto", "en esta ejecución", "segundos que llevó", "hecho el"])


CLAIMS = ["lo que se afirmaba", "lo que se midió (intervalos al 95 %)", "veredicto"]
PUBLISHED = ["qué", "publicado", "aquí", "fuente"]

NETWORKS = {"lenet": "LeNet-5", "resnet": "ResNet-20",
            "lenet-adv": "LeNet-5 adv.", "resnet-adv": "ResNet-20 adv.",  # trained adversarially
            "lenet-jpeg": "LeNet-5 JPEG", "resnet-jpeg": "ResNet-20 JPEG"}  # on JPEG images
LAYERS = {"image": "imagen", "normalization": "normaliza", "c1": "C1", "s2": "S2", "c3": "C3",
          "s4": "S4", "c5": "C5", "f6": "F6", "stem": "entrada", "stage1": "etapa 1",
          "stage2": "etapa 2", "stage3": "etapa 3", "average": "promedio"}

ATTACKS = {"fgsm": "FGSM", "pgd": "PGD", "pgd_margin": "PGD", "carlini_wagner": "C&W", "noise": "ruido",
           "none": "ninguno"}
KNOWLEDGE = {"blind": "no conoce JPEG", "identity": "códec verdadero, gradiente identidad",  # who attacks
             "differentiable": "códec diferenciable", "worst": "el peor de los tres"}
SEARCHES = {"probabilities": "FGSM, probabilidades", "cross_entropy": "FGSM, logits",  # by their loss
            "tempered": "FGSM, temperatura", "float64": "FGSM, 64 bits", "margin": "FGSM, margen",
            "pgd_margin": "PGD, margen"}
NORMS = {"inf": "$L_\\infty$", "2": "$L_2$"}


def network_name(recipe):
    """Return "LeNet-5 en MNIST" and the like, for a Recipe or any object with its two names."""
    return f"{NETWORKS[recipe.model]} en {datasets.record(recipe.dataset).title}"
