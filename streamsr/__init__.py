"""streamsr: enlarge endoscopy video with learned generators; research use, no medical claim.

`Upscaler` enlarges single pictures, `upscale_file` a whole video, `open_source` reads one. Importing this package
starts nothing and loads none of the heavy libraries; they are loaded by the first call that needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamsr.api import Upscaler
    from streamsr.capture import open_source
    from streamsr.job import upscale_file

__version__ = "0.1.0"
__all__ = ["Upscaler", "__version__", "open_source", "upscale_file"]

_HOMES = {"Upscaler": "streamsr.api", "upscale_file": "streamsr.job", "open_source": "streamsr.capture"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
