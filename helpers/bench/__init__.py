"""Our attacks against those of other libraries: `make bench`.

The others live in an environment of their own (requirements.txt), and only `peers` imports them, at
need; everything else here, the finished table too, can be read without them.
"""

__all__ = ["codec", "measure", "peers", "table"]
