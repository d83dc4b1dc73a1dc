"""An event loop whose servers share the connections of a port fairly between worker processes.

Workers that listen on one socket are all woken by a new connection, and the first to come takes it; one that has just
woken goes on taking while the others still wait. Of 64 connections two workers had 64 and 0, 57 and 7, 43 and 21, and
with the first two a processor was idle. Here a worker that has more connections than another one leaves a new one to
it for a millisecond, and takes it then if it is still there: the other may be busy.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import mmap
import os
import socket
import ssl as tls
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop

from app.service.metrics import MULTIPROCESS_VARIABLE

SHARES_FILE: Final = "connections"
"""In the directory that the workers share."""
LEAVE_SECONDS: Final = 0.001
GOODBYE_SECONDS: Final = 1.0
"""For which a client's end of a TLS connection that is closed here is waited for."""
PAUSE_SECONDS: Final = 1.0
"""For which nothing is accepted when the process has no file descriptor left."""
_SLACK: Final = 8
"""A worker may have an eighth more connections than another one: a flood of them is then taken without much waiting."""
_COUNT: Final = struct.Struct("=q")
_MANY: Final = 2**40

_log = structlog.stdlib.get_logger(__name__)


class Shares:
    """How many connections each worker has, in memory that all of them see; a slot belongs to one worker at a time."""

    @staticmethod
    def prepare(file: Path, workers: int) -> None:
        """Make the memory for a number of workers."""
        file.write_bytes(bytes(workers * _COUNT.size))

    def __init__(self, file: Path) -> None:
        """Take a slot of a file that `prepare` made.

        Raises:
            OSError: the file is missing, or all its slots are taken.
        """
        self._descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        self._memory = mmap.mmap(self._descriptor, 0)
        self._slots = len(self._memory) // _COUNT.size
        self._own = self._claim()
        self.connections = 0

    def _claim(self) -> int:
        for slot in range(self._slots):
            try:
                # Given back by the kernel when the process ends, however it ends.
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
            except BlockingIOError:
                continue
            return slot
        raise OSError(f"all {self._slots} slots of workers are taken")

    @property
    def connections(self) -> int:
        """Of this worker."""
        return self._read(self._own)

    @connections.setter
    def connections(self, count: int) -> None:
        _COUNT.pack_into(self._memory, self._own * _COUNT.size, count)

    def withdraw(self) -> None:
        """Leave all further connections to the others; none of them waits for this worker any more."""
        self.connections += _MANY

    @property
    def is_ahead(self) -> bool:
        """Whether another worker should take the next connection."""
        least = min((self._read(slot) for slot in range(self._slots) if slot != self._own), default=self.connections)
        return self.connections > least + least // _SLACK

    def _read(self, slot: int) -> int:
        count: int = _COUNT.unpack_from(self._memory, slot * _COUNT.size)[0]
        return count


class FairLoop(uvloop.Loop):
    """uvloop, with servers on a given socket that leave connections to workers that have fewer.

    A server that stops waits for the TLS goodbye of its clients, which an idle one never sends: a second here, not 30.
    """

    def __init__(self) -> None:
        """Join the workers of this port, if there are several."""
        super().__init__()
        directory = os.environ.get(MULTIPROCESS_VARIABLE)
        self.shares: Shares | None = None
        if directory is not None:
            try:
                self.shares = Shares(Path(directory) / SHARES_FILE)
            except OSError as error:
                _log.warning("connections are not shared fairly", error=str(error))

    async def create_server(self, protocol_factory: Callable[[], Any], *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - as uvloop's
        """As asyncio's; connections of ``sock`` are shared between the workers."""
        sock: socket.socket | None = named.get("sock")
        context: tls.SSLContext | None = named.get("ssl")
        if self.shares is not None and sock is not None:
            return _FairServer(self, self.shares, protocol_factory, sock, context, named.get("backlog", 100))
        if context is not None:
            named["ssl_shutdown_timeout"] = GOODBYE_SECONDS
        return await super().create_server(protocol_factory, *arguments, **named)


class _FairServer:
    """Accepts connections of one socket until it is closed; what uvicorn needs of an asyncio server."""

    def __init__(
        self,
        loop: FairLoop,
        shares: Shares,
        protocol_factory: Callable[[], Any],
        sock: socket.socket,
        context: tls.SSLContext | None,
        backlog: int,
    ) -> None:
        """Begin to accept.

        Args:
            loop: that runs the connections.
            shares: of the workers on this port.
            protocol_factory: makes a connection's protocol, which calls its ``when_lost`` once the connection is over.
            sock: bound; shared with the other workers.
            context: for TLS; None for plain connections.
            backlog: connections that the kernel keeps until a worker takes them.
        """
        self._loop = loop
        self._shares = shares
        self._protocol_factory = protocol_factory
        self._socket = sock
        self._context = context
        self._backlog = backlog
        self._resumption: asyncio.TimerHandle | None = None
        self._opening: set[asyncio.Task[None]] = set()
        self._counted: set[Any] = set()
        self._closed = False
        sock.setblocking(False)  # noqa: FBT003 - the socket module's signature
        sock.listen(backlog)
        loop.add_reader(sock.fileno(), self._accept)

    def close(self) -> None:
        """Accept no more. Connections that are open stay; one whose handshake is not over may never be, and ends."""
        if self._closed:
            return
        self._closed = True
        self._shares.withdraw()
        if self._resumption is None:
            self._loop.remove_reader(self._socket.fileno())
        else:
            self._resumption.cancel()
        for task in self._opening:
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until no connection is being opened."""
        await asyncio.gather(*self._opening, return_exceptions=True)

    def _accept(self) -> None:
        """Take what waits, as long as it is this worker's turn."""
        for _ in range(self._backlog):
            if self._shares.is_ahead:
                self._pause(LEAVE_SECONDS)
                return
            if not self._accept_one():
                return

    def _accept_one(self) -> bool:
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:
            _log.error("no connection can be accepted", error=str(error))
            self._pause(PAUSE_SECONDS)
            return False
        protocol = self._protocol_factory()
        protocol.when_lost = functools.partial(self._lose, protocol)
        self._counted.add(protocol)
        self._shares.connections += 1
        task = self._loop.create_task(self._open(connection, protocol))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return True

    async def _open(self, connection: socket.socket, protocol: Any) -> None:  # noqa: ANN401 - see `FairLoop.create_server`
        """Hand a connection to a protocol, after its TLS handshake; one that fails is the client's affair."""
        connection.setblocking(False)  # noqa: FBT003 - the socket module's signature
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened = False
        try:
            goodbye = None if self._context is None else GOODBYE_SECONDS
            await self._loop.connect_accepted_socket(
                lambda: protocol, connection, ssl=self._context, ssl_shutdown_timeout=goodbye
            )
            opened = True
        except OSError as error:
            _log.debug("connection not opened", error=str(error))
        finally:
            if not opened:
                connection.close()
                self._lose(protocol)

    def _lose(self, protocol: Any) -> None:  # noqa: ANN401 - see `FairLoop.create_server`
        if protocol in self._counted:
            self._counted.remove(protocol)
            self._shares.connections -= 1

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._resumption = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._resumption = None
        self._loop.add_reader(self._socket.fileno(), self._accept)
        self._accept_one()
