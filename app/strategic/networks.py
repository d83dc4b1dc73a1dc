"""The model as it is trained: torch modules whose formulas are those of the compiled kernels."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from app.strategic.agents import (
    BARS,
    FEATURES,
    KERNEL_SCALES,
    MMD_DIMENSIONS,
    MOMENT_BARS,
    PRICE_CHANGE,
    RSI,
    SIGNAL_WIDTH,
    SPLITS,
)
from app.strategic.answers import EDGES, PATTERN_SIZE, REGIMES

SUMMARY: Final = 3 * FEATURES
"""What the pattern must be able to tell again: mean, spread and last value of each feature over the window."""


class SignalNetwork(nn.Module):
    """NWRQK's metric and the regime agent's projection, learned by telling regime and edge from the signals alone."""

    def __init__(self) -> None:
        super().__init__()
        self.log_metric = nn.Parameter(torch.full((FEATURES,), -2.5))
        self.log_scales = nn.Parameter(torch.linspace(1.0, -2.0, KERNEL_SCALES))
        self.log_age = nn.Parameter(torch.tensor(0.0))
        self.projection = nn.Parameter(torch.randn(MMD_DIMENSIONS, FEATURES) * FEATURES**-0.5)
        signals = 3 * KERNEL_SCALES + len(SPLITS) + 2 * len(MOMENT_BARS)
        self.normalise = nn.BatchNorm1d(signals, affine=False)
        self.classify = nn.Sequential(nn.Linear(signals, 48), nn.ReLU(), nn.Linear(48, len(REGIMES) + EDGES))

    def forward(self, windows: Tensor) -> Tensor:
        """Regime and edge logits (N, 7) of standardised windows (N, 13, 48)."""
        signals = torch.cat([self.kernel_regression(windows), self.discrepancy(windows), moments(windows)], dim=1)
        logits: Tensor = self.classify(self.normalise(signals))
        return logits

    def kernel_regression(self, windows: Tensor) -> Tensor:
        """(N, 9), as `agents.kernel_regression`."""
        difference = windows[:, :, -1:] - windows[:, :, :-1]
        age = torch.arange(BARS - 1, 0, -1) / (BARS - 1)
        distance = torch.einsum("f,nfi->ni", self.log_metric.exp(), difference.square())
        distance = distance + self.log_age.exp() * age.square()
        kernel = 1.0 / (1.0 + distance[:, None, :] * self.log_scales.exp()[:, None])
        followed = windows[:, PRICE_CHANGE, None, 1:]
        total = kernel.sum(-1)
        mean = (kernel * followed).sum(-1) / total
        spread = ((kernel * followed.square()).sum(-1) / total - mean.square()).clamp_min(1e-8).sqrt()
        share = total.square() / (kernel.square().sum(-1) * (BARS - 1))
        return torch.stack([mean, spread, share], dim=-1).flatten(1)

    def discrepancy(self, windows: Tensor) -> Tensor:
        """(N, 3), as `agents.discrepancy`."""
        points = torch.einsum("df,nfi->nid", self.projection, windows)
        squares = points.square().sum(-1)
        distance = squares[:, :, None] + squares[:, None, :] - 2.0 * points @ points.mT
        gram = 1.0 / (1.0 + distance.clamp_min(0.0))
        columns = []
        for split in SPLITS:
            sign = torch.full((BARS,), -1.0 / (BARS - split))
            sign[BARS - split :] = 1.0 / split
            columns.append(torch.einsum("i,nij,j->n", sign, gram, sign).clamp_min(1e-8).sqrt())
        return torch.stack(columns, dim=1)


def moments(windows: Tensor) -> Tensor:
    """(N, 8), the means and deviations of `agents.moments`."""
    columns = []
    for bars in MOMENT_BARS:
        recent = windows[:, PRICE_CHANGE, -bars:]
        columns += [recent.mean(1), recent.var(1, correction=0).clamp_min(1e-12).sqrt()]
    return torch.stack(columns, dim=1)


class TrunkNetwork(nn.Module):
    """The shared trunk, MLMI's units and the supervised heads.

    Args:
        trunk: units that see every feature of every bar.
        embedding: units of the second layer, shared by all heads.
    """

    def __init__(self, trunk: int, embedding: int) -> None:
        super().__init__()
        self.first = nn.Linear(BARS * FEATURES, trunk)
        self.mlmi = nn.Linear(BARS, SIGNAL_WIDTH)
        self.second = nn.Linear(trunk + 3 * SIGNAL_WIDTH, embedding)
        inputs = embedding + 3 * SIGNAL_WIDTH
        self.regime = nn.Linear(inputs, len(REGIMES))
        self.edge = nn.Linear(inputs, EDGES)
        self.familiar = nn.Linear(inputs, 1)
        self.pattern = nn.Linear(inputs, PATTERN_SIZE)
        self.summary = nn.Linear(PATTERN_SIZE, SUMMARY)
        for layer in (self.first, self.mlmi, self.second):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def features(self, windows: Tensor, signals: Tensor) -> Tensor:
        """Embedding and the agents' signals (N, H + 48) of flat windows (N, 624) and standardised signals (N, 32)."""
        rsi = windows[:, RSI * BARS : (RSI + 1) * BARS]
        mlmi = torch.relu(self.mlmi(rsi))
        embedding = torch.relu(self.second(torch.cat([torch.relu(self.first(windows)), mlmi, signals], dim=1)))
        return torch.cat([embedding, mlmi, signals], dim=1)

    def forward(self, windows: Tensor, signals: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits of regime (N, 4), edge (N, 3), familiarity (N,), and the summary as the pattern tells it (N, 39)."""
        features = self.features(windows, signals)
        summary = self.summary(torch.tanh(self.pattern(features)))
        return self.regime(features), self.edge(features), self.familiar(features)[:, 0], summary


def summarise_windows(windows: Tensor) -> Tensor:
    """Mean, standard deviation and last value of each feature, (N, 39), of flat windows (N, 624)."""
    shaped = windows.view(-1, FEATURES, BARS)
    return torch.cat([shaped.mean(2), shaped.std(2, correction=0), shaped[:, :, -1]], dim=1)
