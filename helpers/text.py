"""Computed sentences and tables, in Spanish, shown as Markdown by notebooks."""
from numbers import Integral, Real

from IPython.display import Markdown, display


def number(value, decimals=None):
    """Return a number as Spanish text: decimal comma, thin space between thousands.

    decimals: None leaves integers whole and gives the other numbers 3. A true minus sign.
    """
    if decimals is None:
        decimals = 0 if float(value).is_integer() else 3
    text = f"{value:,.{decimals}f}".replace("-", "−")
    whole, _, fraction = text.partition(".")
    whole = whole.replace(",", "" if len(whole) <= 5 else "\u202f")
    return f"{whole},{fraction}" if fraction else whole


def percent(value, decimals=2):
    """Return a proportion as a Spanish percentage, "91,25 %"."""
    return f"{number(100 * value, decimals)}\u00a0%"


def with_interval(value, low, high, decimals=2):
    """Return a proportion and its 95 % interval: "91,25 % [90,68; 91,79]"."""
    return (f"{percent(value, decimals)} [{number(100 * low, decimals)}; "
            f"{number(100 * high, decimals)}]")


def say(sentence):
    """Show a sentence (Markdown) whose numbers the cell computed."""
    display(Markdown(sentence))


def table(rows, header):
    """Show rows of values as a Markdown table under `header`; text to the left, numbers right.

    Of floats one decimal is written: format those that need another number of them beforehand.
    """
    rows = [list(row) for row in rows]
    numeric = [all(isinstance(row[i], Real) for row in rows) for i in range(len(header))]
    lines = [header, ["---:" if right else ":---" for right in numeric]]
    lines += [[number(v, 0 if isinstance(v, Integral) else 1) if isinstance(v, Real) else str(v)
               for v in row] for row in rows]
    display(Markdown("\n".join("| " + " | ".join(line) + " |" for line in lines)))


def provenance(ledger):
    """Show as a table what a notebook loaded and what it computed (of store.ledger)."""
    actions = {"loaded": "cargado", "computed": "calculado"}
    table([[f"`{row.artifact}`", actions[row.action], float(row.seconds), row.made]
           for row in ledger.itertuples()],
          ["artefacto", "en esta ejecución", "segundos que llevó", "hecho el"])


NETWORKS = {"lenet": "LeNet-5", "resnet": "ResNet-20"}
LAYERS = {"image": "imagen", "normalization": "normaliza", "c1": "C1", "s2": "S2", "c3": "C3",
          "s4": "S4", "c5": "C5", "f6": "F6", "stem": "entrada", "stage1": "etapa 1",
          "stage2": "etapa 2", "stage3": "etapa 3", "average": "promedio"}
DATASETS = {"mnist": "MNIST", "cifar10": "CIFAR-10"}


def network_name(recipe):
    """Return "LeNet-5 en MNIST" and the like, for a Recipe or any object with its two names."""
    return f"{NETWORKS[recipe.architecture]} en {DATASETS[recipe.dataset]}"
