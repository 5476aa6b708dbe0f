"""OpenVINO without its telemetry: ``from streamsr.runtimes.untold_openvino import op, ov``.

As it comes, importing it writes to the user's home and tells its makers, and so does every conversion; it does without
where the package that does it is not there. Nothing that streamsr starts tells anybody what it works on.
"""

import sys
from typing import Any, cast

cast("dict[str, Any]", sys.modules).setdefault("openvino_telemetry", None)

import openvino as ov  # noqa: E402
from openvino import opset13 as op  # noqa: E402

__all__ = ["op", "ov"]
