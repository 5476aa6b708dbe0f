"""Sinks: where enlarged frames go. A recording, or nowhere; `web` (a page) and `metrics` need the extra ``web``."""

from streamsr.sinks.base import Sink, SinkReport
from streamsr.sinks.encoders import available_encoders, probe_encoder
from streamsr.sinks.null import NullSink
from streamsr.sinks.recording import RecordingSink
from streamsr.sinks.settings import EncoderSettings

__all__ = [
    "EncoderSettings",
    "NullSink",
    "RecordingSink",
    "Sink",
    "SinkReport",
    "available_encoders",
    "probe_encoder",
]
