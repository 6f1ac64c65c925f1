"""What JPEG does to a perturbation: its gain at each DCT bin, measured and predicted, and what follows.

Let X be a DCT coefficient of the image, D that of the perturbation, Q the quantiser with step q. The
best linear description of Q(X + D) by D is the gain E[Q(X + D) D] / E[D²]. For Gaussian D independent
of X this is the mean slope of Q at X + D (Stein's lemma; Bussgang 1952), a sum over the thresholds of Q,

    gain = q · sum over k of f((k + 1/2) q),  f the density of X + D,

which needs the table, the images and the variance of D, but neither a run of the codec nor a fit.
Planes: luma, and of colour images two of chroma. Coefficients in levels of 0..255.
"""
import numpy as np

from helpers.attacks import gradients
from helpers.jpeg import codec

WIDE = 3  # steps: D this wide sees no steps, and its gain is 1


def predicted_gain(x, variance, quality, subsampling="4:2:0"):
    """Return the predicted gains, a list of a plane's (8, 8), for images x (N, H, W, C).

    variance: of the perturbation's coefficients, of `variances`. The gains of the blocks are weighted
    by the energy that they get.
    """
    tables, planes = _tables(quality, x.shape[3]), _coefficients(x, subsampling)
    planes[0][..., 0, 0] -= 8 * 128  # as the codec does before it quantises
    return [(_mean_slope(values, np.sqrt(spread), table) * spread).sum(axis=(0, 1))
            / np.maximum(spread.sum(axis=(0, 1)), 1e-12)
            for values, spread, table in zip(planes, variance, tables)]


def measured_gain(x, x_adv, quality, subsampling="4:2:0"):
    """Return (gains, distortions), lists of a plane's (8, 8), of the real codec on x_adv - x.

    Of the images before and after the codec: gain, the regression of what comes out on what JPEG
    without quantisation lets out; distortion, the rest of the energy that comes out, over the energy
    that goes in.
    """
    ones = [np.ones((8, 8), np.float32)] * len(_tables(quality, x.shape[3]))
    before = _coefficients(codec.filtered(x_adv - x, ones, subsampling), subsampling)
    out = codec.compress(x_adv, quality, subsampling) - codec.compress(x, quality, subsampling)
    gains, distortions = [], []
    for d, e in zip(before, _coefficients(out, subsampling)):
        energy = np.maximum(np.square(d).sum(axis=(0, 1, 2)), 1e-12)
        gain = (d * e).sum(axis=(0, 1, 2)) / energy
        gains.append(gain)
        distortions.append(np.square(e - gain * d).sum(axis=(0, 1, 2)) / energy)
    return gains, distortions


def variances(delta, subsampling="4:2:0"):
    """Return the mean square of a perturbation's coefficients, a list of a plane's (rows, columns, 8, 8)."""
    return [np.square(values).mean(axis=0) for values in _coefficients(delta, subsampling)]


def predicted_margin(model, x, y, delta, gains, quality, subsampling="4:2:0"):
    """Return the margin behind JPEG of the images x + delta, to first order, (N,).

    F at the compressed clean image, plus its gradient there times the filtered perturbation.
    """
    return linear_margin(model, codec.compress(x, quality, subsampling), y,
                         codec.filtered(delta, gains, subsampling))


def linear_margin(model, x, y, delta):
    """Return the margin of x + delta to first order in delta, F(x) + <gradient of F, delta>, (N,)."""
    x, y = gradients.checked(model, x, y)
    margin, fine = np.empty(len(x), np.float32), np.empty(len(x), bool)
    run = gradients.function(model, "margin")
    for rows, images, labels in gradients.batches(128, x, y):
        logits, g = run(images, labels)  # g of -F
        count = rows.stop - rows.start
        fine[rows] = gradients.finite(logits, g)[:count]
        with np.errstate(invalid="ignore"):  # what is not finite is told below
            slope = -(g.numpy()[:count] * delta[rows]).sum(axis=(1, 2, 3))
            margin[rows] = gradients.margin(labels, logits)[:count] + slope
    gradients.check_finite(fine)
    return margin


def _mean_slope(values, deviation, q):
    """Return the mean slope of the quantiser of step q at X + D, (rows, columns, 8, 8).

    values: X, (N, rows, columns, 8, 8); deviation: of D, (rows, columns, 8, 8); q: (8, 8).
    """
    sigma = np.clip(deviation, 1e-6, WIDE * q)
    nearest = (np.floor(values / q) + 0.5) * q  # the threshold of the cell that X lies in
    reach = int(np.ceil(6 * (sigma / q).max())) + 1
    density = sum(np.exp(-np.square((nearest + k * q - values) / sigma) / 2).mean(axis=0)
                  for k in range(-reach, reach + 1))
    return np.where(deviation >= WIDE * q, 1, q * density / (sigma * np.sqrt(2 * np.pi)))


def _coefficients(x, subsampling):
    """Return a list of a plane's coefficients (N, rows, columns, 8, 8), float64, of whole blocks only.

    What the codec puts beyond the border is no part of the image.
    """
    down, across = codec.SUBSAMPLINGS[subsampling] if x.shape[3] == 3 else (1, 1)
    rows, columns = x.shape[1] // codec.BLOCK, x.shape[2] // codec.BLOCK
    luma, *chroma = (values.astype(np.float64) for values in codec.coefficients(x, subsampling))
    return [luma[:, :rows, :columns], *(c[:, :rows // down, :columns // across] for c in chroma)]


def _tables(quality, channels):
    luma, chroma = codec.tables(quality)
    return [luma] if channels == 1 else [luma, chroma, chroma]
