"""uvicorn's HTTP protocol with a short way for ordinary requests to hot routes (`hot_lane`).

uvicorn starts a task for a request when its headers are complete. Here a request that may be ordinary is held until
the end of the bytes that the socket gave: if it is whole by then and the lane takes it, no task is made (measured:
a third of the CPU time of a request on a hot route); else it goes on in uvicorn's way, as if it had never been held.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.service.hot_lane import HotLane
from app.service.hot_route import HotRoute
from app.service.journal import ANONYMOUS
from app.service.problems import Answer

_NOBODY_WAITS: Final = asyncio.Event()


class LaneProtocol(HttpToolsProtocol):
    """A connection. Takes the lane from its application, if that has one (`application.Application`)."""

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - whatever uvicorn passes
        """As uvicorn calls its protocols."""
        super().__init__(*arguments, **named)
        self._lane: HotLane | None = getattr(self.app, "hot_lane", None)
        self._route: HotRoute | None = None
        """Of the request that is held."""
        self._held: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        """Take bytes from the socket."""
        super().data_received(data)
        if self._route is not None:  # more of its body is to come
            self._let_go()

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

    def on_message_complete(self) -> None:
        """Begin the request on the lane, or let it go uvicorn's way."""
        route, lane = self._route, self._lane
        if route is not None and lane is not None:
            before = self.cycle
            cycle = _LaneCycle(self)
            self.cycle = cycle  # type: ignore[assignment]  # it has what uvicorn's protocol asks of a cycle
            if lane.begin(route, dict(self.headers), b"".join(self._held), cycle):
                self._route, self._held = None, []
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
        held, self._route, self._held = self._held, None, []
        if self.transport.is_closing():
            return
        super().on_headers_complete()
        for piece in held:
            super().on_body(piece)

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
