"""How TensorFlow is loaded: with oneDNN, unless the user has said otherwise."""
import os
import platform
import subprocess
import sys

import pytest


@pytest.mark.skipif(platform.system() != "Linux" or platform.machine() != "x86_64",
                    reason="oneDNN is of Linux on x86-64")
@pytest.mark.parametrize("given, loaded", [({}, "True"), ({"TF_ENABLE_ONEDNN_OPTS": "0"}, "False")])
def test_helpers_loads_tensorflow_with_onednn(given, loaded):
    environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    code = ("from helpers.networks import models\n"
            "from tensorflow.python.util import _pywrap_util_port as port\n"
            "print(port.IsMklEnabled())")
    done = subprocess.run([sys.executable, "-c", code], env=environment | given, capture_output=True,
                          text=True)
    assert done.stdout.split()[-1:] == [loaded], done.stderr
