"""Sinks: where enlarged frames go. A recording, or nowhere; `web` (a page) and `metrics` need the extra ``web``."""

from __future__ import annotations

import cv2  # noqa: F401 (before PyAV, whose X11 libraries hang the windows of an OpenCV that is loaded after it)

from streamsr.sinks.base import Sink, SinkReport
from streamsr.sinks.encoders import available_encoders, probe_encoder
from streamsr.sinks.live_recording import LiveRecorder
from streamsr.sinks.null import NullSink
from streamsr.sinks.recording import RecordingSink
from streamsr.sinks.settings import EncoderSettings

__all__ = [
    "EncoderSettings",
    "LiveRecorder",
    "NullSink",
    "RecordingSink",
    "Sink",
    "SinkReport",
    "available_encoders",
    "probe_encoder",
]
