"""The engine behind plain FastAPI and pydantic, two workers: ``python -m benchmarks.peers.fastapi_server PORT``.

Written as FastAPI's documentation does it. The handlers are coroutines: a pool of threads for 20 us of work is slower.
"""

from __future__ import annotations

import sys
from functools import cache

import uvicorn
from fastapi import FastAPI

from app.strategic.engine import Engine
from benchmarks.peers.documents import Answer, MatrixRequest, answer, matrices

WORKERS = 2
app = FastAPI()


@cache
def engine() -> Engine:
    """One in each worker."""
    return Engine.load()


@app.get("/health")
async def health() -> str:
    """Answers once the model is loaded."""
    return engine().version


@app.post("/one")
async def one(request: MatrixRequest) -> Answer:
    """One matrix."""
    return answer(engine().process(matrices([request])), 0)


@app.post("/list")
async def several(requests: list[MatrixRequest]) -> list[Answer]:
    """Some matrices."""
    decisions = engine().process(matrices(requests))
    return [answer(decisions, row) for row in range(len(decisions))]


if __name__ == "__main__":
    uvicorn.run(
        "benchmarks.peers.fastapi_server:app",
        host="127.0.0.1",
        port=int(sys.argv[1]),
        workers=WORKERS,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
