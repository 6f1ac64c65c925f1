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
from helpers.frequency import fourier as spectra
from helpers.jpeg import codec as jpeg
from helpers.artifacts.progress import tqdm

WIDE = 3  # steps: D this wide sees no steps, and its gain is 1


def predicted(x, variance, quality, subsampling="4:2:0"):
    """Return the predicted gains, a list of a plane's (8, 8), for images x (N, H, W, C).

    variance: of the perturbation's coefficients, of `variances`. The gains of the blocks are weighted
    by the energy that they get.
    """
    tables, planes = _tables(quality, x.shape[3]), _coefficients(x, subsampling)
    planes[0][..., 0, 0] -= 8 * 128  # as the codec does before it quantises
    return [(_mean_slope(values, np.sqrt(spread), table) * spread).sum(axis=(0, 1))
            / np.maximum(spread.sum(axis=(0, 1)), 1e-12)
            for values, spread, table in zip(planes, variance, tables)]


def measured(x, x_adv, quality, subsampling="4:2:0"):
    """Return (gains, distortions), lists of a plane's (8, 8), of the real codec on x_adv - x.

    Of the images before and after the codec: gain, the regression of what comes out on what JPEG
    without quantisation lets out; distortion, the rest of the energy that comes out, over the energy
    that goes in.
    """
    ones = [np.ones((8, 8), np.float32)] * len(_tables(quality, x.shape[3]))
    before = _coefficients(jpeg.filtered(x_adv - x, ones, subsampling), subsampling)
    out = jpeg.compress(x_adv, quality, subsampling) - jpeg.compress(x, quality, subsampling)
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


def harmonic_matrix(x, quality, *, amplitude, frequencies, phases=8, plane=0, subsampling="4:2:0"):
    """Return what the real codec makes of a wave, around images x: a dict of two arrays.

    matrix, complex (K, 8, 8): of the unit wave of frequency k what comes out at k + (size/8) (i, j), the
    mean over the images. JPEG's blocks have period 8, so that a codec which were linear would answer
    there and nowhere else; [:, 0, 0] is its transfer function. energy (K,): of all that comes out, over
    amplitude². What it has beyond Σ |matrix|² differs from image to image.
    amplitude: L2 norm of the wave, clipped to [0, 1] with the image. frequencies: (K, 2), in cycles per
    image. plane: of spectra.plane_names, by number. Raises ValueError unless the images are square, of a
    multiple of 8 pixels (of 16, for the colours at 4:2:0, the period is 16: what is beyond is left out).
    """
    size = x.shape[1]
    if x.shape[2] != size or size % jpeg.BLOCK:
        raise ValueError(f"images must be square, of a multiple of {jpeg.BLOCK} pixels, got "
                         f"{x.shape[1]} by {x.shape[2]}")
    if not 0 < amplitude < np.inf:
        raise ValueError(f"amplitude must be finite and positive, got {amplitude!r}")
    gradients.check_count("phases", phases, smallest=3)  # fewer do not tell k from -k
    frequencies = spectra.checked_frequencies(frequencies, size)
    basis = spectra.checked_plane(plane, x.shape[3])
    clean = jpeg.compress(x, quality, subsampling)
    matrix = np.zeros((len(frequencies), jpeg.BLOCK, jpeg.BLOCK), complex)
    energy = np.zeros(len(frequencies))
    shifts = np.arange(jpeg.BLOCK) * size // jpeg.BLOCK
    row, column = np.mgrid[:size, :size]
    for i, (u, v) in enumerate(tqdm(frequencies, desc=f"JPEG {quality}", unit="wave", leave=False, delay=2)):
        for theta in 2 * np.pi * np.arange(phases) / phases:
            wave = np.sqrt(2) / size * np.cos(2 * np.pi * (u * row + v * column) / size + theta)
            x_adv = np.clip(x + amplitude * wave[..., None] * basis, 0, 1).astype(np.float32)
            out = spectra.transform(jpeg.compress(x_adv, quality, subsampling) - clean)
            at = out[:, plane][:, (u + shifts)[:, None] % size, (v + shifts) % size].mean(axis=0)
            matrix[i] += np.sqrt(2) / (phases * amplitude) * np.exp(-1j * theta) * at
            energy[i] += np.square(np.abs(out)).sum() / (len(x) * phases * amplitude**2)
    return {"matrix": matrix, "energy": energy}


def harmonics_of(gains, frequencies, size):
    """Return the harmonic matrix of a linear codec with these gains (8, 8) of the DCT bins: (K, 8, 8).

    Of the wave e^{iωq} the bin uv gets c_uv(ω) = Σ d_uv(q) e^{iωq}, and at ω' gives back its conjugate
    there: (1/64) Σ gain_uv c_uv(ω) c_uv(ω')*. Zadeh's harmonic transfer function of a system of period 8.
    """
    waves = np.exp(2j * np.pi * np.arange(size)[:, None] * np.arange(jpeg.BLOCK) / size)  # (size, 8 pixels)
    c = waves @ jpeg.dct_matrix().T  # (frequency, bin)
    u, v = np.transpose(frequencies) % size
    shifts = np.arange(jpeg.BLOCK) * size // jpeg.BLOCK
    rows = c[u][:, None] * c[(u[:, None] + shifts) % size].conj()      # (K, i, bin)
    columns = c[v][:, None] * c[(v[:, None] + shifts) % size].conj()
    return np.einsum("kim,mn,kjn->kij", rows, gains, columns) / jpeg.BLOCK**2


def r_squared(measurement, prediction):
    """Return the share of the measurement's variance that the prediction explains, unfitted; <= 1."""
    measurement, prediction = np.ravel(measurement), np.ravel(prediction)
    residual = np.square(measurement - prediction).sum()
    return float(1 - residual / np.square(measurement - measurement.mean()).sum())


def predicted_margin(model, x, y, delta, gains, quality, subsampling="4:2:0"):
    """Return the margin behind JPEG of the images x + delta, to first order, (N,).

    F at the compressed clean image, plus its gradient there times the filtered perturbation.
    """
    return linear_margin(model, jpeg.compress(x, quality, subsampling), y,
                         jpeg.filtered(delta, gains, subsampling))


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
    down, across = jpeg.SUBSAMPLINGS[subsampling] if x.shape[3] == 3 else (1, 1)
    rows, columns = x.shape[1] // jpeg.BLOCK, x.shape[2] // jpeg.BLOCK
    luma, *chroma = (values.astype(np.float64) for values in jpeg.coefficients(x, subsampling))
    return [luma[:, :rows, :columns], *(c[:, :rows // down, :columns // across] for c in chroma)]


def _tables(quality, channels):
    luma, chroma = jpeg.tables(quality)
    return [luma] if channels == 1 else [luma, chroma, chroma]
