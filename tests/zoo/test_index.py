"""The index shows every released tool once, with what its card shows; the box shows a card in a terminal."""

import re
from pathlib import Path

import pytest

from mil import checkpoint
from mil.cards import RESEARCH, SIMULATED
from mil.errors import CheckpointError
from mil.report.report_files import write_report
from mil.report.schema import Estimate, Report
from mil.report.sections.baseline_model import Baseline
from mil.report.sections.oracle import Oracle
from mil.zoo.index import WIDTH, facts_box, write_index
from tests.cards.test_card import FACTS, manifest
from tests.report.figures.cases import CASES, evaluated

METRIC = Estimate(value=0.9, low=0.8, high=0.95, counts={"n": 120, "0": 80, "1": 40})


def put(
    folder: Path, name: str, gain: float = 0.1, simulated: bool = True, p: float | None = None, **more: object
) -> None:
    """A released folder, as far as the index reads it."""
    place = folder / name
    place.mkdir(parents=True)
    difference = METRIC.model_copy(update={"value": gain, "low": gain - 0.05, "high": gain + 0.05, "p": p})
    baseline = Baseline(name="mean pooling, linear", metrics={"auroc": METRIC}, difference={"auroc": difference})
    sections = {"baseline": baseline, "oracle": Oracle(metrics={"auroc": METRIC})}
    write_report(place / "report.json", Report(folds=1, metrics={"auroc": METRIC}, sections=sections))
    (place / "weights.safetensors").write_bytes(b"")
    checkpoint.seal(place, manifest(CASES["binary"]().endpoint, simulated, name=name, **more))


def test_every_tool_is_listed_once_in_its_category(tmp_path: Path) -> None:
    put(tmp_path, "a-tool", category="workflow")
    put(tmp_path, "b-tool", gain=0.0, title="B | <b>")
    put(tmp_path, "c-tool", gain=-0.2, category="odd")
    (tmp_path / ".hidden").mkdir()
    write_index(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert text.startswith(f"> **{SIMULATED}**\n")
    assert text.count(SIMULATED) == 1
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Workflow", "Biomarkers", "Odd"]
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| [")]
    assert [row[0].partition("](")[2].partition(")")[0] for row in rows] == [f"{name}-tool/README.md" for name in "abc"]
    assert all((tmp_path / row[0].partition("](")[2].partition(")")[0]).parent.is_dir() for row in rows)
    assert {len(row) for row in rows} == {9}
    assert [row[5].partition(":")[0] for row in rows] == ["yes", "not shown", "no, worse"]
    assert all(METRIC.described in row[2] for row in rows)
    assert "<b>" not in text
    write_index(tmp_path)
    assert (tmp_path / "README.md").read_text() == text


def test_an_empty_folder_says_that_nothing_is_released(tmp_path: Path) -> None:
    write_index(tmp_path)
    assert "None is released yet" in (tmp_path / "README.md").read_text()


def test_a_tool_of_real_patients_has_another_banner(tmp_path: Path) -> None:
    put(tmp_path, "a-tool", simulated=False)
    write_index(tmp_path)
    assert (tmp_path / "README.md").read_text().startswith(f"> **{RESEARCH}**")


def test_a_changed_report_is_no_ground_for_an_index(tmp_path: Path) -> None:
    put(tmp_path, "a-tool")
    report = tmp_path / "a-tool" / "report.json"
    report.write_text(report.read_text().replace("0.9,", "0.99,"))
    with pytest.raises(CheckpointError, match=r"report\.json"):
        write_index(tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_the_box_fits_a_terminal_and_says_what_the_card_says_first(name: str) -> None:
    evaluation, report = evaluated(name)
    text = facts_box(manifest(evaluation.endpoint, users="a\x1b[31m"), report)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    joined = " ".join(text.split())
    for words in (SIMULATED, *FACTS.values(), "not a Lynch test", "MSS means no test"):
        assert words in joined
    if name != "multiclass":
        assert str(report.metrics[evaluation.endpoint.metric]) in joined


def test_the_verdicts_of_all_tools_are_adjusted_together(tmp_path: Path) -> None:
    for name, p in (("first", 0.01), ("second", 0.03), ("third", 0.04)):
        put(tmp_path, name, p=p)
    write_index(tmp_path)
    rows = (tmp_path / "README.md").read_text(encoding="utf-8").splitlines()
    cells = {name: next(row for row in rows if f"({name}/README.md)" in row) for name in ("first", "second", "third")}
    assert "yes: 0.100 (0.050 to 0.150), p 0.010, Holm 0.030" in cells["first"]
    assert "not shown: 0.100 (0.050 to 0.150), p 0.030, Holm 0.060" in cells["second"]
    assert "not shown: 0.100 (0.050 to 0.150), p 0.040, Holm 0.060" in cells["third"]
