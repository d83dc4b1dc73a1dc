"""The Pulumi program: settings, stack, exports."""

import pulumi
from pulumi.runtime.config import CONFIG

from infra.outputs import export_outputs
from infra.settings import parse_settings
from infra.stacks import stack_nature
from infra.stacks.estate import Estate

estate = Estate(parse_settings(CONFIG.get()), stack_nature(pulumi.get_stack()))
export_outputs(estate.outputs)
