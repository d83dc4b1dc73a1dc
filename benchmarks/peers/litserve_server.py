"""The engine behind LitServe, two workers and two API servers: ``python -m benchmarks.peers.litserve_server PORT``.

Single matrices are batched by LitServe itself; a list is one request and one batch. LitServe reads the annotations of
``decode_request`` at run time, so this module does not postpone their evaluation.
"""

import sys
from typing import Any

import litserve
import numpy as np
from numpy.typing import NDArray

from app.strategic.answers import Decisions
from app.strategic.engine import Engine
from benchmarks.peers.documents import MatrixRequest, answer, matrices

WORKERS = 2
BATCH = 64
BATCH_SECONDS = 0.001

Matrices = NDArray[np.float32]
Document = dict[str, Any]


class One(litserve.LitAPI):  # type: ignore[misc] # the library has no types
    """One matrix a request."""

    def setup(self, device: str) -> None:
        """Load the engine in each worker."""
        del device
        self._engine = Engine.load()

    def decode_request(self, request: Document) -> Matrices:
        """Validate and convert."""
        (matrix,) = matrices([MatrixRequest.model_validate(request)])
        return matrix  # type: ignore[no-any-return] # numpy's iteration has no type

    def batch(self, inputs: list[Matrices]) -> Matrices:
        """Stack what waits."""
        stacked: Matrices = np.stack(inputs)
        return stacked

    def predict(self, x: Matrices) -> Decisions:
        """Answer a batch."""
        engine: Engine = self._engine
        return engine.process(x)

    def unbatch(self, output: Decisions) -> list[Document]:
        """One document each."""
        return [answer(output, row).model_dump() for row in range(len(output))]

    def encode_response(self, output: Document) -> Document:
        """Leave it to LitServe."""
        return output


class Several(litserve.LitAPI):  # type: ignore[misc] # the library has no types
    """A list of matrices a request."""

    def setup(self, device: str) -> None:
        """Load the engine in each worker."""
        del device
        self._engine = Engine.load()

    def decode_request(self, request: list[Document]) -> Matrices:
        """Validate and convert."""
        return matrices([MatrixRequest.model_validate(each) for each in request])

    def predict(self, x: Matrices) -> Decisions:
        """Answer the list."""
        return self._engine.process(x)

    def encode_response(self, output: Decisions) -> list[Document]:
        """One document each."""
        return [answer(output, row).model_dump() for row in range(len(output))]


if __name__ == "__main__":
    server = litserve.LitServer(
        [One(max_batch_size=BATCH, batch_timeout=BATCH_SECONDS, api_path="/one"), Several(api_path="/list")],
        accelerator="cpu",
        workers_per_device=WORKERS,
        fast_queue=True,
    )
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=WORKERS,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
