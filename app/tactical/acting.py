"""``POST /api/tactical/act``: decisions of the trained agents, answered when they are committed.

Requests that arrive together are one pass through the policy and one commit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from app.contract import TACTICAL
from app.service.application import body_problem
from app.service.batching import MicroBatcher
from app.service.database import Database
from app.service.hot_route import HotRequest, HotRoute
from app.service.permissions import Permission
from app.service.problems import Answer, ProblemError
from app.tactical import metrics
from app.tactical.account import ACTION_NAMES, Agent
from app.tactical.policies import LoadedPolicy, Policies
from app.tactical.schemas import Request, Seed, Version, Window, example_window
from app.tactical.store import Decision, insert_decisions

MAXIMUM_BATCH: Final = 128
MAXIMUM_WAITING: Final = 2048
BODY_LIMIT: Final = 64 * 1024
_DATE_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}")
AGENT_NAMES: Final = tuple(agent.name.lower() for agent in Agent)


def _is_date_time(value: object) -> object:
    """A text, as the schema promises: pydantic alone would take 0, or "0", as 1970."""
    if value is not None and not (isinstance(value, str) and _DATE_TIME.match(value)):
        raise ValueError("must be an RFC 3339 date-time")
    return value


class ActData(Request):
    """What the agents see."""

    timestamp: Annotated[datetime | None, BeforeValidator(_is_date_time)] = Field(
        default=None, description="When the last bar closed; now if absent."
    )
    data: Window


class ActRequest(Request):
    """Asks the three agents for one decision each."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"market_data": {"timestamp": "2026-11-23T10:00:00Z", "data": example_window()}}]
        },
    )

    market_data: ActData
    deterministic: bool = Field(default=True, strict=True, description="Most probable actions instead of drawn ones.")
    seed: Seed | None = Field(default=None, description="Draws the same actions again; without it they differ.")
    version: Version | None = Field(default=None, description="The active model if absent.")


class AgentAction(BaseModel):
    """What one agent decided."""

    agent: str = Field(examples=["tactical"])
    action: int = Field(ge=0, le=4, examples=[4])
    name: str = Field(examples=["LONG"])
    probabilities: list[float] = Field(min_length=5, max_length=5)
    log_probability: float


class ActAnswer(BaseModel):
    """The decision; it is committed."""

    model_version: str
    timestamp: datetime
    actions: list[AgentAction]


@dataclass(frozen=True, slots=True)
class _Question:
    policy: LoadedPolicy
    window: NDArray[np.float32]
    timestamp: datetime
    deterministic: bool
    seed: int | None


class Acting:
    """Answers decisions in batches."""

    def __init__(self, policies: Policies, database: Database) -> None:
        self._policies = policies
        self._database = database
        self._generator = np.random.default_rng()
        self._batches: MicroBatcher[_Question, bytes] = MicroBatcher(
            self._decide, max_batch=MAXIMUM_BATCH, max_queue=MAXIMUM_WAITING, concurrency=2
        )

    async def answer(self, request: HotRequest) -> Answer:
        """The hot route's handler."""
        media_type = request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if media_type != b"application/json":
            raise ProblemError(415, "unsupported-media-type", "Content-Type must be application/json.")
        try:
            asked = ActRequest.model_validate_json(request.body)
        except ValidationError as error:
            raise body_problem(error) from error
        moment = asked.market_data.timestamp or datetime.now(UTC)
        question = _Question(
            policy=await self._policies.get(asked.version),
            window=np.array(asked.market_data.data, dtype=np.float32).clip(-1.0, 1.0),
            timestamp=moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC),
            deterministic=asked.deterministic,
            seed=asked.seed,
        )
        return Answer(200, await self._batches.submit(question))

    async def _decide(self, questions: Sequence[_Question]) -> Sequence[bytes | Exception]:
        probabilities = _probabilities(questions)
        documents = [self._document(question, row) for question, row in zip(questions, probabilities, strict=True)]
        decisions = [
            Decision(question.timestamp, AGENT_NAMES, [{**action, "model_version": document["model_version"]}
                     for action in document["actions"]])
            for question, document in zip(questions, documents, strict=True)
        ]  # fmt: skip
        await insert_decisions(self._database, decisions)
        metrics.ACT_BATCH.observe(len(questions))
        for count in _ACTION_COUNTS:
            count.inc(len(questions))
        return [orjson.dumps(document) for document in documents]

    def _document(self, question: _Question, probabilities: NDArray[np.float32]) -> dict[str, Any]:
        """The answer for one question from ``probabilities`` (3, 5)."""
        chosen = probabilities.argmax(-1)
        if not question.deterministic:
            generator = self._generator if question.seed is None else np.random.default_rng(question.seed)
            cumulative = probabilities.cumsum(-1)
            draws = generator.random((len(cumulative), 1)) * cumulative[:, -1:]
            chosen = (draws >= cumulative).sum(-1)
        actions = [
            {
                "agent": AGENT_NAMES[agent],
                "action": action,
                "name": ACTION_NAMES[agent][action],
                "probabilities": row,
                "log_probability": float(np.log(max(row[action], np.finfo(np.float32).tiny))),
            }
            for agent, action, row in zip(Agent, chosen.tolist(), probabilities.tolist(), strict=True)
        ]
        return {"model_version": question.policy.version, "timestamp": question.timestamp, "actions": actions}


_ACTION_COUNTS: Final = [metrics.ACTIONS.labels(name) for name in AGENT_NAMES]


def _probabilities(questions: Sequence[_Question]) -> NDArray[np.float32]:
    """Distributions (N, 3, 5), one pass for each version that was asked."""
    result = np.empty((len(questions), len(Agent), 5), dtype=np.float32)
    by_version: dict[str, list[int]] = {}
    for index, question in enumerate(questions):
        by_version.setdefault(question.policy.version, []).append(index)
    for indices in by_version.values():
        windows = np.stack([questions[index].window for index in indices])
        result[indices] = questions[indices[0]].policy.probabilities(windows)
    return result


def act_route(acting: Acting) -> HotRoute:
    """The route, with its part of the OpenAPI document."""
    request = ActRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    answer = ActAnswer.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = {**request.pop("$defs"), **answer.pop("$defs"), "ActRequest": request, "ActAnswer": answer}
    operation = {
        "tags": ["acting"],
        "summary": "One decision of each agent, committed",
        "operationId": "act",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ActRequest"}}},
        },
        "responses": {
            "200": {
                "description": "The decision; it is committed.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ActAnswer"}}},
            },
            "404": {"$ref": "#/components/responses/404"},
            "409": {"$ref": "#/components/responses/409"},
        },
    }
    path = f"{TACTICAL.api_prefix}/act"
    return HotRoute("POST", path, Permission.ACT, acting.answer, operation, schemas, BODY_LIMIT)
