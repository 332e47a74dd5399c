"""How a worker process holds on to memory that it has freed."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_LARGEST = 32 << 20
"""What glibc itself comes to, in a process whose arrays are large, if nobody sets it."""


@cache
def keep_freed_memory() -> None:
    """Let this process use freed memory again, as any process of glibc does unless it is told not to.

    Dask starts its workers with a trim threshold of 64 kB, which also ends the adjustment of the mmap threshold: every
    array above 128 kB is then taken from the system, filled with zeros, and given back. Networks in torch took twice
    as long, and comparing two dates three times. What stays after a task is returned by the task itself.
    """
    if sys.platform != "linux":
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:  # other libraries of C have none
        set_option(_M_MMAP_THRESHOLD, _LARGEST)
        set_option(_M_TRIM_THRESHOLD, 2 * _LARGEST)
