"""Pictures that a GPU decoded and that stay on it: played on the CPU here, with PyAV's pictures as surfaces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch

from streamsr import fallback
from streamsr.capture import files, open_source
from streamsr.capture import pictures as pictures_room
from streamsr.capture import surfaces as surfaces_room
from streamsr.capture.base import KeepingSource
from streamsr.capture.decode import Decoder
from streamsr.capture.opening import open_accelerated, open_container
from streamsr.capture.pictures import FrameMaker, Sampling
from streamsr.capture.planes import choose_layout, make_planar, view_planes
from streamsr.capture.surfaces import Surfaces, open_kept
from streamsr.capture.upright import Turn
from streamsr.config import ReadSettings
from streamsr.dealing import DealingUpscaler
from streamsr.device import slot as device_slot
from streamsr.device.upscaler import DeviceUpscaler, holds_the_same
from streamsr.device_frame import DevicePlane, SurfaceCopier, planes_on
from streamsr.engine import find_engine
from streamsr.errors import EngineError
from streamsr.frame import Colour, Frame, PlaneLayout
from streamsr.job import JobResult, upscale_file
from streamsr.runtimes.cuda import CudaGenerator
from tests.surfaces import Surface, noise, on_surface
from tests.test_fallback import LOST, Bench, levels_off, run, settings_for
from tests.videos import make_video, read_numbers

COLOUR = Colour(1, False, 1, 1)
CPU = torch.device("cpu")
FORMATS = ["nv12", "p010le", "p016le"]


pytestmark = pytest.mark.usefixtures("one_thread")


def upscaler_on_cpu(**options: Any) -> DeviceUpscaler:
    return DeviceUpscaler(CudaGenerator(find_engine("tiny-x2"), precision="fp32", device="cpu"), **options)


def both_ways(fmt: str, num: int = 3, size: tuple[int, int] = (66, 50)) -> tuple[list[Frame], list[Frame]]:
    """Return frames of the same pictures: with planes downloaded, and kept."""
    copier, downloaded, kept = SurfaceCopier("cpu"), [], []
    for seed in range(num):
        picture = noise(fmt, *size, seed=seed)
        layout = choose_layout(picture.format)
        planes = view_planes(make_planar(picture, layout, COLOUR), layout)
        frame = Frame(planes, layout, COLOUR, seed, Fraction(1, 25), sequence=seed)
        downloaded.append(frame)
        kept.append(frame.with_planes(copier.copy(Surface(picture), layout)))
    return downloaded, kept


@pytest.mark.parametrize("fmt", FORMATS)
def test_kept_planes_are_enlarged_as_downloaded_ones_and_never_downloaded(fmt: str) -> None:
    downloaded, kept = both_ways(fmt)
    expected = list(upscaler_on_cpu().upscale_all(downloaded))
    made = list(upscaler_on_cpu().upscale_all(kept))
    assert [frame.pts for frame in made] == [frame.pts for frame in kept]
    for frame, other in zip(made, expected, strict=True):
        assert all(isinstance(plane, np.ndarray) for plane in frame.planes)
        assert all(map(np.array_equal, frame.planes, other.planes))
    assert not any(plane.is_downloaded for frame in kept for plane in planes_on(frame, CPU))


def test_frames_of_both_kinds_may_come_by_turns() -> None:
    downloaded, kept = both_ways("nv12", 4)
    mixed = [one for pair in zip(kept, downloaded, strict=True) for one in pair]
    made = list(upscaler_on_cpu().upscale_all(mixed))
    expected = list(upscaler_on_cpu().upscale_all(downloaded))
    for place, frame in enumerate(made):
        assert all(map(np.array_equal, frame.planes, expected[place // 2].planes))
    assert not any(plane.is_downloaded for frame in kept for plane in planes_on(frame, CPU))


def test_planes_on_another_device_are_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    downloaded, kept = both_ways("p010le", 1)
    assert planes_on(kept[0], torch.device("cuda:1")) == []
    monkeypatch.setattr(device_slot, "planes_on", lambda frame, device: [])
    upscaler = upscaler_on_cpu()
    expected = upscaler.upscale(downloaded[0])
    assert all(map(np.array_equal, upscaler.upscale(kept[0]).planes, expected.planes))
    assert all(plane.is_downloaded for plane in planes_on(kept[0], CPU))


def test_kept_frames_are_compared_without_a_download() -> None:
    downloaded, kept = both_ways("nv12", 2)
    assert holds_the_same(kept[0], replace(kept[0], pts=7))
    assert not holds_the_same(kept[0], kept[1])
    assert not holds_the_same(kept[0], downloaded[0])
    assert not holds_the_same(downloaded[0], kept[0])
    assert not any(plane.is_downloaded for frame in kept for plane in planes_on(frame, CPU))
    upscaler = upscaler_on_cpu()
    made = list(upscaler.upscale_all([kept[0], replace(kept[0], pts=7), kept[1]]))
    assert made[1].planes[0] is made[0].planes[0]
    assert made[2].planes[0] is not made[1].planes[0]


def frame_maker(device: str | None = "cpu", **sampling: Any) -> tuple[FrameMaker, list[str]]:
    notes: list[str] = []
    options: dict[str, Any] = {"codec": "h264", "time_base": Fraction(1, 25), "rate": Fraction(25), **sampling}
    surfaces = None if device is None else Surfaces(device, notes.append)
    return FrameMaker(Sampling(**options), notes.append, surfaces=surfaces), notes


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> type[Surface]:
    """Count downloads from nothing."""
    monkeypatch.setattr(Surface, "num_downloads", 0)
    return Surface


@pytest.mark.parametrize("fmt", FORMATS)
def test_pictures_stay_where_they_are_decoded(fmt: str, downloads: type[Surface]) -> None:
    (maker, notes), (host, _) = frame_maker(), frame_maker(None)
    for seed in range(3):
        picture = noise(fmt, 66, 50, seed=seed)
        (frame,), (expected,) = maker.make(Surface(picture)), host.make(picture)  # type: ignore[arg-type]
        assert len(planes_on(frame, CPU)) == 3
        assert not any(plane.is_downloaded for plane in planes_on(frame, CPU))
        assert (frame.layout, frame.colour, frame.pts, frame.sequence) == (
            expected.layout,
            expected.colour,
            expected.pts,
            expected.sequence,
        )
        assert all(map(np.array_equal, frame.planes, expected.planes))
    assert downloads.num_downloads == 0
    assert "decoded pictures stay on the GPU" in notes


@pytest.mark.parametrize(
    "reason", ["no one reads them there", "odd sides", "deinterlaced", "turned", "scaled", "refused", "other format"]
)
def test_pictures_that_the_host_has_work_with_are_downloaded(
    reason: str, downloads: type[Surface], monkeypatch: pytest.MonkeyPatch
) -> None:
    device: str | None = "cpu"
    options: dict[str, Any] = {}
    pictures = [noise("nv12", 66, 50, seed=seed) for seed in range(3)]
    if reason == "no one reads them there":
        device = None
    elif reason == "odd sides":
        pictures = [noise("nv12", 47, 35, seed=seed) for seed in range(3)]
    elif reason == "deinterlaced":
        options = {"deinterlace": "on"}
    elif reason == "turned":
        monkeypatch.setattr(pictures_room, "read_turn", lambda picture: Turn(True, flip_x=True))
    elif reason == "scaled":
        options, pictures = {"fits": True}, [noise("nv12", 32, 20), *pictures]
    elif reason == "refused":
        monkeypatch.setattr(SurfaceCopier, "copy", _refuse)
    else:
        pictures = [one.reformat(format="nv16", threads=1) for one in pictures]
    (maker, notes), (host, _) = frame_maker(device, **options), frame_maker(None, **options)
    made = [frame for one in pictures for frame in maker.make(Surface(one))] + list(maker.flush())  # type: ignore[arg-type]
    expected = [frame for one in pictures for frame in host.make(one)] + list(host.flush())
    assert downloads.num_downloads == 3
    assert len(made) == len(pictures)
    for frame, other in zip(made, expected, strict=True):
        assert all(map(np.array_equal, frame.planes, other.planes))
        assert (frame.layout, frame.colour, frame.pts) == (other.layout, other.colour, other.pts)
    said = [line for line in notes if "by way of the host" in line]
    assert len(said) == (reason in ("refused", "other format"))
    assert all("\n" not in line for line in said)


def _refuse(*_: Any) -> Any:
    raise NotImplementedError("unsupported sw_format for DLPack export")


def test_a_surface_is_held_until_the_next_comes_or_all_is_released() -> None:
    copier = SurfaceCopier("cpu")
    for seed in range(2):
        picture = noise("nv12", 66, 50, seed=seed)
        copier.copy(Surface(picture), PlaneLayout())
        places = [np.frombuffer(plane, np.uint8).ctypes.data for plane in picture.planes]
        assert [tensor.data_ptr() for tensor in copier._held] == places
    copier.release()
    assert copier._held == ()


class Decoded:
    """Plays a GPU's decoder: files open as if it took them, and their pictures are surfaces once they are to stay."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refuses: Exception | None = None
        self.breaks = False
        self.keeps = False
        self.opened: list[str] = []
        monkeypatch.setattr(files, "open_accelerated", lambda path: (self._open(path, "host"), ""))
        monkeypatch.setattr(files, "open_kept", lambda path, device: self._open(path, device))
        send = Decoder._send

        def decode(decoder: Decoder, packet: Any) -> list[Any]:
            if self.breaks and self.keeps:
                return []
            pictures = send(decoder, packet)
            return [on_surface(one) for one in pictures] if self.keeps else pictures

        monkeypatch.setattr(Decoder, "_send", decode)

    def _open(self, path: Path, where: str) -> Any:
        if where != "host" and self.refuses is not None:
            raise self.refuses
        self.opened.append(where)
        self.keeps = where != "host"
        return open_container(path)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Decoded:
    return Decoded(monkeypatch)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_a_file_is_opened_again_for_pictures_that_stay(
    tmp_path: Path, decoded: Decoded, downloads: type[Surface], pix_fmt: str
) -> None:
    codec = "libx264" if pix_fmt == "yuv420p" else "ffv1"
    path = make_video(tmp_path / "in.mkv", num_frames=6, pix_fmt=pix_fmt, codec=codec, audio=True)
    with open_source(path) as plain:
        expected = [item for item in plain if isinstance(item, Frame)]
    with open_source(path, hwaccel="cuda") as source:
        assert isinstance(source, KeepingSource)
        before = source.info
        source.keep_on("cpu")
        assert replace(source.info, notices=()) == replace(before, notices=())
        assert source.info.pix_fmt == pix_fmt
        assert source.info.notices.count("decoded by the GPU (NVDEC)") == 1
        assert "decoded pictures stay on the GPU" in source.info.notices
        items = list(source)
    frames = [item for item in items if isinstance(item, Frame)]
    assert decoded.opened == ["host", "cpu"]
    assert len(items) > len(frames) == len(expected) == source.report.num_frames == 6
    assert source.report.complete
    assert not any(plane.is_downloaded for frame in frames for plane in planes_on(frame, CPU))
    for frame, other in zip(frames, expected, strict=True):
        assert (frame.pts, frame.sequence, frame.colour) == (other.pts, other.sequence, other.colour)
        assert all(map(np.array_equal, frame.planes, other.planes))
    assert downloads.num_downloads == 0


@pytest.mark.parametrize(
    "refuses", [RuntimeError("torch can use no NVIDIA GPU"), av.error.ExternalError(-1, "no"), None]
)
def test_where_pictures_cannot_stay_they_come_as_before(
    tmp_path: Path, decoded: Decoded, refuses: Exception | None
) -> None:
    decoded.refuses, decoded.breaks = refuses, refuses is None
    path = make_video(tmp_path / "in.mkv", num_frames=6)
    with open_source(path, hwaccel="cuda") as source:
        assert isinstance(source, KeepingSource)
        source.keep_on("cpu")
        frames = [item for item in source if isinstance(item, Frame)]
    assert decoded.opened[-1] == "host"
    assert [int(frame.pts) for frame in frames] == sorted({int(frame.pts) for frame in frames})
    assert len(frames) == 6
    assert all(isinstance(plane, np.ndarray) for frame in frames for plane in frame.planes)
    assert [line for line in source.report.notices if "by way of the host: " in line]
    assert source.report.complete
    assert not any("stay on the GPU" in line for line in (*source.info.notices, *source.report.notices))


def test_sources_that_no_gpu_decodes_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(tmp_path / "in.mkv", num_frames=2)
    monkeypatch.setattr(files, "open_kept", _refuse)
    with open_source(path) as source:
        container = source._container  # type: ignore[attr-defined]
        source.keep_on("cuda")  # type: ignore[attr-defined]
        assert source._container is container  # type: ignore[attr-defined]
        assert len(list(source)) == 2
    with open_source("testsrc:endoscopy:size=128x96,frames=2") as rendered:
        assert not isinstance(rendered, KeepingSource)


def test_without_pyav_18_or_a_gpu_the_file_is_not_opened_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video(tmp_path / "in.mkv", num_frames=2)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="no NVIDIA GPU"):
            open_kept(path, "cuda")
    monkeypatch.setattr(surfaces_room, "VideoFrame", object)
    with pytest.raises(RuntimeError, match="PyAV 18 or newer is needed"):
        open_kept(path, "cuda")


def test_ffmpeg_is_told_to_take_torchs_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    @contextmanager
    def context(device: str) -> Iterator[int]:
        seen.append(device)
        yield 1

    monkeypatch.setattr("streamsr.device_frame.torch_context", context)
    monkeypatch.setattr(surfaces_room.av, "open", lambda name, **options: seen.append(options["hwaccel"]))
    open_kept(tmp_path / "x.mp4", "cuda:1")
    assert seen[0] == "cuda:1"
    assert (seen[1].options, seen[1].is_hw_owned, seen[1].device_id) == (
        {"primary_ctx": "0", "current_ctx": "1"},
        True,
        1,
    )


@pytest.mark.parametrize(
    ("context", "why_not"),
    [
        (SimpleNamespace(name="h264", width=64, height=48, is_hwaccel=True), ""),
        (SimpleNamespace(name="vp9", width=63, height=48, is_hwaccel=True), ""),
        (SimpleNamespace(name="vp9", width=64, height=47, is_hwaccel=True), "takes no odd height"),
        (SimpleNamespace(name="ffv1", width=63, height=48, is_hwaccel=False), "takes no ffv1"),
    ],
    ids=["taken", "odd width", "odd height", "unknown codec"],
)
def test_what_the_decoder_does_not_take_or_copies_wrongly_is_decoded_in_software(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: Any, why_not: str
) -> None:
    path = make_video(tmp_path / "in.mkv", num_frames=1)
    container: Any = SimpleNamespace(
        streams=SimpleNamespace(video=[SimpleNamespace(codec_context=context)]), close=lambda: None
    )
    opened = av.open
    monkeypatch.setattr(av, "open", lambda name, **rest: container if "hwaccel" in rest else opened(name, **rest))
    found, reason = open_accelerated(path)
    assert (found is container) == (not why_not)
    assert reason.endswith(why_not)
    found.close()


def job(video: Path, name: str, *, hwaccel: Any = "cuda") -> JobResult:
    settings = replace(settings_for("cuda", reuse_unchanged=False), read=ReadSettings(hwaccel=hwaccel))
    return upscale_file(video, video.with_name(f"{name}.mkv"), settings=settings)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    found = Bench()
    monkeypatch.setattr(fallback, "load_generator", found.load)
    return found


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_a_job_whose_pictures_stay_gives_the_same_file(
    tmp_path: Path, decoded: Decoded, bench: Bench, downloads: type[Surface], pix_fmt: str
) -> None:
    codec = "libx264" if pix_fmt == "yuv420p" else "ffv1"
    video = make_video(tmp_path / "in.mkv", num_frames=6, pix_fmt=pix_fmt, codec=codec, audio=True)
    expected = job(video, "software", hwaccel="none")
    made = job(video, "kept")
    assert made.complete
    assert decoded.opened == ["host", "cpu"]
    assert read_numbers(made.outputs[0], 2) == list(range(6))
    assert downloads.num_downloads == 0
    decoded.keeps = False
    assert max(levels_off(made, expected)) == 0
    assert "decoded pictures stay on the GPU" in made.notices
    with open_source(made.outputs[0]) as result:
        assert [track.kind for track in result.info.tracks] == ["audio"]


def test_a_job_on_the_processor_has_its_pictures_downloaded_by_the_decoder(tmp_path: Path, decoded: Decoded) -> None:
    video = make_video(tmp_path / "in.mkv", num_frames=3)
    settings = replace(settings_for("torch"), read=ReadSettings(hwaccel="cuda"))
    made = upscale_file(video, tmp_path / "out.mkv", settings=settings)
    assert decoded.opened == ["host"]
    assert made.complete


def test_pictures_stay_on_one_gpu_alone() -> None:
    first, second = upscaler_on_cpu(), upscaler_on_cpu()
    assert DealingUpscaler([first]).device == "cpu"
    assert DealingUpscaler([first, second]).device is None


def test_where_the_gpu_has_no_memory_its_pictures_go_on_to_the_processor(
    tmp_path: Path, decoded: Decoded, bench: Bench
) -> None:
    video = make_video(tmp_path / "in.mkv", num_frames=9)
    first, then = job(video, "software", hwaccel="none"), run(video, "openvino", precision="auto")
    bench.fails_at = bench.launches + 4
    made = job(video, "kept")
    assert made.complete
    decoded.keeps = False
    before, after = levels_off(made, first), levels_off(made, then)
    assert max(map(min, zip(before, after, strict=True))) <= 1
    assert before[0] == 0 != before[-1]
    assert any("went on with" in line for line in made.notices)


def test_pictures_that_are_lost_with_the_gpu_end_the_job_in_one_line(
    tmp_path: Path, decoded: Decoded, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(plane: DevicePlane) -> Any:
        raise LOST

    video = make_video(tmp_path / "in.mkv", num_frames=9)
    monkeypatch.setattr(DevicePlane, "on_host", lost)
    bench.fails_at = 4
    with pytest.raises(
        EngineError, match=r"^the GPU failed with decoded pictures on it .* run again with --hwaccel none$"
    ):
        job(video, "kept")


HAS_GPU = torch.cuda.is_available()


@pytest.mark.needs_cuda
@pytest.mark.skipif(not HAS_GPU, reason="needs an NVIDIA GPU")
@pytest.mark.parametrize(
    ("codec", "pix_fmt"), [("libx264", "yuv420p"), ("libx265", "yuv420p"), ("libx265", "yuv420p10le")]
)
@pytest.mark.parametrize("size", [(640, 360), (1920, 1080)], ids=str)
def test_pictures_that_stay_on_a_gpu_are_the_downloaded_ones(
    tmp_path: Path, codec: str, pix_fmt: str, size: tuple[int, int]
) -> None:
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {"bf": "2"}
    path = make_video(
        tmp_path / "in.mp4", codec=codec, pix_fmt=pix_fmt, width=size[0], height=size[1], num_frames=40, options=options
    )
    engine = find_engine("tiny-x2")
    made: dict[str, list[Frame]] = {}
    inputs: dict[str, list[Frame]] = {}
    for way in ("software", "downloaded", "kept"):
        with open_source(path, hwaccel="none" if way == "software" else "cuda") as source:
            if way == "kept":
                assert isinstance(source, KeepingSource)
                source.keep_on("cuda")
                assert "decoded pictures stay on the GPU" in source.info.notices
            upscaler = DeviceUpscaler(CudaGenerator(engine, precision="fp16"), reuse_unchanged=False)
            inputs[way] = []
            frames = (item for item in source if isinstance(item, Frame))
            made[way] = list(upscaler.upscale_all(_noted(frames, inputs[way])))
    assert len(inputs["kept"]) == len(inputs["downloaded"]) == 40
    gpu = torch.empty(0, device="cuda").device
    assert all(planes_on(frame, gpu) for frame in inputs["kept"])
    assert not any(plane.is_downloaded for frame in inputs["kept"] for plane in planes_on(frame, gpu))
    for way in ("software", "downloaded"):  # decoding is exact, whoever does it
        for frame, other in zip(inputs["kept"], inputs[way], strict=True):
            assert (frame.pts, frame.layout, frame.colour) == (other.pts, other.layout, other.colour)
            assert all(map(np.array_equal, frame.planes, other.planes))
    for frame, other in zip(made["kept"], made["downloaded"], strict=True):
        assert all(map(np.array_equal, frame.planes, other.planes))


def _noted(frames: Iterator[Frame], into: list[Frame]) -> Iterator[Frame]:
    for frame in frames:
        into.append(frame)
        yield frame
