"""Thin library under the notebooks: data, networks, training, evaluation, artifacts and figures."""
import os

from helpers import quiet

# TensorFlow uses oneDNN by itself only where a processor has AVX-512; elsewhere its convolutions are 1.5 to 3
# times as fast too. It reads this as it is imported, so that helpers comes before tensorflow and keras.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# Its later notes and warnings in C++, on allocations and the like, are not ours to mend; errors are shown.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
quiet.silence()
