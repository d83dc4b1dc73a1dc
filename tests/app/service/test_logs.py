from __future__ import annotations

import io
import logging

import orjson
import pytest
import structlog

from app.service.logs import configure_logging


@pytest.fixture
def lines() -> io.StringIO:
    stream = io.StringIO()
    configure_logging("INFO", "tactical", stream)
    return stream


def test_every_line_is_one_json_object_with_the_request_id(lines: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        structlog.get_logger("mine").info("trained", seconds=0.5)
        logging.getLogger("library").warning("odd: %s", "thing")
    first, second = (orjson.loads(line) for line in lines.getvalue().splitlines())
    assert first["event"] == "trained"
    assert first["request_id"] == second["request_id"] == "r-1"
    assert second["event"] == "odd: thing"
    assert second["service"] == "tactical"


def test_secrets_are_not_written_nor_the_local_variables_of_a_traceback(lines: io.StringIO) -> None:
    logger = structlog.get_logger("mine")
    logger.info("connected", redis_password="hunter2", jwt_secret="hunter2")

    def fail(token: str) -> None:
        raise RuntimeError(f"failed with a token of {len(token)} characters")

    try:
        fail("hunter" + "2")
    except RuntimeError:
        logger.exception("broken")
    assert "hunter2" not in lines.getvalue()
    assert "RuntimeError" in lines.getvalue()
