"""uvicorn's HTTP protocol with a short way for ordinary requests to hot routes (`hot_lane`).

uvicorn starts a task for a request when its headers are complete. Here a request that may be ordinary is held until
it is whole; if the lane takes it then, no task is made, which was a third of the CPU time of a request on a hot route.
One that is not whole within a moment, that is too large, or that the lane does not take goes on in uvicorn's way, as if
it had never been held: its time and its memory are bounded there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.service.hot_lane import HotLane
from app.service.hot_route import HotRoute
from app.service.journal import ANONYMOUS
from app.service.problems import Answer

HELD_SECONDS: Final = 0.25
"""How long the rest of a body may take to come while its request is held."""
HELD_BYTES: Final = 1024 * 1024
"""The longest part of a body that is held."""
HELD_BYTES_TOGETHER: Final = 64 * 1024 * 1024
"""Of all connections of a process."""
_NOBODY_WAITS: Final = asyncio.Event()


class _Held:
    """Bytes held now, over all connections."""

    together: int = 0


class LaneProtocol(HttpToolsProtocol):
    """A connection. Takes the lane from its application, if that has one (`application.Application`)."""

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - whatever uvicorn passes
        """As uvicorn calls its protocols."""
        super().__init__(*arguments, **named)
        self._lane: HotLane | None = getattr(self.app, "hot_lane", None)
        self._route: HotRoute | None = None
        """Of the request that is held."""
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._patience: asyncio.TimerHandle | None = None
        self.when_lost: Callable[[], None] | None = None
        """Called once the connection is over."""

    def data_received(self, data: bytes) -> None:
        """Take bytes from the socket."""
        super().data_received(data)
        if self._route is None:
            return
        if self._held_bytes > HELD_BYTES or _Held.together > HELD_BYTES_TOGETHER:
            self._let_go()
        elif self._patience is None:  # more of its body is to come
            self._patience = self.loop.call_later(HELD_SECONDS, self._let_go)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what is held."""
        self._release()
        super().connection_lost(exc)
        if self.when_lost is not None:
            self.when_lost()

    def on_headers_complete(self) -> None:
        """Hold the request if it may be ordinary, else start its task."""
        if self._lane is not None and self._may_be_ordinary():
            self._route = self._lane.route(self.parser.get_method(), self.url)
        if self._route is None:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self._route is None:
            super().on_body(body)
        else:
            self._held.append(body)
            self._held_bytes += len(body)
            _Held.together += len(body)

    def on_message_complete(self) -> None:
        """Begin the request on the lane, or let it go uvicorn's way."""
        route, lane = self._route, self._lane
        if route is not None and lane is not None:
            before = self.cycle
            cycle = _LaneCycle(self)
            self.cycle = cycle  # type: ignore[assignment]  # it has what uvicorn's protocol asks of a cycle
            if lane.begin(route, dict(self.headers), b"".join(self._held), cycle):
                self._release()
                return
            self.cycle = before
            self._let_go()
        super().on_message_complete()

    def _may_be_ordinary(self) -> bool:
        return (
            (self.cycle is None or self.cycle.response_complete)
            and not self.expect_100_continue
            and not self.flow.write_paused
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
        )

    def _let_go(self) -> None:
        """Start uvicorn's task for the request that is held, with what has come of its body."""
        held = self._release()
        if self.transport.is_closing():
            return
        super().on_headers_complete()
        for piece in held:
            super().on_body(piece)

    def _release(self) -> list[bytes]:
        """Hold nothing any more; what was held."""
        held, self._route, self._held = self._held, None, []
        _Held.together -= self._held_bytes
        self._held_bytes = 0
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        return held

    def default_head(self) -> bytes:
        """The headers that uvicorn adds to every answer; it makes the list anew once a second."""
        given = self.server_state.default_headers
        if _DEFAULT_HEAD.given is not given:
            _DEFAULT_HEAD.given = given
            _DEFAULT_HEAD.text = b"".join(b"%b: %b\r\n" % header for header in given)
        return _DEFAULT_HEAD.text


class _DefaultHead:
    """Default headers as last rendered, one text for all connections."""

    given: list[tuple[bytes, bytes]] | None = None
    text: bytes = b""


_DEFAULT_HEAD: Final = _DefaultHead()


class _LaneCycle:
    """A request on the lane: what uvicorn's protocol sees as its current cycle, and the lane as the wire."""

    __slots__ = ("_protocol", "disconnected", "keep_alive", "response_complete")
    message_event = _NOBODY_WAITS

    def __init__(self, protocol: LaneProtocol) -> None:
        self._protocol = protocol
        self.disconnected = False
        self.keep_alive = True
        self.response_complete = False

    @property
    def client(self) -> str:
        client = self._protocol.client
        return client[0] if client else ANONYMOUS

    def send(self, answer: Answer, request_id: str) -> None:
        if self.disconnected:
            return
        protocol = self._protocol
        more = b"".join(b"%b: %b\r\n" % header for header in answer.headers)
        if not self.keep_alive:  # uvicorn is shutting down
            more += b"connection: close\r\n"
        protocol.transport.write(
            b"%b%bcontent-type: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b\r\n%b"
            % (
                STATUS_LINE[answer.status],
                protocol.default_head(),
                answer.content_type,
                len(answer.body),
                request_id.encode(),
                more,
                answer.body,
            )
        )
        self.response_complete = True
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()
