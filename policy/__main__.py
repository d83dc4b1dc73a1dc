"""The entry point of ``pulumi preview --policy-pack policy``.

Pulumi runs this directory, under whatever name it has where the pack was unpacked, in the pack's own environment. So
the directory is made known as the package ``policy`` before anything is imported from it.
"""

import importlib.util
import sys
from pathlib import Path

if "policy" not in sys.modules:
    _here = Path(__file__).resolve().parent
    _spec = importlib.util.spec_from_file_location(
        "policy", _here / "__init__.py", submodule_search_locations=[str(_here)]
    )
    if _spec is None or _spec.loader is None:
        raise ImportError(f"cannot import the pack from {_here}")
    sys.modules["policy"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["policy"])
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != _here]

from policy.analyzer import serve
from policy.catalog import RULES

serve(RULES)
