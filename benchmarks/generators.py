"""Do the generators reach what was asked of them? ``python -m benchmarks.generators``.

Nothing is timed and nothing is measured anew. Figures of shipped engines come from their ``metrics.json`` (written when
they were made, on validation and test sides, the same reduced files for all), those of networks that were trained alike
from ``results/retrained.json`` (`benchmarks.retrained`). The result is ``results/generators.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.card import machine_card

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "generators.json"
RETRAINED = RESULT.with_name("retrained.json")
SIDES = ("val", "test")


def read_engines() -> dict[str, dict[str, Any]]:
    """Return metrics and cost of every shipped engine by name."""
    engines = {}
    for path in sorted((ROOT / "engines").glob("*/metrics.json")):
        manifest = json.loads(path.with_name("engine.json").read_text())
        engines[manifest["name"]] = {
            **json.loads(path.read_text()),
            **{key: manifest[key] for key in ("macs_per_pixel", "kind", "colour", "scale")},
        }
    return engines


def gains(measured: dict[str, Any], side: str, form: str, key: str = "field_of_view") -> dict[str, float]:
    """Return what a form gives over bicubic interpolation on every data set."""
    rows = measured[side]
    return {name: round(rows[form][name][key] - rows["bicubic"][name][key], 4) for name in rows["bicubic"]}


def best_form(measured: dict[str, Any]) -> str:
    """Return the form that a CPU runs."""
    return "int8" if "int8" in measured["test"] else "fp32"


def claims(engines: dict[str, Any], peers: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every claim with its figures, a data set each, and whether it holds on all of them.

    ``margin`` is what there is to spare: at or above 0 the claim holds.
    """
    for side in SIDES:
        for name, engine in engines.items():
            if engine["kind"] == "fidelity":
                yield claim(f"{name} beats bicubic", side, gains(engine, side, best_form(engine)), least=1e-9)
            if "int8" in engine[side]:
                lost = difference(engine, "int8", engine, "fp32", side)
                yield claim(f"INT8 of {name} loses at most 0.05 dB", side, lost, least=-0.05)
            shares = {key: row["within_level"] for key, row in engine[side]["projected"].items()}
            yield claim(f"{name}, projected, gives back 99.9 % of its input within a level", side, shares, least=0.999)
        for scale in (2, 4):
            pairs = ((f"quality-x{scale}", f"srresnet-x{scale}", -0.15), (f"fast-x{scale}", f"quality-x{scale}", -0.15))
            for ours, theirs, least in pairs:
                if ours in engines and theirs in engines:
                    apart = difference(engines[ours], "fp32", engines[theirs], "fp32", side)
                    yield claim(f"{ours} is at most {-least} dB below {theirs}", side, apart, least=least)
            if {f"quality-x{scale}", f"srresnet-x{scale}"} <= engines.keys():
                cost, large = (engines[f"{name}-x{scale}"]["macs_per_pixel"] for name in ("quality", "srresnet"))
                text = f"quality-x{scale} costs under a tenth of srresnet-x{scale} ({cost:,} of {large:,} MACs)"
                yield claim(text, side, {"to spare": 0.1 - cost / large}, least=0.0)
            yield from peer_claims(peers, scale, side)
            yield from perceptual_claims(engines, scale, side)


def peer_claims(peers: dict[str, Any], scale: int, side: str) -> Iterator[dict[str, Any]]:
    """Yield that tiny, trained for as many steps as it, is above FSRCNN of the published size and of no fewer MACs."""
    tiny = peers.get(f"tiny-x{scale}")
    for name in (f"fsrcnn-x{scale}", f"fsrcnn-wide-x{scale}"):
        if tiny and name in peers:
            apart = difference(tiny, "fp32", peers[name], "fp32", side)
            cost = f"{peers[name]['macs_per_pixel']:,} MACs against {tiny['macs_per_pixel']:,}"
            steps = f"{tiny['steps']:,} steps each"
            yield claim(f"tiny-x{scale} is above {name} ({cost}, {steps})", side, apart, least=1e-9)


def perceptual_claims(engines: dict[str, Any], scale: int, side: str) -> Iterator[dict[str, Any]]:
    """Yield that adversarial weights are nearer to the truth, by the LPIPS-like distance, than each fidelity engine."""
    adversarial = engines.get(f"srgan-x{scale}")
    if adversarial is None or "lpips_like" not in next(iter(adversarial[side]["projected"].values())):
        return
    for name, engine in engines.items():
        rows = engine[side]["projected"]
        measured = "lpips_like" in next(iter(rows.values()))
        if engine["kind"] == "fidelity" and engine["scale"] == scale and measured:
            nearer = {
                key: rows[key]["lpips_like"] - row["lpips_like"] for key, row in adversarial[side]["projected"].items()
            }
            yield claim(f"srgan-x{scale} is perceptually nearer than {name}", side, nearer, least=1e-9)


def difference(ours: dict[str, Any], form: str, theirs: dict[str, Any], other: str, side: str) -> dict[str, float]:
    """Return how far one form is above another on every data set, in dB."""
    mine, yours = ours[side][form], theirs[side][other]
    return {name: mine[name]["field_of_view"] - yours[name]["field_of_view"] for name in mine}


def claim(text: str, side: str, figures: dict[str, float], *, least: float) -> dict[str, Any]:
    """Return a claim, its figures and whether all of them are at or above the least."""
    rounded = {name: round(value, 5) for name, value in figures.items()}
    return {"claim": text, "side": side, "holds": min(figures.values()) >= least, "least": least, "figures": rounded}


def main(write: Callable[[str], Any] = print) -> int:
    """Gather, write the result and print every claim."""
    peers = json.loads(RETRAINED.read_text())["networks"] if RETRAINED.is_file() else {}
    engines = read_engines()
    result: dict[str, Any] = {
        "question": "generators",
        "quick": False,
        "card": machine_card(),
        "claims": list(claims(engines, peers)),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    for row in result["claims"]:
        figures = " ".join(f"{name} {value:+.3f}" for name, value in row["figures"].items())
        write(f"{'holds ' if row['holds'] else 'SHORT '} {row['side']:4}  {row['claim']}: {figures}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
