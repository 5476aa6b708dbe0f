"""Verification later: whether results are still what their sidecars say, and their sources still what they were."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamsr.batch.checking import check_result
from streamsr.batch.journal import Journal
from streamsr.batch.outputs import HOUSE
from streamsr.batch.planning import JOURNAL
from streamsr.batch.rows import Row
from streamsr.config import ReadSettings
from streamsr.engine import find_engine
from streamsr.errors import EngineError, InputError, InputNotFound, OutputError, ResultDiffers, UsageError
from streamsr.sidecar import file_sha256, is_sidecar, sidecar_path

OTHER_DATA = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading a sidecar raises that does not hold what ours hold."""


@dataclass
class Finding:
    """What is true of one result.

    Attributes:
        path: of its first file.
        differs: what is not as it was, one line each; nothing where the result is intact.
        notes: what could not be compared, one line each.
    """

    path: Path
    differs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        """Whether everything that could be compared is as it was."""
        return not self.differs


def audit(target: Path, *, sources: Path | None = None, deep: bool = False) -> Iterator[Finding]:
    """Compare results with what was written down about them.

    Args:
        target: a result, its sidecar, or a folder of results.
        sources: folder below which the originals are looked for where no journal knows them.
        deep: decode results and sources again and compare every time and every packet of sound.

    Raises:
        InputNotFound: nothing is there, or no result.
    """
    is_folder = target.is_dir()
    journal = read_journals(target if is_folder else target.parent)
    sidecars = list(find_sidecars(target))
    if not sidecars and not (journal if is_folder else target.resolve() in journal):
        raise InputNotFound(f"{target}: expected a result with its sidecar, or a folder of them, found none")
    originals = _by_name(sources) if sources is not None else {}
    for sidecar in sidecars:
        result = sidecar.with_name(sidecar.name.removesuffix(".json"))
        yield _audit_one(sidecar, journal.pop(result.resolve(), None), originals, deep)
    here = {target / path.relative_to(target.resolve()): row for path, row in journal.items()} if is_folder else {}
    if not is_folder and not sidecars and target.resolve() in journal:
        here = {target: journal[target.resolve()]}
    for path, row in here.items():
        if row.state == "done":
            yield _audit_without_sidecar(path, row)


def read_journals(folder: Path) -> dict[Path, Row]:
    """Return the work that the journals of a folder, or of one above it, know, by the result's whole path."""
    for root in (folder.resolve(), *folder.resolve().parents):
        found: dict[Path, Row] = {}
        for path in sorted((root / HOUSE).glob(f"{JOURNAL}*.sqlite")):
            with Journal(path, only_read=True) as journal:
                found |= {root / row.entry.output: row for row in journal.rows()}
        if found:
            inside = folder.resolve()
            return {path: row for path, row in found.items() if inside in path.parents}
    return {}


def find_sidecars(target: Path) -> Iterator[Path]:
    """Give the sidecars of a result, or of all results below a folder."""
    if target.is_dir():
        yield from (path for path in sorted(target.rglob("*.json")) if _is_sidecar(path))
    elif target.suffix == ".json" and target.is_file():
        yield target
    elif sidecar_path(target).is_file():
        yield sidecar_path(target)


def _is_sidecar(path: Path) -> bool:
    """Whether a JSON file is the sidecar of a result; those of segments are left out."""
    if HOUSE in path.parts or not path.is_file():
        return False
    try:
        content = json.loads(path.read_text(encoding="ascii", errors="replace"))
    except (OSError, ValueError):
        return Path(path.name.removesuffix(".json")).suffix != ""  # said to be damaged when it is read
    return is_sidecar(content)


def _by_name(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            found.setdefault(path.name, []).append(path)
    return found


def _audit_one(sidecar: Path, row: Row | None, originals: Mapping[str, list[Path]], deep: bool) -> Finding:
    finding = Finding(sidecar.with_name(sidecar.name.removesuffix(".json")))
    if row is not None:
        _compare_journal(finding, sidecar, row)
    try:
        _compare_stated(finding, sidecar, json.loads(sidecar.read_text(encoding="ascii")), row, originals, deep)
    except (OSError, UsageError, *OTHER_DATA):
        finding.differs.append(f"{sidecar.name}: expected a sidecar, found other data")
    return finding


def _compare_stated(
    finding: Finding,
    sidecar: Path,
    content: dict[str, Any],
    row: Row | None,
    originals: Mapping[str, list[Path]],
    deep: bool,
) -> None:
    """Compare all that a sidecar states; what it lacks, or states in another form, raises one of `OTHER_DATA`."""
    results = [sidecar.with_name(output["name"]) for output in content["outputs"]]
    for result, output in zip(results, content["outputs"], strict=True):
        _compare(finding, result, output, "result")
    source = _source_of(finding, content["input"], row, originals)
    _compare_engine(finding, content["engine"])
    if deep and source is not None and finding.intact:
        _compare_content(finding, source, results, content)


def _audit_without_sidecar(result: Path, row: Row) -> Finding:
    """Say what is left of a result whose sidecar is gone, by the journal alone."""
    files = {Path(file["to"]).name: file for file in row.details.get("files", ())}
    gone = [name for name in files if not result.with_name(name).is_file()]
    if len(gone) == len(files):
        return Finding(result, [f"{result.name} and its sidecar are gone"])
    finding = Finding(result, [f"{name} is gone; what is known of it is in the journal" for name in gone])
    for name, file in files.items():
        if name not in gone:
            _compare(finding, result.with_name(name), file, "result")
    return finding


def _compare(finding: Finding, path: Path, stated: Mapping[str, Any], what: str) -> None:
    """Compare a file with its stated size and hash."""
    try:
        size = path.stat().st_size
        if size != stated["bytes"]:
            finding.differs.append(f"{what} {path.name}: expected {stated['bytes']} bytes, found {size}")
        elif (found := file_sha256(path)) != stated["sha256"]:
            finding.differs.append(
                f"{what} {path.name}: expected SHA-256 {stated['sha256'][:16]}..., found {found[:16]}..."
            )
    except OSError as cause:
        finding.differs.append(f"{what} {path.name}: expected a file, got {cause.strerror}")


def _compare_journal(finding: Finding, sidecar: Path, row: Row) -> None:
    """Compare the sidecar itself with the journal, so that nobody has changed both a result and what is said of it."""
    for file in row.details.get("files", ()):
        if Path(file["to"]).name == sidecar.name:
            _compare(finding, sidecar, file, "sidecar")


def _source_of(
    finding: Finding, stated: Mapping[str, Any], row: Row | None, originals: Mapping[str, list[Path]]
) -> Path | None:
    """Find the source and compare it; a sidecar names no folder, for that may name a person."""
    candidates = originals.get(stated["name"], [])
    path = Path(row.entry.input) if row is not None else None
    if path is not None and path.is_file():
        candidates = [path]
    for candidate in candidates if len(candidates) > 1 else []:
        if file_sha256(candidate) == stated["sha256"]:
            return candidate
    if not candidates:
        finding.notes.append(f"source {stated['name']} not found: not compared; name its folder with --sources")
        return None
    _compare(finding, candidates[0], stated, "source")
    return candidates[0]


def _compare_engine(finding: Finding, stated: Mapping[str, Any]) -> None:
    """Say where the engine that is here is not the one that made the result."""
    if stated["weights_sha256"] is None:
        return
    try:
        here = find_engine(stated["name"]).files.get(stated["weights"])
    except EngineError:
        here = None
    if here != stated["weights_sha256"]:
        finding.notes.append(f"made with other weights of {stated['name']} than those that are installed here")


def _compare_content(finding: Finding, source: Path, results: list[Path], content: Mapping[str, Any]) -> None:
    """Decode again and compare as when the result was made."""
    from streamsr.choices import parse_rate

    settings = content["settings"]
    rate = settings["read"]["rate"]
    read = ReadSettings(
        rate=None if rate is None else parse_rate(rate),
        resize=settings["read"]["resize"],
        deinterlace=settings["read"]["deinterlace"],
    )
    try:
        check_result(
            str(source),
            results,
            read=read,
            offset_s=content["time"]["offset_s"],
            num_frames=content["frames"]["in"],
            sound=settings["audio"] == "copy",
            notices=content["notices"],
        )
    except (ResultDiffers, InputError, OutputError) as error:
        finding.differs.append(str(error))
