"""What JPEG makes of a wave: its harmonic matrix, measured and predicted from the gains of the DCT bins."""
import numpy as np

from helpers import jpeg
from helpers.artifacts.progress import tqdm
from helpers.attacks import gradients
from helpers.frequency import fourier


def harmonic_matrix(x, quality, *, amplitude, frequencies, phases=8, plane=0, subsampling="4:2:0"):
    """Return what the real codec makes of a wave, around images x: a dict of two arrays.

    matrix, complex (K, 8, 8): of the unit wave of frequency k what comes out at k + (size/8) (i, j), the
    mean over the images. JPEG's blocks have period 8, so that a codec which were linear would answer
    there and nowhere else; [:, 0, 0] is its transfer function. energy (K,): of all that comes out, over
    amplitude². What it has beyond Σ |matrix|² differs from image to image.
    amplitude: L2 norm of the wave, clipped to [0, 1] with the image. frequencies: (K, 2), in cycles per
    image. plane: of frequency.plane_names, by number. Raises ValueError unless the images are square, of a
    multiple of 8 pixels (of 16, for the colours at 4:2:0, the period is 16: what is beyond is left out).
    """
    size = x.shape[1]
    if x.shape[2] != size or size % jpeg.BLOCK:
        raise ValueError(f"images must be square, of a multiple of {jpeg.BLOCK} pixels, got "
                         f"{x.shape[1]} by {x.shape[2]}")
    if not 0 < amplitude < np.inf:
        raise ValueError(f"amplitude must be finite and positive, got {amplitude!r}")
    gradients.check_count("phases", phases, smallest=3)  # fewer do not tell k from -k
    frequencies = fourier.checked_frequencies(frequencies, size)
    basis = fourier.checked_plane(plane, x.shape[3])
    clean = jpeg.compress(x, quality, subsampling)
    matrix = np.zeros((len(frequencies), jpeg.BLOCK, jpeg.BLOCK), complex)
    energy = np.zeros(len(frequencies))
    shifts = np.arange(jpeg.BLOCK) * size // jpeg.BLOCK
    row, column = np.mgrid[:size, :size]
    for i, (u, v) in enumerate(tqdm(frequencies, desc=f"JPEG {quality}", unit="wave", leave=False, delay=2)):
        for theta in 2 * np.pi * np.arange(phases) / phases:
            wave = np.sqrt(2) / size * np.cos(2 * np.pi * (u * row + v * column) / size + theta)
            x_adv = np.clip(x + amplitude * wave[..., None] * basis, 0, 1).astype(np.float32)
            out = fourier.transform(jpeg.compress(x_adv, quality, subsampling) - clean)
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
