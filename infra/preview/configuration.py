"""The project's and the stack's configuration, read from the same files that the Pulumi CLI reads.

``Pulumi.yaml`` names the project, its program and its typed configuration with defaults; ``Pulumi.<stack>.yaml`` holds
the stack's values. Values reach the program as the CLI hands them over: keys qualified with their namespace, objects as
JSON text. A ``secure:`` value cannot be decrypted without the stack's key, and need not be: the program gets a
placeholder that stays marked as secret.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from infra.preview.errors import WrongInput
from infra.preview.model import Value

SECRET_PLACEHOLDER: Final = "[secret]"  # noqa: S105 - it stands in for one
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Configuration:
    """What the program is run with.

    ``values`` maps qualified keys (``grandmodel:domain``) to text, as ``pulumi.Config`` expects; ``secret_keys`` are
    those that hold one.
    """

    project: str
    stack: str
    program: Path
    root: Path
    values: Mapping[str, str]
    secret_keys: tuple[str, ...]

    @property
    def region(self) -> str:
        """The region of the default AWS provider, or a neutral one where none is configured."""
        return self.values.get("aws:region", "us-east-1")

    @property
    def shown(self) -> dict[str, str]:
        """The values with each secret replaced by its placeholder."""
        return {k: SECRET_PLACEHOLDER if k in self.secret_keys else v for k, v in sorted(self.values.items())}


def load_configuration(stack: str, directory: Path, *, program: Path | None = None) -> Configuration:
    """Read ``directory``'s project and stack files; ``program`` overrides the project's ``main``.

    Raises:
        WrongInput: a file is missing, broken, or does not fit the project's schema; one line for each mistake.
    """
    project_file = directory / "Pulumi.yaml"
    if not project_file.is_file():
        raise WrongInput(f"{project_file}: no such file: run from the repository's root or pass --config-dir")
    project = _read_yaml(project_file)
    name = project.get("name")
    if not isinstance(name, str):
        raise WrongInput(f"{project_file}: name: must be the project's name")
    stack_file = directory / f"Pulumi.{stack}.yaml"
    if not stack_file.is_file():
        known = sorted(
            file.name.removeprefix("Pulumi.").removesuffix(".yaml") for file in directory.glob("Pulumi.*.yaml")
        )
        raise WrongInput(
            f"unknown stack {stack!r}: {stack_file} does not exist; known stacks: {', '.join(known) or 'none'}"
        )
    values, secret_keys = _stack_values(stack_file, _read_yaml(stack_file).get("config") or {}, name)
    _apply_schema(stack, project_file, project.get("config") or {}, name, values)
    main = program or directory / str(project.get("main", "."))
    if not (main / "__main__.py").is_file() and not main.is_file():
        raise WrongInput(f"{main}: no program there (expected __main__.py): see `main` in {project_file}")
    texts = {key: value if isinstance(value, str) else _text(value) for key, value in values.items()}
    return Configuration(name, stack, main, directory, dict(sorted(texts.items())), tuple(sorted(secret_keys)))


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        document = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a safe loader, the C one where it exists
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise WrongInput(f"{file}{where}: broken YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise WrongInput(f"{file}: broken YAML: {str(error).splitlines()[0]}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise WrongInput(f"{file}: must be a mapping, not a {type(document).__name__}")
    return document


def _stack_values(file: Path, config: object, project: str) -> tuple[dict[str, Any], set[str]]:
    if not isinstance(config, dict):
        raise WrongInput(f"{file}: config: must be a mapping, not a {type(config).__name__}")
    values: dict[str, Any] = {}
    secret_keys: set[str] = set()
    for key, value in config.items():
        qualified = str(key) if ":" in str(key) else f"{project}:{key}"
        values[qualified], secret = _decrypt(value)
        if secret:
            secret_keys.add(qualified)
    return values, secret_keys


def _decrypt(value: Value) -> tuple[Value, bool]:
    """``value`` with each ``{secure: ciphertext}`` replaced by a placeholder, and whether there was one."""
    if isinstance(value, dict):
        if set(value) == {"secure"}:
            return SECRET_PLACEHOLDER, True
        items = {key: _decrypt(item) for key, item in value.items()}
        return {key: item for key, (item, _) in items.items()}, any(secret for _, secret in items.values())
    if isinstance(value, list):
        elements = [_decrypt(item) for item in value]
        return [item for item, _ in elements], any(secret for _, secret in elements)
    return value, False


def _apply_schema(stack: str, file: Path, schema: object, project: str, values: dict[str, Any]) -> None:
    """Fill in defaults and check types, as the CLI does before it starts the program."""
    if not isinstance(schema, dict):
        raise WrongInput(f"{file}: config: must be a mapping, not a {type(schema).__name__}")
    mistakes = []
    for key, declared in schema.items():
        qualified = str(key) if ":" in str(key) else f"{project}:{key}"
        entry = declared if isinstance(declared, dict) else {"default": declared}
        if qualified not in values and entry.get("value", entry.get("default")) is not None:
            values[qualified] = entry.get("value", entry.get("default"))
        if qualified not in values:
            if "type" in entry and "default" not in entry:
                mistakes.append(
                    f"stack {stack!r} is missing configuration value {qualified!r}: add it to Pulumi.{stack}.yaml"
                )
        elif (
            (kind := entry.get("type"))
            and values[qualified] != SECRET_PLACEHOLDER
            and not _fits(values[qualified], kind)
        ):
            mistakes.append(
                f"stack {stack!r}, configuration key {qualified!r}: {_text(values[qualified])!r} is no {kind}"
            )
    if mistakes:
        raise WrongInput(*mistakes)


def _fits(value: Value, kind: str) -> bool:
    if kind in ("integer", "number"):
        try:
            number = float(value)
        except (TypeError, ValueError):
            return False
        return not isinstance(value, bool) and math.isfinite(number) and (kind == "number" or number.is_integer())
    if kind == "boolean":
        return isinstance(value, bool) or value in ("true", "false")
    kinds: dict[str, type | tuple[type, ...]] = {"array": list, "object": dict, "string": (str, int, float, bool)}
    return isinstance(value, kinds.get(kind, object))


def _text(value: Value) -> str:
    """``value`` as the CLI hands it to the program: text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), default=str)
