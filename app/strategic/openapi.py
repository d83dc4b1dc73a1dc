"""Description of the hot route, which FastAPI does not see."""

from __future__ import annotations

from typing import Any, Final

from app.contract import MATRIX_BARS, MATRIX_FEATURES
from app.strategic.answers import ACTIONS, AGENTS, LEVELS, REGIMES

FEATURES: Final = (
    "price_change, volume_ratio, volatility, momentum, rsi, macd, bollinger_position, market_sentiment, "
    "correlation_strength, regime_indicator, risk_score, liquidity_index, structural_break"
)
_UNIT: Final[dict[str, Any]] = {"type": "number", "minimum": 0, "maximum": 1}
_PROBABILITIES: Final = {
    "type": "object",
    "properties": dict.fromkeys(ACTIONS, _UNIT),
    "required": list(ACTIONS),
    "description": "Sums to 1.",
}
_ROW: Final = {
    "type": "array",
    "minItems": MATRIX_FEATURES,
    "maxItems": MATRIX_FEATURES,
    "items": {"type": "number", "minimum": -3.4028234e38, "maximum": 3.4028234e38},
}
_EXAMPLE: Final = {
    "market_data": {"timestamp": "2026-01-05T14:30:00Z", "data": [[0.0] * MATRIX_FEATURES for _ in range(MATRIX_BARS)]}
}


def _refusal(text: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": text, "content": {"application/problem+json": {"schema": schema}}}


SCHEMAS: Final[dict[str, Any]] = {
    "MarketData": {
        "type": "object",
        "required": ["market_data"],
        "additionalProperties": False,
        "properties": {
            "market_data": {
                "type": "object",
                "required": ["timestamp", "data"],
                "additionalProperties": False,
                "properties": {
                    "timestamp": {
                        "description": "Of the last bar: RFC 3339 (UTC without an offset) or epoch microseconds.",
                        "oneOf": [
                            {"type": "string", "pattern": r"^20[0-9]{2}-0[1-9]-0[1-9]T[01][0-9]:[0-5][0-9]:00Z$"},
                            {"type": "integer", "minimum": 0, "maximum": 4_102_444_799_999_999},
                        ],
                    },
                    "data": {
                        "type": "array",
                        "minItems": MATRIX_BARS,
                        "maxItems": MATRIX_BARS,
                        "items": _ROW,
                        "description": f"48 bars of 30 minutes, the oldest first; in each {FEATURES}.",
                    },
                },
            }
        },
        "example": _EXAMPLE,
    },
    "Decision": {
        "type": "object",
        "required": [
            "id", "timestamp", "decision", "probabilities", "agents", "confidence", "uncertainty", "regime", "pattern",
            "model_version",
        ],
        "properties": {
            "id": {"type": "integer"},
            "timestamp": {"type": "string", "format": "date-time"},
            "decision": {"enum": list(ACTIONS)},
            "probabilities": _PROBABILITIES,
            "agents": {
                "type": "object",
                "properties": {
                    name: {"type": "object", "properties": {"weight": _UNIT, "probabilities": _PROBABILITIES}}
                    for name in AGENTS
                },
            },
            "confidence": {
                "type": "object",
                "properties": {"score": _UNIT, "level": {"enum": [str(level) for level in LEVELS]}},
            },
            "uncertainty": {"type": "object", "properties": {"epistemic": _UNIT, "aleatoric": _UNIT}},
            "regime": {
                "type": "object",
                "properties": {
                    "classification": {"enum": list(REGIMES)},
                    "confidence": _UNIT,
                    "probabilities": {"type": "object", "properties": dict.fromkeys(REGIMES, _UNIT)},
                },
            },
            "pattern": {"type": "array", "minItems": 13, "maxItems": 13, "items": {"type": "number"}},
            "model_version": {"type": "string"},
        },
    },
    "DecisionColumns": {
        "type": "object",
        "description": "Answers of a binary request, column by column in the order of its records; ids count up. "
        "Numbers are rounded to 6 decimals.",
        "properties": {
            "count": {"type": "integer"},
            "first_id": {"type": "integer"},
            "model_version": {"type": "string"},
            **{
                name: {"type": "array"}
                for name in (
                    "timestamp", "decision", "probabilities", "agent_weights", "confidence_score", "confidence_level",
                    "epistemic_uncertainty", "aleatoric_uncertainty", "regime", "regime_probabilities", "pattern",
                )
            },
            "agents": {"type": "object", "additionalProperties": {"type": "array"}},
        },
    },
}  # fmt: skip

PROCESS: Final[dict[str, Any]] = {
    "tags": ["strategic"],
    "summary": "Decide on market data",
    "operationId": "process",
    "description": (
        "One matrix, a JSON list of matrices, or binary records of an int64 (little-endian, epoch microseconds) "
        "and 48x13 little-endian float32. A 200 is sent only once decision, uncertainty, regime and pattern of every "
        "matrix are committed. With `Accept: application/octet-stream` the answer is one record of 180 "
        "bytes per matrix: int64 id, 30 float32 (probabilities of the 5 actions, those of MLMI, NWRQK and Regime, "
        "weights of these, confidence, epistemic and aleatoric uncertainty, probabilities of the 4 regimes), 13 "
        "float32 of the pattern; little-endian."
    ),
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "Of the client's choice. A retry with the same key and body stores nothing twice and gets "
            "the same answer for 24 hours.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "oneOf": [
                        {"$ref": "#/components/schemas/MarketData"},
                        {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/MarketData"}},
                    ]
                },
                "example": _EXAMPLE,
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary", "minLength": 2504}},
        },
    },
    "responses": {
        "200": {
            "description": "Decided and durable.",
            "headers": {
                "Idempotent-Replayed": {
                    "description": "`true` when the key had been answered before.",
                    "schema": {"type": "string"},
                }
            },
            "content": {
                "application/json": {
                    "schema": {
                        "anyOf": [
                            {"$ref": "#/components/schemas/Decision"},
                            {"type": "array", "items": {"$ref": "#/components/schemas/Decision"}},
                            {"$ref": "#/components/schemas/DecisionColumns"},
                        ]
                    }
                },
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        },
        "406": _refusal("The client takes neither JSON nor octets."),
        "409": _refusal("The answer to this Idempotency-Key is no longer kept."),
    },
}
