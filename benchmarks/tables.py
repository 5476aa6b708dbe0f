"""Markdown tables from the committed JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FEWER = ", fewer frames"
"""Behind the name of bicubic interpolation where it is measured on the frames of slow engines, beside them."""


def markdown(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    titles = list(head)
    lines = [titles, ["---"] * len(titles), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def load(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def dense(result: Any) -> bytes:
    """Return a result as JSON whose innermost objects stand in one line each: a tenth of the lines to read.

    Raises:
        ValueError: a string in it has a brace, which would be taken for an object's.
    """
    spread = json.dumps(result, indent=1)
    text = re.sub(r"\{\n\s*([^{}]*?)\s*\}", lambda found: "{" + re.sub(r"\n\s*", " ", found[1]) + "}", spread)
    if json.loads(text) != json.loads(spread):
        raise ValueError("expected a result whose strings have no braces, got one with some; rename it")
    return (text + "\n").encode()
