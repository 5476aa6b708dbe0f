"""The benchmark of archives runs in a tiny form and writes what README's tables need; nothing here looks at a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import batch, readme


def test_the_benchmark_writes_what_the_readme_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "batch.json"
    assert batch.main(["--quick", "--only", "scaling,costs,codecs", "--json", str(path)]) == 0
    written = json.loads(path.read_text())
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1]) == written
    assert {"scaling", "costs", "codecs"} == set(written["sections"])
    assert written["sections"]["costs"]["journal_ms_a_file"] > 0
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    assert "the journal, of a run" in readme.batch_table()
    assert "frames with" in readme.batch_line()
    assert [size["encode_ms_a_frame"] > 0 for size in written["sections"]["codecs"]["sizes"]] == [True, True]
    assert "100 GPUs" in readme.batch_plan()
    assert "encode, from 256x192" in readme.batch_plan()


def test_before_it_was_measured_the_tables_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    assert (readme.batch_table(), readme.batch_line(), readme.batch_plan()) == ("", "", "")
