"""What the networks, alone and behind JPEG, and JPEG alone answer to waves: kept, and proved on loading."""
import numpy as np

from helpers import datasets, frequency, gradients, jpeg, jpeg_gain, robustness, spectra, store, training

AMPLITUDES = {"mnist": (0.5, 1.0, 2.0, 4.0, 8.0), "cifar10": (0.25, 0.5, 1.0, 2.0, 4.0)}  # L2
HIGH = {"mnist": 28.0, "cifar10": 16.0}  # amplitudes up to which the least is searched
QUALITIES = (10, 50, 90)


def waves(recipe, *, n, quality=0):
    """Return how the margin of a recipe's network answers to waves of luminance: a dict of arrays.

    On the first n test images, which the network need not have right. quality: of JPEG in front of it,
    the real codec; 0, none. Arrays: frequency (K, 2), the sample of each ring, ring (K,), amplitude (A,), margin (N,), without a wave; gain, complex,
    bias and distortion (N, A, K), as in frequency.Describing; wrong (N, A, K), at how many of the 8 phases
    the image is misclassified.
    """
    data, (model, _) = datasets.load(recipe.dataset), training.load_or_train(recipe)
    x, y = data.x_test[:n], data.y_test[:n]
    front = behind(model, quality)
    waves, ring = spectra.ring_sample(x.shape[1])
    amplitudes = AMPLITUDES[recipe.dataset]

    def make():
        margins = frequency.respond(front, x, y, amplitudes=amplitudes, frequencies=waves)
        found = frequency.describing_function(front, x, y, amplitudes=amplitudes, frequencies=waves,
                                              margins=margins)
        return {"frequency": waves, "ring": ring, "amplitude": np.array(amplitudes),
                "margin": _margin(front, x, y), "gain": found.gain.astype(np.complex64),
                "bias": found.bias.astype(np.float16), "distortion": found.distortion.astype(np.float16),
                "wrong": (margins <= 0).sum(axis=-1).astype(np.uint8)}

    def check(kept):
        rng = np.random.default_rng()
        i, a, k = (rng.integers(size) for size in kept["gain"].shape)
        again = frequency.describing_function(front, x[i:i + 1], y[i:i + 1], amplitudes=amplitudes[a:a + 1],
                                              frequencies=waves[k:k + 1]).gain[0, 0, 0]
        robustness.prove(np.allclose(kept["margin"], _margin(front, x, y), rtol=1e-3, atol=1e-2)
               and abs(again - kept["gain"][i, a, k]) < 1e-2 * (1 + abs(again)), "answers to waves", recipe)

    return store.cached("waves", _parameters(recipe, x) | {
        "quality": quality, "frequencies": waves.tolist(), "amplitudes": list(amplitudes),
        "phases": frequency.PHASES}, make, check=check)


def errors(recipe, *, n, amplitude):
    """Return at how many of the 8 phases each wave of this amplitude has an image misclassified.

    dict: frequency (K, 2), the whole half plane; wrong (N, K).
    """
    data, (model, _) = datasets.load(recipe.dataset), training.load_or_train(recipe)
    x, y = data.x_test[:n], data.y_test[:n]
    waves = spectra.half_plane(x.shape[1])

    def count(i, waves):
        margins = frequency.respond(model, x[i], y[i], amplitudes=[amplitude], frequencies=waves)
        return (margins <= 0).sum(axis=-1).astype(np.uint8)[:, 0]

    def check(kept):
        i, k = (np.random.default_rng().integers(size) for size in kept["wrong"].shape)
        again = count(slice(i, i + 1), waves[k:k + 1])[0, 0]
        robustness.prove(abs(int(kept["wrong"][i, k]) - int(again)) <= 1, "errors under waves", recipe)

    return store.cached("wave_errors", _parameters(recipe, x) | {"amplitude": amplitude, "phases": frequency.PHASES},
                        lambda: {"frequency": waves, "wrong": count(slice(None), waves)}, check=check)


def least(recipe, *, n):
    """Return the least amplitude of a wave that changes the class, at its worst phase.

    dict: frequency (K, 2) and ring (K,), the sample; l2 (N, K), 0 where the image is misclassified and inf
    where none up to HIGH changes it.
    """
    data, (model, _) = datasets.load(recipe.dataset), training.load_or_train(recipe)
    x, y = data.x_test[:n], data.y_test[:n]
    waves, ring = spectra.ring_sample(x.shape[1])

    def make():
        found = frequency.minimal_norm_at(model, x, y, high=HIGH[recipe.dataset], frequencies=waves)
        return {"frequency": waves, "ring": ring, "l2": found}

    def check(kept):
        i, k = (np.random.default_rng().integers(size) for size in kept["l2"].shape)
        again = frequency.minimal_norm_at(model, x[i:i + 1], y[i:i + 1], high=HIGH[recipe.dataset],
                                          frequencies=waves[k:k + 1])[0, 0]
        robustness.prove(np.isclose(again, kept["l2"][i, k], rtol=1e-2), "least amplitudes", recipe)

    return store.cached("least_amplitude", _parameters(recipe, x) | {
        "high": HIGH[recipe.dataset], "frequencies": waves.tolist(), "phases": frequency.PHASES}, make, check=check)


def codec(dataset, quality, *, n, amplitude=1.0, contrast=0.5):
    """Return what JPEG alone makes of waves of luminance, measured and predicted: a dict of arrays.

    Around the first n test images of a data set, their contrast reduced to this share (1: as they are),
    those of MNIST with a border of two pixels, so that their sides are multiples of 8. Arrays: frequency
    (K, 2), ring (K,), matrix and energy, as in jpeg_gain.harmonic_matrix; predicted, (K, 8, 8), of
    jpeg_gain's closed form for the gain of each DCT bin.
    """
    x = datasets.load(dataset).x_test[:n]
    border = -x.shape[1] % jpeg.BLOCK // 2
    x = np.pad(x, ((0, 0), (border, border), (border, border), (0, 0)))
    x = np.float32((1 - contrast) / 2) + np.float32(contrast) * x
    waves, ring = spectra.ring_sample(x.shape[1])

    def predicted(u, v):
        unit = [spectra.fourier_basis(x.shape[1], u, v, phase) for phase in (0.1, 0.1 + np.pi / 2)]
        delta = amplitude * np.stack(unit)[..., None] * spectra.checked_plane(0, x.shape[3])
        gains = jpeg_gain.predicted(x, jpeg_gain.variances(delta.astype(np.float32)), quality)[0]
        return jpeg_gain.harmonics_of(gains, [(u, v)], x.shape[1])[0]

    def make():
        found = jpeg_gain.harmonic_matrix(x, quality, amplitude=amplitude, frequencies=waves)
        return {"frequency": waves, "ring": ring, "matrix": found["matrix"].astype(np.complex64),
                "energy": found["energy"], "predicted": np.complex64([predicted(u, v) for u, v in waves])}

    def check(kept):
        k = np.random.default_rng().integers(len(waves))
        again = jpeg_gain.harmonic_matrix(x, quality, amplitude=amplitude, frequencies=waves[k:k + 1])
        if not np.allclose(again["matrix"][0], kept["matrix"][k], atol=1e-3):
            raise ValueError(f"the kept answers of JPEG at quality {quality} on {dataset} are not those that it gives: "
                             "delete the artifact to have it made again")

    return store.cached("codec_waves", {"dataset": dataset, "quality": quality, "n": len(x), "amplitude": amplitude,
                                        "contrast": contrast, "frequencies": waves.tolist()}, make, check=check)


def seeds(recipes, *, n):
    """Return the luminance gains of networks that differ in their seed: how much a training leaves to chance.

    dict: frequency (R,), of the rings; power (S, R), the mean of |G|² over the first n test images, over
    the square of the mean margin.
    """
    data = datasets.load(recipes[0].dataset)
    x, y = data.x_test[:n], data.y_test[:n]

    def power(recipe):
        response = frequency.gain(training.load_or_train(recipe)[0], x, y)
        return spectra.radial_profile(np.square(np.abs(frequency.normalised(response)[:, 0])).mean(axis=0))

    def make():
        profiles = [power(recipe) for recipe in recipes]
        return {"frequency": profiles[0][0], "power": np.stack([profile for _, profile in profiles])}

    def check(kept):  # these networks need not be there
        for recipe, profile in zip(recipes, kept["power"], strict=True):
            if store.find(recipe.filename):
                robustness.prove(np.allclose(power(recipe)[1], profile, rtol=1e-2), "gains", recipe)

    return store.cached("gain_seeds", {"networks": [recipe.filename for recipe in recipes], "split": "test",
                                       "n": len(x)}, make, check=check)


def behind(model, quality):
    """Return the model behind the real codec of this quality, or as it is for 0."""
    return model if not quality else gradients.cached(_behind, model, quality)


def _behind(model, quality):
    return lambda x: gradients.call(model, jpeg.real(x, quality))


def _margin(model, x, y):
    return gradients.margin(y, gradients.logits(model, x)).numpy()


def _parameters(recipe, x):
    return {"network": recipe.filename, "split": "test", "n": len(x)}
