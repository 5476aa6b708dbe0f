"""Sinks: where enlarged frames go. A recording, or nowhere at all."""

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
