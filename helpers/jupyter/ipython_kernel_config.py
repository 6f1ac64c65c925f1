"""Of every kernel of this environment: pyproject.toml has it installed to etc/ipython there."""
import logging
import os

# It would say this at each start; but who connects is on this machine, and has a key.
logging.getLogger("IPKernelApp").addFilter(
    lambda record: "over TCP without encryption" not in str(record.msg))
# The debugger would warn that it cannot stop inside Python's own frozen modules.
os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
