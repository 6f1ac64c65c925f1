"""Maps of what a network looks at, and measures between them."""
from helpers.saliency.maps import (
    CONVOLUTIONS, MOVING, convolutional, count_layers, default_layer, grad_cam, input_gradient,
    integrated_gradients, magnitude, randomised, smooth_grad)
from helpers.saliency.measures import (
    alignment, centroid_shift, edges, energy_share, jensen_shannon, overlap, spearman, ssim, top)

__all__ = [
    "CONVOLUTIONS", "MOVING", "alignment", "centroid_shift", "convolutional", "count_layers",
    "default_layer", "edges", "energy_share", "grad_cam", "input_gradient", "integrated_gradients",
    "jensen_shannon", "magnitude", "overlap", "randomised", "smooth_grad", "spearman", "ssim", "top"]
