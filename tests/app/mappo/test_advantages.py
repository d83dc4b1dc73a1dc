from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from app.mappo import advantages
from app.mappo.advantages import generalised_advantages


def random_rollout(seed: int, shape: tuple[int, ...], end_rate: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(shape, generator=generator)
    values = torch.randn(shape, generator=generator)
    last_values = torch.randn(shape[1:], generator=generator)
    ends = torch.rand(shape, generator=generator) < end_rate
    return rewards, values, last_values, ends


rollouts = st.builds(
    random_rollout,
    seed=st.integers(0, 2**32),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 3), st.integers(1, 3)),
    end_rate=st.sampled_from([0.0, 0.2, 1.0]),
)
shares = st.floats(0.0, 1.0)


def test_two_steps_by_hand() -> None:
    # delta_1 = 2 + 0.5 * 8 - 3 = 3; delta_0 = 1 + 0.5 * 3 - 2 = 0.5; A_0 = 0.5 + 0.5 * 0.4 * 3 = 1.1
    result = generalised_advantages(
        torch.tensor([[1.0], [2.0]]),
        torch.tensor([[2.0], [3.0]]),
        torch.tensor([8.0]),
        torch.zeros(2, 1, dtype=torch.bool),
        gamma=0.5,
        gae_lambda=0.4,
    )
    assert result.flatten().tolist() == pytest.approx([1.1, 3.0])


@pytest.mark.parametrize("shape", [(7, 3), (128, 1536)], ids=["loop", "compiled"])
def test_agrees_with_torchrl(shape: tuple[int, int]) -> None:
    functional = pytest.importorskip("torchrl.objectives.value.functional")
    rewards, values, last_values, ends = random_rollout(3, shape, 0.05)
    following = torch.cat([values[1:], last_values.unsqueeze(0)])
    # torchrl reads (batch, time, 1).
    reference, _ = functional.generalized_advantage_estimate(
        0.99,
        0.95,
        *(tensor.mT.unsqueeze(-1) for tensor in (values, following, rewards)),
        done=ends.mT.unsqueeze(-1),
        terminated=ends.mT.unsqueeze(-1),
    )
    result = generalised_advantages(rewards, values, last_values, ends, gamma=0.99, gae_lambda=0.95)
    torch.testing.assert_close(result, reference.squeeze(-1).mT, rtol=1e-4, atol=1e-4)


def test_large_rollouts_do_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = random_rollout(5, (100, 40, 20), 0.05)
    compiled = generalised_advantages(*inputs, gamma=0.99, gae_lambda=0.95)
    monkeypatch.setattr(advantages, "_compiled_recursion", lambda: None)
    torch.testing.assert_close(
        generalised_advantages(*inputs, gamma=0.99, gae_lambda=0.95), compiled, rtol=1e-4, atol=1e-5
    )


def test_the_compiled_recursion_agrees_with_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    rewards, values, last_values, ends = random_rollout(5, (100, 40, 3), 0.05)
    results = []
    for threshold in (0, 10**9):
        monkeypatch.setattr(advantages, "COMPILED_FROM", threshold)
        results.append(generalised_advantages(rewards, values, last_values, ends, gamma=0.99, gae_lambda=0.95))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


@given(rollouts, shares, shares)
@settings(max_examples=50, deadline=None)
def test_nothing_flows_back_over_the_end_of_an_episode(
    rollout: tuple[Tensor, Tensor, Tensor, Tensor], gamma: float, gae_lambda: float
) -> None:
    rewards, values, last_values, ends = rollout
    cut = len(rewards) // 2
    ends[cut] = True
    before = generalised_advantages(rewards, values, last_values, ends, gamma=gamma, gae_lambda=gae_lambda)
    rewards[cut + 1 :] += 100.0
    values[cut + 1 :] -= 50.0
    after = generalised_advantages(rewards, values, last_values + 7.0, ends, gamma=gamma, gae_lambda=gae_lambda)
    assert torch.equal(before[: cut + 1], after[: cut + 1])


@given(rollouts, shares)
@settings(max_examples=50, deadline=None)
def test_lambda_zero_is_the_one_step_error(rollout: tuple[Tensor, Tensor, Tensor, Tensor], gamma: float) -> None:
    rewards, values, last_values, ends = rollout
    following = torch.cat([values[1:], last_values.unsqueeze(0)]) * ~ends
    result = generalised_advantages(rewards, values, last_values, ends, gamma=gamma, gae_lambda=0.0)
    torch.testing.assert_close(result, rewards + gamma * following - values, rtol=1e-5, atol=1e-5)


@given(rollouts, shares)
@settings(max_examples=50, deadline=None)
def test_lambda_one_is_the_discounted_return_less_the_value(
    rollout: tuple[Tensor, Tensor, Tensor, Tensor], gamma: float
) -> None:
    rewards, values, last_values, ends = (tensor.numpy() for tensor in rollout)
    running = last_values.astype(np.float64)
    returns = np.zeros(rewards.shape)
    for step in reversed(range(len(rewards))):
        running = rewards[step] + gamma * np.where(ends[step], 0.0, running)
        returns[step] = running
    result = generalised_advantages(*rollout, gamma=gamma, gae_lambda=1.0)
    np.testing.assert_allclose(result.numpy(), returns - values, rtol=1e-4, atol=1e-4)


def test_one_flag_an_environment_holds_for_all_its_agents() -> None:
    rewards, values, last_values, _ = random_rollout(1, (6, 2, 3), 0.0)
    ends = torch.zeros(6, 2, 1, dtype=torch.bool)
    ends[2, 1] = True
    spread_out = ends.expand(6, 2, 3)
    narrow, wide = (
        generalised_advantages(rewards, values, last_values, flags, gamma=0.9, gae_lambda=0.9)
        for flags in (ends, spread_out)
    )
    assert torch.equal(narrow, wide)
