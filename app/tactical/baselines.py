"""What a trained policy has to beat: rules that trade through the same account and pay the same costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from app.market.features import TACTICAL_FEATURES
from app.tactical.account import ACTIONS, HOLD, Agent
from app.tactical.tape import Tape

Baseline = Callable[[Tape, int], Tensor]
"""Takes a tape and a seed; returns actions ``(S, D, 3)``."""

_SHORT, _LONG = 0, ACTIONS - 1
_FULL = ACTIONS - 1
_MOMENTUM: Final = TACTICAL_FEATURES.index("momentum")
DEAD_BAND: Final = 0.25
"""The momentum rule turns only on a move beyond half a standard deviation: else it would pay for every wiggle."""


def hold(tape: Tape, seed: int) -> Tensor:  # noqa: ARG001 - a Baseline takes a seed
    """Never trades."""
    return _full(tape, HOLD)


def buy_and_hold(tape: Tape, seed: int) -> Tensor:  # noqa: ARG001 - a Baseline takes a seed
    """Buys with the whole equity at the first decision and keeps it."""
    return _full(tape, _LONG)


def random_actions(tape: Tape, seed: int) -> Tensor:
    """Draws every action of every agent with equal probability."""
    generator = torch.Generator().manual_seed(seed)
    shape = (tape.series, tape.decisions, len(Agent))
    return torch.randint(ACTIONS, shape, generator=generator)


def momentum_rule(tape: Tape, seed: int) -> Tensor:  # noqa: ARG001 - a Baseline takes a seed
    """Follows the ten-bar move: long above the dead band, short below it, else as before (Moskowitz et al. 2012)."""
    return follow_momentum(tape, DEAD_BAND)


def follow_momentum(tape: Tape, dead_band: float) -> Tensor:
    """The momentum rule with any dead band in [0, 1), in units of the feature ``momentum``."""
    momentum = tape.features[:, tape.first : tape.first + tape.decisions, _MOMENTUM].cpu()
    actions = _full(tape, HOLD)
    actions[..., Agent.TACTICAL] = torch.where(
        momentum > dead_band, _LONG, torch.where(momentum < -dead_band, _SHORT, HOLD)
    )
    return actions


BASELINES: Final[dict[str, Baseline]] = {
    "hold": hold,
    "buy_and_hold": buy_and_hold,
    "random": random_actions,
    "momentum_rule": momentum_rule,
}


def _full(tape: Tape, tactical: int) -> Tensor:
    """The same tactical action at every decision, without limit and at once."""
    actions = torch.full((tape.series, tape.decisions, len(Agent)), _FULL, dtype=torch.int64)
    actions[..., Agent.TACTICAL] = tactical
    return actions
