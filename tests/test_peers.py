"""Peers: shapes, published counts, reach, gradients; a collapsed network computes the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import retrained, variants
from benchmarks.peers.networks import PEERS, Branches, Compact, Disp, Espcn, Fsrcnn, Peer, Span, StudentVariant
from streamsr.errors import UsageError
from streamsr.models.student import SPECS, BranchedStudent
from streamsr.training.data import LUMA_601, luma_of
from tests.frames import make_data


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", PEERS)
def test_output_is_scale_times_the_input(name: str) -> None:
    network = PEERS[name]()
    scale, colours = int(name[-1]), network.colours
    assert network.scale == scale
    assert network(torch.rand(2, colours, 7, 9)).shape == (2, colours, 7 * scale, 9 * scale)


@pytest.mark.parametrize("name", PEERS)
def test_gradient_reaches_every_parameter(name: str) -> None:
    network = PEERS[name]()
    network(torch.rand(1, network.colours, 12, 12)).square().mean().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert float(parameter.grad.abs().sum()) > 0, parameter_name


@pytest.mark.parametrize("name", PEERS)
def test_reach_is_the_stated_radius(name: str) -> None:
    network = PEERS[name]().double()
    radius = network.receptive_radius_px
    side, scale = 2 * radius + 5, network.scale
    luma = torch.rand(1, network.colours, side, side, dtype=torch.float64, requires_grad=True)
    middle = side // 2
    block = network(luma)[..., middle * scale : (middle + 1) * scale, middle * scale : (middle + 1) * scale]
    (gradient,) = torch.autograd.grad(block.square().sum(), luma)
    rows = gradient[0, 0].abs().sum(1).nonzero()[:, 0]
    columns = gradient[0, 0].abs().sum(0).nonzero()[:, 0]
    assert max(middle - int(rows.min()), int(rows.max()) - middle) == radius
    assert max(middle - int(columns.min()), int(columns.max()) - middle) == radius


@pytest.mark.parametrize(
    ("network", "published"),
    [
        # Compact x4: 621,424 (Real-ESRGAN's realesr-general); SPAN-28 0.151 M, DISP 0.164 M (NTIRE 2026, results).
        (Compact(4, colours=3), 621_424),
        (Span(4, channels=28, colours=3), 150_688),
        (Disp(4, colours=3), 163_792),
        (Espcn(3), 22_729),
    ],
    ids=["compact", "span", "disp", "espcn"],
)
def test_parameter_counts_are_the_published_ones(network: Peer, published: int) -> None:
    assert parameters(network) == published


def test_fsrcnn_has_the_papers_12464_weights() -> None:
    weights = [p for name, p in Fsrcnn(3).named_parameters() if name.endswith("weight") and p.ndim == 4]
    assert sum(weight.numel() for weight in weights) == 12_464


@pytest.mark.parametrize(
    ("network", "macs", "published"),
    [
        (Fsrcnn(2), 12_464, 26_072),
        (Fsrcnn(4), 12_464, 80_504),
        (Span(4, channels=28, colours=3), 150_052, 150_052),
        (Disp(4, colours=3), 163_168, 163_168),
        (Espcn(2), 21_184, 21_184),
    ],
)
def test_costs_are_the_published_ones(network: Peer, macs: int, published: int) -> None:
    assert (network.macs_per_pixel, network.published_macs_per_pixel) == (macs, published)


@pytest.mark.parametrize("name", PEERS)
def test_collapsed_network_computes_the_same_at_the_same_cost(name: str) -> None:
    network = PEERS[name]().double()
    luma = torch.rand(1, network.colours, 10, 11, dtype=torch.float64)
    before, macs = network(luma), network.macs_per_pixel
    collapsed = network.collapse()
    torch.testing.assert_close(collapsed(luma), before)
    assert collapsed.macs_per_pixel == macs
    assert not [key for key in collapsed.state_dict() if "cross" in key]


@pytest.mark.parametrize("name", ["fsrcnn-x2", "espcn-x2", "span-28-x2", "disp-x2"])
def test_a_few_steps_lower_the_error(name: str) -> None:
    network = PEERS[name]()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    truth = nn.functional.interpolate(torch.rand(4, 1, 6, 6), (32, 32), mode="bicubic").clamp(0, 1)
    luma = nn.functional.avg_pool2d(truth, 2)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        loss = (network(luma) - truth).abs().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("scale", [2, 4])
def test_small_relatives_cost_at_most_what_fast_costs_and_not_much_less(scale: int) -> None:
    fast = SPECS[f"fast-x{scale}"].macs_per_pixel
    for family in ("compact-s", "span-s", "resnet-s"):
        macs = PEERS[f"{family}-x{scale}"]().macs_per_pixel
        assert 0.85 * fast <= macs <= fast, (family, macs, fast)


@pytest.mark.parametrize("scale", [2, 4])
def test_variants_are_our_students_but_for_what_is_tried(scale: int) -> None:
    quality, fast = SPECS[f"quality-x{scale}"], SPECS[f"fast-x{scale}"]
    assert PEERS[f"quality-groups-x{scale}"]().macs_per_pixel == quality.macs_per_pixel
    more = 9 * fast.channels * 2 * (1 + scale**2)
    assert PEERS[f"fast-rgb-x{scale}"]().macs_per_pixel == fast.macs_per_pixel + more
    plain = StudentVariant(scale, channels=fast.channels, depth=fast.depth)
    ours, branches = BranchedStudent(fast), [part for part in plain.modules() if isinstance(part, Branches)]
    for layer, (weight, bias) in zip(branches, ours.collapsed_weights(), strict=True):
        layer.absorb(weight, bias)
    luma = torch.rand(1, 1, 7, 9)
    torch.testing.assert_close(plain(luma), ours(luma), atol=1e-5, rtol=0)


def test_every_contender_can_be_drawn_and_its_cost_told() -> None:
    for name in retrained.CONTENDERS:
        found = retrained.cost(retrained.drawn(name))
        assert found["macs_per_pixel"] > 10_000
        assert found["published_macs_per_pixel"] >= found["macs_per_pixel"]
    assert retrained.cost(retrained.drawn("span-s-x2"))["parameters"] < 80_000, "branches do not count"


def test_quality_against_cost_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    sides = {form: {"set": {"field_of_view": db}} for form, db in (("bicubic", 30.0), ("fp32", 32.0))}
    networks = {name: {"macs_per_pixel": 20_000, "test": sides} for name in ("tiny-x2", "espcn-x2", "fast-x4")}
    assert retrained.mean_gain(networks["tiny-x2"]) == 2.0
    assert retrained.drawn_plot(networks).startswith(b"\x89PNG")


def test_a_variant_is_compared_with_the_student_that_was_trained_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data(tmp_path / "data", sets=("one",))
    short = {"steps": 2, "batch": 1, "patch_px": 16, "validate_every": 2, "warm_steps": 1}
    budget = retrained.budget
    monkeypatch.setattr(retrained, "budget", lambda *names: replace(budget(*names), **short, finetune_steps=1))
    monkeypatch.setattr(variants, "RESULT", tmp_path / "variants.json")
    monkeypatch.setattr(variants, "CONTENDERS", ["fast-x2", "fast-rgb-x2", "quality-x2"])
    options, threads = ["--runs", str(tmp_path / "runs"), "--data", str(data)], torch.get_num_threads()
    said: list[str] = []
    try:
        with pytest.raises(UsageError, match=r"expected a finished run, got none; train them with --all"):
            variants.main(options, said.append)
        for name in ("fast-x2", "fast-rgb-x2"):
            assert variants.main([*options, "--train", name], said.append) == 0
        assert variants.main(options, said.append) == 0
    finally:
        torch.set_num_threads(threads)
    assert "not trained, and left out: quality-x2" in said
    result = json.loads((tmp_path / "variants.json").read_text())
    ours, other = (result["networks"][name] for name in ("fast-x2", "fast-rgb-x2"))
    assert list(result["above"]) == ["colour"]
    for side in ("val", "test"):
        for measure in variants.MEASURES:
            assert 10 < ours[side][measure]["one"] < 60
            apart = other[side][measure]["one"] - ours[side][measure]["one"]
            assert result["above"]["colour"]["x2"][side][measure] == {"one": pytest.approx(apart, abs=6e-4)}


def test_video_keeps_luma_and_loses_fine_colour() -> None:
    rgb = np.random.default_rng(2).integers(90, 160, (7, 9, 3), np.uint8)
    filmed = variants.as_video(rgb)
    back = filmed @ LUMA_601 + 16
    assert np.abs(back - luma_of(rgb)).max() < 0.01, "colour differences leave luma alone"
    assert np.abs(filmed - rgb).max() > 8
    flat = np.full((6, 8, 3), (90, 120, 150), np.uint8)
    assert np.abs(variants.as_video(flat) - flat).max() < 1.5, "but for rounding"


def test_a_luma_networks_picture_has_its_luma_and_the_colour_of_the_input() -> None:
    rgb = np.random.default_rng(1).integers(60, 190, (6, 7, 3), np.uint8)
    luma = luma_of(rgb)
    shown = variants.coloured(luma + np.uint8(9), rgb)
    assert np.abs(luma_of(shown).astype(int) - luma - 9).max() <= 1
    assert np.abs((shown[..., 0].astype(int) - shown[..., 1]) - (rgb[..., 0].astype(int) - rgb[..., 1])).max() <= 1


def test_a_contender_is_trained_measured_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    data = make_data(tmp_path / "data", sets=("one",))
    short = {"steps": 3, "batch": 1, "patch_px": 16, "validate_every": 3, "checkpoint_every": 3, "warm_steps": 1}
    budget = retrained.budget
    monkeypatch.setattr(
        retrained, "budget", lambda *names: replace(budget(*names), **short, finetune_steps=1, log_every=1)
    )
    monkeypatch.setattr(retrained, "RESULT", tmp_path / "retrained.json")
    monkeypatch.setattr(retrained, "PLOT", tmp_path / "retrained.png")
    monkeypatch.setattr(retrained, "CONTENDERS", ["espcn-x2", "span-s-x2"])
    options = ["--runs", str(tmp_path / "runs"), "--data", str(data)]
    said: list[str] = []
    threads = torch.get_num_threads()
    try:
        with pytest.raises(UsageError, match=r"expected a finished run, got none; train them with --all"):
            retrained.main(options, said.append)
        assert not (tmp_path / "retrained.json").exists()
        for more in (["--train", "span-s-x2"], []):
            assert retrained.main(options + more, said.append) == 0
        assert said[0] == "not trained, and left out: espcn-x2"
        only = json.loads((tmp_path / "retrained.json").read_text())["networks"]
        assert list(only) == ["span-s-x2"]
        assert retrained.main([*options, "--all"], said.append) == 0
        assert [line for line in said if line.endswith("training")] == ["espcn-x2: training"]
        both = json.loads((tmp_path / "retrained.json").read_text())["networks"]
        assert list(both) == ["espcn-x2", "span-s-x2"]
        assert both["span-s-x2"] == only["span-s-x2"]
        log = tmp_path / "runs" / "espcn-x2" / "log.jsonl"
        log.write_text("".join(line + "\n" for line in log.read_text().splitlines() if "score" not in line))
        assert not retrained.is_finished(log.parent)
        (log.parent / "best.safetensors").unlink()
        assert not retrained.is_finished(log.parent)
        assert retrained.main(options, said.append) == 0
        kept = json.loads((tmp_path / "retrained.json").read_text())["networks"]
        assert kept == both, "a row of a run elsewhere stays"
        monkeypatch.setattr(
            retrained, "budget", lambda *names: replace(budget(*names), **short | {"batch": 2}, finetune_steps=1)
        )
        assert retrained.main(options, said.append) == 0
    finally:
        torch.set_num_threads(threads)
    (row,) = json.loads((tmp_path / "retrained.json").read_text())["networks"].values()
    assert row["steps"] == 3
    assert row["parameters"] < 80_000
    assert set(row["test"]["fp32"]) == {"one"}
    assert (tmp_path / "retrained.png").is_file()
