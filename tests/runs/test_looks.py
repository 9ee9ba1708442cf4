"""Looks at the report patients are counted in the run folder."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from mil import __version__, files
from mil.errors import PredictionsError
from mil.runs.looks import FILE, count_look, read_looks


def test_each_look_is_noted_with_what_was_looked_at(tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text("patient\n1\n")
    assert read_looks(tmp_path) == []
    assert [count_look(tmp_path, "train"), count_look(tmp_path, "evaluate")] == [1, 1], "the same predictions"
    (tmp_path / "predictions.csv").write_text("patient\n2\n")
    assert count_look(tmp_path, "evaluate") == 2
    recorded = read_looks(tmp_path)
    assert [look.what for look in recorded] == ["train", "evaluate", "evaluate"]
    assert recorded[0].predictions_sha256 == recorded[1].predictions_sha256 != recorded[2].predictions_sha256
    assert recorded[2].predictions_sha256 == files.sha256(tmp_path / "predictions.csv")
    assert {look.version for look in recorded} == {__version__}
    assert abs((datetime.now(UTC) - datetime.fromisoformat(recorded[0].when or "")).total_seconds()) < 60
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE, "predictions.csv"]


@pytest.mark.parametrize("content", ["", "{}", "[1]", "[{"])
def test_a_file_of_something_else_is_refused_and_kept(content: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(PredictionsError, match=r"looks\.json: .*expected a list of looks") as raised:
        count_look(tmp_path, "evaluate")
    assert "\n" not in str(raised.value)
    assert (tmp_path / FILE).read_text() == content
