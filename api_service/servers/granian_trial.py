"""Tries whether granian can use a certificate: `python -m api_service.servers.granian_trial CERTIFICATE KEY`.

Exit status 0 if a TLS connection with it was made. granian ends its process by a signal where it can't use a key, so
that it is tried in another one.
"""

import asyncio
import os
import socket
import ssl
import sys
from pathlib import Path

from granian.constants import HTTPModes, Interfaces, SSLProtocols

from api_service.servers.granian_on_socket import GranianOnSocket


async def _answer(scope: object, protocol: object) -> None:
    """Answer nothing: nobody asks."""


async def _connect(port: int) -> None:
    """Make a TLS connection to ourselves, whomever the certificate is for."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    await asyncio.open_connection("127.0.0.1", port, ssl=context)


async def _try(certificate_file: Path, key_file: Path) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    server = GranianOnSocket(
        _answer,
        listening.fileno(),
        interface=Interfaces.RSGI,
        http=HTTPModes.http1,
        websockets=False,
        ssl_cert=certificate_file,
        ssl_key=key_file,
        ssl_protocol_min=SSLProtocols.tls12,
        log_enabled=False,
    )
    serving = asyncio.create_task(server.serve())
    connecting = asyncio.create_task(_connect(listening.getsockname()[1]))
    await asyncio.wait([serving, connecting], return_when=asyncio.FIRST_COMPLETED)
    # a granian that is stopped while it begins may end its process by a signal too
    os._exit(0 if connecting.done() and not connecting.exception() else 1)


if __name__ == "__main__":
    asyncio.run(_try(Path(sys.argv[1]), Path(sys.argv[2])))
