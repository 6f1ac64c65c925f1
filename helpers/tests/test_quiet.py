"""What is said as TensorFlow is loaded: nothing of its own, all errors."""
import subprocess
import sys

import pytest


def _run(code, **more):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **more)


def test_tensorflow_is_loaded_and_used_without_a_word():
    done = _run("from helpers.attacks import gradients\nimport tensorflow as "
                "tf\nprint(float(tf.reduce_sum(tf.ones(3))))")
    assert (done.returncode, done.stdout, done.stderr) == (0, "3.0\n", "")


def test_the_filter_knows_lines_by_name_and_lets_all_others_through():
    said = ["WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
            "I0000 00:00:1.2 7 port.cc:153] oneDNN custom operations are on. You may see",
            "E0000 00:00:1.2 7 cuda_platform.cc:52] failed call to cuInit: INTERNAL: UNKNOWN ERROR (303)"]
    kept = ["E0000 00:00:1.2 7 cuda_platform.cc:52] failed call to cuInit: CUDA_ERROR_OUT_OF_MEMORY",
            "F0000 cpu_feature_guard.cc] The TensorFlow library was compiled to "
            "use AVX instructions", "ñ, mine"]
    done = _run("import os, sys\nfrom helpers import quiet\nwith quiet.without_noise():\n"
                "    for line in sys.argv[1:]: os.write(2, line.encode() + b'\\n')\n"
                "os.write(2, sys.argv[1].encode())".replace("sys.argv[1:]", repr(said + kept)).replace(
                    "sys.argv[1]", repr(said[0])))
    assert done.stderr == "\n".join([*kept, said[0]])  # and after the block nothing is filtered


@pytest.mark.parametrize("end", ["os.abort()", "os._exit(3)", "raise OSError('last')"])
def test_what_is_said_last_before_a_crash_is_seen(end):
    done = _run("import os\nfrom helpers import quiet\nwith quiet.without_noise():\n    os.write(2, "
                f"b'why')\n    {end}")
    assert done.returncode and done.stderr.startswith("why") and ("last" in done.stderr) == ("last" in end)


def test_a_process_without_standard_error_goes_on():
    done = _run("import os\nos.close(2)\nfrom helpers import "
                "quiet\nwith quiet.without_noise(): print('done')")
    assert (done.returncode, done.stdout) == (0, "done\n")
