"""Listens for HTTP with bounds, so that no client can hold more than its share of the operator.

Slow, silent and numerous clients are cut off: a handshake, the head of a request and a pause
between two requests have a time, connections have a number. A body is bounded by its application.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from aiohttp import web

MAX_CONNECTIONS = 1024
HANDSHAKE_SECONDS = 10.0
IDLE_SECONDS = 30
"""A connection without a whole request for so long is closed; trainers open another."""
SHUTDOWN_SECONDS = 3.0


class Server:
    """One listening port. `port` is the real one where 0 was asked for."""

    def __init__(self, runner: web.AppRunner, listener: asyncio.Server) -> None:
        self._runner = runner
        self._listener = listener
        self.port: int = listener.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stops listening, lets requests in progress end for 3 s, and closes all connections."""
        self._listener.close()
        await self._runner.cleanup()


async def listen(
    app: web.Application,
    port: int,
    *,
    host: str | None = None,
    tls: ssl.SSLContext | None = None,
    max_connections: int = MAX_CONNECTIONS,
    idle_seconds: float = IDLE_SECONDS,
) -> Server:
    """Serves `app` on `port` until the returned server is closed.

    Args:
        app: The application.
        port: TCP port; 0 takes a free one.
        host: Address to listen on. Default: all, IPv4 and IPv6.
        tls: Context for TLS. Default: plain HTTP.
        max_connections: Connections open at once; those above are closed as they come.
        idle_seconds: How long a connection may be without a whole request.

    Raises:
        OSError: The port is taken, or may not be used.
    """
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,  # No client of ours compresses; others may send a bomb.
        handle_signals=False,
        keepalive_timeout=idle_seconds,
        lingering_time=1.0,
        shutdown_timeout=SHUTDOWN_SECONDS,
    )
    await runner.setup()
    if runner.server is None:
        raise RuntimeError("aiohttp made no server")
    listener = await asyncio.get_running_loop().create_server(
        _bounded(runner.server, max_connections),
        host,
        port,
        ssl=tls,
        ssl_handshake_timeout=HANDSHAKE_SECONDS if tls else None,
    )
    return Server(runner, listener)


def _bounded(server: web.Server, most: int) -> Callable[[], asyncio.Protocol]:
    """Returns the factory of connections, which turns away those above `most`."""

    def connection() -> asyncio.Protocol:
        if len(server.connections) >= most:
            return _Closed()
        return server()

    return connection


class _Closed(asyncio.Protocol):
    """A connection that is closed as soon as it is made."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
