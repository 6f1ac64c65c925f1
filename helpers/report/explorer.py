"""The explorer: one page that works offline, with sliders over image, attack, eps and JPEG quality.

`study.states` keeps as an artifact all that the page shows of one network. `page` puts the artifacts into
the template helpers/report/templates/explorer.html: the file carries the very arrays, and reads from them
each number that it writes. `python -m helpers.report.explorer PROFILE.yaml OUT.html`, or `make explorer`.
"""
import base64
import gzip
import json
import sys
from pathlib import Path

import matplotlib
import numpy as np
import yaml

from helpers import datasets, networks
from helpers.artifacts import files
from helpers.artifacts.progress import tqdm
from helpers.report import figures, parameters, text
from helpers.study import states

TEMPLATE = Path(__file__).parent / "templates" / "explorer.html"
LABELS = {"noise": "ruido", "fgsm": "FGSM", "pgd_margin": "PGD", "carlini_wagner": "Carlini y Wagner"}
DEFAULTS = {"dataset": "all", "seed": 0, "epochs": None, "train_size": None, "n_explorer": 1}


def page(kept, path):
    """Write the page of {recipe: its states}, atomically."""
    grouped = text.number(1234567.5, 1)  # so that the page writes its numbers as the report does
    content = {
        "networks": [_embedded(recipe, found) for recipe, found in kept.items()],
        "attacks": [{"name": name, "label": label, "color": figures.COLORS[name]}
                    for name, label in LABELS.items()],
        "qualities": ["no", *map(str, states.QUALITIES)], "high": states.HIGH,
        "group": grouped[1], "decimal": grouped[-2],
        "maps": {name: _text(matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3].tobytes())
                 for name in ("inferno", "viridis")}}
    template = TEMPLATE.read_text("utf8")
    with files.atomic(path) as partial:
        partial.write_text(template.replace("{{data}}", json.dumps(content).replace("<", "\\u003c")), "utf8")


def _embedded(recipe, kept):
    """Return a network's states as what JSON can hold."""
    record = datasets.record(recipe.dataset)
    arrays = {name: {"type": str(value.dtype), "shape": value.shape,
                     "data": _text(gzip.compress(value.tobytes(), mtime=0))} for name, value in kept.items()}
    return {"id": f"{recipe.dataset}-{recipe.model}", "name": text.network_name(recipe),
            "classes": [name.es for name in record.class_names],
            "radii": [text.radius(recipe.dataset, eps) for eps in record.explorer_radii],
            "columns": states.columns(recipe.dataset), "arrays": arrays}


def _text(content):
    return base64.b64encode(content).decode()


def main(profile, path):
    """Write to `path` the page of the networks of a parameter file (YAML), as papermill takes it."""
    given = yaml.safe_load(Path(profile).read_text("utf8")) or {}
    if not isinstance(given, dict):
        raise ValueError(f"{profile} must hold parameters, a name and a value a line, got {given!r}")
    given = DEFAULTS | {name: given[name] for name in DEFAULTS if name in given}  # the others are notebooks'
    parameters.check(given, dataset=["all", *datasets.NAMES], seed=range(2**31),
                     epochs=[None, range(1, 1001)], train_size=[None, range(100, 54211, 10)],
                     **parameters.EXPLORER)
    per_class = given.pop("n_explorer")
    recipes = [recipe for kind in ("natural", "adversarial")
               for recipe in networks.recipes_for(kind=kind, **given)]
    page({recipe: states.states(recipe, per_class=per_class, seed=given["seed"])
          for recipe in tqdm(recipes, desc="explorer", unit="network")}, path)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m helpers.report.explorer PROFILE.yaml OUT.html")
    try:
        main(*sys.argv[1:])
    except (ValueError, OSError, yaml.YAMLError) as error:
        sys.exit(f"make explorer: {error}")
