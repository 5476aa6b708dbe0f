"""Forms of eight bits for TensorRT: layers chosen by what they lose, offered only where the bar holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime")
pytest.importorskip("PIL")

from streamsr.engine import MANIFEST, Engine, list_engines, read_engine
from streamsr.errors import EngineError
from streamsr.models.student import Student, StudentSpec
from streamsr.quality.fidelity import psnr_db
from streamsr.runtimes.onnx_graph import float_student, quantised_student
from streamsr.runtimes.tensorrt import check_precision
from streamsr.runtimes.tensorrt_graph import half_student, symmetric_student, tensorrt_graph
from streamsr.runtimes.torch_cpu import load_network
from streamsr.training import eight_bits, forms
from streamsr.training.data import Pair
from streamsr.training.eight_bits import FLOAT8, FORMS, SYMMETRIC, Form, Makers, is_robust
from streamsr.training.float8_scales import best_steps, float8_layers
from streamsr.training.float8_tuning import Float8Student
from streamsr.training.forms import INT8_LOSS_DB, Scene, find_layers, join_layers, loss_by_set, ship_form
from streamsr.training.losses import log_squared
from streamsr.training.quantise import arrays, spread, tune
from tests.test_tensorrt import noisy, quantised, random_student, run_onnx

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

FORM = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)


def test_the_least_harmful_layers_are_joined_as_long_as_the_bar_holds() -> None:
    harm = {1: 0.02, 2: 0.001, 3: 0.2, 4: 0.015, 5: 0.03}
    asked: list[tuple[int, ...]] = []

    def loss_db(layers: tuple[int, ...]) -> float:
        asked.append(layers)
        return sum(harm[layer] for layer in layers)

    assert join_layers(harm, loss_db) == [2, 4, 1]
    assert (1, 2, 4, 5) in asked, "a layer that is too much is tried before it is left out"


def test_no_layer_is_chosen_where_each_is_too_much() -> None:
    assert join_layers(dict.fromkeys(range(1, 4), 0.06), lambda layers: 0.06 * len(layers)) == []


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """Return a student that ships an INT8 form."""
    folder = tmp_path / "mini-x2"
    form = quantised(random_student(folder, StudentSpec(16, 1, 2)))
    (folder / "model.int8.onnx").write_bytes(form)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["model.int8.onnx"] = hashlib.sha256(form).hexdigest()
    manifest["precisions"]["int8"] = "model.int8.onnx"
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return read_engine(folder)


def scenes(engine: Engine, *, truth: str) -> list[Scene]:
    """Return pictures whose truth is what the float network makes of them, or noise that nothing reaches."""
    low = noisy((1, 1, 24, 32))[0, 0]
    exact = float_student(engine.weights(), scale=2, eight_bit=True)
    high = run_onnx(exact, low[None, None])[0, 0]
    if truth == "noise":
        high = np.random.default_rng(0).integers(0, 256, high.shape, dtype=np.uint8)
    return [("set", low, high, np.ones(high.shape, np.bool_))]


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Scene]], None]:
    """Return what makes pictures those of every side of the data; scales come from the first."""

    def put(pictures: list[Scene]) -> None:
        pairs = [Pair(name, high, low) for name, low, high, _ in pictures]
        monkeypatch.setattr(eight_bits, "load_pairs", lambda data, split, scale, most_per_set=None: pairs)
        monkeypatch.setattr(forms, "load_scenes", lambda data, scale, **options: pictures)

    return put


Show = Callable[[list[Scene]], None]


@FORM
def test_the_loss_is_measured_against_the_float_network(engine: Engine, form: Form, show: Show, tmp_path: Path) -> None:
    for truth, least, most in (("exact", 1.0, np.inf), ("noise", -INT8_LOSS_DB, INT8_LOSS_DB)):
        pictures = scenes(engine, truth=truth)
        show(pictures)
        lost = loss_by_set(engine, pictures)(form.prepare(engine, tmp_path).plain((1, 2)))
        assert lost.keys() == {"set"}
        assert least < lost["set"] <= most, "where the float network is without fault, rounding costs whole decibels"


@FORM
def test_a_form_that_holds_the_bar_is_shipped_and_can_be_loaded(
    engine: Engine, form: Form, show: Show, tmp_path: Path
) -> None:
    assert engine.folder is not None
    (engine.folder / "card.md").write_text("# mini-x2\n\n**Quality.** Good.\n\n**Limits.** None.\n")
    pictures = scenes(engine, truth="noise")
    show(pictures)
    found = ship_form(engine.folder, form, tmp_path)
    assert str(found).endswith(": offered")
    first = (engine.folder / "card.md").read_text()
    assert f"# mini-x2\n\n**{form.title} for TensorRT.** Layers 1" in first
    assert first.endswith(" dB on a validation set.\n\n**Quality.** Good.\n\n**Limits.** None.\n")
    ship_form(engine.folder, form, tmp_path)
    assert (engine.folder / "card.md").read_text() == first, "told once"
    forms.write_form(engine.folder, form, None)
    assert (engine.folder / "card.md").read_text() == "# mini-x2\n\n**Quality.** Good.\n\n**Limits.** None.\n"
    found = ship_form(engine.folder, form, tmp_path)
    shipped = read_engine(engine.folder)
    shipped.verify()
    check_precision(shipped, form.precision)
    low = pictures[0][1][None, None]
    graph = tensorrt_graph(shipped, precision=form.precision, samples="uint8")
    assert graph == found.content
    exact = run_onnx(float_student(engine.weights(), scale=2, eight_bit=True), low)
    assert psnr_db(run_onnx(graph, low)[0, 0], exact[0, 0]) > 24.0


@FORM
def test_a_form_that_no_longer_holds_the_bar_is_taken_away(
    engine: Engine, form: Form, show: Show, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine.folder is not None
    monkeypatch.setattr(eight_bits, "tuning_crops", lambda data, scale, *, degrades: iter([]))
    for truth, offered in (("noise", True), ("exact", False)):
        show(scenes(engine, truth=truth))
        found = ship_form(engine.folder, form, tmp_path)
        assert (found.offered, found.content is not None) == (offered, offered)
        assert (form.name in read_engine(engine.folder).precisions) is offered
        assert (engine.folder / form.file).is_file() is offered
    with pytest.raises(EngineError, match="not offered"):
        check_precision(read_engine(engine.folder), form.precision)


def test_what_loses_too_much_on_all_pictures_is_left_out_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Layers are chosen on some pictures; those that were joined last go where all pictures say otherwise."""
    monkeypatch.setattr(forms, "load_scenes", load_names)
    monkeypatch.setattr(forms, "loss_by_set", harm_of({"some": {1: 0.02, 2: 0.01}, "all": {1: 0.06, 2: 0.01}}))
    found = find_layers(engine, made_of_numbers(), tmp_path)
    assert (found.layers, found.tuned, found.offered, found.worst_db) == ((2,), False, True, 0.01)
    assert found.alone_db == {1: 0.02, 2: 0.01}


@pytest.mark.parametrize(("gain", "offered"), [(0.1, True), (0.9, False)])
def test_the_least_harmful_half_is_tuned_before_a_form_is_given_up(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gain: float, offered: bool
) -> None:
    monkeypatch.setattr(forms, "load_scenes", load_names)
    harm = {1: 0.2, 2: 0.1}
    monkeypatch.setattr(forms, "loss_by_set", harm_of({"some": harm, "all": harm}, gain))
    without = find_layers(engine, made_of_numbers(), tmp_path)
    assert (without.layers, without.tuned, without.offered) == ((), False, False)
    found = find_layers(engine, made_of_numbers(tuned=True), tmp_path)
    assert (found.layers, found.tuned, found.offered) == ((2,), True, offered)
    assert found.worst_db == pytest.approx(0.1 * gain)
    assert found.content == (b"tuned 2" if offered else None)


def load_names(data: Path, scale: int, most_per_set: int | None = None, **options: object) -> str:
    return "some" if most_per_set else "all"


def harm_of(
    harms: dict[str, dict[int, float]], gain: float = 1.0
) -> Callable[..., Callable[[bytes], dict[str, float]]]:
    """Return what stands for measuring: each layer of a form harms by itself, and tuning lessens it."""

    def measured(engine: Engine, scenes: str) -> Callable[[bytes], dict[str, float]]:
        def lost(form: bytes) -> dict[str, float]:
            kind, *layers = form.decode().split()
            return {"set": sum(harms[scenes][int(layer)] for layer in layers) * (gain if kind == "tuned" else 1.0)}

        return lost

    return measured


def made_of_numbers(*, tuned: bool = False) -> Form:
    """Return a form whose files are the numbers of its layers."""

    def make(kind: str) -> Callable[[Sequence[int]], bytes]:
        return lambda layers: " ".join([kind, *map(str, layers)]).encode()

    makers = Makers(make("plain"), make("tuned") if tuned else None)
    return Form("fp8", "numbers", "fp32", lambda engine: [1, 2], lambda engine, data: makers)


def test_a_student_under_fp8_rounding_is_what_the_graph_computes(engine: Engine) -> None:
    network = load_network(engine)
    scales = float8_layers(network, [noisy((1, 1, 40, 40))[0, 0]])  # type: ignore[arg-type]
    low = noisy((1, 1, 32, 40))
    for layers in ((1,), (2,), (1, 2)):
        chosen = {layer: scales[layer] for layer in layers}
        rounding = Float8Student(network, chosen)  # type: ignore[arg-type]
        seen = rounding(torch.from_numpy(low).float() / 255).detach().numpy() * 255
        graph = half_student(engine.weights(), scale=2, samples="uint8", float8=chosen)
        made = run_onnx(graph, low, optimised=False)
        off = np.abs(made - np.clip(np.rint(seen), 0, 255))
        exact = run_onnx(float_student(engine.weights(), scale=2, eight_bit=True), low)
        assert np.abs(exact - np.clip(np.rint(seen), 0, 255)).mean() > 4 * off.mean(), "rounding is seen and the same"
        assert np.mean(off > 2) < 0.02


def test_tuning_brings_rounded_weights_nearer_to_the_truth(engine: Engine) -> None:
    network = load_network(engine)
    low = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    high = network(low).detach()
    rounding = Float8Student(network, float8_layers(network, [noisy((1, 1, 40, 40))[0, 0]]))  # type: ignore[arg-type]
    before = log_squared(rounding(low), high).item()
    tune(rounding, iter([(low, high)] * 60), steps=60, rate=1e-4)
    assert log_squared(rounding(low), high).item() < before - 0.05
    assert all(parameter.grad is not None for parameter in rounding.student.parameters())


def test_an_engine_without_an_int8_form_is_refused(engine: Engine, tmp_path: Path) -> None:
    assert engine.folder is not None
    manifest = (engine.folder / MANIFEST).read_text()
    (engine.folder / MANIFEST).write_text(manifest.replace('"int8":', '"else":'))
    with pytest.raises(EngineError, match="quantise it first"):
        ship_form(engine.folder, SYMMETRIC, tmp_path)


def test_layers_left_in_fp16_end_where_their_8_bits_ended(tmp_path: Path) -> None:
    """A dead channel that was given the upper half of another adds nothing below it, in FP16 either."""
    engine = random_student(tmp_path / "spread-x2", StudentSpec(16, 1, 2))
    network = load_network(engine)
    assert isinstance(network, Student)
    with torch.no_grad():
        for weight, bias in network.weights()[:-1]:
            weight[:3], bias[:3] = 0.0, -1.0
    low = noisy((1, 1, 40, 48))
    made, scales = spread(network, [low[0, 0]])
    quantised_form = quantised_student(
        arrays(made), scale=2, activation_clips=scales.activation_clips, weight_scales=scales.weight_scales
    )
    exact = run_onnx(float_student(arrays(network), scale=2, eight_bit=True), low)
    for layers, least_db in (((), 38.0), ((2,), 30.0), ((1, 2), 30.0)):
        form = run_onnx(symmetric_student(quantised_form, scale=2, layers=layers), low, optimised=False)
        assert psnr_db(form[0, 0], exact[0, 0]) > least_db
    unclipped = run_onnx(float_student(arrays(made), scale=2, eight_bit=True), low)
    assert psnr_db(unclipped[0, 0], exact[0, 0]) < 30.0, "without the clips it is another network"


def test_fp8_takes_layers_whose_channels_come_in_sixteens(tmp_path: Path) -> None:
    for scale, expected in ((2, [1, 2]), (4, [1, 2, 3])):
        assert FLOAT8.layers_of(random_student(tmp_path / f"x{scale}", StudentSpec(32, 2, scale))) == expected
    assert FLOAT8.layers_of(random_student(tmp_path / "narrow", StudentSpec(24, 2, 4))) == []


def test_robust_weights_are_judged_on_degraded_pictures_too(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine.folder is not None
    assert not is_robust(engine)
    (engine.folder / "train.toml").write_text('degradation = "robust"\n')
    assert is_robust(engine)
    high = noisy((1, 1, 64, 64))[0, 0]
    pairs = [Pair("set", high, high[::2, ::2].copy(), file=f"{number}.png") for number in range(3)]
    monkeypatch.setattr(forms, "load_pairs", lambda data, split, scale, most_per_set=None: pairs[:most_per_set])
    names = [scene[0] for scene in forms.load_scenes(Path(), 2, most_per_set=2, degrades=True)]
    assert names == ["set", "set", "set, degraded", "set, degraded"]


def test_scales_of_fp8_are_those_of_least_error(engine: Engine) -> None:
    from streamsr.runtimes.float8 import rounded

    rows = np.random.default_rng(1).normal(0, [[0.01], [3.0]], (2, 500)).astype(np.float32)
    steps = best_steps(rows).astype(np.float64)[:, None]
    error = np.square(rounded(rows / steps) * steps - rows).sum(axis=1)
    assert (np.abs(rows / steps) <= 448.001).all(), "nothing is clipped"
    for factor in (1.1, 1.4, 1.7, 64.0):
        other = steps * factor
        assert (error <= np.square(rounded(rows / other) * other - rows).sum(axis=1) * 1.02).all()
    network = load_network(engine)
    layers = float8_layers(network, [noisy((1, 1, 40, 40))[0, 0]])  # type: ignore[arg-type]
    assert {number: layer.weight_steps.shape for number, layer in layers.items()} == {1: (16,), 2: (4,)}
    assert all(layer.input_step > 0 for layer in layers.values())


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="needs the validation pictures")
@pytest.mark.parametrize("engine", list_engines(), ids=lambda engine: engine.name)
def test_a_shipped_form_loses_at_most_its_share_on_validation_pictures(engine: Engine) -> None:
    shipped = [form for form in FORMS if form.name in engine.precisions]
    if not shipped:
        pytest.skip("ships none")
    lost = loss_by_set(engine, forms.load_scenes(DATA, engine.scale, most_per_set=6))
    for form in shipped:
        assert np.mean(list(lost(engine.read_file(form.name)).values())) <= INT8_LOSS_DB
