"""The OpenAPI document: FastAPI's routes, the hot routes beside them, problem answers and the bearer token."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.routing import compile_path

from app.service.hot_route import HotRoute
from app.service.problems import PROBLEM_JSON, ProblemDocument

REFUSALS: Final[Mapping[int, str]] = {
    400: "The request is not well-formed.",
    401: "No valid bearer token.",
    403: "The token does not permit this.",
    404: "There is no such thing.",
    408: "The request was not complete and answered in time.",
    409: "The present state does not permit this.",
    413: "The body is too long.",
    415: "The body has a type or encoding that is not served.",
    422: "An element of the request is wrong; `errors` points to it.",
    429: "The client's minute is used up; see Retry-After.",
    500: "The service failed.",
    503: "Something the request needs is away; see Retry-After.",
}
_SCHEME: Final = "bearer"


def describe(app: FastAPI, hot_routes: Sequence[HotRoute], public_paths: frozenset[str]) -> None:
    """Make ``app.openapi()`` describe the whole service."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, hot_routes, public_paths)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign] # FastAPI's documented way of extending it


def methods_of(app: FastAPI, path: str) -> list[str]:
    """Methods that ``path`` is served under; the router itself knows only those of the first route that matches."""
    methods = [
        method.upper()
        for template, operations in app.openapi()["paths"].items()
        if _pattern(template).match(path)
        for method in operations
    ]
    return sorted(methods)


@lru_cache(maxsize=256)
def _pattern(template: str) -> re.Pattern[str]:
    return compile_path(template)[0]


def _document(app: FastAPI, hot_routes: Sequence[HotRoute], public_paths: frozenset[str]) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, openapi_version="3.1.0"
    )
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs", {}))
    schemas["Problem"] = problem
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {_SCHEME: {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
    components["responses"] = {str(status): _refusal(text) for status, text in REFUSALS.items()}
    for route in hot_routes:
        schemas.update(route.schemas)
        schema["paths"].setdefault(route.path, {})[route.method.lower()] = dict(route.openapi)
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            _complete(operation, public=path in public_paths)
    return schema


def _complete(operation: dict[str, Any], *, public: bool) -> None:
    """Add what holds for every operation: the token and the refusals."""
    responses = operation.setdefault("responses", {})
    if responses.get("422", {}).get("description") == "Validation Error":  # FastAPI's own, which is not what we answer
        del responses["422"]
    if public:
        return
    operation["security"] = [{_SCHEME: []}]
    for status, response in responses.items():
        if status.startswith(("4", "5")) and not {"content", "$ref"} & response.keys():
            response["content"] = _refusal("")["content"]
    with_body = "requestBody" in operation
    for status in REFUSALS:
        if status not in {404, 409} and (with_body or status not in {408, 413, 415}):
            responses.setdefault(str(status), {"$ref": f"#/components/responses/{status}"})


def _refusal(text: str) -> dict[str, Any]:
    return {"description": text, "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
