"""Where a perturbation's energy lies: two-dimensional Fourier spectra by radial frequency.

The transform is orthonormal, so that energies add up to the squared L2 norm (Parseval). Frequencies in
cycles per pixel: along an axis up to 0.5, radial up to 0.5 · √2.
"""
import numpy as np

from helpers import jpeg


def luma(x):
    """Return the luma of images or differences of images (N, H, W, C), float64 (N, H, W)."""
    return x[..., 0].astype(np.float64) if x.shape[3] == 1 else x.astype(np.float64) @ jpeg.TO_YCC[0]


def radii(height, width):
    """Return the radial frequency of each bin of an image's transform, (height, width)."""
    return np.hypot(np.fft.fftfreq(height)[:, np.newaxis], np.fft.fftfreq(width))


def radial(delta, bins=12):
    """Return (frequency, energy), each (bins,): the luma's mean energy an image in each ring.

    delta: (N, H, W, C). frequency: the middle of the ring; rings of equal width up to 0.5 · √2. The
    energies add up to the mean squared L2 norm of the luma.
    """
    power = np.square(np.abs(np.fft.fft2(luma(delta), norm="ortho"))).mean(axis=0)
    edges = np.linspace(0, np.sqrt(0.5), bins + 1)
    which = np.clip(np.digitize(radii(*power.shape), edges) - 1, 0, bins - 1)
    return (edges[:-1] + edges[1:]) / 2, np.bincount(which.ravel(), power.ravel(), minlength=bins)


def low_pass(delta, removed):
    """Return delta (N, H, W, C) without its highest frequencies, which hold a share of its energy.

    removed: that share, in [0, 1], of the energy of all images and channels together; the ring at the
    limit is let through in part, so that the share is met exactly.
    """
    if not 0 <= removed <= 1:
        raise ValueError(f"removed must be in [0, 1], got {removed!r}")
    transform = np.fft.fft2(delta, axes=(1, 2), norm="ortho")
    power, rings = np.square(np.abs(transform)).sum(axis=(0, 3)), radii(*delta.shape[1:3])
    levels, which = np.unique(rings.round(9), return_inverse=True)
    energy = np.bincount(which.ravel(), power.ravel())
    above = energy.sum() - np.cumsum(energy)  # of all rings beyond each
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = np.where(energy > 0, (above + energy - removed * energy.sum()) / energy, 1)
    gain = np.sqrt(np.clip(kept, 0, 1))[which.reshape(rings.shape)]
    return np.fft.ifft2(transform * gain[..., np.newaxis], axes=(1, 2), norm="ortho").real.astype(np.float32)
