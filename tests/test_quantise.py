"""INT8 forms: scales that lose least, and a tuning that sees exactly what INT8 computes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from streamsr.config import GeneratorSettings
from streamsr.engine import read_engine
from streamsr.models.student import Student, StudentSpec
from streamsr.runtimes import load_generator
from streamsr.training.quantise import (
    RoundedStudent,
    Scales,
    arrays,
    best_clip,
    calibrate,
    rectified,
    spread,
    tune,
    weight_scales,
)
from streamsr.training.ship import write_engine

SPEC = StudentSpec(16, 2, 2)


pytestmark = pytest.mark.usefixtures("one_thread")


def make_student(seed: int = 0, *, spec: StudentSpec = SPEC) -> Student:
    torch.manual_seed(seed)
    student = Student(spec).eval()
    with torch.no_grad():
        for layer in student.layers:
            weight = layer.get_parameter("weight")
            weight.copy_(torch.randn_like(weight) * (2 / weight[0].numel()) ** 0.5)
    return student


def luma(seed: int = 0, height: int = 40, width: int = 48) -> NDArray[np.uint8]:
    noise = torch.rand(1, 1, height // 4, width // 4, generator=torch.Generator().manual_seed(seed))
    smooth = functional.interpolate(noise, size=(height, width), mode="bicubic", align_corners=False)
    picture: NDArray[np.uint8] = (smooth[0, 0] * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    return picture


def rounding_error(weight: Tensor, steps: NDArray[np.float32]) -> NDArray[np.float64]:
    scale = steps.astype(np.float64).reshape(-1, 1, 1, 1)
    values = weight.detach().double().numpy()
    rounded = np.clip(np.rint(values / scale), -127, 127) * scale
    error: NDArray[np.float64] = np.square(rounded - values).sum(axis=(1, 2, 3))
    return error


def test_weight_steps_lose_no_more_than_the_largest_weight_gives() -> None:
    weight = torch.randn(8, 16, 3, 3)
    plain = (weight.abs().amax(dim=(1, 2, 3)) / 127).numpy()
    chosen = weight_scales(weight)
    assert chosen.shape == (8,)
    assert chosen.dtype == np.float32
    assert (rounding_error(weight, chosen) <= rounding_error(weight, plain) * 1.0001).all()


def test_a_step_clips_one_weight_where_that_serves_all_others() -> None:
    weight = torch.randint(-127, 128, (1, 512, 3, 3)) * (0.9 / 127)  # exact in steps of 0.9 / 127, but for one weight
    weight[0, 0, 0, 0] = 1.0
    chosen = weight_scales(weight)
    assert chosen[0] == pytest.approx(0.9 / 127)
    assert rounding_error(weight, chosen)[0] == pytest.approx(0.01, rel=1e-3)
    assert rounding_error(weight, np.array([1.0 / 127], np.float32))[0] > 0.015


def test_weights_that_are_whole_steps_are_exact() -> None:
    whole = torch.randint(-127, 128, (4, 2, 3, 3)).float()
    whole[:, 0, 0, 0] = 127
    assert rounding_error(whole * 0.01, weight_scales(whole * 0.01)).max() < 1e-10


def test_an_output_without_weights_has_a_step_above_zero() -> None:
    assert (weight_scales(torch.zeros(3, 2, 3, 3)) > 0).all()


def test_the_best_clip_gives_up_a_rare_tail_and_keeps_a_common_top() -> None:
    tail = torch.zeros(4096, dtype=torch.float64)
    tail[:1400] = 1000.0
    tail[-1] = 1.0
    assert best_clip(tail, 8.0) < 4.0
    common = torch.ones(4096, dtype=torch.float64)
    assert best_clip(common, 8.0) > 7.5


def test_calibration_covers_most_of_every_activation() -> None:
    student, frames = make_student(), [luma(seed) for seed in range(3)]
    scales = calibrate(student, frames)
    assert len(scales.activation_clips) == SPEC.depth + 1
    assert len(scales.weight_scales) == SPEC.depth + 2
    for clip, *activations in zip(
        scales.activation_clips, *(rectified(student, frame) for frame in frames), strict=True
    ):
        values = torch.cat([activation.flatten() for activation in activations])
        assert 0.3 * float(values.max()) <= clip <= float(values.max()) + 1e-5
        assert float((values > clip).float().mean()) < 0.01


def test_rounded_activations_match_the_quantised_graph_within_one_level(tmp_path: Path) -> None:
    onnx_graph = pytest.importorskip("streamsr.runtimes.onnx_graph")
    student = make_student()
    scales = calibrate(student, [luma()])
    int8 = onnx_graph.quantised_student(
        arrays(student), scale=2, activation_clips=scales.activation_clips, weight_scales=scales.weight_scales
    )
    write_engine(tmp_path / "mini-x2", student, int8)
    picture = luma(5)
    made = load_generator(read_engine(tmp_path / "mini-x2"), GeneratorSettings(precision="int8")).generate(
        picture[None, None]
    )
    with torch.inference_mode():
        rounded = RoundedStudent(student, scales)(torch.from_numpy(picture)[None, None].float() / 255)
        exact = student(torch.from_numpy(picture)[None, None].float() / 255)
    expected = (rounded * 255).round().clamp(0, 255).numpy()
    apart = np.abs(made.astype(np.float64) - expected)
    # A sum on the border of two levels may fall either way in a layer, and the layers behind it carry that on.
    assert (apart <= 1).mean() > 0.999
    assert apart.mean() < 0.2 * np.abs((exact * 255).clamp(0, 255).numpy() - expected).mean()


def test_spreading_halves_what_rounded_activations_cost_and_puts_dead_channels_to_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RoundedStudent, "rounded", lambda self, weight, index: weight)
    student, frames = make_student(), [luma(seed) for seed in range(3)]
    with torch.no_grad():
        student.layers[1].get_parameter("bias")[:3] = -100.0  # never active
        student.layers[1].get_parameter("weight")[5] *= 2.0  # one that needs more levels
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    made, scales = spread(student, frames)
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())
    picture = torch.from_numpy(luma(7))[None, None].float() / 255
    with torch.inference_mode():
        exact = student(picture)
        ours = (RoundedStudent(made, scales)(picture) - exact).square().mean()
        plain = (RoundedStudent(student, calibrate(student, frames))(picture) - exact).square().mean()
        active = functional.relu(functional.conv2d(rectified(made, luma(7))[0], *made.weights()[1], padding=1))
    assert float(ours) < 0.5 * float(plain)
    assert (active[0, :3].amax(dim=(1, 2)) > 0).any(), "a dead channel works"


def test_rounding_leaves_the_given_student_alone() -> None:
    student = make_student()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    rounded = RoundedStudent(student, calibrate(student, [luma()]))
    tune(rounded, crops(), steps=3, rate=1e-3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())
    assert any(not torch.equal(tensor, before[name]) for name, tensor in rounded.student.state_dict().items())


def crops() -> Iterator[tuple[Tensor, Tensor]]:
    """Give the same four small pictures and a truth that the float network reaches exactly, for ever."""
    low = torch.stack([torch.from_numpy(luma(seed, 16, 16)) for seed in range(4)])[:, None].float() / 255
    with torch.no_grad():
        high = make_student()(low)
    while True:
        yield low, high


def test_tuning_comes_nearer_to_the_truth_under_coarse_rounding() -> None:
    torch.manual_seed(0)
    student = make_student()
    fine = calibrate(student, [luma(seed, 16, 16) for seed in range(4)])
    coarse = Scales(fine.activation_clips, tuple(steps * 16 for steps in fine.weight_scales))
    rounded = RoundedStudent(student, coarse)
    low, high = next(crops())
    with torch.no_grad():
        before = float((rounded(low) - high).square().mean())
    tune(rounded, crops(), steps=60, rate=2e-3)
    with torch.no_grad():
        after = float((rounded(low) - high).square().mean())
    assert after < 0.7 * before


def test_tuned_scales_are_those_that_the_network_rounds_with() -> None:
    student = make_student()
    rounded = RoundedStudent(student, calibrate(student, [luma()]))
    tune(rounded, crops(), steps=3, rate=1e-2)
    low, _ = next(crops())
    again = RoundedStudent(rounded.student, rounded.scales())
    with torch.inference_mode():
        assert torch.allclose(again(low), rounded(low), atol=1e-6)
