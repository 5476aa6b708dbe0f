"""The report as one page of HTML: no script, no network, pictures inside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import PurePath
from typing import Any

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif;
margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1b1f24; }
table { border-collapse: collapse; width: 100%; }
.failures { table-layout: fixed; } .failures .path { width: 42%; } .failures .kind { width: 7.5rem; }
.failures .tries { width: 3.5rem; }
th, td { text-align: left; padding: .4rem .6rem; vertical-align: top; }
tr { border-bottom: 1px solid #d8dee4; } .bad { color: #b42318; white-space: nowrap; } .note { color: #57606a; }
img { image-rendering: pixelated; width: 12rem; height: 12rem; object-fit: cover; }
@media (max-width: 60rem) { img { width: 7rem; height: 7rem; } }
.counts span { display: inline-block; margin-right: 1.6rem; } .counts b { font-size: 1.5rem; display: block; }
td { overflow-wrap: anywhere; } @media (prefers-color-scheme: dark) { body { background: #0d1117; color: #e6edf3; }
tr { border-color: #30363d; } .note { color: #9aa4af; } .bad { color: #ff7b72; } }
"""

MOST_PICTURES = 200
"""Files whose pictures are put in: some 30 kB each; a page of thousands would not open."""


def render_page(report: Mapping[str, Any]) -> str:
    """Return the page of a report."""
    failed = [file for file in report["files"] if file["kind"] is not None]
    made = [file for file in report["files"] if file["state"] == "done"]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8"><title>streamsr batch</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{STYLE}</style></head><body>",
            f"<h1>{_text(report['engine'])}: {report['counts']['files']} files</h1>",
            f"<p>{_text(report['statement'])}</p>",
            _counts(report),
            f'<p class="note">{_text(report["finished"])}, {report["seconds"]:g} s, {_text(report["workers"])}</p>',
            _failures(failed) if failed else "<p>Nothing failed.</p>",
            _results(made),
            "</body></html>\n",
        ]
    )


def _counts(report: Mapping[str, Any]) -> str:
    names = {name: name.replace("_", " ") for name in report["counts"]}
    parts = [f"<span><b>{report['counts'][name]}</b>{title}</span>" for name, title in names.items()]
    return f'<p class="counts">{"".join(parts)}</p>'


def _failures(files: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        f'<tr><td>{_path(file["input"])}</td><td class="bad">{_text(file["kind"])}</td>'
        f"<td>{_path(_reason(file))}</td><td>{file['tries']}</td></tr>"
        for file in files
    ]
    head = '<tr><th class="path">input</th><th class="kind">kind</th><th>why</th><th class="tries">tries</th></tr>'
    return f'<h2>Failures</h2><table class="failures">{head}{"".join(rows)}</table>'


def _reason(file: Mapping[str, Any]) -> str:
    """Return why a file failed, without its own path, which stands beside it."""
    return str(file["message"]).removeprefix(f"{file['input']}: ")


def _results(files: list[Mapping[str, Any]]) -> str:
    rows = [_result(file, place < MOST_PICTURES) for place, file in enumerate(files)]
    head = "<tr><th>original</th><th>enlarged</th><th>result</th></tr>"
    return f"<h2>Results</h2><table>{head}{''.join(rows)}</table>"


def _result(file: Mapping[str, Any], pictured: bool) -> str:
    pictures = file["thumbnails"] if pictured else None
    cells = [_picture(pictures[name], name) if pictures else "" for name in ("original", "enlarged")]
    rate = file["frames"] / file["seconds"] if file["seconds"] else 0.0
    picture = file["picture"] or {}
    lines = [
        f"<b>{_path(PurePath(file['output']).as_posix())}</b>",
        f"from {_path(file['input'])}",
        f"{file['frames']} frames in {file['seconds']:g} s, {rate:.1f} a second",
        f"{file['skipped']:.0%} of patches skipped",
        f"from {picture.get('width')}x{picture.get('height')} by {_text(file['runtime'])}",
        _text(picture.get("encoder", "")),
        *(f'<span class="note">{_text(notice)}</span>' for notice in file["notices"]),
        f'<span class="note">SHA-256 {_text(file["files"][0]["sha256"])}</span>' if file["files"] else "",
    ]
    return f"<tr><td>{cells[0]}</td><td>{cells[1]}</td><td>{'<br>'.join(line for line in lines if line)}</td></tr>"


def _picture(data: str, name: str) -> str:
    return f'<img alt="{name}" src="data:image/jpeg;base64,{_text(data)}">'


def _path(value: object) -> str:
    """Return text whose paths break behind their slashes; a browser breaks within a name only where that is not enough.

    >>> _path("/a & b/c.mp4")
    '/<wbr>a &amp; b/<wbr>c.mp4'
    """
    return _text(value).replace("/", "/<wbr>")


def _text(value: object) -> str:
    return escape(str(value))
