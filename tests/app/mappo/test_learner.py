from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from app.mappo import EnvironmentContractError, Learner, MappoConfig, Policy, UpdateStats, VectorEnv, evaluate

MakeGame = Callable[..., Any]


@pytest.mark.parametrize("share_actor", [True, False])
def test_learns_to_coordinate_on_the_best_joint_action(coordination_game: VectorEnv, *, share_actor: bool) -> None:
    config = MappoConfig(
        rollout_steps=4,
        actor_hidden_sizes=(16,),
        critic_hidden_sizes=(16,),
        actor_learning_rate=5e-3,
        critic_learning_rate=5e-3,
        share_actor=share_actor,
        normalise_observations=False,
        threads=1,
    )
    learner = Learner(coordination_game, config, seed=1)
    report = learner.train(10_000)
    assert report.first_return is not None
    assert report.first_return < 4.0
    assert evaluate(learner.policy(), coordination_game, episodes=32, seed=0).mean() == 8.0


@pytest.mark.parametrize("share_actor", [True, False])
def test_learns_from_observations(sign_game: MakeGame, config: MappoConfig, *, share_actor: bool) -> None:
    game = sign_game(num_envs=16)
    learner = Learner(game, config.model_copy(update={"share_actor": share_actor}), seed=0)
    learner.train(16 * 8 * 40)
    assert evaluate(learner.policy(), game, episodes=50, seed=9).mean() > 0.9 * game.steps


def test_observations_of_any_shape_train(sign_game: MakeGame, config: MappoConfig) -> None:
    game = sign_game(observation_shape=(3, 2, 2))
    learner = Learner(game, config.model_copy(update={"normalise_observations": True}), seed=0)
    learner.train(1)
    actions, log_probs = learner.policy().act(game.reset(0))
    assert actions.shape == log_probs.shape == (4, 2)


def test_an_agent_specific_critic_reads_every_agents_own_observation_first(
    sign_game: MakeGame, config: MappoConfig
) -> None:
    specific = config.model_copy(update={"agent_specific_critic": True, "minibatches": 2})
    learner = Learner(sign_game(num_agents=3, observation_shape=(2,)), specific, seed=0)
    observations = torch.randn(5, 3, 2)
    values = learner.critic.values(observations)
    assert values.shape == (5, 3)
    # With the agents renumbered, the same agents get the same values.
    torch.testing.assert_close(learner.critic.values(observations.roll(-1, dims=1)), values.roll(-1, dims=1))
    # The estimate of an agent depends on what the others see, too.
    others = observations.clone()
    others[:, 1:] += 1.0
    assert not torch.allclose(learner.critic.values(others)[:, 0], values[:, 0])


@pytest.mark.parametrize("agent_specific_critic", [False, True])
def test_every_agents_value_is_learned_from_its_own_return(config: MappoConfig, *, agent_specific_critic: bool) -> None:
    class Wages:
        """Every agent sees its wage and earns it; one step an episode."""

        num_envs, num_agents, num_actions = 8, 3, 2
        observation_shape: tuple[int, ...] = (1,)
        wages = torch.tensor([[-1.0], [0.0], [2.0]]).expand(8, 3, 1)

        def reset(self, seed: int) -> Tensor:  # noqa: ARG002 - nothing is random
            return self.wages

        def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            ended = torch.ones(8, dtype=torch.bool)
            return self.wages, self.wages.squeeze(-1) + 0.0 * actions, ended, torch.zeros_like(ended)

    values = config.model_copy(
        update={"agent_specific_critic": agent_specific_critic, "minibatches": 2, "normalise_values": False}
    )
    learner = Learner(Wages(), values, seed=0)
    learner.train(8 * 8 * 60)
    expected = torch.tensor([-1.0, 0.0, 2.0]).expand(8, 3)
    torch.testing.assert_close(learner.critic.values(Wages.wages), expected, atol=0.1, rtol=0.0)


def test_one_hot_agent_numbers_let_a_shared_actor_play_different_roles(config: MappoConfig) -> None:
    class Roles:
        """Both agents see nothing; the second earns by the second action, the first by the first."""

        num_envs, num_agents, num_actions = 16, 2, 2
        observation_shape: tuple[int, ...] = (1,)

        def reset(self, seed: int) -> Tensor:  # noqa: ARG002 - nothing is random
            return torch.zeros(16, 2, 1)

        def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            ended = torch.ones(16, dtype=torch.bool)
            return torch.zeros(16, 2, 1), (actions == torch.tensor([0, 1])).float(), ended, ~ended

    learner = Learner(Roles(), config.model_copy(update={"agent_ids": True}), seed=0)
    learner.train(16 * 8 * 30)
    assert evaluate(learner.policy(), Roles(), episodes=16, seed=0).mean() == 1.0


def parameters_after(game: VectorEnv, config: MappoConfig, seed: int) -> Tensor:
    learner = Learner(game, config, seed)
    learner.train(3 * config.rollout_steps * game.num_envs)
    return torch.cat([learner.actor.network.parameters.flatten(), learner.critic.network.parameters.flatten()])


@pytest.mark.parametrize("minibatches", [1, 3])
def test_the_same_seed_gives_the_same_parameters_bit_for_bit(
    sign_game: MakeGame, config: MappoConfig, minibatches: int
) -> None:
    config = config.model_copy(update={"minibatches": minibatches})
    first = parameters_after(sign_game(), config, seed=4)
    torch.randn(100)  # whatever others draw from torch's global generator
    assert torch.equal(first, parameters_after(sign_game(), config, seed=4))
    assert not torch.equal(first, parameters_after(sign_game(), config, seed=5))


def test_separate_actors_have_parameters_of_their_own_and_a_shared_one_does_not(
    sign_game: MakeGame, config: MappoConfig
) -> None:
    separate = Learner(sign_game(), config.model_copy(update={"share_actor": False}), seed=0)
    shared = Learner(sign_game(), config, seed=0)
    separate.train(32)
    one, other = separate.actor.network.parameters
    assert not torch.equal(one, other)
    assert len(shared.actor.network.parameters) == 1
    assert separate.policy().parameters_per_agent == shared.policy().parameters_per_agent == (3 + 1) * 16 + (16 + 1) * 2


def test_statistics_add_up(sign_game: MakeGame, config: MappoConfig) -> None:
    seen: list[UpdateStats] = []
    game = sign_game(num_envs=4, steps=8)
    report = Learner(game, config, seed=0).train(100, seen.append)
    assert tuple(seen) == report.updates_stats
    assert report.updates == 4, "100 frames are rounded up to whole rollouts of 32"
    assert report.frames == seen[-1].frames == 128
    assert all(stats.episodes == 4 for stats in seen)
    for stats in seen:
        assert stats.agent_returns is not None
        assert stats.episode_return == pytest.approx(sum(stats.agent_returns) / 2)
        assert stats.episode_return == pytest.approx(8 * stats.mean_reward), "every episode is exactly one rollout"


def test_returns_of_episodes_longer_than_a_rollout_are_whole(sign_game: MakeGame, config: MappoConfig) -> None:
    game = sign_game(num_envs=2, steps=20)
    rewards: list[float] = []
    learner = Learner(game, config, seed=0)
    report = learner.train(2 * 40, lambda stats: rewards.append(stats.mean_reward * config.rollout_steps))
    assert [stats.episodes for stats in report.updates_stats] == [0, 0, 2, 0, 2]
    assert report.updates_stats[0].episode_return is None
    ended = [stats.episode_return for stats in report.updates_stats if stats.episode_return is not None]
    assert sum(ended) == pytest.approx(sum(rewards)), "two episodes make 40 steps"


def test_an_exception_from_the_callback_ends_the_training_with_the_update_done(
    sign_game: MakeGame, config: MappoConfig
) -> None:
    class Cancelled(Exception):  # noqa: N818 - no error
        pass

    def cancel(stats: UpdateStats) -> None:
        if stats.update == 2:
            raise Cancelled

    learner = Learner(sign_game(), config, seed=0)
    with pytest.raises(Cancelled):
        learner.train(1000, cancel)
    assert (learner.updates, learner.frames) == (2, 64)


@pytest.mark.parametrize(
    ("truncation", "expected"),
    [
        ("terminal", [0.0, 0.0, 0.0, 0.0]),
        ("bootstrap", [0.99**4, 0.99**3, 0.99**2, 0.99]),
    ],
)
def test_truncation_is_treated_as_asked(truncation: Literal["terminal", "bootstrap"], expected: list[float]) -> None:
    """No reward in four steps, then a time limit in a state worth 1: bootstrapping counts what would have followed."""

    class Empty:
        num_envs, num_agents, num_actions = 1, 1, 2
        observation_shape: tuple[int, ...] = (1,)
        final_observation = torch.zeros(1, 1, 1)

        def __init__(self) -> None:
            self.elapsed = 0

        def reset(self, seed: int) -> Tensor:  # noqa: ARG002 - nothing is random
            return torch.zeros(1, 1, 1)

        def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # noqa: ARG002 - and nothing matters
            self.elapsed += 1
            never = torch.zeros(1, dtype=torch.bool)
            return torch.zeros(1, 1, 1), torch.zeros(1, 1), never, torch.full((1,), self.elapsed % 4 == 0)

    config = MappoConfig(
        rollout_steps=4,
        truncation=truncation,
        gae_lambda=1.0,
        normalise_values=False,
        normalise_observations=False,
        threads=1,
    )
    learner = Learner(Empty(), config, seed=0)
    learner.critic.network.parameters.zero_()
    learner.critic.network.parameters[0, -1] = 1.0  # the last bias: every state is worth 1
    batch, _ = learner.updater.prepare(learner.collector.collect(learner.action_generator, 0))
    assert batch.targets.flatten().tolist() == pytest.approx(expected)


def test_bootstrapping_needs_the_last_observation(coordination_game: VectorEnv, config: MappoConfig) -> None:
    with pytest.raises(EnvironmentContractError, match="final_observation"):
        Learner(coordination_game, config.model_copy(update={"truncation": "bootstrap"}), seed=0)


@pytest.mark.parametrize("fault", ["observation", "reward"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_named_with_its_frame_and_never_learned(
    sign_game: MakeGame, config: MappoConfig, monkeypatch: pytest.MonkeyPatch, fault: str, value: float
) -> None:
    game = sign_game(num_envs=4)
    learner = Learner(game, config, seed=0)
    learner.train(32)
    before = learner.actor.network.parameters.clone()
    step, count = game.step, iter(range(100))

    def faulty(actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        observation, reward, terminated, truncated = step(actions)
        if next(count) == 5:
            {"observation": observation, "reward": reward}[fault][2, 1] = value
        return observation, reward, terminated, truncated

    monkeypatch.setattr(game, "step", faulty)
    # 32 frames before, 5 whole steps of 4 environments, environment 2.
    with pytest.raises(EnvironmentContractError, match=rf"{fault} is {value} at frame 54 .*environment 2, agent 1"):
        learner.train(32)
    assert torch.equal(learner.actor.network.parameters, before)
    assert learner.frames == 32


def test_a_first_observation_that_is_not_finite_is_refused(sign_game: MakeGame, config: MappoConfig) -> None:
    game = sign_game()
    game.reset = lambda seed: torch.full((4, 2, 3), float("nan"))  # noqa: ARG005
    with pytest.raises(EnvironmentContractError, match="observation is nan at frame 0"):
        Learner(game, config, seed=0)


@pytest.mark.parametrize(
    ("position", "wrong", "message"),
    [
        (0, torch.zeros(4, 2, 7), r"observation has shape \(4, 2, 7\), expected \(4, 2, 3\)"),
        (1, torch.zeros(4), r"reward has shape \(4,\), expected \(4, 2\)"),
        (2, torch.zeros(4), r"terminated has dtype torch.float32, expected torch.bool"),
        (3, torch.zeros(4, 2, dtype=torch.bool), r"truncated has shape \(4, 2\), expected \(4,\)"),
    ],
)
def test_a_wrong_shape_or_dtype_is_named(
    sign_game: MakeGame,
    config: MappoConfig,
    monkeypatch: pytest.MonkeyPatch,
    position: int,
    wrong: Tensor,
    message: str,
) -> None:
    game = sign_game()
    step = game.step

    def faulty(actions: Tensor) -> tuple[Tensor, ...]:
        results = list(step(actions))
        results[position] = wrong
        return tuple(results)

    monkeypatch.setattr(game, "step", faulty)
    with pytest.raises(EnvironmentContractError, match=message):
        Learner(game, config, seed=0).train(1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"gamma": 1.5},
        {"gamma": float("nan")},
        {"rollout_steps": 0},
        {"actor_hidden_sizes": (64, 0)},
        {"truncation": "ignore"},
        {"learning_rate": 1e-3},
        {"device": "abacus"},
        {"agent_ids": True, "share_actor": False},
        {"agent_specific_critic": True, "shared_observation": True},
        pytest.param(
            {"device": "cuda"},
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device"),
        ),
    ],
    ids=str,
)
def test_a_wrong_setting_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        MappoConfig(**wrong)


def test_impossible_requests_are_refused(sign_game: MakeGame, config: MappoConfig) -> None:
    game = sign_game()
    with pytest.raises(ValueError, match="frames is 0"):
        Learner(game, config, seed=0).train(0)
    with pytest.raises(ValueError, match="33, but a rollout has only 32"):
        Learner(game, config.model_copy(update={"minibatches": 33}), seed=0)
    with pytest.raises(ValueError, match="episodes is 0"):
        evaluate(Learner(game, config, seed=0).policy(), game, episodes=0, seed=0)


def test_evaluation_takes_as_many_episodes_from_every_copy(config: MappoConfig) -> None:
    """Copy 0 ends after every step and earns nothing, copy 1 after four steps and earns 1: the truth is one half."""

    class Uneven:
        num_envs, num_agents, num_actions = 2, 1, 2
        observation_shape: tuple[int, ...] = (1,)

        def reset(self, seed: int) -> Tensor:  # noqa: ARG002 - nothing is random
            self.elapsed = 0
            return torch.zeros(2, 1, 1)

        def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # noqa: ARG002 - and nothing matters
            self.elapsed += 1
            long_ended = self.elapsed % 4 == 0
            reward = torch.tensor([[0.0], [float(long_ended)]])
            return torch.zeros(2, 1, 1), reward, torch.tensor([True, long_ended]), torch.tensor([False, False])

    policy = Policy(config, num_agents=1, num_actions=2, observation_shape=(1,))
    returns = evaluate(policy, Uneven(), episodes=4, seed=0)
    assert sorted(returns.flatten().tolist()) == [0.0, 0.0, 1.0, 1.0]


def test_learning_rates_fall_to_zero_over_the_frames_asked_for(sign_game: MakeGame, config: MappoConfig) -> None:
    learner = Learner(sign_game(), config.model_copy(update={"anneal_frames": 64}), seed=0)
    learner.train(64)
    assert float(learner.updater.actor_optimiser.learning_rate) == pytest.approx(0.5 * config.actor_learning_rate)
    before = learner.actor.network.parameters.clone()
    learner.train(32)
    assert torch.equal(learner.actor.network.parameters, before)


def test_threads_are_put_back_after_training(sign_game: MakeGame, config: MappoConfig) -> None:
    before = torch.get_num_threads()
    during: list[int] = []
    other = 2 if before == 1 else 1
    learner = Learner(sign_game(), config.model_copy(update={"threads": other}), seed=0)
    learner.train(1, lambda _: during.append(torch.get_num_threads()))
    assert during == [other]
    assert torch.get_num_threads() == before


def policy_of(config: MappoConfig, seed: int = 0) -> Policy:
    return Policy(config, num_agents=2, num_actions=2, observation_shape=(3,), seed=seed)


def test_a_policy_is_a_copy_that_training_does_not_change(sign_game: MakeGame, config: MappoConfig) -> None:
    game = sign_game()
    learner = Learner(game, config, seed=0)
    policy = learner.policy()
    observation = game.reset(3)
    before = policy.logits(observation)
    learner.train(64)
    assert torch.equal(policy.logits(observation), before)
    restored = policy_of(config)
    restored.load_state_dict(policy.state_dict())
    assert torch.equal(restored.logits(observation), before)


def test_drawn_actions_follow_the_policys_probabilities(sign_game: MakeGame, config: MappoConfig) -> None:
    learner = Learner(sign_game(), config, seed=0)
    learner.train(128)
    policy = learner.policy()
    observation = torch.randn(1, 2, 3, generator=torch.Generator().manual_seed(0)).expand(20_000, -1, -1)
    probabilities = torch.softmax(policy.logits(observation[:1]), dim=-1)[0]
    actions, log_probs = policy.act(observation)
    frequency = torch.stack([(actions == action).float().mean(0) for action in range(2)], dim=-1)
    torch.testing.assert_close(frequency, probabilities, atol=0.02, rtol=0)
    torch.testing.assert_close(log_probs[0].exp(), probabilities.gather(-1, actions[0].unsqueeze(-1)).squeeze(-1))
    best, _ = policy.act(observation, deterministic=True)
    assert torch.equal(best[0], probabilities.argmax(-1))


def test_a_foreign_or_broken_policy_is_refused(config: MappoConfig) -> None:
    policy = policy_of(config)
    for state, message in (
        ({}, "are none"),
        ({"actor": torch.zeros(1, 3)}, r"are \(1, 3\), expected"),
        ({"actor": policy.state_dict()["actor"] * float("nan")}, "not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            policy.load_state_dict(state)
    with pytest.raises(ValueError, match=r"shape \(5, 2, 4\), expected \(N, 2, 3\)"):
        policy.act(torch.zeros(5, 2, 4))
