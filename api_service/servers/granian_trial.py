"""Tries whether granian can use a certificate: `python -m api_service.servers.granian_trial CERTIFICATE KEY`.

granian ends its process by a signal where it can't, so that it is tried in another one.
"""

import asyncio
import sys
from pathlib import Path

from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.server.embed import Server

_LONG_ENOUGH_SECONDS = 0.3


async def _answer(scope: object, protocol: object) -> None:
    """Answer nothing: nobody knows the port."""


async def _try(certificate_file: Path, key_file: Path) -> None:
    server = Server(
        _answer,
        address="127.0.0.1",
        port=0,
        interface=Interfaces.RSGI,
        http=HTTPModes.http1,
        websockets=False,
        ssl_cert=certificate_file,
        ssl_key=key_file,
        ssl_protocol_min=SSLProtocols.tls12,
        log_enabled=False,
    )
    serving = asyncio.create_task(server.serve())
    await asyncio.wait([serving], timeout=_LONG_ENOUGH_SECONDS)
    server.stop()
    await serving


if __name__ == "__main__":
    asyncio.run(_try(Path(sys.argv[1]), Path(sys.argv[2])))
