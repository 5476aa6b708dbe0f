"""The plan cache: compiled networks in the user's cache folder, built once, verified at every load.

A plan is machine code for one network, shape, GPU, driver and library, so it is stored under a key of all of these.
Beside ``NAME.plan`` lies ``NAME.json`` with the whole key and the plan's SHA-256; a plan whose manifest is missing,
names another key or another hash is never loaded but built again, with a line that says why. Plans are built in a
process of their own, since compilers crash and hang, under a lock on ``NAME.lock``, so that two programs build one plan
once; they are written in a folder aside and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from streamsr.errors import EngineError
from streamsr.plans.building import BUILD_LIMIT_S, BuildProgress, locked, remove_free_lock, run_builder
from streamsr.plans.key import PlanKey, read_key, read_manifest
from streamsr.plans.telling import all_told

FOLDER_VARIABLE = "STREAMSR_CACHE"
BUILDING = ".building-"


@dataclass(frozen=True)
class Plan:
    """A plan that may be loaded.

    Attributes:
        key: what it is for.
        content: verified bytes.
        built: whether it was built just now.
        notices: what the user should know, one line each.
    """

    key: PlanKey
    content: bytes
    built: bool
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlanEntry:
    """What the cache holds under one name.

    Attributes:
        path: of the plan.
        key: what it is for; None where the manifest cannot be read.
        num_bytes: size of the plan; 0 where it is missing.
        fault: why it would not be loaded; empty where it is whole.
    """

    path: Path
    key: PlanKey | None
    num_bytes: int
    fault: str


def cache_folder() -> Path:
    """Return the folder of what streamsr can make again: ``$STREAMSR_CACHE``, else the system's place for caches."""
    if asked := os.environ.get(FOLDER_VARIABLE):
        return Path(asked)
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "streamsr" / "cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "streamsr"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "streamsr"


class WatchFailed(Exception):
    """What somebody who was told how far a plan is raised, and is no fault of the cache.

    Args:
        cause: what was raised.
    """

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def told_apart(watch: Callable[[BuildProgress], None]) -> Callable[[BuildProgress], None]:
    """Return what tells as ``watch`` does and raises its OSErrors (a closed terminal, a lost peer) as `WatchFailed`."""

    def tell(progress: BuildProgress) -> None:
        try:
            watch(progress)
        except OSError as cause:
            raise WatchFailed(cause) from cause

    return tell


class PlanCache:
    """Plans in one folder, shared by every program of the user.

    Args:
        folder: where they are; None takes ``plans`` in the user's cache folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = cache_folder() / "plans" if folder is None else folder

    def obtain(
        self,
        key: PlanKey,
        command: Callable[[Path], Sequence[str]],
        *,
        watch: Callable[[BuildProgress], None] | None = None,
        limit_s: float = BUILD_LIMIT_S,
    ) -> Plan:
        """Return a plan from the cache, or build it, or wait for another program that is building it.

        Args:
            key: what it is for.
            command: given the folder to write ``plan`` into, returns the builder's command line; see `run_builder`.
            watch: called a few times a second while something is waited for, in the caller's thread, as are those of
                `telling_builds`; what one of them raises ends the wait, and the builder.
            limit_s: what building, and waiting for another program, may take.

        Raises:
            EngineError: the builder failed, was killed, or took too long, or there is no room to build in.
        """
        try:
            return self._obtained(key, command, told_apart(all_told(watch)), limit_s)
        except WatchFailed as failed:
            raise failed.cause from failed.cause.__cause__

    def _obtained(
        self,
        key: PlanKey,
        command: Callable[[Path], Sequence[str]],
        watch: Callable[[BuildProgress], None],
        limit_s: float,
    ) -> Plan:
        """Return a plan, kept where that can be; an OSError is one of the folders', the lock's or the builder's."""
        content, fault = self.read(key)
        if content is not None:
            return Plan(key, content, built=False)
        why = fault or self.superseded(key)
        notices = [f"{why}: built again"] if why else []
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = locked(self.folder / f"{key.stem}.lock", name=key.engine, watch=watch, limit_s=limit_s)
            with lock:
                content, _ = self.read(key)
                if content is not None:  # another program built it while this one waited
                    return Plan(key, content, built=False)
                content = self._built(key, command, watch, limit_s, notices)
        except OSError as cause:
            notices.append(self._not_kept(cause))
            content = self._built_elsewhere(key, command, watch, limit_s)
        return Plan(key, content, built=True, notices=tuple(notices))

    def read(self, key: PlanKey) -> tuple[bytes | None, str]:
        """Return a plan's verified bytes, or None and why it is not loaded; the reason is empty where there is none."""
        path = self.folder / f"{key.stem}.plan"
        try:
            content = path.read_bytes()
        except OSError:
            return None, ""
        entry = self._entry(path, content)
        if entry.fault or entry.key is None:
            return None, f"{path.name} is not loaded, {entry.fault}"
        if entry.key != key:
            return None, f"{path.name} is not loaded, it is for another {'; '.join(key.differences(entry.key))}"
        return content, ""

    def superseded(self, key: PlanKey) -> str:
        """Return why the plan there is cannot be used, where there is one for another GPU, driver or version."""
        identity = ("engine", "precision", "samples", "shapes", "runtime")
        others = [
            entry.key
            for entry in self.entries(verify=False)
            if entry.key and all(getattr(entry.key, name) == getattr(key, name) for name in identity)
        ]
        found = [other for other in others if other != key]
        if not found:
            return ""
        nearest = min((key.differences(other) for other in found), key=len)
        return f"{key.engine}: the plan there is was made for another machine or version ({'; '.join(nearest)})"

    def entries(self, *, verify: bool = True) -> list[PlanEntry]:
        """Return what the cache holds by name; ``verify`` reads every plan and checks its hash."""
        found = []
        for manifest in sorted(self.folder.glob("*.json")):
            path = manifest.with_suffix(".plan")
            with suppress(OSError):
                content = path.read_bytes() if verify else None
                found.append(self._entry(path, content))
                continue
            found.append(PlanEntry(path, read_key(manifest), 0, "its plan is missing"))
        orphans = {path for path in self.folder.glob("*.plan") if not path.with_suffix(".json").is_file()}
        found += [PlanEntry(path, None, path.stat().st_size, "its manifest is missing") for path in sorted(orphans)]
        return found

    def clean(self, *, keep: Callable[[PlanEntry], bool] = lambda entry: False) -> tuple[int, int]:
        """Remove plans, their manifests, locks that nobody holds, and what killed builders left.

        Args:
            keep: whether a plan stays.

        Returns:
            (plans removed, bytes freed).

        Raises:
            EngineError: one cannot be removed.
        """
        gone = [entry for entry in self.entries() if not keep(entry)]
        try:
            for entry in gone:
                entry.path.unlink(missing_ok=True)
                entry.path.with_suffix(".json").unlink(missing_ok=True)
            for lock in self.folder.glob("*.lock"):
                remove_free_lock(lock)
            for left in self.folder.glob(f"{BUILDING}*"):
                if time.time() - left.stat().st_mtime > BUILD_LIMIT_S:
                    shutil.rmtree(left, ignore_errors=True)
        except OSError as cause:
            raise EngineError(f"{cause.filename}: expected to remove it, got {cause.strerror}; remove it") from cause
        return len(gone), sum(entry.num_bytes for entry in gone)

    def _built(
        self,
        key: PlanKey,
        command: Callable[[Path], Sequence[str]],
        watch: Callable[[BuildProgress], None],
        limit_s: float,
        notices: list[str],
    ) -> bytes:
        """Build a plan and keep it, the manifest last: one with no plan, or with an older one, loads nothing."""
        with self._aside() as aside:
            started_s = time.monotonic()
            content = run_builder(key.engine, command, aside, watch=watch, limit_s=limit_s)
            manifest = {
                "key": asdict(key),
                "sha256": hashlib.sha256(content).hexdigest(),
                "bytes": len(content),
                "seconds": round(time.monotonic() - started_s, 1),
                "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
            try:
                (aside / "manifest").write_text(json.dumps(manifest, indent=2) + "\n", encoding="ascii")
                (aside / "plan").replace(self.folder / f"{key.stem}.plan")
                (aside / "manifest").replace(self.folder / f"{key.stem}.json")
            except OSError as cause:
                notices.append(self._not_kept(cause))
        return content

    def _built_elsewhere(
        self,
        key: PlanKey,
        command: Callable[[Path], Sequence[str]],
        watch: Callable[[BuildProgress], None],
        limit_s: float,
    ) -> bytes:
        """Build a plan in the system's folder for temporary files, for this once."""
        try:
            with tempfile.TemporaryDirectory(prefix="streamsr-") as aside:
                return run_builder(key.engine, command, Path(aside), watch=watch, limit_s=limit_s)
        except OSError as cause:
            raise EngineError(
                f"{key.engine}: expected a folder to build its plan in, got {cause.strerror or cause}; "
                f"free some space, or set {FOLDER_VARIABLE} to another folder"
            ) from cause

    @contextmanager
    def _aside(self) -> Iterator[Path]:
        """Make a folder to build in, on the same file system, and remove it with whatever is left in it."""
        aside = Path(tempfile.mkdtemp(prefix=BUILDING, dir=self.folder))
        try:
            yield aside
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _not_kept(self, cause: OSError) -> str:
        reason = cause.strerror or cause
        return f"{self.folder}: the plan is not kept ({reason}); mend that, or set {FOLDER_VARIABLE} to another folder"

    def _entry(self, path: Path, content: bytes | None) -> PlanEntry:
        """Describe a plan; ``content`` None does not check the hash."""
        manifest = path.with_suffix(".json")
        key, stated = read_key(manifest), read_manifest(manifest).get("sha256")
        if key is None:
            return PlanEntry(path, None, path.stat().st_size, "its manifest is missing or damaged")
        if content is not None and hashlib.sha256(content).hexdigest() != stated:
            return PlanEntry(path, key, len(content), "its SHA-256 is not that of its manifest: changed or damaged")
        return PlanEntry(path, key, path.stat().st_size, "")
