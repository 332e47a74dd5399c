"""Finding a Dask scheduler at an address, within some seconds, whatever else may listen there."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from geoseg.errors import EnvironmentFault

_ANSWER_S = 8
_CONNECT_S = 10


def connect(address: str) -> Any:
    """A client of the scheduler at an address; raises EnvironmentFault where there is none.

    It is asked who it is before a client is made: a client waits without end for an answer from what is no scheduler.
    """
    from distributed import Client  # noqa: PLC0415  # 0.7 s

    advice = "start one with `dask scheduler`, or use --workers N"
    try:
        with ThreadPoolExecutor(1) as apart:  # a notebook's thread has an event loop of its own
            kind = apart.submit(lambda: asyncio.run(_who_answers(address))).result()
    except Exception as error:  # what may listen there is without limit, and so is what Dask makes of its answer
        raise EnvironmentFault(f"no Dask scheduler answers at {address} ({type(error).__name__}); {advice}") from error
    if kind != "Scheduler":
        raise EnvironmentFault(f"what answers at {address} is a Dask {kind}, not a scheduler; {advice}")
    try:
        return Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise EnvironmentFault(
            f"the Dask scheduler at {address} cannot be used ({type(error).__name__}: {error}); {advice}"
        ) from error


async def _who_answers(address: str) -> str:
    from distributed.comm.core import connect as reach  # noqa: PLC0415
    from distributed.security import Security  # noqa: PLC0415

    async with asyncio.timeout(_ANSWER_S):
        comm = await reach(address, timeout=_ANSWER_S, **Security().get_connection_args("client"))
        try:
            await comm.write({"op": "identity", "reply": True})
            return str((await comm.read())["type"])
        finally:
            comm.abort()
