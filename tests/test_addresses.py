"""Names of sources: what each means to FFmpeg, and in one line why it cannot be one."""

from __future__ import annotations

import json
import os
from fractions import Fraction

import pytest

from streamsr.capture.addresses import Address, find_address
from streamsr.capture.protocols import redact
from streamsr.capture.testsrc import read_test_name
from streamsr.config import FeedSettings
from streamsr.errors import InputError, InputNotFound, UsageError
from tests.videos import make_video

RAW = FeedSettings(size=(640, 480), rate=25, input_format="uyvy422")


@pytest.mark.parametrize(
    ("name", "settings", "kind", "expected"),
    [
        ("rtsp://camera/1", FeedSettings(), "network", {"rtsp_transport": "tcp", "timeout": "3000000"}),
        ("rtmp://host/app/key", FeedSettings(), "network", {"rtmp_live": "live"}),
        ("udp://0.0.0.0:5000", FeedSettings(), "network", {"overrun_nonfatal": "1"}),
        ("http://host/a.ts", FeedSettings(read_timeout_s=4.0), "network", {"rw_timeout": "4000000"}),
        ("rtsp://camera/1", FeedSettings(options=(("rtsp_transport", "udp"),)), "network", {"rtsp_transport": "udp"}),
        ("-", RAW, "pipe", {"video_size": "640x480", "framerate": "25", "pixel_format": "uyvy422"}),
        ("pipe:0", FeedSettings(input_format="mpegts"), "pipe", {}),
        ("lavfi:testsrc2", FeedSettings(), "filter", {}),
        ("/dev/null", RAW, "device", {"video_size": "640x480", "framerate": "25", "input_format": "uyvy422"}),
        ("testsrc:endoscopy:size=320x320", FeedSettings(), "rendered", {}),
    ],
)
def test_a_name_means_a_kind_with_its_options(name, settings, kind, expected):
    address = find_address(name, settings)
    assert address.kind == kind
    assert expected.items() <= dict(address.options).items()
    assert Address.from_json(json.loads(json.dumps(address.to_json()))) == address


@pytest.mark.parametrize("name", ["testsrc:endoscopy", "testsrc:endoscopy:seed=3", "testsrc:endoscopy:size=320x256"])
def test_the_rendered_source_has_the_size_and_rate_that_are_asked_for(name):
    address = find_address(name, FeedSettings(size=(320, 256), rate=Fraction(50)))
    settings = read_test_name(address.target)
    assert (settings.width, settings.height, settings.rate) == (320, 256, 50)
    assert settings.seed == (3 if "seed" in name else 0)
    assert address.shown == f"testsrc:{address.target}"


def test_a_large_rendered_scene_is_waited_for():
    address = find_address("testsrc:endoscopy:size=1920x1080", FeedSettings(open_timeout_s=0.3))
    assert address.open_timeout_s > 30
    assert address.read_timeout_s == FeedSettings().read_timeout_s


def test_a_playlist_is_paced_and_waited_for():
    address = find_address("https://host/live/index.m3u8?key=1", FeedSettings())
    assert address.paced
    assert address.read_timeout_s > 6  # seconds, the length of a usual segment


def test_raw_pictures_are_read_as_such():
    assert find_address("-", RAW).demuxer == "rawvideo"


@pytest.mark.parametrize(
    ("name", "settings", "error", "says"),
    [
        ("", FeedSettings(), UsageError, "empty name"),
        ("  ", FeedSettings(), UsageError, "empty name"),
        ("srt://host:1", FeedSettings(), UsageError, "ffmpeg -i"),
        ("ndi://host", FeedSettings(), UsageError, "gst-launch"),
        ("gopher://host", FeedSettings(), UsageError, "expected a URL"),
        ("rtsp://", FeedSettings(), UsageError, "host"),
        ("udp://host:port", FeedSettings(), UsageError, "check the address"),
        ("http://host:99999/", FeedSettings(), UsageError, "check the address"),
        ("/dev/video77", FeedSettings(), InputNotFound, "streamsr devices"),
        ("nothing.mp4", FeedSettings(), InputNotFound, "check the name"),
        ("a" * 300, FeedSettings(pace=True), InputError, "cannot look"),
        ("-", FeedSettings(input_format="yuv420p"), UsageError, "--size"),
        ("-", FeedSettings(input_format="rawvideo", size=(4, 4), rate=25), UsageError, "pixel format"),
        ("-", FeedSettings(input_format="no-such"), UsageError, "--input-format"),
        ("testsrc:kitten", FeedSettings(), UsageError, "testsrc:endoscopy"),
        ("testsrc:endoscopy:size=3x3", FeedSettings(), UsageError, "size"),
        ("rtsp://camera", FeedSettings(read_timeout_s=0), UsageError, "timeouts"),
        ("rtsp://camera", FeedSettings(size=(0, 1)), UsageError, "--size"),
        ("rtsp://camera", FeedSettings(rate=-1), UsageError, "--rate"),
    ],
)
def test_what_cannot_be_a_source_is_refused_in_one_line(name, settings, error, says):
    with pytest.raises(error) as refused:
        find_address(name, settings)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_folders_and_unpaced_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="found a folder"):
        find_address(str(tmp_path), FeedSettings())
    path = make_video(tmp_path / "a.mkv", num_frames=2)
    with pytest.raises(UsageError, match="--pace"):
        find_address(str(path), FeedSettings())
    assert find_address(str(path), FeedSettings(pace=True)).kind == "file"


def test_a_named_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "feed")
    address = find_address(str(tmp_path / "feed"), FeedSettings())
    assert address.kind == "fifo"
    assert not address.paced


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://user:secret@camera:554/live",
        "rtsp://secret@camera/live",
        "http://host/live?token=secret&x=1",
        "rtmp://host/app/secret",
        "rtmp://host/app/secret?x=secret",
        "http://user:se@secret@host/",
    ],
)
def test_no_secret_is_shown(url):
    shown = redact(url)
    assert "secret" not in shown
    assert "host" in shown or "camera" in shown
    assert find_address(url, FeedSettings()).shown == shown
