"""What the networks, alone and behind JPEG, and JPEG alone answer to waves: kept, and proved on loading."""
import numpy as np

from helpers import datasets, frequency, jpeg, networks
from helpers.artifacts import proofs, store
from helpers.attacks import gradients
from helpers.study import units

QUALITIES = (10, 50, 90)
SEARCH = {"steps": 16, "halvings": 6}  # of the least amplitude
LOOSE = {"rtol": 1e-2, "atol": 1e-2}  # what a rounding may change, of a margin's response
SHARE = 0.95  # of the numbers that must be that near: an image at a boundary moves others


def waves(recipe, *, n, quality=0):
    """Return how the margin of a recipe's network answers to waves of luminance: a dict of arrays.

    On the first n test images, which the network need not have right. quality: of JPEG in front of it,
    the real codec; 0, none. Arrays: frequency (K, 2), the sample of each ring, ring (K,), amplitude (A,),
    margin (N,), without a wave; gain, complex, bias and distortion (N, A, K), as in frequency.Describing;
    wrong (N, A, K), at how many of the 8 phases the image is misclassified.
    """
    data, (model, _) = datasets.load(recipe.dataset), networks.load_or_train(recipe)
    x, y = data.x_test[:n], data.y_test[:n]
    parameters = _of_waves(recipe, len(x), quality)

    def make():
        frequencies, ring = frequency.ring_sample(x.shape[1])
        front = behind(model, quality)
        return {"frequency": frequencies, "ring": ring, "amplitude": np.array(parameters["amplitudes"]),
                "margin": _margin(front, x, y),
                **_responses(front, x, y, parameters["amplitudes"], frequencies)}
    return _cached("waves", recipe, parameters, make, recompute_waves, 3)


def recompute_waves(parameters, kept, rng):
    """Yield units of what `waves` keeps: some images at one amplitude, and some of the waves."""
    recipe, model, x, y = units.case(parameters)
    units.as_made(parameters, _of_waves(recipe, len(x), parameters["quality"]))
    frequencies, ring = frequency.ring_sample(x.shape[1])
    amplitudes, front = parameters["amplitudes"], behind(model, parameters["quality"])
    yield units.same("waves", kept, {"frequency": frequencies, "ring": ring, "amplitude": amplitudes})
    yield units.close("margins without a wave", kept, {"margin": _margin(front, x, y)}, rtol=1e-3, atol=1e-2)
    while True:
        rows, ks = proofs.sample(rng, len(x), 4), proofs.sample(rng, len(ring), 8)
        a = rng.integers(len(amplitudes))
        now = _responses(front, x[rows], y[rows], [amplitudes[a]], frequencies[ks])
        kept_now = {name: kept[name][np.ix_(rows, [a], ks)] for name in now}
        what = f"images {rows.tolist()}, amplitude {amplitudes[a]:g}, waves {ks.tolist()}"
        yield units.close(what, *(_comparable(part) for part in (kept_now, now)), **LOOSE, share=SHARE)


def _of_waves(recipe, n, quality):
    data_set = datasets.record(recipe.dataset)
    return _parameters(recipe, n) | {
        "quality": quality, "frequencies": frequency.ring_sample(data_set.shape[0])[0].tolist(),
        "amplitudes": list(data_set.amplitudes), "phases": frequency.PHASES}


def _responses(front, x, y, amplitudes, frequencies):
    """Return the gain, bias, distortion and wrong of `waves`."""
    margins = frequency.respond(front, x, y, amplitudes=amplitudes, frequencies=frequencies)
    found = frequency.describing_function(front, x, y, amplitudes=amplitudes, frequencies=frequencies,
                                          margins=margins)
    return {"gain": found.gain.astype(np.complex64), "bias": found.bias.astype(np.float16),
            "distortion": found.distortion.astype(np.float16),
            "wrong": (margins <= 0).sum(axis=-1).astype(np.uint8)}


def _comparable(response):
    """Return the responses as they may be compared: what is left over of the fundamental, not its share.

    Where the fundamental all but vanishes, the distortion is a ratio of roundings.
    """
    rest = np.abs(response["gain"]) * response["distortion"].astype(np.float32)
    return {"gain": response["gain"], "bias": response["bias"].astype(np.float32), "rest": rest,
            "wrong": response["wrong"]}


def errors(recipe, *, n, amplitude):
    """Return at how many of the 8 phases each wave of this amplitude has an image misclassified.

    dict: frequency (K, 2), the whole half plane; wrong (N, K).
    """
    data, (model, _) = datasets.load(recipe.dataset), networks.load_or_train(recipe)
    x, y = data.x_test[:n], data.y_test[:n]
    frequencies = frequency.half_plane(x.shape[1])
    return _cached("wave_errors", recipe, _of_errors(recipe, len(x), amplitude), lambda: {
        "frequency": frequencies, "wrong": _wrong(model, x, y, amplitude, frequencies)},
        recompute_wave_errors, 2)


def recompute_wave_errors(parameters, kept, rng):
    """Yield units of what `errors` keeps: some images under some of the waves."""
    recipe, model, x, y = units.case(parameters)
    units.as_made(parameters, _of_errors(recipe, len(x), parameters["amplitude"]))
    frequencies = frequency.half_plane(x.shape[1])
    yield units.same("waves", kept, {"frequency": frequencies})
    while True:
        rows, ks = proofs.sample(rng, len(x), 8), proofs.sample(rng, len(frequencies), 8)
        now = _wrong(model, x[rows], y[rows], parameters["amplitude"], frequencies[ks])
        yield units.close(f"images {rows.tolist()}, waves {ks.tolist()}",
                          {"wrong": kept["wrong"][np.ix_(rows, ks)]}, {"wrong": now}, rtol=0, atol=0,
                          share=SHARE)


def _of_errors(recipe, n, amplitude):
    return _parameters(recipe, n) | {"amplitude": amplitude, "phases": frequency.PHASES}


def _wrong(model, x, y, amplitude, frequencies):
    margins = frequency.respond(model, x, y, amplitudes=[amplitude], frequencies=frequencies)
    return (margins <= 0).sum(axis=-1).astype(np.uint8)[:, 0]


def least_amplitudes(recipe, *, n):
    """Return the least amplitude of a wave that changes the class, at its worst phase.

    dict: frequency (K, 2) and ring (K,), the sample; l2 (N, K), 0 where the image is misclassified and inf
    where none up to the data set's largest_amplitude changes it.
    """
    data, (model, _) = datasets.load(recipe.dataset), networks.load_or_train(recipe)
    x, y = data.x_test[:n], data.y_test[:n]
    frequencies, ring = frequency.ring_sample(x.shape[1])
    search = {"high": data.record.largest_amplitude, "frequencies": frequencies, **SEARCH}
    return _cached("least_amplitude", recipe, _of_least(recipe, len(x)), lambda: {
        "frequency": frequencies, "ring": ring, "l2": frequency.minimal_norm_at(model, x, y, **search)},
        recompute_least_amplitude, 3)


def recompute_least_amplitude(parameters, kept, rng):
    """Yield units of what `least_amplitudes` keeps: some images under some of the waves, searched again."""
    recipe, model, x, y = units.case(parameters)
    units.as_made(parameters, _of_least(recipe, len(x)))
    frequencies, ring = frequency.ring_sample(x.shape[1])
    yield units.same("waves", kept, {"frequency": frequencies, "ring": ring})
    right = gradients.logits(model, x).argmax(axis=1) == y
    yield units.holds("amplitudes", "0 stands where the network errs, and only there",
                      np.mean((kept["l2"] == 0) == ~right[:, None]) > 0.99 and not (kept["l2"] < 0).any())
    while True:
        rows, ks = proofs.sample(rng, len(x), 4), proofs.sample(rng, len(ring), 4)
        now = frequency.minimal_norm_at(model, x[rows], y[rows], high=parameters["high"],
                                        frequencies=frequencies[ks], **SEARCH)
        yield units.close(f"images {rows.tolist()}, waves {ks.tolist()}",
                          {"l2": kept["l2"][np.ix_(rows, ks)]}, {"l2": now}, rtol=1e-2, atol=0,
                          share=SHARE - 1 / 16)


def _of_least(recipe, n):
    data_set = datasets.record(recipe.dataset)
    return _parameters(recipe, n) | {"high": data_set.largest_amplitude, "phases": frequency.PHASES, **SEARCH,
                                     "frequencies": frequency.ring_sample(data_set.shape[0])[0].tolist()}


def codec_waves(dataset, quality, *, n, amplitude=1.0, contrast=0.5):
    """Return what JPEG alone makes of waves of luminance, measured and predicted: a dict of arrays.

    Around the first n test images of a data set, their contrast reduced to this share (1: as they are),
    with a border so that their sides are multiples of 8 (those of MNIST, of two pixels). Arrays: frequency
    (K, 2), ring (K,), matrix and energy, as in frequency.harmonic_matrix; predicted, (K, 8, 8), of
    jpeg.predicted_gain's closed form for the gain of each DCT bin.
    """
    x = _bordered(dataset, n, contrast)
    frequencies, ring = frequency.ring_sample(x.shape[1])
    parameters = {"dataset": dataset, "quality": quality, "n": len(x), "amplitude": amplitude,
                  "contrast": contrast, "frequencies": frequencies.tolist()}

    def make():
        found = frequency.harmonic_matrix(x, quality, amplitude=amplitude, frequencies=frequencies)
        return {"frequency": frequencies, "ring": ring, "matrix": found["matrix"].astype(np.complex64),
                "energy": found["energy"], "predicted": _predicted(x, quality, amplitude, frequencies)}

    return store.cached("codec_waves", parameters, make, check=lambda kept: units.prove_units(
        recompute_codec_waves(parameters, kept, np.random.default_rng()), 2, "answers of JPEG alone",
        dataset))


def recompute_codec_waves(parameters, kept, rng):
    """Yield units of what `codec_waves` keeps: one wave, measured and predicted, after the other."""
    dataset, quality, amplitude = (parameters[name] for name in ("dataset", "quality", "amplitude"))
    if parameters["n"] > len(datasets.load(dataset).y_test):
        raise store.NotHere(f"there are not so many test images of {dataset} here")
    x = _bordered(dataset, parameters["n"], parameters["contrast"])
    frequencies, ring = frequency.ring_sample(x.shape[1])
    yield units.same("waves", kept, {"frequency": frequencies, "ring": ring})
    for k in rng.permutation(len(ring)):
        now = frequency.harmonic_matrix(x, quality, amplitude=amplitude, frequencies=frequencies[k:k + 1])
        now["predicted"] = _predicted(x, quality, amplitude, frequencies[k:k + 1])
        yield units.close(f"wave {k}", {name: kept[name][k:k + 1] for name in now}, now, rtol=1e-3, atol=1e-3)


def _bordered(dataset, n, contrast):
    """Return the images around which `codec_waves` measures."""
    x = datasets.load(dataset).x_test[:n]
    border = -x.shape[1] % jpeg.BLOCK // 2
    x = np.pad(x, ((0, 0), (border, border), (border, border), (0, 0)))
    return np.float32((1 - contrast) / 2) + np.float32(contrast) * x


def _predicted(x, quality, amplitude, frequencies):
    """Return the predicted harmonic matrix of each of these waves, complex64 (K, 8, 8)."""
    def one(u, v):
        unit = [frequency.fourier_basis(x.shape[1], u, v, phase) for phase in (0.1, 0.1 + np.pi / 2)]
        delta = amplitude * np.stack(unit)[..., None] * frequency.checked_plane(0, x.shape[3])
        gains = jpeg.predicted_gain(x, jpeg.variances(delta.astype(np.float32)), quality)[0]
        return frequency.harmonics_of(gains, [(u, v)], x.shape[1])[0]
    return np.complex64([one(u, v) for u, v in frequencies])


def seeds(recipes, *, n):
    """Return the luminance gains of networks that differ in their seed: how much a training leaves to chance.

    dict: frequency (R,), of the rings; power (S, R), the mean of |G|² over the first n test images, over
    the square of the mean margin. On loading, the networks that are there prove theirs.
    """
    data = datasets.load(recipes[0].dataset)
    x, y = data.x_test[:n], data.y_test[:n]
    parameters = {"networks": [recipe.filename for recipe in recipes], "split": "test", "n": len(x)}

    def make():
        profiles = [_power(networks.load_or_train(recipe)[0], x, y) for recipe in recipes]
        return {"frequency": profiles[0][0], "power": np.stack([profile for _, profile in profiles])}

    def check(kept):
        there = [recipe.filename for recipe in recipes if store.find(recipe.filename)]
        units.prove_units(recompute_gain_seeds(parameters, kept, np.random.default_rng()), 1 + len(there),
                          "gains", ", ".join(parameters["networks"]))

    return store.cached("gain_seeds", parameters, make, check=check)


def recompute_gain_seeds(parameters, kept, rng):
    """Yield units of what `seeds` keeps: its form, then the gains of the networks that are there.

    Those that are not would have to be trained again: minutes each.
    """
    power = kept["power"]
    yield units.holds("profiles", "positive, one a network", power.shape == (
        len(parameters["networks"]), len(kept["frequency"]))
        and (power > 0).all() and np.isfinite(power).all())
    for filename, profile in zip(parameters["networks"], power, strict=True):
        if store.find(filename):
            recipe, model, x, y = units.case(parameters | {"network": filename})
            now = dict(zip(("frequency", "power"), _power(model, x, y)))
            yield units.close(filename, {"frequency": kept["frequency"], "power": profile}, now,
                              rtol=1e-2, atol=0)
    for filename in parameters["networks"]:
        if not store.find(filename):
            yield filename, "", "its network does not ship, and training one takes minutes", None


def _power(model, x, y):
    """Return (frequency, power), (R,) each: the radial profile of a network's luminance gain."""
    response = frequency.gain(model, x, y)
    return frequency.radial_profile(np.square(np.abs(frequency.normalised(response)[:, 0])).mean(axis=0))


def behind(model, quality):
    """Return the model behind the real codec of this quality, or as it is for 0."""
    return model if not quality else gradients.made_once(_behind, model, quality)


def _behind(model, quality):
    return lambda x: gradients.call(model, jpeg.real(x, quality))


def _margin(model, x, y):
    return gradients.margin(y, gradients.logits(model, x)).numpy()


def _parameters(recipe, n):
    return {"network": recipe.filename, "split": "test", "n": n}


def _cached(name, recipe, parameters, make, recompute, proved):
    """Return the artifact of these parameters, the first `proved` units of which are proved on loading."""
    return store.cached(
        name, parameters, make, sized=("n", _cut),
        check=lambda kept: units.prove_units(recompute(parameters, kept, np.random.default_rng()), proved,
                                             "answers to waves", recipe.filename))


def _cut(kept, n):
    """Return what is kept of the first n images."""
    return {name: value if name in ("frequency", "ring", "amplitude") else value[:n]
            for name, value in kept.items()}
