"""The Fourier basis of images, and where the energy of a perturbation lies.

The transform is unitary, so that energies add up to the squared L2 norm (Parseval), of each plane of the
image: luminance, and of colour images red-green and yellow-blue, which are orthonormal too (van de Sande
et al. 2010, doi:10.1109/TPAMI.2009.154); of images of any other number of channels, each channel. Frequencies
(u, v) are in cycles per image, vertical first; radial ones in cycles per pixel, up to 0.5 · √2.
"""
import numpy as np

from helpers import jpeg

OPPONENT = np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]]) / np.sqrt([[3], [2], [6]])


def plane_names(channels):
    """Return the names of the orthonormal planes of images of this many channels, in order."""
    known = {1: ("luminance",), 3: ("luminance", "red_green", "yellow_blue")}
    return known.get(channels) or tuple(f"channel_{number}" for number in range(channels))


def planes(x):
    """Return images or differences (N, H, W, C) in the orthonormal planes, float64 (N, planes, H, W)."""
    return np.einsum("nhwc,pc->nphw", x, _directions(x.shape[3]))


def transform(x):
    """Return the unitary transform of each plane of images (N, H, W, C), complex (N, planes, H, W)."""
    return np.fft.fft2(planes(x), norm="ortho")


def fourier_basis(size, u, v, phase=0.0):
    """Return the real sinusoid of u by v cycles per image, with unit L2 norm, float64 (size, size).

    u counts along the vertical axis. Raises ValueError unless |u|, |v| <= size / 2, and where the wave
    of this phase is zero. Yin et al. 2019, arXiv:1906.08988, with any phase.
    """
    if not (abs(u) <= size / 2 and abs(v) <= size / 2):
        raise ValueError(f"|u| and |v| must be at most {size / 2:g}, Nyquist's of {size} pixels, "
                         f"got {u} and {v}")
    row, column = np.mgrid[:size, :size]
    wave = np.cos(2 * np.pi * (u * row + v * column) / size + phase)
    norm = np.linalg.norm(wave)
    if norm < 1e-6:
        raise ValueError(f"the wave of frequency ({u}, {v}) and phase {phase} is zero on {size} pixels")
    return wave / norm


def radial_frequency(height, width):
    """Return the radial frequency of each bin of an image's transform, (height, width), cycles per pixel."""
    return np.hypot(np.fft.fftfreq(height)[:, np.newaxis], np.fft.fftfreq(width))


def half_plane(size):
    """Return one of each pair of frequencies k and -k, all but zero: (K, 2) integers, u >= 0."""
    bins = range(-((size - 1) // 2), size // 2 + 1)
    return np.array([(u, v) for u in bins for v in bins
                     if (u, v) != (0, 0) and _first(u, v, size)])


def ring_sample(size, per_ring=5, bins=10):
    """Return up to `per_ring` frequencies of the half plane in each ring of `radial_profile`: (K, 2), (K,).

    In each spread evenly over the directions; with them, the number of their ring.
    """
    half = half_plane(size)
    ring = ring_of(np.hypot(*half.T) / size, size, bins)
    chosen = []
    for number in np.unique(ring):
        members = np.flatnonzero(ring == number)
        members = members[np.argsort(np.arctan2(*half[members].T), kind="stable")]
        chosen.append(members[np.linspace(0, len(members) - 1,
                                          min(per_ring, len(members))).round().astype(int)])
    chosen = np.concatenate(chosen)
    return half[chosen], ring[chosen]


def ring_of(radius, size, bins=10):
    """Return the ring, of geometric width, that each radial frequency lies in; zero lies in none, -1."""
    return np.digitize(radius, np.geomspace(0.999 / size, 1.001 * np.sqrt(0.5), bins + 1)) - 1


def whole_plane(values, frequencies, size, conjugate=False):
    """Return values (..., K) at frequencies (K, 2) as a plane (..., size, size), zero in the middle.

    What is at k is put at -k too (its conjugate, if asked for); the rest is NaN.
    """
    values, (u, v) = np.asarray(values), np.transpose(frequencies)
    plane = np.full((*values.shape[:-1], size, size), np.nan, values.dtype)
    plane[..., -u % size, -v % size] = values.conj() if conjugate else values
    plane[..., u % size, v % size] = values
    return np.fft.fftshift(plane, axes=(-2, -1))


def radial_profile(values, bins=10):
    """Return (frequency, profile): the mean of values (..., H, W) in rings of geometric width.

    In np.fft's order; zero frequency apart, in no ring. frequency: mean radial frequency of each ring's
    bins, (R,), R <= bins, since rings without any are left out; profile: (..., R).
    """
    radius = radial_frequency(*values.shape[-2:]).ravel()
    which = ring_of(radius, max(values.shape[-2:]), bins)
    rings = [np.flatnonzero(which == ring) for ring in range(bins)]
    rings = [ring for ring in rings if len(ring)]
    flat = values.reshape(*values.shape[:-2], -1)
    return (np.array([radius[ring].mean() for ring in rings]),
            np.stack([flat[..., ring].mean(axis=-1) for ring in rings], axis=-1))


def decibels(gain, axis=0):
    """Return 20 log10 of the root of the mean of |gain|² over `axis` (None: of each value); -inf of 0."""
    power = np.square(np.abs(gain))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(power if axis is None else power.mean(axis=axis))


def luma(x):
    """Return the luma of images or differences of images (N, H, W, C), float64 (N, H, W)."""
    return x[..., 0].astype(np.float64) if x.shape[3] == 1 else x.astype(np.float64) @ jpeg.TO_YCC[0]


def radial(delta, bins=12):
    """Return (frequency, energy), each (bins,): the luma's mean energy an image in each ring.

    delta: (N, H, W, C). frequency: the middle of the ring; rings of equal width up to 0.5 · √2. The
    energies add up to the mean squared L2 norm of the luma.
    """
    power = np.square(np.abs(np.fft.fft2(luma(delta), norm="ortho"))).mean(axis=0)
    edges = np.linspace(0, np.sqrt(0.5), bins + 1)
    which = np.clip(np.digitize(radial_frequency(*power.shape), edges) - 1, 0, bins - 1)
    return (edges[:-1] + edges[1:]) / 2, np.bincount(which.ravel(), power.ravel(), minlength=bins)


def low_pass(delta, removed):
    """Return delta (N, H, W, C) without its highest frequencies, which hold a share of its energy.

    removed: that share, in [0, 1], of the energy of all images and channels together; the ring at the
    limit is let through in part, so that the share is met exactly.
    """
    if not 0 <= removed <= 1:
        raise ValueError(f"removed must be in [0, 1], got {removed!r}")
    transform = np.fft.fft2(delta, axes=(1, 2), norm="ortho")
    power, rings = np.square(np.abs(transform)).sum(axis=(0, 3)), radial_frequency(*delta.shape[1:3])
    levels, which = np.unique(rings.round(9), return_inverse=True)
    energy = np.bincount(which.ravel(), power.ravel())
    above = energy.sum() - np.cumsum(energy)  # of all rings beyond each
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = np.where(energy > 0, (above + energy - removed * energy.sum()) / energy, 1)
    gain = np.sqrt(np.clip(kept, 0, 1))[which.reshape(rings.shape)]
    return np.fft.ifft2(transform * gain[..., np.newaxis], axes=(1, 2), norm="ortho").real.astype(np.float32)


def checked_frequencies(frequencies, size):
    """Return frequencies as integers (K, 2); raise ValueError beyond Nyquist's, size / 2, and for zero."""
    frequencies = np.asarray(frequencies)
    if frequencies.ndim != 2 or frequencies.shape[1] != 2 or not len(frequencies):
        raise ValueError(f"frequencies must have shape (K, 2), got {frequencies.shape}")
    if not np.issubdtype(frequencies.dtype, np.integer):
        raise ValueError(f"frequencies must be integers, in cycles per image, got {frequencies.dtype}")
    beyond = (np.abs(frequencies) > size / 2).any(axis=1)
    if beyond.any():
        raise ValueError(f"frequencies must lie within Nyquist's, {size / 2:g} cycles per image of {size} "
                         f"pixels, got {frequencies[beyond][0].tolist()}")
    if not frequencies.any(axis=1).all():
        raise ValueError("frequencies must not be zero: a constant has no phase; see Gain.G for its gain")
    return frequencies


def checked_plane(plane, channels):
    """Return the direction of the plane of this number in colour space, (channels,); ValueError if none."""
    known = plane_names(channels)
    if isinstance(plane, bool) or not isinstance(plane, (int, np.integer)) or not 0 <= plane < len(known):
        raise ValueError(f"plane must be in 0..{len(known) - 1}, of {', '.join(known)}, got {plane!r}")
    return _directions(channels)[plane]


def _directions(channels):
    """Return the directions of the planes in colour space, orthonormal rows (planes, channels)."""
    return OPPONENT if channels == 3 else np.eye(channels)


def _first(u, v, size):
    """Return whether (u, v), rather than its opposite, is in the half plane; the own opposites are."""
    return v >= 0 if 2 * u % size == 0 else u > 0
