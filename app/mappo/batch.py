"""What the losses read: experience laid out agent by agent, as the networks take it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """N environment steps of A agents.

    :meth:`by_network` turns the actors' (A, N, ...) into the (G, M, ...) that G networks read, M samples each.
    """

    actor_inputs: Tensor
    """(A, N, inputs)."""
    actions: Tensor
    """(A, N, 1) int64."""
    old_log_probs: Tensor
    """(A, N, 1)."""
    advantages: Tensor
    """(A, N, 1), normalised."""
    critic_inputs: Tensor
    """(V, N, joint features): one view of a step, or one for each agent."""
    old_values: Tensor
    """(1, N, A) or (A, N, 1), normalised."""
    targets: Tensor
    """(1, N, A) or (A, N, 1) returns, normalised."""

    def select(self, steps: Tensor) -> Batch:
        """The environment steps with these indices."""
        return Batch(*(tensor.index_select(1, steps) for tensor in self))

    def by_network(self, lay_out: Callable[[Tensor], Tensor]) -> Batch:
        """The actors' tensors laid out by :meth:`app.mappo.models.Actor.by_network`, the critic's views in a row."""
        return self._replace(
            actor_inputs=lay_out(self.actor_inputs),
            actions=lay_out(self.actions),
            old_log_probs=lay_out(self.old_log_probs),
            advantages=lay_out(self.advantages),
            critic_inputs=self.critic_inputs.reshape(1, -1, self.critic_inputs.shape[-1]),
            old_values=self.old_values.reshape(1, -1, self.old_values.shape[-1]),
            targets=self.targets.reshape(1, -1, self.targets.shape[-1]),
        )

    def clone(self) -> Batch:
        """A copy that shares no memory."""
        return Batch(*(tensor.clone() for tensor in self))
