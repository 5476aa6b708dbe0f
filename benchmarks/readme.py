"""Write README's tables from the committed JSON: ``python -m benchmarks.readme``; with ``--check`` only compare.

Every table stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``; what is between them is made from
``engines/*/metrics.json`` and ``benchmarks/results/*.json``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu_tables import GPU_TABLES
from benchmarks.proof_tables import PROOF_TABLES
from benchmarks.readme_evidence import EVIDENCE
from benchmarks.tables import load, markdown
from streamsr.runtimes.fused_kernel import VARIANTS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def engines_table() -> str:
    """Return the gains over bicubic interpolation of every engine on the test sides."""
    rows = []
    sets: list[str] = []
    for path in sorted((ROOT / "engines").glob("*/metrics.json")):
        manifest, test = load(path.with_name("engine.json")), load(path)["test"]
        sets = sorted(test["bicubic"])
        for form in ("fp32", "int8", "projected"):
            if form not in test:
                continue
            gains = [test[form][name]["field_of_view"] - test["bicubic"][name]["field_of_view"] for name in sets]
            rows.append(
                [f"`{manifest['name']}`", form, f"{manifest['macs_per_pixel']:,}", *(f"{gain:+.2f}" for gain in gains)]
            )
    return markdown(["engine", "form", "MAC a pixel", *sets], rows)


def claims_table() -> str:
    """Return what was asked of the generators, and the worst figure of each claim on both sides."""
    told: dict[str, dict[str, str]] = {}
    for row in load(RESULTS / "generators.json")["claims"]:
        if not row["claim"].startswith("INT8") and "gives back" not in row["claim"]:
            worst = min(row["figures"], key=row["figures"].__getitem__)
            short = "" if row["holds"] else " **short**"
            digits = 4 if "perceptually" in row["claim"] else 3
            told.setdefault(row["claim"], {})[row["side"]] = f"{row['figures'][worst]:+.{digits}f} {worst}{short}"
    rows = [[claim, by_side.get("val", ""), by_side.get("test", "")] for claim, by_side in told.items()]
    return markdown(["worst of the five sets", "validation", "test"], rows)


def int8_line() -> str:
    """Return what INT8 forms lose at most, inside the field of view and in the whole frame."""
    worst = {}
    for place in ("field_of_view", "whole_frame"):
        losses = [
            (measured["fp32"][name][place] - row[place], path.parent.name, name)
            for path in (ROOT / "engines").glob("*/metrics.json")
            for measured in (load(path)[side] for side in ("val", "test"))
            for name, row in measured.get("int8", {}).items()
        ]
        worst[place] = max(losses)
    inside, whole = worst["field_of_view"], worst["whole_frame"]
    return (
        f"INT8 forms lose at most {inside[0]:.3f} dB inside the field of view (`{inside[1]}` on {inside[2]}; 0.05 was "
        f"allowed); in the whole frame, where the dark surround counts, up to {whole[0]:.3f} dB (`{whole[1]}` on "
        f"{whole[2]})."
    )


def perceptual_table() -> str:
    """Return the LPIPS-like distance of bicubic interpolation and of every engine, projected, on the test sides."""
    rows = []
    for path in sorted((ROOT / "engines").glob("*/metrics.json")):
        manifest, test = load(path.with_name("engine.json")), load(path)["test"]
        sets = sorted(test["bicubic"])
        if any("lpips_like" not in test[form][name] for form in ("bicubic", "projected") for name in sets):
            continue
        cells = [
            f"{test['projected'][name]['lpips_like']:.4f} ({test['bicubic'][name]['lpips_like']:.4f})" for name in sets
        ]
        rows.append([f"`{manifest['name']}`", manifest["kind"], *cells])
    return markdown(["engine (bicubic)", "kind", *(sets if rows else [])], rows)


def consistency_table() -> str:
    """Return what the consistency projection costs: milliseconds a frame without and with it, and their ratio."""
    columns = ("engine", "size", "without_ms", "with_ms", "ratio")
    rows = [[row[column] for column in columns] for row in load(RESULTS / "consistency.json")["rows"]]
    return markdown(["student", "size", "without, ms", "with, ms", "ratio"], rows)


def robustness_table() -> str:
    """Return luma PSNR on input that is not clean: the mean of the test sides of all sets, in dB."""
    forms = ("bicubic", "fast-x2", "fast-x2-robust", "fast-x2-robust, projected")
    rows = []
    for fault, measured in load(RESULTS / "robustness.json")["test"].items():
        figures = [sum(measured[form].values()) / len(measured[form]) for form in forms]
        rows.append([fault, *(f"{figure:.2f}" for figure in figures)])
    return markdown(["input", *forms], rows)


def paper_table() -> str:
    """Return what the 2017 loss and the house recipe give from one start: means of the test sides of all sets."""
    path = RESULTS / "paper_loss.json"
    if not path.is_file():
        return ""
    figures = {
        "luma_psnr_db": ("PSNR, dB", 2),
        "lpips_like": ("LPIPS-like", 4),
        "highlight_psnr_db": ("in highlights, dB", 2),
        "ring_psnr_db": ("around them, dB", 2),
    }
    rows = []
    for stage, measured in load(path)["stages"].items():
        means = [sum(row[key] for row in measured["test"].values()) / len(measured["test"]) for key in figures]
        digits = (places for _, places in figures.values())
        rows.append([stage, *(f"{mean:.{places}f}" for mean, places in zip(means, digits, strict=True))])
    return markdown(["stage", *(title for title, _ in figures.values())], rows)


def yardstick_table() -> str:
    """Return how far the x4 students stand above networks of natural images, by way of the probe, in dB."""
    path = RESULTS / "yardstick.json"
    if not path.is_file():
        return ""
    rows: list[list[str]] = []
    sets: list[str] = []
    for student, by_network in load(path)["above"].items():
        for network, above in by_network.items():
            sets = sorted(above)
            rows.append([f"`{student}`", network, *(f"{above[name]:+.2f}" for name in sets)])
    return markdown(["student", "above", *sets], rows)


def machine_line() -> str:
    """Return the machine that the figures were measured on."""
    card = load(RESULTS / "pipeline.json")["card"]
    versions = ", ".join(f"{name} {card['versions'][name]}" for name in ("openvino", "torch", "onnxruntime", "av"))
    kind = "virtual machine" if card["virtual"] else "machine"
    return (
        f"On {card['cores']} cores of a {kind} ({card['processor']}, {', '.join(card['instructions'])}; {versions}; "
        f"{card['date']}). Other work on its host changes its speed by up to a factor of two within minutes: read "
        "ratios, which are taken pair by pair, before times."
    )


def runtimes_table() -> str:
    """Return the runtimes on whole frames, for each student and size: milliseconds a frame."""
    result = load(RESULTS / "cpu_runtimes.json")
    names = ["torch fp32", "torch bf16", "torch.compile fp32", "onnxruntime fp32", "onnxruntime int8"]
    names += ["openvino fp32", "openvino bf16", "openvino int8"]
    rows = []
    for table in result["tables"]:
        if table["random_weights"]:
            continue
        found = {row["candidate"]: row for row in table["rows"]}
        cells = [found.get(f"{name} frame") for name in names]
        share = found["openvino int8 frame"]["share_of_int8_peak"]
        times = [f"{cell['p50_ms']:.1f}" if cell else "" for cell in cells]
        rows.append([table["student"], table["size"], *times, f"{share:.2f}"])
    return markdown(["student", "size", *names, "int8 of its peak"], rows)


def pipeline_table() -> str:
    """Return end-to-end speed beside the generator alone and the naive script."""
    result = load(RESULTS / "pipeline.json")
    rows = []
    for speed in result["speed"]:
        naive = f"{speed['whole_of_naive']:.1f}" if "whole_of_naive" in speed else ""
        goal = "" if speed["goal_fps"] is None else f"{speed['goal_fps']:.0f}"
        rows.append(
            [
                speed["student"],
                speed["clip"],
                speed["size"],
                f"{speed['alone_fps']:.1f}",
                f"{speed['whole_fps']:.1f}",
                f"{speed['whole_steady_of_alone']:.2f}",
                f"{speed['routed_fps']:.1f}",
                goal,
                naive,
            ]
        )
    head = ["student", "clip", "size", "alone", "file to file", "of alone", "with routing", "goal", "x naive"]
    return markdown(head, rows)


def fused_line() -> str:
    """Return the GPU that the fused kernel was measured on."""
    result = load(RESULTS / "fused.json")
    return (
        f"On an {result['gpu']} (driver {result['driver']}, torch {result['torch']}, CUDA {result['cuda']}; "
        f"{result['card']['date']}), 1920x1080 to 3840x2160 or 7680x4320, device events:"
    )


def fused_table() -> str:
    """Return the fused kernel's time a frame: of each network the fastest variant with either kind of sums."""
    result = load(RESULTS / "fused.json")["rows"]
    times = [row for row in result["times"] if "p50_ms" in row and "frame" not in row]
    checks = {(row["network"], row["variant"]): row for row in result["correct"] if "weights" not in row}
    fastest: dict[tuple[str, bool], dict[str, Any]] = {}
    for row in sorted(times, key=lambda row: float(row["p50_ms"])):
        if re.fullmatch(r"(?:[rpwxn]\d+)+h?", row["variant"]):
            fastest.setdefault((row["network"], row["variant"].endswith("h")), row)
    rows = []
    for (network, in_half), row in sorted(fastest.items()):
        check = checks[network, row["variant"]]
        shipped = row["variant"] in (variants[0].name for variants in VARIANTS.values())
        sums, used = "half" if in_half else "float", "yes" if shipped else "no"
        figures = [f"{row['p50_ms']:.3f}", f"{row['p99_ms']:.3f}", f"{row['tflops']:.0f}"]
        rows.append([network, row["variant"], sums, used, *figures, check["max_levels"], f"{check['differing']:.2%}"])
    return markdown(
        ["network", "variant", "sums", "shipped", "p50 ms", "p99 ms", "TFLOP/s", "levels off fp32", "samples off"], rows
    )


def forms_table() -> str:
    """Return what TensorRT's forms of eight bits lose, those that are offered and those that are not."""
    path = RESULTS / "tensorrt_forms.json"
    if not path.is_file():
        return ""
    rows = []
    for row in load(path)["rows"]:
        names = [f"`{row['engine']}`", row["form"]]
        if "layers" not in row:
            rows.append([*names, "", "", "", row["why"]])
            continue
        layers = f"{len(row['layers'])} of {row['of']}{', tuned' * row['tuned']}"
        sides = (row["val_db"], row.get("test_db", {}))
        worst = [max(losses.items(), key=lambda pair: pair[1], default=None) for losses in sides]
        figures = [f"{found[1]:.3f} {found[0]}" if found else "" for found in worst]
        rows.append([*names, layers, *figures, "yes" if row["offered"] else "no"])
    return markdown(["student", "form", "layers", "validation, dB lost", "test, dB lost", "offered"], rows)


def live_line() -> str:
    """Return the machine that the live figures were measured on."""
    path = RESULTS / "live.json"
    if not path.is_file():
        return ""
    result = load(path)
    card = result["card"]
    machine = f"On {card['cores']} cores ({card['processor']}; {card['date']})"
    made = "; ".join(
        f"{whose} were {shares_line(result['sections'][name]['rung_shares'])}"
        for name, whose in (("none", "the rendered pictures"), ("clip", "those of the real clip"))
        if "rung_shares" in result["sections"].get(name, {})
    )
    return f"{'; '.join(filter(None, (machine, made)))}:"


def shares_line(shares: Mapping[str, float]) -> str:
    """Return which part of the pictures each rung made, the largest first."""
    return ", ".join(f"{share:.0%} {rung}" for rung, share in sorted(shares.items(), key=lambda pair: -pair[1]))


def live_table() -> str:
    """Return what live sessions must reach, and what they do; nothing before they were measured."""
    path = RESULTS / "live.json"
    if not path.is_file():
        return ""
    result = load(path)
    rows = []
    for row in result["goals"]:
        section = result["sections"].get(row["section"], {})
        minutes = f"{section['seconds'] / 60:.1f}" if "seconds" in section else ""
        company = f"{section['cores_busy_with_others']:.1f}" if "cores_busy_with_others" in section else ""
        verdict = {True: "", False: "**short**", None: "not measured"}[row["reached"]]
        got = "" if row["got"] is None else f"{row['got']:g}"
        goal = f"{row['goal']} ({section['gpu']})" if "gpu" in section else row["goal"]
        rows.append([goal, f"{row['most']:g}", got, minutes, company, verdict])
    return markdown(["live", "at most", "measured", "minutes", "cores busy with others", ""], rows)


def batch_result() -> Any:
    """Return what distributing archives costs; None before it was measured."""
    path = RESULTS / "batch.json"
    return load(path) if path.is_file() else None


def batch_line() -> str:
    """Return the machine that archives were measured on, and what."""
    result = batch_result()
    if result is None:
        return ""
    card, clips = result["card"], result["clips"]
    return (
        f"On {card['cores']} cores ({card['processor']}; {card['date']}), {clips['number']} clips of {clips['frames']} "
        f"frames with `{clips['engine']}`, in turn, median of {result['rounds']} rounds:"
    )


def batch_table() -> str:
    """Return what distributing archives may cost, and what it does."""
    result = batch_result()
    if result is None:
        return ""
    rows = [
        [goal["goal"], goal["wanted"], f"{goal['got']:g}", "" if goal["reached"] else "**short**"]
        for goal in result["goals"]
    ]
    scaling = result["sections"].get("scaling", {})
    if "ceiling" in scaling:
        rows.append(["two processes that only compute, of twice one", "", f"{scaling['ceiling']:g}", ""])
        rows.append(["two workers over one on both cores", "", f"{scaling['two_over_one_on_both']:g}", ""])
    return markdown(["archives", "wanted", "measured", ""], rows)


PLAN_GPUS, PLAN_FPS = 100, 100
"""What the plan on paper assumes: so many GPUs, each with so many frames a second."""


def batch_plan() -> str:
    """Return what 100 GPUs would ask of disks, cores and the journal, from the measured costs of a frame."""
    result = batch_result()
    costs = (result or {"sections": {}})["sections"].get("costs", {})
    if "read_bytes_a_frame" not in costs:
        return ""
    rate = PLAN_GPUS * PLAN_FPS
    files = rate / (10 * 60 * 25)  # files of ten minutes at 25 frames a second
    coded = (result or {})["sections"].get("codecs", {}).get("sizes", [])
    rows = [
        ["read", f"{costs['read_bytes_a_frame']:,} bytes", f"{3 * rate * costs['read_bytes_a_frame'] / 1e6:,.0f} MB/s"],
        [
            "write",
            f"{costs['written_bytes_a_frame']:,} bytes",
            f"{rate * costs['written_bytes_a_frame'] / 1e6:,.0f} MB/s",
        ],
        *(
            [name, f"{costs[f'{key}_ms_a_frame']:g} ms", f"{rate * costs[f'{key}_ms_a_frame'] / 1e3:,.1f} cores"]
            for name, key in (("check", "check"), ("hash", "hash"), ("join", "join"))
        ),
        [
            "journal",
            f"{costs['journal_ms_a_file']:g} ms a file",
            f"{files * costs['journal_ms_a_file'] / 1e3:.2%} of one, files of ten minutes",
        ],
        *(
            [
                f"{name}, from {size['picture']}",
                f"{size[f'{name}_ms_a_frame']:.2f} ms",
                f"{rate * size[f'{name}_ms_a_frame'] / 1e3:,.0f} cores",
            ]
            for size in coded
            for name in ("decode", "encode")
        ),
    ]
    return markdown([f"from {costs['picture']}", "a frame", f"{PLAN_GPUS} GPUs, {PLAN_FPS} frames a second each"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "engines": engines_table,
    "claims": claims_table,
    "int8-line": int8_line,
    "perceptual": perceptual_table,
    "robustness": robustness_table,
    "paper": paper_table,
    "yardstick": yardstick_table,
    "consistency": consistency_table,
    "machine": machine_line,
    "runtimes": runtimes_table,
    "pipeline": pipeline_table,
    "fused-machine": fused_line,
    "fused": fused_table,
    "tensorrt-forms": forms_table,
    "live-machine": live_line,
    "live": live_table,
    "batch-machine": batch_line,
    "batch": batch_table,
    "batch-plan": batch_plan,
    **PROOF_TABLES,
    **{name: (lambda make=make: make(RESULTS)) for name, make in (EVIDENCE | GPU_TABLES).items()},  # type: ignore[misc]
}


def filled(text: str) -> str:
    """Return README with every table that it has made again."""
    for name, make in TABLES.items():
        if f"<!-- {name} -->" not in text:
            continue
        before, old, after = re.split(rf"(?s)(?<=<!-- {name} -->\n)(.*?)\n?(?=<!-- /{name} -->)", text)
        text = f"{before}{make() or old}\n{after}"
    return text


def write() -> None:
    """Write the tables into README."""
    path = ROOT / "README.md"
    path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")


def main() -> int:
    """Write the tables, or say whether they are those of the JSON."""
    if "--check" in sys.argv[1:]:
        before = (ROOT / "README.md").read_text(encoding="utf-8")
        after = filled(before)
        print("README's tables are those of the JSON" if before == after else "README's tables are old: run this again")
        return int(before != after)
    write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
