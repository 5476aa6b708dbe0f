"""Engines out of runs: files that verify and run, honest labels and cards, and nothing worse than what is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("PIL")
pytest.importorskip("onnx")

from safetensors import safe_open

from streamsr.config import GeneratorSettings
from streamsr.engine import Engine, read_engine
from streamsr.errors import EngineError, EngineTampered, OutputError, UsageError
from streamsr.models.features import FeatureNetwork
from streamsr.models.srgan import SRGANGenerator
from streamsr.models.student import BranchedStudent, StudentSpec
from streamsr.quality.perceptual import LpipsLike, distance_between
from streamsr.runtimes import load_generator
from streamsr.runtimes.base import Generator
from streamsr.training import blending, measure, networks, quantise
from streamsr.training import ship as ship_room
from streamsr.training.blending import blend_engine
from streamsr.training.card import card
from streamsr.training.curves import append_line
from streamsr.training.data import Pair, bicubic_down, bicubic_up, load_pairs, luma_of
from streamsr.training.measure import Perceptual, figures_of, within_level
from streamsr.training.networks import build_network, load_weights, plain, save_weights
from streamsr.training.pretrain import Pretraining, enlarge
from streamsr.training.record import portable, read_run, settings_text
from streamsr.training.run import BEST
from streamsr.training.settings import KINDS, PretrainSettings, read_settings
from streamsr.training.ship import measure_again, ship
from tests.frames import make_data

PERCEPTUAL = Perceptual(Path("squeezenet"), Path("linear"))


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small networks, a short tuning, a bar that untrained weights pass; undo the number of threads."""
    patch_networks(monkeypatch)
    monkeypatch.setattr(quantise, "TUNING_STEPS", 1)
    monkeypatch.setattr(ship_room, "INT8_LOSS_DB", 3.0)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def patch_networks(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(networks.NETWORKS, "mini-x2", lambda: BranchedStudent(StudentSpec(16, 1, 2)))
    for name in ("srgan-x2", "srresnet-x2"):
        patch.setitem(networks.NETWORKS, name, lambda: SRGANGenerator(scale=2, num_blocks=1))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), frames=1)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a short run of a student, curves and all."""
    folder = tmp_path_factory.mktemp("runs") / "mini-x2"
    settings = PretrainSettings(
        model="mini-x2",
        data=str(data),
        output=str(folder),
        steps=60,
        finetune_steps=10,
        batch=4,
        patch_px=16,
        learning_rate=3e-3,
        ema_decay=0.9,
        warm_steps=4,
        validate_every=60,
        checkpoint_every=60,
        device="cpu",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch_networks(patch)
        Pretraining(settings).run()
    return folder


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    folder = tmp_path / "engines"
    folder.mkdir()
    return folder


@pytest.fixture
def perceptual(monkeypatch: pytest.MonkeyPatch) -> Perceptual:
    """Return files of a distance that is the mean squared difference of the pictures' unit colours."""

    class Trunk(FeatureNetwork):
        depths = ("picture",)

        def forward(self, rgb: Tensor) -> list[Tensor]:
            return [rgb]

    monkeypatch.setattr(LpipsLike, "from_files", lambda *files: LpipsLike(Trunk(), [torch.ones(3)]))
    return PERCEPTUAL


@pytest.fixture
def in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure in the torch runtime: OpenVINO takes seconds to convert a generator."""

    def load(engine: Engine, settings: GeneratorSettings) -> Generator:
        return load_generator(engine, replace(settings, runtime="torch", threads=1))

    monkeypatch.setattr(measure, "load_generator", load)


def make_run(folder: Path, data: Path, *, kind: str = "pretrain", seed: int = 0, **changes: Any) -> Path:
    """Write the folder of a run with freshly drawn weights and a log that says it is finished."""
    name = changes.pop("model", "mini-x2")
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    save_weights(folder / BEST, build_network(name))
    settings = KINDS[kind](model=name, data=str(data), output=str(folder), **changes)
    append_line(folder, {"settings": vars(settings), "device": "a processor", "resumed_at": 0})
    append_line(folder, {"step": settings.steps, "seconds": 90.0, "psnr_db": {"one": 1.0}, "score": 1.0})
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def best_network(run: Path, name: str) -> torch.nn.Module:
    network = build_network(name)
    load_weights(str(run / BEST), network)
    return plain(network).eval()


# What lands in the folder.


def test_a_students_engine_verifies_and_runs_as_the_best_weights_do(data: Path, trained: Path, engines: Path) -> None:
    folder = ship(trained, engines)
    assert folder == engines / "mini-x2"
    assert sorted(contents(folder)) == [
        "card.md",
        "curves.png",
        "engine.json",
        "metrics.json",
        "model.int8.onnx",
        "model.safetensors",
        "train.toml",
    ]
    assert [path.name for path in engines.iterdir()] == ["mini-x2"], "nothing half-made is left"
    engine = read_engine(folder)
    engine.verify()
    assert (engine.architecture, engine.colour, engine.kind) == ("student", "luma", "fidelity")
    assert (engine.scale, engine.channels, engine.depth, engine.radius_px, engine.halo_px) == (2, 16, 1, 3, 3)
    network = best_network(trained, "mini-x2")
    for pair in load_pairs(data, "test", 2)[:2]:
        expected = enlarge(network, pair.lr).astype(int)
        for precision, most in (("fp32", 1), ("int8", 24)):
            generator = load_generator(engine, GeneratorSettings(runtime="openvino", precision=precision))  # type: ignore[arg-type]
            made = generator.generate(np.ascontiguousarray(pair.lr[None, None]))[0, 0].astype(int)
            assert np.abs(made - expected).max() <= most
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    with pytest.raises(EngineTampered):
        read_engine(folder).verify()


def test_metrics_are_of_both_sides_every_form_and_every_set(data: Path, trained: Path, engines: Path) -> None:
    metrics = json.loads((ship(trained, engines) / "metrics.json").read_text())
    assert metrics.keys() == {"val", "test"}
    for side in metrics.values():
        assert side.keys() == {"bicubic", "fp32", "int8", "projected"}
        for form in side.values():
            assert form.keys() == {"one", "two"}
            assert all(figures["frames"] == 1 and 20 < figures["field_of_view"] < 60 for figures in form.values())
        assert all(figures["within_level"] >= 0.999 for figures in side["projected"].values())
        assert any(figures["within_level"] < 0.999 for figures in side["fp32"].values()), "the projection is needed"


def test_the_distance_is_of_both_sides_and_in_the_card(
    data: Path, trained: Path, engines: Path, perceptual: Perceptual
) -> None:
    folder = ship(trained, engines, perceptual=perceptual)
    metrics, text = json.loads((folder / "metrics.json").read_text()), (folder / "card.md").read_text()
    for side in metrics.values():
        for form in ("bicubic", "projected"):
            distances = [side[form][name]["lpips_like"] for name in ("one", "two")]
            assert all(distance > 0 for distance in distances)
            assert f"| {form} | {distances[0]:.4f} | {distances[1]:.4f} |" in text
    measure_again(folder, data)
    assert "LPIPS" not in (folder / "card.md").read_text(), "what was not measured is not told"


@pytest.mark.usefixtures("in_torch")
@pytest.mark.parametrize(("model", "runtime"), [("srresnet-x2", "torch"), ("srgan-x2", "openvino")])
def test_a_generators_convolutions_are_float16_and_lose_less_than_a_level(
    data: Path, tmp_path: Path, engines: Path, model: str, runtime: Any
) -> None:
    run = make_run(tmp_path / "runs" / model, data, kind="gan" if model == "srgan-x2" else "pretrain", model=model)
    folder = ship(run, engines)
    with safe_open(folder / "model.safetensors", "pt") as file:  # type: ignore[no-untyped-call]
        kinds = {name: (str(file.get_tensor(name).dtype), file.get_tensor(name).ndim) for name in file.keys()}  # noqa: SIM118
    assert {kind for kind, dims in kinds.values() if dims == 4} == {"torch.float16"}
    assert {kind for kind, dims in kinds.values() if dims < 4} == {"torch.float32"}
    engine = read_engine(folder)
    engine.verify()
    assert engine.kind == ("adversarial" if model == "srgan-x2" else "fidelity")
    assert (engine.architecture, engine.colour, engine.scale, engine.depth) == ("srgan", "rgb", 2, 1)
    generator = load_generator(engine, GeneratorSettings(runtime=runtime, precision="fp32", threads=1))
    network, pair = best_network(run, model), load_pairs(data, "test", 2, colour="rgb")[0]
    expected = enlarge(network, pair.lr).astype(int)
    planes = pair.lr.transpose(2, 0, 1)[None].astype(np.float32) / 255
    made = np.rint(generator.generate(np.ascontiguousarray(planes))[0].clip(0, 1) * 255).transpose(1, 2, 0)
    assert np.abs(made - expected).max() <= 1


# What the card and the settings say.


def test_a_card_says_what_the_weights_are_what_made_them_and_that_they_are_for_research(
    trained: Path, engines: Path
) -> None:
    folder = ship(trained, engines)
    text = (folder / "card.md").read_text()
    assert text.startswith("# mini-x2\n\nA fidelity generator: luma in, luma out at x2.")
    for words in (
        "**The weights are for research.**",
        "no medical claim",
        "60 steps of 4 crops of 16x16 input pixels",
        "on CPU, 1 thread,",
        "Charbonnier, the last 10 steps squared error",
        "clean bicubic reduction",
        "streamsr train pretrain train.toml",
        "| val | one | two |",
        "| test | one | two |",
    ):
        assert words in text
    metrics = json.loads((folder / "metrics.json").read_text())
    for form in ("bicubic", "fp32", "int8", "projected"):
        figures = [metrics["test"][form][name]["field_of_view"] for name in ("one", "two")]
        assert f"| {form} | {figures[0]:.2f} | {figures[1]:.2f} |" in text


@pytest.mark.usefixtures("in_torch")
def test_adversarial_weights_are_labelled_in_manifest_and_card(
    data: Path, tmp_path: Path, engines: Path, perceptual: Perceptual
) -> None:
    make_run(tmp_path / "runs" / "srresnet-x2", data, model="srresnet-x2", steps=77)
    run = make_run(
        tmp_path / "runs" / "srgan-x2",
        data,
        kind="gan",
        model="srgan-x2",
        start=str(tmp_path / "runs" / "srresnet-x2" / BEST),
        features="/home/someone/vgg19.safetensors",
        spare_highlights=True,
    )
    folder = ship(run, engines, perceptual=perceptual)
    assert json.loads((folder / "engine.json").read_text())["kind"] == "adversarial"
    text = (folder / "card.md").read_text()
    for words in (
        "An adversarial generator: rgb in, rgb out at x2.",
        "**Adversarial weights: they draw texture that looks right and was not measured.**",
        "squared distance of features (vgg19)",
        "0.001 x adversarial loss",
        "highlights kept out of feature and adversarial losses",
        "77 steps of 16 crops",
        "LPIPS-like distance",
        "these are no LPIPS figures",
    ):
        assert words in text
    assert text.index("77 steps") < text.index("40,000 steps"), "the run it started from comes first"


@pytest.mark.usefixtures("in_torch")
def test_a_blend_replaces_the_adversarial_engine_and_says_so(
    data: Path, tmp_path: Path, engines: Path, perceptual: Perceptual
) -> None:
    for seed, (model, kind) in enumerate((("srresnet-x2", "pretrain"), ("srgan-x2", "gan"))):
        ship(make_run(tmp_path / model, data, kind=kind, model=model, seed=seed), engines, perceptual=perceptual)
    adversarial, stage = engines / "srgan-x2", engines / "srresnet-x2"
    before, first = (read_engine(folder).weights() for folder in (adversarial, stage))
    blend_engine(adversarial, stage, 0.25, data, perceptual=perceptual)
    blended = read_engine(adversarial)
    blended.verify()
    assert blended.kind == "adversarial"
    for name, values in blended.weights().items():
        if name == "tail.bias":  # centres the colour
            continue
        expected = 0.25 * before[name] + 0.75 * first[name]
        np.testing.assert_allclose(values, expected, atol=1e-3 * max(1.0, float(np.abs(expected).max())))
    text = (adversarial / "card.md").read_text()
    assert "0.25 of the weights told above and 0.75 of `srresnet-x2`'s" in text
    assert text.count("**Quality.**") == text.count("**Precision.**") == 1
    metrics = json.loads((adversarial / "metrics.json").read_text())
    assert f"{metrics['test']['fp32']['one']['field_of_view']:.2f}" in text
    kept = contents(adversarial)
    with pytest.raises(UsageError, match="got a blend already"):
        blend_engine(adversarial, stage, 0.25, data, perceptual=perceptual)
    assert contents(adversarial) == kept
    for ours, theirs, part in ((stage, adversarial, 0.5), (adversarial, adversarial, 0.5), (adversarial, stage, 1.5)):
        kept = contents(ours)
        with pytest.raises(UsageError, match="expected a"):
            blend_engine(ours, theirs, part, data, perceptual=perceptual)
        assert contents(ours) == kept


def test_a_blend_has_the_mean_of_its_input(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blending, "EDGE_PX", 1)
    torch.manual_seed(4)
    generator = SRGANGenerator(scale=2, num_blocks=1).eval()
    pairs = load_pairs(data, "train", 2, colour="rgb")
    with torch.no_grad():
        for module in generator.parameters():
            module *= 0.3
        generator.tail.bias += torch.tensor([0.4, 0.5, 0.6])  # type: ignore[operator]

    def off() -> float:
        ends = [(bicubic_down(enlarge(generator, pair.lr), 2), pair.lr) for pair in pairs]
        return max(float(np.abs(back.mean(axis=(0, 1)) - lr.mean(axis=(0, 1))).max()) for back, lr in ends)

    before = off()
    with torch.no_grad():
        blending.recentre(generator, pairs)
    assert off() < 0.3 * before


def test_cards_of_robust_and_distilled_weights_say_so(data: Path, tmp_path: Path) -> None:
    robust = make_run(tmp_path / "robust", data, degradation="robust", coded_share=0.25)
    taught = make_run(tmp_path / "taught", data, kind="distill", teacher="quality-x2", teacher_weight=0.3)
    manifest = {"kind": "fidelity", "name": "n", "colour": "luma", "scale": 2, "architecture": "student"}
    manifest |= {"channels": 16, "depth": 1, "macs_per_pixel": 9, "radius_px": 3}
    side = {"bicubic": {"one": {"field_of_view": 30.0}}, "int8": {"one": {"field_of_view": 31.0}}}
    texts = [card(read_run(run), manifest, {"val": side, "test": side}) for run in (robust, taught)]
    assert "a quarter clean, 25% of the frames through H.264" in texts[0]
    assert "a little softer than the clean weights" in texts[0]
    assert "0.3 x distance from quality-x2" in texts[1]
    assert "streamsr train distill" in texts[1]


def test_no_path_of_this_machine_is_told(data: Path, tmp_path: Path, engines: Path, trained: Path) -> None:
    folder = ship(trained, engines)
    for name, content in contents(folder).items():
        for place in (str(tmp_path), str(data), str(trained.parent), str(Path.home())):
            if name.endswith((".md", ".toml", ".json")):
                assert place.encode() not in content, (name, place)
    settings = read_settings(folder / "train.toml", PretrainSettings)
    assert (settings.data, settings.output) == ("DATA", "runs/mini-x2")
    record = read_run(trained)
    for field in fields(settings):
        if field.name not in ("data", "output"):
            assert getattr(settings, field.name) == getattr(record.settings, field.name)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/home/someone/runs/fast-x2/best.safetensors", "runs/fast-x2/best.safetensors"),
        (r"C:\Users\someone\runs\domain\features.safetensors", "runs/domain/features.safetensors"),
        ("/home/someone/vgg19.pth", "weights/vgg19.pth"),
        ("best.safetensors", "runs//best.safetensors"),
    ],
)
def test_paths_keep_the_name_of_the_run_and_nothing_above(path: str, told: str) -> None:
    assert portable(path) == told


@pytest.mark.parametrize("kind", ["gan", "distill", "features", "pretrain"])
def test_settings_beside_an_engine_are_those_of_the_run_and_can_be_read(data: Path, tmp_path: Path, kind: str) -> None:
    named: dict[str, Any] = {
        "gan": {"features": "/w/vgg 'ü'.pth", "start": "/r/srresnet-x2/best.safetensors", "learning_rate": 1e-5},
        "distill": {"teacher": "quality-x2", "teacher_weights": "/r/quality-x2/best.safetensors"},
    }.get(kind, {"compiled": True})
    run = make_run(tmp_path / "run", data, kind=kind, seed=3, **named)
    record = read_run(run)
    assert record.kind == kind
    assert record.settings == KINDS[kind](model="mini-x2", data=str(data), output=str(run), **named)
    (tmp_path / "train.toml").write_text(settings_text(record), encoding="utf-8")
    again = read_settings(tmp_path / "train.toml", KINDS[kind])
    for name, value in named.items():
        assert getattr(again, name) == (portable(value) if str(value).startswith("/") else value)


def test_a_resumed_runs_last_settings_count_and_every_device_is_told(data: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", data, steps=50)
    longer = vars(PretrainSettings(model="mini-x2", data=str(data), output=str(run), steps=80))
    append_line(run, {"settings": longer, "device": "another", "resumed_at": 50})
    append_line(run, {"step": 70, "seconds": 120.0, "score": 0.5})
    record = read_run(run)
    assert record.settings.steps == 80
    assert record.device == "a processor and another"
    assert (record.step, record.seconds) == (50, 120.0)


# What is refused.


def test_weights_that_are_worse_do_not_replace_those_there_and_better_ones_do(
    data: Path, trained: Path, tmp_path: Path, engines: Path
) -> None:
    fresh = make_run(tmp_path / "fresh", data)
    folder = ship(fresh, engines)
    worse = contents(folder)
    ship(trained, engines)
    better = contents(folder)
    assert better["model.safetensors"] != worse["model.safetensors"]
    with pytest.raises(EngineError, match=r"mini-x2: expected weights no worse than those there, .*; not replaced"):
        ship(fresh, engines)
    assert contents(folder) == better
    assert [path.name for path in engines.iterdir()] == ["mini-x2"]
    ship(trained, engines)  # as good as itself


def test_an_engine_that_is_measured_again_keeps_its_card_but_for_the_figures(
    data: Path, trained: Path, engines: Path
) -> None:
    folder = ship(trained, engines)
    before = contents(folder)
    (folder / "metrics.json").write_text("{}")
    (folder / "card.md").write_text(before["card.md"].decode().replace("| bicubic | ", "| bicubic | 9"))
    measure_again(folder, data)
    assert contents(folder) == before
    (folder / "card.md").unlink()
    with pytest.raises(EngineError, match=r"expected an engine with its card\.md"):
        measure_again(folder, data)


def test_forms_that_the_new_weights_do_not_have_are_taken_away(trained: Path, engines: Path) -> None:
    folder = ship(trained, engines)
    (folder / "model.int8-symmetric.onnx").write_bytes(b"a form of the old weights")
    ship(trained, engines)
    assert "model.int8-symmetric.onnx" not in contents(folder)


@pytest.mark.usefixtures("in_torch")
def test_adversarial_weights_are_compared_by_the_perceptual_distance(
    data: Path, tmp_path: Path, engines: Path, perceptual: Perceptual
) -> None:
    distances = {}
    for seed in (1, 2):
        run = make_run(tmp_path / f"run{seed}", data, kind="gan", model="srgan-x2", seed=seed)
        folder = ship(run, engines, name=f"made{seed}", perceptual=perceptual)
        metrics = json.loads((folder / "metrics.json").read_text())["val"]
        distances[seed] = np.mean([row["lpips_like"] for row in metrics["projected"].values()])
    near, far = sorted(distances, key=lambda seed: distances[seed])
    assert distances[near] < distances[far]
    before = contents(engines / f"made{near}")
    with pytest.raises(EngineError, match=r"expected weights no worse than those there, .*; not replaced"):
        ship(tmp_path / f"run{far}", engines, name=f"made{near}", perceptual=perceptual)
    with pytest.raises(UsageError, match="expected --squeezenet and --lpips-linear"):
        ship(tmp_path / f"run{near}", engines, name=f"made{near}")
    assert contents(engines / f"made{near}") == before
    ship(tmp_path / f"run{near}", engines, name=f"made{far}", perceptual=perceptual)
    assert contents(engines / f"made{far}")["model.safetensors"] == before["model.safetensors"]


def test_an_int8_form_that_loses_too_much_is_left_out_with_one_line(
    trained: Path, engines: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ship_room, "INT8_LOSS_DB", -100.0)
    folder = ship(trained, engines)
    (record,) = caplog.records
    assert "mini-x2: INT8 would lose" in record.getMessage()
    assert "model.int8.onnx" not in contents(folder)
    engine = read_engine(folder)
    engine.verify()
    assert engine.precisions.keys() == {"fp32"}
    assert "int8" not in json.loads((folder / "metrics.json").read_text())["val"]
    assert "No INT8 form" in (folder / "card.md").read_text()


def test_an_int8_form_that_loses_too_much_does_not_replace_one_that_does_not(
    trained: Path, engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(ship(trained, engines))
    monkeypatch.setattr(ship_room, "INT8_LOSS_DB", -100.0)
    with pytest.raises(EngineError, match=r"mini-x2: expected INT8 to lose at most -100.0 dB, got .*; not replaced"):
        ship(trained, engines)
    assert contents(engines / "mini-x2") == before
    assert [path.name for path in engines.iterdir()] == ["mini-x2"]


@pytest.mark.parametrize(("loss_db", "lossy"), [(0.0499, False), (0.0501, True)])
def test_the_bar_of_int8_is_a_twentieth_of_a_decibel_on_the_worst_set(
    monkeypatch: pytest.MonkeyPatch, loss_db: float, lossy: bool
) -> None:
    monkeypatch.undo()
    assert ship_room.INT8_LOSS_DB == 0.05
    side = {form: {"one": {"field_of_view": 40.0}, "two": {"field_of_view": 30.0}} for form in ("fp32", "int8")}
    side["int8"]["two"]["field_of_view"] = 30.0 - loss_db
    side["int8"]["one"]["field_of_view"] = 41.0
    assert bool(ship_room.int8_losses({"val": side})) is lossy
    fine = {form: {"one": {"field_of_view": 30.0}} for form in ("fp32", "int8")}
    assert bool(ship_room.int8_losses({"val": fine, "val_degraded": side})) is lossy, "the worst side counts"


def test_a_folder_that_is_no_finished_run_is_refused(data: Path, trained: Path, tmp_path: Path, engines: Path) -> None:
    (tmp_path / "empty").mkdir()
    begun = tmp_path / "begun"
    begun.mkdir()
    append_line(begun, {"settings": {}, "device": "a processor", "resumed_at": 0})
    for folder in (tmp_path / "nowhere", tmp_path / "empty", begun):
        with pytest.raises(UsageError, match="expected the folder of a run with a validation"):
            ship(folder, engines)
    old = make_run(tmp_path / "old", data)
    append_line(old, {"settings": {"colour": "blue"}, "device": "a processor", "resumed_at": 40_000})
    with pytest.raises(UsageError, match="expected settings of this version, got others"):
        ship(old, engines)
    unfinished = make_run(tmp_path / "unfinished", data)
    (unfinished / BEST).unlink()
    with pytest.raises(UsageError, match=r"best\.safetensors: expected weights of the network"):
        ship(unfinished, engines)
    with pytest.raises(OutputError, match="expected the folder of engines, got none"):
        ship(trained, tmp_path / "none")
    assert list(engines.iterdir()) == []


def test_what_cannot_be_an_engine_is_refused(data: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a student or an SRGAN generator to ship, got Linear"):
        ship_room.write_files(tmp_path, torch.nn.Linear(1, 1), data, read_run(trained))


def test_an_int8_form_made_anew_leaves_the_float_weights_alone(data: Path, trained: Path, engines: Path) -> None:
    folder = ship(trained, engines, int8=False)
    before = contents(folder)
    assert "model.int8.onnx" not in before
    ship_room.add_int8(folder, data)
    after = contents(folder)
    assert after["model.safetensors"] == before["model.safetensors"]
    engine = read_engine(folder)
    engine.verify()
    assert engine.precisions.keys() == {"fp32", "int8"}
    assert "int8" in json.loads(after["metrics.json"])["val"]
    assert b"**INT8.** QDQ ONNX" in after["card.md"]
    assert b"No INT8 form" not in after["card.md"]
    assert after["train.toml"] == before["train.toml"]


def test_an_int8_form_that_loses_too_much_is_not_added(
    data: Path, trained: Path, engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(ship(trained, engines, int8=False))
    monkeypatch.setattr(ship_room, "INT8_LOSS_DB", -100.0)
    with pytest.raises(EngineError, match=r"mini-x2: expected INT8 to lose at most -100.0 dB, got .*; not added"):
        ship_room.add_int8(engines / "mini-x2", data)
    assert contents(engines / "mini-x2") == before


def test_robust_weights_are_judged_on_degraded_input(data: Path, tmp_path: Path, engines: Path) -> None:
    run = make_run(tmp_path / "robust", data, degradation="robust")
    folder = ship(run, engines, name="sturdy")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["val_degraded"].keys() == metrics["val"].keys()
    for name, row in metrics["val_degraded"]["bicubic"].items():
        assert row["field_of_view"] < metrics["val"]["bicubic"][name]["field_of_view"]
    assert "| val_degraded |" in (folder / "card.md").read_text()


def test_weights_that_start_from_an_engine_tell_its_story_and_keep_its_settings(
    data: Path, trained: Path, tmp_path: Path, engines: Path
) -> None:
    first = ship(trained, engines)
    later = make_run(tmp_path / "later", data, start=str(first / "model.safetensors"))
    folder = ship(later, engines, name="later")
    card_text = (folder / "card.md").read_text()
    assert "The weights of an earlier mini-x2, of which its card said: 60 steps of 4 crops" in card_text
    assert "`stage-1.toml`, `train.toml`" in card_text
    assert (folder / "stage-1.toml").read_bytes() == (first / "train.toml").read_bytes()
    assert 'start = "engines/mini-x2/model.safetensors"' in (folder / "train.toml").read_text()


# Measures.


def test_within_level_counts_input_samples_that_come_back() -> None:
    random = np.random.default_rng(0)
    large = np.repeat(np.repeat(random.integers(40, 200, (16, 16), dtype=np.uint8), 2, axis=0), 2, axis=1)
    from PIL import Image

    down = np.asarray(Image.fromarray(large.astype(np.float32)).resize((16, 16), Image.Resampling.BICUBIC))
    lr = np.rint(down).astype(np.uint8)
    assert within_level(lr, large) == 1.0
    off = lr.copy()
    off[:4] += 3  # a quarter of the samples
    assert within_level(off, large) == 0.75
    assert within_level(np.stack([lr, off, lr], axis=2), np.stack([large] * 3, axis=2)) == pytest.approx(1 - 0.25 / 3)


def test_the_distance_of_every_picture_is_measured_with_luma_in_whole_levels(perceptual: Perceptual) -> None:
    random = np.random.default_rng(1)
    truth = random.integers(90, 160, (16, 16, 3), dtype=np.uint8)
    lr = bicubic_down(truth, 2)
    pair = Pair("set", truth, lr)
    distance = LpipsLike.from_files(perceptual.squeezenet, perceptual.linear)
    mask = np.ones((16, 16), np.bool_)
    made = bicubic_up(lr, 2)
    as_rgb = figures_of(pair, lr, made, mask, 2, distance)
    as_luma = figures_of(pair, luma_of(lr), luma_of(made), mask, 2, distance)
    assert as_rgb["lpips_like"] == pytest.approx(as_luma["lpips_like"], rel=1e-6), "one picture, one distance"
    assert as_rgb["lpips_like"] != pytest.approx(distance_between(distance, made, truth), rel=1e-6)
