"""A TCP proxy on loopback whose line can be cut or fall silent."""

from __future__ import annotations

import asyncio
import contextlib
import threading


class FaultProxy:
    """Forwards connections to a port of this machine."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._silent = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._refusing = False
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self.port = 0

        async def listen() -> None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.port = self._server.sockets[0].getsockname()[1]
            started.set()

        def run() -> None:
            self._loop.run_until_complete(listen())
            self._loop.run_forever()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        started.wait()

    def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        self._refusing = True
        self._loop.call_soon_threadsafe(self._drop)

    def silence(self) -> None:
        """Keep connections open and forward nothing, as a firewall that forgot them."""
        self._loop.call_soon_threadsafe(self._silent.set)

    def restore(self) -> None:
        """Forward again; what fell silent is dropped."""
        self._refusing = False
        if self._silent.is_set():
            self._loop.call_soon_threadsafe(self._drop)
        self._loop.call_soon_threadsafe(self._silent.clear)

    def close(self) -> None:
        """Stop."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _end(self) -> None:
        self._server.close()
        self._drop()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _drop(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, far_writer}
        self._writers |= pair
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        self._writers -= pair

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if self._silent.is_set():
                    continue
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
