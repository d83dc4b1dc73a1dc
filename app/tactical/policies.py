"""Policies in memory: the version that acts, those that requests name, and the one that comes with the package."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import structlog
import torch
from numpy.typing import NDArray

from app.contract import WINDOW_BARS, WINDOW_FEATURES
from app.mappo import Policy
from app.service.problems import ProblemError
from app.tactical.account import Agent
from app.tactical.checkpoint import CheckpointError
from app.tactical.model import load_policy
from app.tactical.registry import FileStore, StorageError
from app.tactical.store import ModelStore

FOLLOW_SECONDS: Final = 1.0
"""An activation takes hold in every process within this time."""
POLICIES_IN_MEMORY: Final = 16
DEFAULT_VERSION: Final = "default"
DEFAULT_MODEL: Final = Path(__file__).parent / "models" / "default.safetensors"

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """A policy that acts, under its version."""

    version: str
    policy: Policy

    @torch.no_grad()
    def probabilities(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Each agent's distribution over its actions, (N, 3, 5), for ``windows`` (N, 30, 7)."""
        observation = torch.from_numpy(windows).unsqueeze(1).expand(-1, len(Agent), -1, -1)
        return torch.softmax(self.policy.logits(observation), dim=-1).numpy()


class Policies:
    """Loads, verifies and remembers policies."""

    def __init__(self, models: ModelStore, files: FileStore) -> None:
        self._models = models
        self._files = files
        self._loaded: OrderedDict[str, LoadedPolicy] = OrderedDict()
        self._default: LoadedPolicy | None = None
        self._active: LoadedPolicy | None = None
        self._problem: str | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def active_version(self) -> str | None:
        """The version that acts in this process."""
        return None if self._active is None else self._active.version

    async def open(self) -> None:
        """Load the package's model, then the active one, and follow activations."""
        if DEFAULT_MODEL.is_file():
            content = await asyncio.to_thread(DEFAULT_MODEL.read_bytes)
            self._active = self._default = await asyncio.to_thread(_load, DEFAULT_VERSION, content)
        await self.follow()
        self._task = asyncio.create_task(self._keep_following(), name="active-model")

    async def close(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def get(self, version: str | None) -> LoadedPolicy:
        """The policy ``version``, or the one that acts.

        Raises:
            ProblemError: 404 no such version, 409 none is active, 500 its file is not what was saved.
        """
        if version is None or version == self.active_version:
            if self._active is None:
                raise ProblemError(409, "no-active-model", "No model is active: train one and activate it.")
            return self._active
        if version == DEFAULT_VERSION and self._default is not None:
            return self._default
        loaded = self._loaded.get(version)
        if loaded is not None:
            self._loaded.move_to_end(version)
            return loaded
        row = await self._models.get(version)
        if row is None:
            raise ProblemError(404, "unknown-model", f"There is no model version {version!r}.")
        try:
            content = await asyncio.to_thread(self._files.read, row.model_path, row.checksum)
            loaded = await asyncio.to_thread(_load, version, content)
        except (StorageError, CheckpointError) as error:
            raise ProblemError(500, "model-unusable", f"Model version {version} cannot be used: {error}.") from error
        self._remember(loaded)
        return loaded

    def remember(self, version: str, policy: Policy) -> None:
        """Keep a model that was just saved, so that acting with it reads no file; decisions are made on the CPU."""
        if policy.config.device == "cpu":
            self._remember(LoadedPolicy(version, policy))

    async def follow(self) -> None:
        """Take up the activation that the database tells; the present policy goes on acting if that fails."""
        try:
            version = await self._models.active()
            if version is not None and version != self.active_version:
                self._active = await self.get(version)
                _log.info("model active", version=version)
            self._problem = None
        except ProblemError as error:
            if error.kind != "unavailable":  # a database that is away is told elsewhere
                self._problem = str(error.detail)
                _log.warning("active model not loaded", error=self._problem)

    async def readiness(self) -> str | None:
        """Pushes a window through the active policy; None when it answers."""
        if self._active is None:
            return self._problem
        probabilities = self._active.probabilities(np.zeros((1, WINDOW_BARS, WINDOW_FEATURES), dtype=np.float32))
        if not np.isfinite(probabilities).all():
            return f"model {self._active.version} answers with numbers that are not finite"
        return self._problem

    def _remember(self, loaded: LoadedPolicy) -> None:
        self._loaded[loaded.version] = loaded
        while len(self._loaded) > POLICIES_IN_MEMORY:
            self._loaded.popitem(last=False)

    async def _keep_following(self) -> None:
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            await self.follow()


def _load(version: str, content: bytes) -> LoadedPolicy:
    policy, _ = load_policy(content, source=version)
    return LoadedPolicy(version, policy)
