"""JSON schema of the outputs' contract: ``python -m infra.outputs_schema [FILE]`` prints or writes it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from infra.outputs import SCHEMA_VERSION, EstateOutputs


def render_schema() -> dict[str, Any]:
    """The schema, with the version that it describes."""
    schema = EstateOutputs.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = f"Outputs of an estate, version {SCHEMA_VERSION}"
    schema["properties"]["schema_version"]["const"] = SCHEMA_VERSION
    return schema


def main() -> None:
    """Write the schema to the file that was named, or to standard output."""
    parser = argparse.ArgumentParser(prog="python -m infra.outputs_schema", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, help="where to write it; standard output by default")
    file: Path | None = parser.parse_args().file
    text = json.dumps(render_schema(), indent=2, sort_keys=True) + "\n"
    if file is None:
        sys.stdout.write(text)
    else:
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
