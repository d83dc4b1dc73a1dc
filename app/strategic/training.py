"""Trains a strategic model from nothing: simulated markets in, weights and a report out.

Four steps, each on what the one before it left:

1. NWRQK's metric and the regime agent's projection learn to tell regime and edge from the agents' signals alone.
2. The shared trunk learns regime, edge, a 13-d pattern and what is unlike its markets under supervision.
3. Three agents, then the coordinator, learn positions by MAPPO (`app.mappo`) on the frozen trunk.
4. Posterior covariance, temperatures and confidence are fitted, the latter on markets that nothing was trained on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, huber_loss

from app.mappo import Learner, MappoConfig, Policy, UpdateStats, VectorEnv
from app.strategic.agents import BARS, FEATURES, KERNEL_SCALES, MMD_DIMENSIONS, RSI, SIGNAL_WIDTH, InputWeights, prepare
from app.strategic.answers import ACTIONS, AGENTS, EDGES, REGIMES
from app.strategic.calibration import fit_logistic, fit_temperature
from app.strategic.model import ModelWeights, round_to_bfloat16
from app.strategic.networks import SignalNetwork, TrunkNetwork, summarise_windows
from app.strategic.shifts import PRACTICE, random_market
from app.strategic.simulation import SimulatedMarkets, simulate_markets
from app.strategic.trading import AgentsEnv, CoordinatorEnv, Recording

Float32 = NDArray[np.float32]
Progress = Callable[[str, float, str], None]
"""Called with the step's name, the finished share of it in [0, 1], and what to show."""

CLIP: Final = 8.0
MODERATION: Final = 0.5
CHUNK: Final = 16_384


@dataclass(frozen=True)
class TrainingConfig:
    """Sizes of the model and of its training; the defaults make the shipped model."""

    trunk: int = 288
    sketch: int = 32
    embedding: int = 96
    hidden: int = 32
    series: int = 800
    length: int = 2048
    signal_steps: int = 300
    epochs: int = 2
    batch: int = 1024
    learning_rate: float = 2e-3
    weight_decay: float = 2e-2
    trading_series: int = 128
    agent_frames: int = 1_500_000
    coordinator_frames: int = 750_000
    copies: int = 512
    calibration_series: int = 128
    altered_markets: int = 96


@dataclass(frozen=True)
class _Windows:
    """Training windows: standardised features (S T, 13), flat indices of their ends, and their targets."""

    features: Tensor
    ends: Tensor
    signals: Tensor
    regimes: Tensor
    edges: Tensor

    def flat(self, rows: Tensor) -> Tensor:
        """The windows of ``rows``, (B, 624), feature by feature."""
        bars = self.ends[rows][:, None] + torch.arange(1 - BARS, 1)
        return self.features[bars].transpose(1, 2).reshape(len(rows), -1)


def train_model(config: TrainingConfig, seed: int, progress: Progress) -> tuple[ModelWeights, dict[str, Any]]:
    """Train a model. The same config, seed, machine and number of threads give the same weights.

    Returns:
        The weights and a report: config, seeds, seconds and losses of each step.
    """
    started = time.perf_counter()
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    seeds = {
        name: int(value)
        for name, value in zip(("train", "trade", "calibrate"), random.integers(1 << 31, size=3), strict=True)
    }
    report: dict[str, Any] = {"seed": seed, "config": asdict(config), "market_seeds": seeds}

    progress("simulate", 0.0, f"{config.series} markets of {config.length} bars")
    markets = simulate_markets(series=config.series, length=config.length, seed=seeds["train"])
    inputs = _standardisation(markets)
    inputs, report["signals"] = _learn_signals(markets, inputs, config, progress)
    windows, inputs = _windows(markets, inputs)
    outliers = _Outliers(markets, inputs, config.altered_markets, random)
    network, report["trunk"] = _learn_trunk(windows, outliers, config, progress)

    trading = simulate_markets(series=config.trading_series, length=config.length, seed=seeds["trade"])
    features, _, returns = _encode(network, trading, inputs)
    scale = _Scale.of(features.flatten(0, 1))
    standard = scale.apply(features)
    agents, coordinator, report["trading"] = _learn_to_trade(standard, returns, config, seed, progress)

    progress("calibrate", 0.0, "posterior covariance and temperatures")
    weights = _assemble(inputs, network, scale, agents, coordinator, _sketch(windows, config, random))
    weights = _fit_covariance(weights, markets, random)
    held_out = simulate_markets(series=config.calibration_series, length=1024, seed=seeds["calibrate"])
    weights = _calibrate(weights, held_out)
    report["seconds"] = round(time.perf_counter() - started, 1)
    progress("calibrate", 1.0, f"{report['seconds']} s in all")
    return weights, report


def _standardisation(markets: SimulatedMarkets) -> InputWeights:
    rows = markets.features.reshape(-1, FEATURES)
    return InputWeights(
        center=rows.mean(axis=0, dtype=np.float64).astype(np.float32),
        inverse_scale=(1.0 / rows.std(axis=0, dtype=np.float64)).astype(np.float32),
        clip=np.array([CLIP], np.float32),
        metric=np.ones(FEATURES, np.float32),
        kernel_scales=np.ones(KERNEL_SCALES + 1, np.float32),
        projection=np.zeros((MMD_DIMENSIONS, FEATURES), np.float32),
        signal_center=np.zeros(2 * SIGNAL_WIDTH, np.float32),
        signal_inverse_scale=np.ones(2 * SIGNAL_WIDTH, np.float32),
    )


def _standardise(markets: SimulatedMarkets, inputs: InputWeights) -> Tensor:
    rows = markets.features.reshape(-1, FEATURES)
    standard = np.clip((rows - inputs.center) * inputs.inverse_scale, -CLIP, CLIP)
    return torch.from_numpy(round_to_bfloat16(standard.astype(np.float32)))


def _learn_signals(
    markets: SimulatedMarkets, inputs: InputWeights, config: TrainingConfig, progress: Progress
) -> tuple[InputWeights, dict[str, float]]:
    ends = torch.from_numpy(markets.ends())
    empty = torch.empty(0)
    regimes, edges = (torch.from_numpy(truth.ravel().astype(np.int64)) for truth in (markets.regimes, markets.edges))
    windows = _Windows(_standardise(markets, inputs), ends, empty, regimes, edges)
    network = SignalNetwork()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for step in range(config.signal_steps):
        rows = torch.randint(len(ends), (512,))
        logits = network(windows.flat(rows).view(-1, FEATURES, BARS))
        at = ends[rows]
        loss = cross_entropy(logits[:, : len(REGIMES)], regimes[at]) + cross_entropy(
            logits[:, len(REGIMES) :], edges[at]
        )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
        if step % 20 == 19:
            progress("signals", (step + 1) / config.signal_steps, f"loss {np.mean(losses[-20:]):.3f}")
    learned = inputs._replace(
        metric=_array(network.log_metric.exp()),
        kernel_scales=_array(torch.cat([network.log_scales.exp(), network.log_age.exp()[None]])),
        projection=_array(network.projection),
    )
    return learned, {"steps": config.signal_steps, "loss": float(np.mean(losses[-50:]))}


def _array(tensor: Tensor) -> Float32:
    return tensor.detach().numpy().astype(np.float32).copy()


@dataclass(frozen=True)
class _Scale:
    """Shift and scale that give each column mean zero and deviation one; constant columns are left alone."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> _Scale:
        deviation = rows.std(0)
        return cls(rows.mean(0), torch.where(deviation > 1e-4, deviation, 1.0))

    def apply(self, rows: Tensor) -> Tensor:
        return (rows - self.mean) / self.deviation


def _prepared(matrices: Float32, inputs: InputWeights) -> tuple[Tensor, Tensor]:
    """Flat windows and signals of matrices (N, 48, 13), exactly as the engine computes them."""
    flat = np.empty((len(matrices), BARS * FEATURES), np.float32)
    signals = np.empty((len(matrices), 2 * SIGNAL_WIDTH), np.float32)
    prepare(np.ascontiguousarray(matrices), inputs, flat, signals)
    return torch.from_numpy(flat), torch.from_numpy(signals)


def _prepare(
    markets: SimulatedMarkets, inputs: InputWeights, ends: NDArray[np.int64]
) -> Iterator[tuple[Float32, Float32]]:
    """Flat windows and signals at ``ends``, chunk by chunk."""
    for start in range(0, len(ends), CHUNK):
        matrices = markets.windows(ends[start : start + CHUNK])
        flat, signals = _prepared(matrices, inputs)
        yield flat.numpy(), signals.numpy()


def _windows(markets: SimulatedMarkets, inputs: InputWeights) -> tuple[_Windows, InputWeights]:
    """The training windows, and the input weights with the standardisation of their signals."""
    ends = markets.ends()
    signals = torch.from_numpy(np.concatenate([signals for _, signals in _prepare(markets, inputs, ends)]))
    scale = _Scale.of(signals)
    windows = _Windows(
        features=_standardise(markets, inputs),
        ends=torch.from_numpy(ends),
        signals=scale.apply(signals),
        regimes=torch.from_numpy(markets.regimes.ravel()[ends].astype(np.int64)),
        edges=torch.from_numpy(markets.edges.ravel()[ends].astype(np.int64)),
    )
    return windows, inputs._replace(
        signal_center=_array(scale.mean), signal_inverse_scale=_array(scale.deviation.reciprocal())
    )


class _Outliers:
    """Windows unlike the training markets (`app.strategic.shifts`): a third corrupted, the rest of altered markets."""

    def __init__(
        self, markets: SimulatedMarkets, inputs: InputWeights, count: int, random: np.random.Generator
    ) -> None:
        altered = [
            simulate_markets(series=4, length=1024, seed=int(random.integers(1 << 31)), config=random_market(random))
            for _ in range(count)
        ]
        self._altered = np.concatenate([market.features for market in altered]).reshape(-1, FEATURES)
        each = altered[0].ends()
        self._altered_ends = (np.arange(count)[:, None] * altered[0].regimes.size + each).ravel()
        self._markets = markets
        self._ends = markets.ends()
        self._inputs = inputs
        self._random = random

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """``count`` flat windows and their signals."""
        corrupted = count // 3
        corrupt = PRACTICE[int(self._random.integers(len(PRACTICE)))]
        familiar = self._markets.windows(self._random.choice(self._ends, corrupted))
        ends = self._random.choice(self._altered_ends, count - corrupted)
        altered = self._altered[ends[:, None] + np.arange(1 - BARS, 1)]
        return _prepared(np.concatenate([corrupt(familiar, self._random), altered]), self._inputs)


def _learn_trunk(
    windows: _Windows, outliers: _Outliers, config: TrainingConfig, progress: Progress
) -> tuple[TrunkNetwork, dict[str, Any]]:
    network = TrunkNetwork(config.trunk, config.embedding)
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    per_epoch = len(windows.ends) // config.batch
    steps = config.epochs * per_epoch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=steps, pct_start=0.15)
    recent = torch.zeros(len(_LOSSES))
    for step in range(steps):
        if step % per_epoch == 0:
            order = torch.randperm(len(windows.ends))
        start = step % per_epoch * config.batch
        losses = _trunk_losses(network, windows, order[start : start + config.batch], outliers)
        optimiser.zero_grad()
        losses.sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        recent = torch.lerp(recent, losses.detach(), 0.02)
        if step % 50 == 49:
            shown = " ".join(f"{name} {loss:.3f}" for name, loss in zip(_LOSSES, recent.tolist(), strict=True))
            progress("trunk", (step + 1) / steps, shown)
    return network, {"steps": steps, "losses": dict(zip(_LOSSES, recent.tolist(), strict=True))}


_LOSSES: Final = ("regime", "edge", "pattern", "familiarity")


def _trunk_losses(network: TrunkNetwork, windows: _Windows, rows: Tensor, outliers: _Outliers) -> Tensor:
    """The four losses of one batch; outliers teach familiarity (outlier exposure: Hendrycks et al. 2019)."""
    flat = windows.flat(rows)
    strange, strange_signals = outliers.draw(len(rows) // 2)
    regime, edge, familiarity, summary = network(
        torch.cat([flat, strange]), torch.cat([windows.signals[rows], strange_signals])
    )
    familiar = (torch.arange(len(familiarity)) < len(rows)).float()
    return torch.stack(
        [
            cross_entropy(regime[: len(rows)], windows.regimes[rows]),
            cross_entropy(edge[: len(rows)], windows.edges[rows]),
            huber_loss(summary[: len(rows)], summarise_windows(flat)),
            binary_cross_entropy_with_logits(familiarity, familiar),
        ]
    )


@torch.no_grad()
def _encode(network: TrunkNetwork, markets: SimulatedMarkets, inputs: InputWeights) -> tuple[Tensor, Tensor, Tensor]:
    """Features (S, T', H + 48), ends and returns (S, T') of every window of ``markets``."""
    ends = markets.ends()
    series = len(markets.regimes)
    features = [
        network.features(torch.from_numpy(flat), torch.from_numpy(signals))
        for flat, signals in _prepare(markets, inputs, ends)
    ]
    returns = torch.from_numpy(markets.returns.ravel()[ends])
    return torch.cat(features).view(series, len(ends) // series, -1), torch.from_numpy(ends), returns.view(series, -1)


def _mappo(config: TrainingConfig, frames: int) -> MappoConfig:
    # A bar's reward depends on its action and, through the cost, on the one before: a short horizon is enough.
    return MappoConfig(
        rollout_steps=32,
        epochs=5,
        minibatches=4,
        gamma=0.6,
        gae_lambda=0.9,
        entropy_coefficient=0.005,
        anneal_frames=frames + 32 * config.copies,
        normalise_observations=False,
        share_actor=False,
        actor_hidden_sizes=(config.hidden,),
        critic_hidden_sizes=(64,),
    )


def _learn(
    env: VectorEnv, config: TrainingConfig, frames: int, seed: int, name: str, progress: Progress
) -> tuple[Policy, dict[str, float]]:
    learner = Learner(env, _mappo(config, frames), seed)
    rewards: list[float] = []

    def on_update(stats: UpdateStats) -> None:
        rewards.append(stats.mean_reward)
        if len(rewards) % 5 == 0:
            text = f"reward {np.mean(rewards[-5:]):.3f} entropy {stats.entropy:.2f}"
            progress(name, min(stats.frames / frames, 1.0), text)

    trained = learner.train(frames, on_update)
    first, last = float(np.mean(rewards[:3])), float(np.mean(rewards[-10:]))
    return learner.policy(), {"frames": trained.frames, "reward_before": first, "reward_after": last}


def _learn_to_trade(
    features: Tensor, returns: Tensor, config: TrainingConfig, seed: int, progress: Progress
) -> tuple[Policy, Policy, dict[str, Any]]:
    embedding = config.embedding
    shared = features[..., :embedding]
    own = [features[..., embedding + k * SIGNAL_WIDTH : embedding + (k + 1) * SIGNAL_WIDTH] for k in range(len(AGENTS))]
    observations = torch.stack([torch.cat([shared, signals], dim=-1) for signals in own], dim=2)
    env = AgentsEnv(Recording(observations, returns), config.copies, horizon=64)
    agents, agents_report = _learn(env, config, config.agent_frames, seed, "agents", progress)

    series, length = returns.shape
    with torch.no_grad():
        actions, _ = agents.act(observations.flatten(0, 1))
    proposed = actions.view(series, length, len(AGENTS))
    recording = Recording(features[:, :, None, :], returns)
    choose = CoordinatorEnv(recording, lambda s, t: proposed[s, t], config.copies, horizon=64)
    coordinator, report = _learn(choose, config, config.coordinator_frames, seed + 1, "coordinator", progress)
    return agents, coordinator, {"agents": agents_report, "coordinator": report}


def _layers(policy: Policy, network: int, sizes: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights (inputs, hidden), (hidden, outputs) of an actor and their biases, laid out by `app.mappo.networks`."""
    inputs, hidden, outputs = sizes
    flat = policy.state_dict()["actor"][network]
    lengths = [inputs * hidden, hidden, hidden * outputs, outputs]
    first, first_bias, second, second_bias = torch.split(flat, lengths)
    return first.view(inputs, hidden), first_bias, second.view(hidden, outputs), second_bias


def _sketch(windows: _Windows, config: TrainingConfig, random: np.random.Generator) -> tuple[Float32, Float32]:
    """Whitened directions (624, K) of the windows and their bias (K,): half the leading ones, half mixtures of all.

    A window that breaks the usual relations between bars and features is long in the directions of little variance, and
    every mixture of whitened directions sees that.
    """
    rows = torch.from_numpy(random.choice(len(windows.ends), size=min(60_000, len(windows.ends)), replace=False))
    flat = windows.flat(rows).double()
    mean = flat.mean(0)
    centred = flat - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(rows))
    deviations = (values.clamp_min(0.0) + 1e-4 * values.mean()).sqrt()
    leading = config.sketch // 2
    mixtures = torch.from_numpy(random.standard_normal((len(values), config.sketch - leading))) * len(values) ** -0.5
    directions = torch.cat([vectors[:, -leading:] / deviations[-leading:], (vectors / deviations) @ mixtures], dim=1)
    rounded = round_to_bfloat16(_array(directions))
    return rounded, _array(-mean @ torch.from_numpy(rounded).double())


def _assemble(
    inputs: InputWeights,
    network: TrunkNetwork,
    scale: _Scale,
    agents: Policy,
    coordinator: Policy,
    sketch: tuple[Float32, Float32],
) -> ModelWeights:
    """Fold every standardisation into the products; covariance and calibration are still neutral.

    The products' weights are rounded to bfloat16 here, before anything is calibrated on them: a backend that keeps them
    in half the memory then loses nothing.
    """
    trunk, embedding = network.first.out_features, network.second.out_features
    rectified = trunk + SIGNAL_WIDTH
    total = embedding + 3 * SIGNAL_WIDTH
    first = torch.zeros(BARS * FEATURES, rectified + sketch[0].shape[1])
    first[:, :trunk] = network.first.weight.T
    first[RSI * BARS : (RSI + 1) * BARS, trunk:rectified] = network.mlmi.weight.T
    first[:, rectified:] = torch.from_numpy(sketch[0])
    first_bias = torch.cat([network.first.bias, network.mlmi.bias, torch.from_numpy(sketch[1])])

    actor_weights, actor_biases, columns, biases = [], [], [], []
    hidden = agents.config.actor_hidden_sizes[0]
    for k in range(len(AGENTS)):
        seen = torch.cat([torch.arange(embedding), embedding + k * SIGNAL_WIDTH + torch.arange(SIGNAL_WIDTH)])
        weight, bias, out, out_bias = _layers(agents, k, (len(seen), hidden, len(ACTIONS)))
        columns.append(torch.zeros(total, hidden).index_copy(0, seen, weight / scale.deviation[seen, None]))
        biases.append(bias - (scale.mean[seen] / scale.deviation[seen]) @ weight)
        actor_weights.append(out.T)
        actor_biases.append(out_bias)
    weight, bias, coordinator_out, coordinator_bias = _layers(coordinator, 0, (total, hidden, len(AGENTS)))
    columns.append(weight / scale.deviation[:, None])
    biases.append(bias - (scale.mean / scale.deviation) @ weight)
    for layer in (network.regime, network.edge, network.familiar, network.pattern):
        columns.append(layer.weight.T)
        biases.append(layer.bias)
    heads, head_bias = torch.cat(columns, dim=1), torch.cat(biases)

    features = embedding + sketch[0].shape[1]
    return ModelWeights(
        **inputs._asdict(),
        first_weight=round_to_bfloat16(_array(first)),
        first_bias=_array(first_bias),
        second_weight=round_to_bfloat16(_array(network.second.weight.T)),
        second_bias=_array(network.second.bias),
        head_weight=round_to_bfloat16(_array(heads)),
        head_bias=_array(head_bias),
        actor_weight=_array(torch.stack(actor_weights)),
        actor_bias=_array(torch.stack(actor_biases)),
        coordinator_weight=_array(coordinator_out.T),
        coordinator_bias=_array(coordinator_bias),
        covariance_factor=np.eye(features, dtype=np.float32),
        covariance_bias=np.zeros(features, np.float32),
        uncertainty=np.array([0.0, 1.0, 2.0], np.float32),
        confidence=np.array([1.0, 0.0], np.float32),
    )


def _products(
    weights: ModelWeights, markets: SimulatedMarkets, ends: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Heads and Bayesian features (embedding, sketch) of the windows at ``ends``."""
    rectified = weights.trunk + SIGNAL_WIDTH
    heads, bayesian = [], []
    for flat, signals in _prepare(markets, weights.input_weights(), ends):
        first = flat @ weights.first_weight + weights.first_bias
        units = np.maximum(first[:, :rectified], 0.0)
        embedding = np.maximum(
            np.concatenate([units, signals], axis=1) @ weights.second_weight + weights.second_bias, 0.0
        )
        features = np.concatenate([embedding, units[:, weights.trunk :], signals], axis=1)
        heads.append(features @ weights.head_weight + weights.head_bias)
        bayesian.append(np.concatenate([embedding, first[:, rectified:]], axis=1))
    return np.concatenate(heads).astype(np.float64), np.concatenate(bayesian).astype(np.float64)


def _fit_covariance(weights: ModelWeights, markets: SimulatedMarkets, random: np.random.Generator) -> ModelWeights:
    """Last-layer Laplace (Kristiadi et al. 2020): the variance of a linear layer with intercept, up to scale."""
    ends = markets.ends()
    ends = random.choice(ends, size=min(200_000, len(ends)), replace=False)
    _, features = _products(weights, markets, ends)
    mean = features.mean(axis=0)
    covariance = np.cov(features, rowvar=False)
    ridge = 1e-3 * np.trace(covariance) / len(covariance)
    factor = np.linalg.cholesky(np.linalg.inv(covariance + ridge * np.eye(len(covariance))))
    variance = ((features - mean) @ factor) ** 2
    rounded = round_to_bfloat16((factor / np.sqrt(variance.mean())).astype(np.float32))
    return replace(weights, covariance_factor=rounded, covariance_bias=(-mean @ rounded).astype(np.float32))


def _calibrate(weights: ModelWeights, markets: SimulatedMarkets) -> ModelWeights:
    ends = markets.ends(stride=3)
    heads, features = _products(weights, markets, ends)
    start = 4 * weights.hidden
    strangeness = 1.0 + np.exp(-np.maximum(heads[:, start + len(REGIMES) + EDGES], -30.0))
    variance = ((features @ weights.covariance_factor + weights.covariance_bias) ** 2).mean(axis=1) * strangeness
    median, high = np.quantile(variance, [0.5, 0.99])
    moderation = np.sqrt((1 + MODERATION * median) / (1 + MODERATION * variance))
    head_weight, head_bias = weights.head_weight.copy(), weights.head_bias.copy()
    calibrated = {}
    for name, first, width, truth in (
        ("regime", start, len(REGIMES), markets.regimes),
        ("edge", start + len(REGIMES), EDGES, markets.edges),
    ):
        columns = slice(first, first + width)
        slope, intercepts = fit_temperature(heads[:, columns], truth.ravel()[ends], moderation)
        head_weight[:, columns] = round_to_bfloat16(head_weight[:, columns] * np.float32(slope))
        head_bias[columns] = (head_bias[columns] * slope + intercepts).astype(np.float32)
        calibrated[name] = (heads[:, columns] * slope + intercepts) * moderation[:, None]
    weights = replace(
        weights,
        head_weight=head_weight,
        head_bias=head_bias,
        uncertainty=np.array([MODERATION, median, high], np.float32),
    )
    right = _right_side(weights, heads, calibrated["edge"])
    truth = markets.edges.ravel()[ends]
    slope, intercept = fit_logistic(np.clip(right[1], 1e-6, 1 - 1e-6), right[0] == truth)
    return replace(weights, confidence=np.array([slope, intercept], np.float32))


def _right_side(
    weights: ModelWeights, heads: NDArray[np.float64], edge: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The side of each decision and the probability that the edge head gives it."""
    hidden = weights.hidden
    units = np.tanh(heads[:, : 4 * hidden]).reshape(-1, 4, hidden)
    actions = _softmax(np.einsum("nkh,kah->nka", units[:, :3], weights.actor_weight) + weights.actor_bias)
    trust = _softmax(units[:, 3] @ weights.coordinator_weight.T + weights.coordinator_bias)
    decision = np.einsum("nk,nka->na", trust, actions).argmax(axis=1)
    side = np.sign(decision - 2) + 1
    return side, np.take_along_axis(_softmax(edge), side[:, None], axis=1)[:, 0]


def _softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True), np.float64)
