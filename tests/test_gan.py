"""Adversarial runs: both networks learn, highlights are spared, a kill leaves no trace, what cannot be is refused."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

pytest.importorskip("PIL")

from safetensors.torch import load_file

from streamsr.errors import EngineError, InputNotFound, UsageError
from streamsr.models.features import FeatureNetwork, ScopeFeatures
from streamsr.models.srgan import SRGANGenerator
from streamsr.quality.feature_files import save_scope_features
from streamsr.quality.perceptual import LpipsLike
from streamsr.training import gan, networks
from streamsr.training.crops import Crops
from streamsr.training.curves import read_log
from streamsr.training.gan import HIGHLIGHT_MARGIN_PX, AdversarialTraining
from streamsr.training.losses import charbonnier
from streamsr.training.networks import save_weights
from streamsr.training.run import BEST
from streamsr.training.settings import GanSettings
from tests.frames import make_data
from tests.test_training import Killed, assert_equal, kill_at, state_of

WIDTHS = (8, 8, 8, 8, 8, 8, 8, 8)


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One residual block, a narrow discriminator, no curves; undo the number of threads that runs set."""
    monkeypatch.setitem(networks.NETWORKS, "srgan-x2", lambda: SRGANGenerator(scale=2, num_blocks=1))
    monkeypatch.setattr("streamsr.models.discriminator.WIDTHS", WIDTHS)
    monkeypatch.setattr("streamsr.training.run.draw_curves", lambda folder: None)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), splits=("train", "val"))


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of a small feature network."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("features") / "features.safetensors"
    save_scope_features(ScopeFeatures((8, 8)), path)
    return path


@pytest.fixture
def settings(data: Path, features: Path, tmp_path: Path) -> GanSettings:
    """Return a short run with every loss."""
    return GanSettings(
        model="srgan-x2",
        data=str(data),
        output=str(tmp_path / "run"),
        steps=6,
        batch=2,
        patch_px=16,
        warm_steps=1,
        validate_every=3,
        validation_frames=1,
        checkpoint_every=2,
        log_every=1,
        device="cpu",
        features=str(features),
        pixel_weight=0.01,
        artefact_weight=1.0,
        consistency_weight=0.1,
        spare_highlights=True,
    )


# What is kept.


def test_a_blend_lies_between_the_start_and_what_was_trained(settings: GanSettings, tmp_path: Path) -> None:
    first = AdversarialTraining(replace(settings, output=str(tmp_path / "first")))
    first.run()
    start = str(tmp_path / "first" / BEST)
    kept = {}
    for blend in (0.0, 0.25, 1.0):
        blended = replace(settings, output=str(tmp_path / f"{blend}"), start=start, blend=blend)
        AdversarialTraining(blended).run()
        kept[blend] = load_file(tmp_path / f"{blend}" / BEST)
    for name, tensor in load_file(start).items():
        assert torch.equal(kept[0.0][name], tensor)
        if tensor.is_floating_point():
            torch.testing.assert_close(kept[0.25][name], torch.lerp(tensor, kept[1.0][name], 0.25))
    assert any(not torch.equal(kept[0.25][name], kept[1.0][name]) for name in kept[1.0])


@pytest.mark.parametrize(("blend", "start"), [(1.5, "best.safetensors"), (0.5, "")])
def test_a_blend_that_cannot_be_is_refused(settings: GanSettings, blend: float, start: str) -> None:
    with pytest.raises(UsageError, match="expected a blend of 0 to 1 with weights of start"):
        replace(settings, blend=blend, start=start)


# Resuming.


def test_a_run_killed_at_any_step_and_resumed_is_the_undisturbed_run(settings: GanSettings, tmp_path: Path) -> None:
    AdversarialTraining(replace(settings, output=str(tmp_path / "whole"))).run()
    for step in (1, 2, 5):  # one run, killed three times
        run = AdversarialTraining(settings)
        kill_at(run, step)
        with pytest.raises(Killed):
            run.run()
        assert run.step == step
    resumed = AdversarialTraining(settings)
    assert resumed.step == 4
    resumed.run()
    state = state_of(tmp_path / "run")
    assert state["networks"].keys() == {"network", "average", "discriminator"}
    assert_equal(state, state_of(tmp_path / "whole"))
    assert (tmp_path / "run" / BEST).read_bytes() == (tmp_path / "whole" / BEST).read_bytes()


def test_a_checkpoint_of_other_crops_is_refused(settings: GanSettings) -> None:
    AdversarialTraining(settings).save()
    with pytest.raises(UsageError, match=r"expected a checkpoint of this network, got .*size mismatch") as caught:
        AdversarialTraining(replace(settings, patch_px=24))
    assert "\n" not in str(caught.value)


# Losses.


def one_step(run: AdversarialTraining, output: Tensor, truth: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Take a step with a given output in place of the generator's; return the output's gradient and the losses."""
    leaf = output.clone().requires_grad_()
    low = functional.avg_pool2d(truth, 2)
    number = torch.zeros(len(truth), dtype=torch.int64)
    crops = Crops(low, truth, number, number, number.float())
    run.forward = lambda lr: leaf
    run.sampler = type("Given", (), {"draw": lambda self: crops})()  # type: ignore[assignment]
    run.set_rates()
    losses = run.take_step()
    assert leaf.grad is not None
    return leaf.grad, losses


def spotted() -> tuple[Tensor, Tensor]:
    """Return a truth with one white spot of 4x4 and one red one, and an output that differs everywhere."""
    torch.manual_seed(1)
    truth = 0.2 + 0.5 * torch.rand(2, 3, 32, 32)
    truth[..., 8:12, 8:12] = 1.0
    truth[:, 0, 24:28, 24:28] = 1.0
    return truth, (truth + 0.1 * torch.randn_like(truth)).clamp(0, 1)


@pytest.mark.parametrize("spare", [True, False])
def test_features_and_adversary_send_no_gradient_to_spared_highlights(
    settings: GanSettings, monkeypatch: pytest.MonkeyPatch, spare: bool
) -> None:
    monkeypatch.setattr(gan, "HIGHLIGHT_WEIGHT", 0.0)
    truth, output = spotted()
    critics = replace(settings, spare_highlights=spare, pixel_weight=0.0, artefact_weight=0.0, consistency_weight=0.0)
    gradient, losses = one_step(AdversarialTraining(critics), output, truth)
    assert losses.keys() - {"highlights"} == {"discriminator", "adversarial", "features"}
    margin = 2 * HIGHLIGHT_MARGIN_PX
    white = gradient[..., 8 - margin : 12 + margin, 8 - margin : 12 + margin]
    assert bool(white.any()) is not spare
    outside = gradient.abs().sum(dim=1) > 0
    outside[:, 8 - margin : 12 + margin, 8 - margin : 12 + margin] = True
    assert outside.all(), "everything else is taught, red spots too"


def test_the_adversary_alone_sends_no_gradient_to_spared_highlights(
    settings: GanSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gan, "HIGHLIGHT_WEIGHT", 0.0)
    truth, output = spotted()
    alone = replace(settings, feature_weight=0.0, pixel_weight=0.0, artefact_weight=0.0, consistency_weight=0.0)
    gradient, losses = one_step(AdversarialTraining(alone), output, truth)
    assert losses.keys() == {"discriminator", "adversarial", "highlights"}
    assert not gradient[..., 8:12, 8:12].any()
    assert gradient.any()


def test_spared_highlights_are_held_at_full_strength(settings: GanSettings) -> None:
    truth, output = spotted()
    alone = replace(settings, feature_weight=0.0, adversarial_weight=0.0, pixel_weight=0.0)
    alone = replace(alone, artefact_weight=0.0, consistency_weight=0.0)
    gradient, losses = one_step(AdversarialTraining(alone), output, truth)
    spot = torch.zeros(2, 1, 32, 32)
    spot[..., 8 - 4 : 12 + 4, 8 - 4 : 12 + 4] = 1
    torch.testing.assert_close(losses["highlights"], charbonnier(output, truth, mask=spot))
    assert (gradient != 0).equal((spot > 0) & (output != truth)), "there and nowhere else"


def test_what_is_trained_from_a_start_is_what_ships(settings: GanSettings, tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    save_weights(start, networks.build_network("srgan-x2"))
    run = AdversarialTraining(replace(settings, start=str(start)))
    run.prepare()
    before = {name: values.clone() for name, values in run.networks["network"].named_buffers()}
    run.set_rates()
    run.take_step()
    for name, values in run.networks["network"].named_buffers():
        assert torch.equal(values, before[name]), f"{name} is a statistic of the start"
    luma = torch.rand(1, 3, 20, 20)
    shipped = copy.deepcopy(run.networks["network"]).eval()
    assert torch.equal(run.networks["network"](luma), shipped(luma))


def test_fidelity_losses_still_act_on_spared_highlights(settings: GanSettings) -> None:
    truth, output = spotted()
    honest = replace(settings, feature_weight=0.0, adversarial_weight=0.0, pixel_weight=1.0)
    gradient, losses = one_step(AdversarialTraining(honest), output, truth)
    assert {"pixels", "artefacts", "consistency"} <= losses.keys()
    assert gradient[..., 8:12, 8:12].any()


def test_neither_critic_is_shown_what_the_generator_made_of_a_highlight(settings: GanSettings) -> None:
    truth, output = spotted()
    other = output.clone()
    other[..., 8:12, 8:12] = 0.3
    seen = [one_step(AdversarialTraining(settings), given, truth)[1] for given in (output, other)]
    for name in ("discriminator", "adversarial", "features"):
        assert torch.equal(seen[0][name], seen[1][name])
    assert not torch.equal(seen[0]["pixels"], seen[1]["pixels"])


def test_the_generators_loss_is_the_weighted_sum(settings: GanSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    run = AdversarialTraining(settings)
    run.prepare()
    taken: dict[str, Tensor] = {}
    descend = run.descend

    def noted(loss: Tensor, name: str) -> None:
        taken[name] = loss.detach()
        descend(loss, name)

    monkeypatch.setattr(run, "descend", noted)
    run.set_rates()
    losses = run.take_step()
    expected = losses["features"] + 1e-3 * losses["adversarial"] + 0.01 * losses["pixels"]
    expected = expected + losses["artefacts"] + 0.1 * losses["consistency"]
    torch.testing.assert_close(taken["network"], expected)
    assert torch.equal(taken["discriminator"], losses["discriminator"])


def test_the_defaults_are_the_papers_loss(settings: GanSettings) -> None:
    paper = GanSettings(
        model="srgan-x2", data=settings.data, output=settings.output, features=settings.features, patch_px=16, batch=2
    )
    truth, output = spotted()
    run = AdversarialTraining(paper)
    _, losses = one_step(run, output, truth)
    assert losses.keys() == {"discriminator", "adversarial", "features"}
    assert run.features is not None
    pairs = zip(run.features(output), run.features(truth), strict=True)
    squared = sum(functional.mse_loss(ours, theirs) for ours, theirs in pairs)
    torch.testing.assert_close(losses["features"], squared, rtol=0.05, atol=0)  # bfloat16


# Both networks.


def parameters_of(network: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def test_the_generators_step_leaves_the_discriminator_alone_and_the_other_way_round(settings: GanSettings) -> None:
    run = AdversarialTraining(replace(settings, discriminator_rate=0.0))
    run.prepare()
    before = {name: parameters_of(network) for name, network in run.networks.items()}
    run.set_rates()
    run.take_step()
    after = {name: parameters_of(network) for name, network in run.networks.items()}
    assert all(map(torch.equal, before["discriminator"], after["discriminator"]))
    assert not any(map(torch.equal, before["network"], after["network"]))
    assert all(parameter.requires_grad for parameter in run.networks["discriminator"].parameters())


def test_the_discriminator_learns_to_tell_the_truth_from_the_output(settings: GanSettings) -> None:
    run = AdversarialTraining(replace(settings, learning_rate=1e-6, discriminator_rate=1000.0, batch=4, steps=40))
    run.prepare()
    losses = []
    for _ in range(14):
        run.set_rates()
        losses.append(float(run.take_step()["discriminator"]))
        run.step += 1
    assert max(losses[-3:]) < 0.5 * losses[0]
    crops = run.sampler.draw()
    with torch.no_grad():
        scores = [run.networks["discriminator"].score(each) for each in (crops.hr, run.forward(crops.lr))]  # type: ignore[operator]
    assert float(scores[0].min()) > float(scores[1].max())


def test_the_generator_learns_to_be_taken_for_the_truth(settings: GanSettings) -> None:
    run = AdversarialTraining(
        replace(
            settings,
            feature_weight=0.0,
            pixel_weight=0.0,
            artefact_weight=0.0,
            consistency_weight=0.0,
            adversarial_weight=1.0,
            discriminator_rate=0.0,
            learning_rate=1e-3,
        )
    )
    run.prepare()
    losses = []
    for _ in range(12):
        run.set_rates()
        losses.append(float(run.take_step()["adversarial"]))
    assert losses[-1] < losses[0]


def test_a_run_starts_from_a_pretrained_generator_and_a_fresh_adversary(settings: GanSettings, tmp_path: Path) -> None:
    torch.manual_seed(21)
    pretrained = SRGANGenerator(scale=2, num_blocks=1)
    save_weights(tmp_path / "srresnet.safetensors", pretrained)
    run = AdversarialTraining(replace(settings, start=str(tmp_path / "srresnet.safetensors")))
    for name in ("network", "average"):
        ours = run.networks[name].state_dict()
        assert all(torch.equal(ours[key], value) for key, value in pretrained.state_dict().items())
    with pytest.raises(UsageError, match="expected weights of the network"):
        AdversarialTraining(replace(settings, start=str(tmp_path / "none.safetensors")))


# Validation.


class TinyTrunk(FeatureNetwork):
    depths = ("picture",)

    def forward(self, rgb: Tensor) -> list[Tensor]:
        return [rgb]


def test_weights_are_picked_by_the_perceptual_distance_where_its_weights_are_given(
    settings: GanSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LpipsLike, "from_files", lambda *files: LpipsLike(TinyTrunk(), [torch.ones(3)]))
    AdversarialTraining(replace(settings, squeezenet="s", lpips_linear="l")).run()
    judged = [line for line in read_log(tmp_path / "run") if "lpips_like" in line]
    assert [line["step"] for line in judged] == [3, 6]
    for line in judged:
        assert line["score"] == -line["lpips_like"]["mean"]
        assert line["lpips_like"]["mean"] == pytest.approx(sum(line["lpips_like"][name] for name in ("one", "two")) / 2)
        assert line["lpips_like"]["mean"] > 0
        assert line["psnr_db"].keys() == {"one", "two", "mean"}


def test_the_last_weights_are_kept_where_nothing_can_tell_them_apart(settings: GanSettings, tmp_path: Path) -> None:
    run = AdversarialTraining(settings)
    run.run()
    last = {key: value for key, value in run.averaged.state_dict().items() if "num_batches" not in key}
    assert_equal(load_file(tmp_path / "run" / BEST), last)


def test_validation_leaves_the_networks_in_training(settings: GanSettings) -> None:
    run = AdversarialTraining(settings)
    run.prepare()
    before = copy.deepcopy(run.networks["average"].state_dict())
    run.validate()
    assert run.networks["network"].training
    assert_equal(dict(run.networks["average"].state_dict()), dict(before))


# What cannot be.


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"model": "tiny-x2"}, UsageError, "expected a model on RGB, as the features are, got tiny-x2"),
        ({"model": "giant-x9"}, UsageError, "expected a model among"),
        ({"patch_px": 20}, UsageError, "patch_px of 20 at x2: expected a side that is a multiple of 16 px, got 40"),
        ({"features": ""}, UsageError, "expected a file of features for feature_weight, got none"),
        ({"features": "/nowhere/f.safetensors"}, InputNotFound, "f.safetensors: expected a file of weights"),
        ({"squeezenet": "/nowhere/s", "lpips_linear": "/nowhere/l"}, InputNotFound, "expected a file of weights"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    settings: GanSettings, changes: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        AdversarialTraining(replace(settings, **changes))
    assert "\n" not in str(caught.value)


def test_features_that_are_none_or_need_larger_crops_are_refused(
    settings: GanSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "text.safetensors"
    text.write_text("no weights at all")
    with pytest.raises(EngineError, match="expected safetensors"):
        AdversarialTraining(replace(settings, features=str(text)))
    monkeypatch.setattr(ScopeFeatures, "smallest_px", 48)
    with pytest.raises(UsageError, match="expected crops of 48 px or more for scope-features, got 32; raise patch_px"):
        AdversarialTraining(settings)


def test_no_features_are_needed_where_they_have_no_weight(settings: GanSettings, tmp_path: Path) -> None:
    AdversarialTraining(replace(settings, features="", feature_weight=0.0, steps=2)).run()
    assert state_of(tmp_path / "run")["step"] == 2
