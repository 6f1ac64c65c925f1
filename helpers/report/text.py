"""Computed sentences and tables, in Spanish, shown as Markdown by notebooks."""
import re
from numbers import Integral, Real

import numpy as np
from IPython.display import Markdown, display

from helpers import datasets
from helpers.study import checks


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
DATASETS = {name: record.title for name, record in datasets.RECORDS.items()}

ATTACKS = {"fgsm": "FGSM", "pgd": "PGD", "pgd_margin": "PGD", "carlini_wagner": "C&W", "noise": "ruido",
           "none": "ninguno"}
KNOWLEDGE = {"blind": "no conoce JPEG", "identity": "códec verdadero, gradiente identidad",  # who attacks
             "differentiable": "códec diferenciable", "worst": "el peor de los tres"}
SEARCHES = {"probabilities": "FGSM, probabilidades", "cross_entropy": "FGSM, logits",  # by their loss
            "tempered": "FGSM, temperatura", "float64": "FGSM, 64 bits", "margin": "FGSM, margen",
            "pgd_margin": "PGD, margen"}
NORMS = {"inf": "$L_\\infty$", "2": "$L_2$"}

CHECKS = {  # what the value of each of helpers.study.checks is, and its unit
    "ball": "Mayor exceso de una perturbación sobre el radio ε de la bola (unidades de píxel)",
    "box": "Mayor exceso de un píxel sobre el intervalo [0, 1] (unidades de píxel)",
    "clean_accuracy": "Precisión sin ataque (proporción)",
    "zero_eps": "Diferencia entre la precisión con ε = 0 y la precisión sin ataque (puntos)",
    "monotone": "Mayor aumento de la precisión robusta al crecer ε (puntos)",
    "chance": "Precisión robusta con el mayor ε, frente a la del azar (proporción)",
    "pgd_beats_fgsm": "Imágenes en que la pérdida de PGD iguala o supera a la de FGSM (proporción)",
    "more_iterations": "Cambio de la precisión robusta con el doble de iteraciones (puntos)",
    "more_restarts": "Cambio de la precisión robusta con un segundo inicio aleatorio (puntos)",
    "white_box_transfer": "Precisión con caja blanca menos precisión con transferencia (puntos)",
    "transfer_noise": "Precisión con transferencia menos precisión con ruido aleatorio (puntos)",
    "gradient_free": "Imágenes que vence el ataque Square y no los ataques por gradiente (imágenes)",
    "zero_gradient": "Imágenes en que el gradiente de la entropía cruzada es cero (proporción)",
    "masking_loss": "Diferencia de la precisión bajo PGD entre entropía cruzada y margen (puntos)",
    "masking_float64": "Diferencia de la precisión bajo FGSM entre 32 y 64 bits (puntos)",
    "cw_success": "Imágenes que el ataque de Carlini y Wagner vuelve adversarias (proporción)",
    "cw_rounded": "Ejemplos adversarios que lo siguen siendo al redondear a 8 bits (proporción)",
    "cw_gap": "Menor exceso de la ventaja de los logits sobre la confianza κ (logits)",
    "cw_l2_q10": "Cuantil 10 % de la norma L2 de las perturbaciones (unidades de píxel)",
    "cw_l2_q50": "Mediana de la norma L2 de las perturbaciones (unidades de píxel)",
    "cw_l2_q90": "Cuantil 90 % de la norma L2 de las perturbaciones (unidades de píxel)",
    "more_search": "Mayor aumento de la norma L2 con más pasos de búsqueda (unidades de píxel)",
    "targets_untargeted": "Desviación de 1 del cociente entre las normas L2 medias del objetivo más "
                          "cercano y del ataque sin objetivo",
    "linear_distance": "Mayor error relativo de la distancia a la frontera en un modelo lineal "
                       "(proporción)",
    "jpeg_aware": "Precisión ante quien conoce JPEG menos precisión ante quien no (puntos)",
    "jpeg_mixed": "Precisión ante quien promedia las calidades menos ante quien supone una (puntos)",
    "jpeg_score": "Precisión con el códec verdadero menos la que daría el diferenciable (puntos)",
    "jpeg_straight": "Error medio del códec diferenciable de redondeo recto, en la peor calidad (niveles)",
    "jpeg_differentiable": "Error medio del códec diferenciable cúbico, en la peor calidad (niveles)",
    "jpeg_largest": "Mayor error del códec diferenciable cúbico, en la peor calidad (niveles)",
    "logits_x100": "Cambio del éxito del ataque con los logits multiplicados por 100 (puntos)",
}


def network_name(recipe):
    """Return "LeNet-5 en MNIST" and the like, for a Recipe or any object with its two names."""
    return f"{NETWORKS[recipe.model]} en {datasets.record(recipe.dataset).title}"


def checks_by_network(tables):
    """Return tables of several networks side by side: rows (text, bound, a value for each of them).

    A value that fails its check is in bold (Markdown); what was not checked on a network is "–".
    """
    indexed = [table.drop_duplicates("check").set_index("check") for table in tables]
    rows = []
    for check in checks.BOUNDS:
        found = [table.loc[check] if check in table.index else None for table in indexed]
        known = [one for one in found if one is not None]
        if known:
            sign = checks.BOUNDS[check][0] if checks.BOUNDS[check] else "–"
            bounds = {significant(one.threshold) for one in known} if checks.BOUNDS[check] else {""}
            rows.append([CHECKS[check], f"{sign} {' o '.join(sorted(bounds))}".strip(),
                         *("–" if one is None else significant(one.value) if one.passed
                           else f"**{significant(one.value)}**" for one in found)])
    return rows


def unmet_checks(tables):
    """Return a Spanish sentence with the checks that failed in these tables, each once, and where."""
    failed = {}
    for table in tables:
        for row in table[~table.passed.astype(bool)].itertuples():
            failed.setdefault((row.check, row.threshold), []).append(
                f"{significant(row.value)} en la {network_name(row)}")
    many = sum(map(len, failed.values()))
    if not many:
        return "Se cumplen todas."
    said = [f"{CHECKS[check][0].lower()}{CHECKS[check][1:]}, umbral {significant(bound)}: "
            f"{listing(found)}" for (check, bound), found in failed.items()]
    which = "cumple una comprobación" if many == 1 else f"cumplen {many} comprobaciones"
    return f"No se {which}: {'; '.join(said)}."
