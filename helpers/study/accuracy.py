"""What a trained network is worth: accuracy, margins and calibration, each with its uncertainty."""
import numpy as np
import pandas as pd
from scipy.special import softmax

from helpers import datasets, networks
from helpers.artifacts import proofs, store
from helpers.statistics import intervals

PART = 2000  # test images of every data set that are always at hand
COLUMNS = ["dataset", "model", "seed", "attack", "norm", "eps", "defense", "quality", "n",
           "metric", "value", "low", "high"]


def predict(model, x, batch_size=500):
    """Return the logits of images x, float32 (N, classes); model: any callable on an image batch."""
    batches = [np.asarray(model(x[i:i + batch_size])) for i in range(0, len(x), batch_size)]
    return np.concatenate(batches)


def probabilities(logits):
    """Return the softmax of logits (N, classes), in float64."""
    return softmax(logits.astype(np.float64), axis=1)


def intervals_follow(table):
    """Return whether the values of a table of accuracies are counts of its n, with their `interval`."""
    counts = (table.value * table.n).round()
    if not (((table.value * table.n - counts).abs() < 1e-6) & (counts >= 0) & (counts <= table.n)).all():
        return False
    expected = [intervals.interval(*pair) for pair in zip(counts, table.n, strict=True)]
    return np.allclose(table[["low", "high"]], expected, rtol=0, atol=1e-9)


def test_logits(recipe, n=10_000):
    """Return (logits, y) of a recipe's network on the first n test images, as many as there are.

    Kept as an artifact. Where that ships, all its n count even if not all the images are at hand;
    a loaded one is still proved: the network runs on 500 of the images at hand, drawn at random.
    """
    data = datasets.load(recipe.dataset)
    parameters = logits_key(recipe, n)
    model, _ = networks.load_or_train(recipe)
    sized = "n", lambda kept, n: {name: values[:n] for name, values in kept.items()}
    if not store.has("logits", parameters, sized=sized):
        parameters["n"] = min(n, len(data.x_test))

    def make():
        count = parameters["n"]
        return {"logits": predict(model, data.x_test[:count]), "y": data.y_test[:count]}

    def check(kept):
        at_hand = min(len(kept["y"]), len(data.y_test))
        chosen = proofs.sample(np.random.default_rng(), at_hand, 500)
        proofs.prove(kept["logits"].shape == (parameters["n"], data.record.classes)
                     and len(kept["y"]) == parameters["n"]
                     and np.array_equal(kept["y"][:at_hand], data.y_test[:at_hand])
                     and proofs.same_logits(kept["logits"][chosen],
                                            predict(model, data.x_test[chosen])).all(),
                     "logits", recipe)

    kept = store.cached("logits", parameters, make, check=check, sized=sized)
    return kept["logits"], kept["y"]


def logits_of(dataset, architecture, n=10_000, **more):
    """Return the `test_logits` of the network of a data set and architecture; more: as of recipes_for."""
    recipe, = networks.recipes_for(dataset, architecture, **more)
    return test_logits(recipe, n)


def logits_key(recipe, n):
    """Return the parameters by which `test_logits` are kept."""
    return {"network": recipe.filename, "split": "test", "n": n}


def accuracy_row(recipe, logits, y):
    """Return one tidy row: the clean test accuracy of a recipe's network on these images."""
    value, low, high = intervals.share(logits.argmax(axis=1) == y)
    return {"dataset": recipe.dataset, "model": recipe.model, "seed": recipe.seed,
            "attack": "none", "norm": "", "eps": 0.0, "defense": "none", "quality": "", "n": len(y),
            "metric": "accuracy", "value": value, "low": low, "high": high}


def accuracy_table(measured):
    """Return the tidy table of clean test accuracies of networks: dict of Recipe to (logits, y).

    Besides all the images there is a row for the first 2,000, by which a network can be proved
    without the full data. Kept as an artifact.
    """
    def check(kept):
        proofs.prove(proofs.same_rows(kept, accuracies(measured)), "accuracies", next(iter(measured)))

    return store.cached("accuracy", accuracy_key({recipe: len(y) for recipe, (_, y) in measured.items()}),
                        lambda: accuracies(measured), check=check)


def accuracy_key(counts):
    """Return the parameters by which `accuracy_table` is kept; counts: dict of Recipe to number of images."""
    return {"networks": {recipe.filename: n for recipe, n in counts.items()}, "part": PART}


def accuracies(measured):
    """Return the table of `accuracy_table`, which keeps it."""
    rows = []
    for recipe, (logits, y) in measured.items():
        for count in sorted({min(PART, len(y)), len(y)}):
            rows.append(accuracy_row(recipe, logits[:count], y[:count]))
    return pd.DataFrame(rows, columns=COLUMNS)


def measure_again(recipe, model):
    """Measure a network's accuracy on the test images at hand and compare it with its record.

    Returns (correct, n). Raises ValueError where more than 1 image in 1,000 went the other way:
    then the file does not hold the network that its record describes.
    """
    data = datasets.load(recipe.dataset)
    recorded = store.find(recipe.filename)[1]["accuracies"]["test"]
    n = recorded["n"] if recorded["n"] <= len(data.y_test) else PART
    correct = int(np.sum(predict(model, data.x_test[:n]).argmax(axis=1) == data.y_test[:n]))
    expected = recorded["correct" if n == recorded["n"] else "correct_of_first_2000"]
    if abs(correct - expected) > n / 1000:
        raise ValueError(f"{recipe.filename} has {correct} of {n} test images right, "
                         f"and its record says {expected}")
    return correct, n


def reliability(logits, y, bins=15):
    """Return a table of the bins of confidence: low and high edge, n, confidence, accuracy.

    Bins of equal width over [0, 1]; those without images are left out; accuracy with its 95 %
    interval (accuracy_low, accuracy_high). Guo et al. 2017, arXiv:1706.04599.
    """
    p = probabilities(logits)
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == y
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.digitize(confidence, edges[1:-1], right=True), 0, bins - 1)
    rows = []
    for i in np.unique(which):
        inside = which == i
        low, high = intervals.interval(correct[inside].sum(), inside.sum())
        rows.append({"low": edges[i], "high": edges[i + 1], "n": int(inside.sum()),
                     "confidence": confidence[inside].mean(), "accuracy": correct[inside].mean(),
                     "accuracy_low": low, "accuracy_high": high})
    return pd.DataFrame(rows)


def calibration_error(logits, y, bins=15):
    """Return the expected calibration error: mean |accuracy - confidence| over images, by bins.

    Guo et al. 2017, arXiv:1706.04599, equation 3. It is biased upwards for small n.
    """
    table = reliability(logits, y, bins)
    return float(np.average(np.abs(table.accuracy - table.confidence), weights=table.n))
