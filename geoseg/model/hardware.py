"""What this machine is good at; asked without loading anything large."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

_DRIVERS = ("/dev/nvidiactl", "/dev/dxg")
"""What a driver for NVIDIA's GPUs leaves on Linux, and on Linux within Windows."""


def threads_here() -> int:
    """The threads that are ours: those of the Dask worker on a cluster, else all cores."""
    worker = dask_worker()
    return worker.state.nthreads if worker is not None else os.cpu_count() or 1


def may_have_gpu() -> bool:
    """False where there is certainly no GPU, so that nobody needs to load torch to hear so."""
    return sys.platform != "linux" or any(Path(driver).exists() for driver in _DRIVERS)


@cache
def bf16_pays() -> bool:
    """Whether this CPU multiplies bf16 faster than fp32."""
    try:
        return _bf16_pays(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return False


def _bf16_pays(cpuinfo: str) -> bool:
    r"""The same by what Linux says of the CPU.

    Intel's vector units get as many fp32 products done as bf16 ones, and values have to be turned into bf16 first:
    measured, bf16 takes 1.5 times as long there. It pays with matrix units (AMX), and on AMD.

    >>> _bf16_pays("vendor_id : GenuineIntel\nflags : avx512f avx512_bf16")
    False
    >>> _bf16_pays("vendor_id : GenuineIntel\nflags : avx512f avx512_bf16 amx_bf16")
    True
    >>> _bf16_pays("vendor_id : AuthenticAMD\nflags : avx512f avx512_bf16")
    True
    """
    found = {name.strip(): value.split() for name, _, value in (line.partition(":") for line in cpuinfo.splitlines())}
    flags = found.get("flags", [])
    return "amx_bf16" in flags or ("avx512_bf16" in flags and "AuthenticAMD" in found.get("vendor_id", []))


def dask_worker() -> Any:
    """The Dask worker whose task this thread runs; None outside of one."""
    if "distributed" not in sys.modules:  # then this is no worker, and it takes 0.7 s to import
        return None
    from distributed import get_worker  # noqa: PLC0415

    try:
        return get_worker()
    except ValueError:
        return None
