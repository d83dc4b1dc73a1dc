"""``python -m ops``."""

import sys

from ops.cli import app

try:
    app(prog_name="python -m ops")
except ModuleNotFoundError as error:  # the images carry what scheduled jobs need, and no client of Kubernetes
    print(f"error: this command needs {error.name}: pip install 'grandmodel[ops]'", file=sys.stderr)
    sys.exit(2)
