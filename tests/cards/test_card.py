"""A card says what its numbers are worth, where they come from, and why what it lacks is missing."""

import re
from collections.abc import Iterator
from functools import cache
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from pydantic import JsonValue

from mil.cards import BLOCKS, RESEARCH, SIMULATED, card
from mil.cards.chai import chai
from mil.cards.markdown import anchor, escaped
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.several import Several
from mil.features.geometry import Geometry
from mil.fitted.calibrators import Calibrator
from mil.fitted.decision import Decision
from mil.fitted.probability_maps import Curve
from mil.fitted.rules import SensitivityRule
from mil.fitted.state import FittedState
from mil.manifest import (
    DataRecord,
    EncoderRecord,
    Manifest,
    Part,
    SimulationRecord,
    SplitRecord,
    TrainingRecord,
    part,
)
from mil.report.assemble import evaluate
from mil.report.schema import Estimate, Report
from mil.study.tool import Tool
from tests.report.figures.cases import CASES, HOSTILE, evaluated
from tests.report.tables import refitted

FIGURES = ["calibration.png", "kaplan_meier.png", "leaderboard.png", "learning_curve.png", "odd.png", "roc.png"]
FACTS = {"en": "Finds what is sought.", "fr": "Trouve ce qui est cherché."}
COUNTS = {"n": 30, "MSS": 20, "MSI-H": 10}
DECISION = Decision(
    name="MSI-H",
    columns=("p_MSI-H",),
    rule=SensitivityRule(rule="sensitivity", at_least=0.95, role="rule-out"),
    cuts=(0.123456,),
    calls=("MSS", "MSI-H"),
    on="select",
    n=30,
    positives=10,
)
PLATT = Calibrator(
    method="platt",
    columns=("p_MSI-H",),
    curves=(Curve(name="MSI-H", columns=("p_MSI-H",), n=30, positives=10, intercept=0.1, slope=0.9),),
)


def tool(**more: Any) -> dict[str, Any]:
    """What a tool of the zoo says of itself."""
    stated = {
        "name": "msi-crc",
        "version": "1.2.3",
        "title": "MSI in colorectal cancer",
        "category": "biomarker",
        "organ": "Colon-rectum",
        "specimen": "FFPE, H&E",
        "question": "Is it deficient?",
        "ground_truth": "Immunohistochemistry",
        "intended_use": "Research.",
        "users": "Pathologists",
        "pathway": "Before the test. MSS means no test. MSI-H means the test.",
        "out_of_scope": ["not a Lynch test"],
        "confounders": ["scanner"],
        "facts": FACTS,
        "evidence": {
            "class": "B",
            "tier": 1,
            "note": "our own mapping",
            "performance": [{"text": "Others found 0.9", "doi": "10.1038/s41467-023-42453-6"}],
        },
        "references": [{"text": "A paper", "url": "https://example.org/paper"}],
        "decision": {"rule": "sensitivity", "at_least": 0.95, "role": "rule-out"},
    }
    return stated | more


def manifest(endpoint: Endpoint, simulated: bool = True, **more: Any) -> Manifest:
    """Of a small model."""
    simulation = SimulationRecord(sites=4, slides=1.2, tiles=200, label_noise=0.0)
    strategy: dict[str, JsonValue] = {"_target_": "mil.splits.folds.KFold", "folds": 3}
    return Manifest(
        tool=Tool.parse(tool(**more)),
        model=Part(name="mil.models.abmil.ABMIL", options={"in_dim": 32, "gated": True}),
        endpoint=part(endpoint, {"classes": ["MSS", "MSI-H"]}),
        fitted=FittedState(decisions=(DECISION,), calibration=PLATT),
        encoder=EncoderRecord(
            name="uni",
            dim=1024,
            aliases=("uni_v1", "MahmoodLab/UNI"),
            licence="CC-BY-NC-ND-4.0",
            pretrained_on=("GTEx",),
            verified=True,
        ),
        data=DataRecord(
            simulated=simulated,
            simulation=simulation if simulated else None,
            cohort_sha256="c" * 64,
            patients={"train": COUNTS, "select": COUNTS, "report": COUNTS},
            geometry=Geometry(tile_px=256.0, mpp=0.5),
            split=SplitRecord(strategy=strategy, sha256="5" * 64, fold=1),
        ),
        training=TrainingRecord(
            epochs=5,
            best_epoch=3,
            precision="32",
            seed=7,
            threads=1,
            parameters=1234,
            optimizer={"_target_": "torch.optim.Adam", "lr": 0.001},
            versions={"mil-zoo": "0.1.0", "torch": "2.13.0"},
        ),
        files={"weights.safetensors": "a" * 64},
    )


@cache
def written(name: str, simulated: bool = True) -> tuple[str, Report]:
    """The card of a kind of endpoint, and the report that it is made from."""
    evaluation, report = evaluated(name)
    report = report.model_copy(update={"looks": 1})
    return card(manifest(evaluation.endpoint, simulated), evaluation.endpoint, report, FIGURES), report


def at(report: Report, path: str) -> Any:
    """The JSON value at a card's source."""
    node: Any = report.model_dump(mode="json")
    for key, index, quoted in re.findall(r'([\w]+)|\[(\d+)\]|\["([^"]+)"\]', path):
        node = node[int(index)] if index else node[quoted or key]
    return node


def sources(text: str) -> dict[str, str]:
    """File and key of each footnote, by its number."""
    cited = re.findall(r"^\[\^(\d+)\]: (.+)$", text, re.MULTILINE)
    return {number: unescape(source.strip("`")) for number, source in cited}


def words(first_page: str) -> int:
    """How many words a first page has, without marks of footnotes and addresses of links."""
    plain = re.sub(r"\[\^\d+\]|\]\([^)]*\)", "", first_page)
    return sum(re.search(r"\w", word) is not None for word in plain.split())


def first_page(text: str) -> str:
    """What stands above the first fold."""
    return text.split("---\n", 2)[2].split("<details>")[0]


def blocks(text: str) -> dict[int, str]:
    """The body of each numbered block."""
    text = text.partition("## TRIPOD+AI: where")[0]
    pieces = re.split(r"^## (\d+)\. .*$", text, flags=re.MULTILINE)
    return {int(number): body for number, body in zip(pieces[1::2], pieces[2::2], strict=True)}


def fields(body: str) -> Iterator[tuple[str, str]]:
    """Name and content of a block's fields."""
    for name, text in re.findall(r"^- \*\*(.+?)\*\*:(.*(?:\n    - .*)*)", body, re.MULTILINE):
        yield name, text.strip()


@pytest.mark.parametrize("name", CASES)
def test_every_block_is_there_and_every_field_is_filled_or_says_why_not(name: str) -> None:
    text, _ = written(name)
    bodies = blocks(text)
    assert list(bodies) == list(range(25)) == list(range(len(BLOCKS)))
    for number, body in bodies.items():
        contents = list(fields(body))
        assert contents or "### " in body or "Nothing is stated: see" in body, number
        for field, content in contents:
            assert content, (number, field)
    assert "not available" not in text
    assert not re.search(r"^- \*\*[^*]+\*\*: (no|None)$", text, re.MULTILINE)
    assert not re.search(r"\bnan\b|Undefined|mil\.errors|\{\{|\{%", text)


@pytest.mark.parametrize("name", CASES)
def test_every_number_of_every_table_is_at_the_place_that_it_names(name: str) -> None:
    text, report = written(name)
    rows = re.findall(r"^\|(?: [^|]* \|)* ([^|]+) \| ([^|]+) \[\^(\d+)\] \|$", text, re.MULTILINE)
    checked, footnotes = 0, sources(text)
    for value, _, number in rows:
        file, _, source = footnotes[number].partition(": ")
        if file != "report.json" or source.count('"') > 2:  # a class whose name has quotes in it
            continue
        node = at(report, source)
        if isinstance(node, dict) and isinstance(node.get("value"), int | float | None) and "value" in node:
            assert value == escaped(Estimate.model_validate(node)), source
            checked += 1
    assert checked >= 10
    for metric, estimate in report.metrics.items():
        number = next(number for number, source in footnotes.items() if source == f"report.json: metrics.{metric}")
        assert f"| {escaped(estimate)} | {escaped(estimate.population)} [^{number}] |" in text


@pytest.mark.parametrize("name", CASES)
def test_a_number_without_patients_is_in_no_card(name: str) -> None:
    text, _ = written(name)
    for value, patients in re.findall(r"\| (-?\d[\d.]* \([^|]* to [^|]*\)) \| ([^|]+) \[\^\d+\] \|\n", text):
        assert re.search(r"\bn \d+|see the rows|\d+ of \d+", patients), (value, patients)


@pytest.mark.parametrize("simulated", [True, False])
def test_the_card_says_first_what_its_numbers_are_worth(simulated: bool) -> None:
    text, _ = written("binary", simulated)
    body = text.split("---\n", 2)[2]
    assert body.splitlines()[0] == f"> **{SIMULATED if simulated else RESEARCH}**"
    assert ("simulated-data" in text) == ("no patient exists" in text) == simulated
    french = "DONNÉES SIMULÉES" if simulated else "N'EST PAS UN DISPOSITIF MÉDICAL"
    assert re.search(rf"^- \*\*En bref\*\*: .*{french}.*{FACTS['fr']}$", text, re.MULTILINE)
    assert "no external validation" in text


def test_what_a_pathologist_needs_stands_on_the_first_screen() -> None:
    first = first_page(written("binary")[0])
    assert len(first.splitlines()) <= 80
    assert words(first) <= 700
    for word in (FACTS["en"], FACTS["fr"], "MSS means no test", "not a Lynch test", "0.1235", "sensitivity", "class B"):
        assert word in first


def test_a_mangled_or_missing_report_is_told_and_not_shown_as_numbers() -> None:
    endpoint = CASES["binary"]().endpoint
    text = card(manifest(endpoint), endpoint, Report(), [])
    assert list(blocks(text)) == list(range(25))
    assert "no patient was held back to report on" in text
    assert "this report has none" in text


@pytest.mark.parametrize("name", CASES)
def test_what_few_or_alike_patients_leave_open_is_written_as_not_estimable(name: str) -> None:
    evaluation, _ = evaluated(name)
    first, alike = evaluation.table["patient"].unique()[:9], evaluation.table.copy()
    for column in evaluation.endpoint.columns:
        alike[column] = alike[column].iloc[0]
    request: dict[str, Any] = {"prevalences": [0.1], "clinical": {"categorical": ["sex"]}}
    request |= {} if evaluation.endpoint.parts() else {"conformal": {"coverage": 0.9}}
    stated = {**evaluation.tool.plain(), **request}
    for table in (evaluation.table[evaluation.table["patient"].isin(first)], alike):
        poor = refitted(table.reset_index(drop=True), evaluation.endpoint, stated, evaluation.patients, resamples=5)
        report = evaluate(poor)
        text = card(manifest(evaluation.endpoint), evaluation.endpoint, report, [])
        assert list(blocks(text)) == list(range(25))
        assert "not estimable" in text
        assert not re.search(r"\bnan\b|None", text)
        assert chai(manifest(evaluation.endpoint), evaluation.endpoint, report)


def test_cards_of_tools_that_say_little_of_themselves_are_whole() -> None:
    evaluation, report = evaluated("survival")
    full = manifest(evaluation.endpoint)
    keys = ("name", "version", "title", "category", "question")
    bare = Tool.parse({key: value for key, value in full.tool.plain().items() if key in keys})
    text = card(full.model_copy(update={"tool": bare, "fitted": FittedState()}), evaluation.endpoint, report, [])
    assert list(blocks(text)) == list(range(25))
    (line,) = re.findall(r"^- \*\*Not stated\*\*: (.*)$", text, re.MULTILINE)
    assert {"Users (2)", "Intended use (2)", "Funding (20)", "References (23)"} <= set(line.split(", "))
    assert text.count("not stated") < 30
    assert "The tool gives scores and makes no call." in text


def test_a_fold_of_several_shows_the_whole_run_and_its_own_patients_apart() -> None:
    evaluation, report = evaluated("binary")
    auroc = report.metrics["auroc"].model_copy(update={"value": 0.777, "low": 0.7, "high": 0.8})
    run = report.model_copy(update={"metrics": report.metrics | {"auroc": auroc}})
    both = report.model_copy(update={"run": run})
    text = card(manifest(evaluation.endpoint), evaluation.endpoint, both, ["roc.png"])
    assert "- **Main result**: AUROC 0.777 (0.700 to 0.800), " in text
    assert "`report.json: run.metrics.auroc`" in text
    assert "`report.json: metrics.auroc`" in text
    assert "(fold 1, the report patients of these weights)](figures/roc.png)" in text


def test_a_tool_of_several_endpoints_shows_each_under_its_name() -> None:
    cases = {"MSI": evaluated("binary"), "outcome": evaluated("survival")}
    endpoint = Several({name: evaluation.endpoint for name, (evaluation, _) in cases.items()})
    mean = Estimate(value=0.7, low=0.6, high=0.8, counts={"n": 120})
    report = Report(folds=1, metrics={"mean": mean}, parts={name: report for name, (_, report) in cases.items()})
    text = card(manifest(endpoint), endpoint, report, [])
    assert "### MSI: Discrimination" in text
    assert "### outcome: Survival" in text
    assert "`report.json: parts.outcome.sections.survival.c_index`" in text


def test_the_front_matter_is_what_a_model_hub_reads(tmp_path: Path) -> None:
    text, report = written("multilabel")
    path = tmp_path / "README.md"
    path.write_text(text, encoding="utf-8")
    data = ModelCard.load(path).data
    assert data.eval_results
    for result in data.eval_results:
        estimate = report.metrics[result.metric_name]
        assert result.metric_value == estimate.value
        assert result.metric_args["n"] == estimate.n
        assert (result.metric_args["low"], result.metric_args["high"]) == (estimate.low, estimate.high)
        assert result.dataset_type == "simulated"
    assert data.language == ["en", "fr"]
    assert data.base_model == "MahmoodLab/UNI"
    assert {"ebai-class-b", "simulated-data", "research-use-only"} <= set(data.tags)
    assert data.datasets == ["simulated-msi-crc"]


def test_every_figure_is_shown_once_with_words_for_who_cannot_see_it() -> None:
    for name in CASES:
        shown = re.findall(r"!\[([^\]]+)\]\(figures/([\w.]+)\)", written(name)[0])
        assert sorted(figure for _, figure in shown) == FIGURES
        assert all(len(words) > 10 or figure == "odd.png" for words, figure in shown)


def test_links_of_the_contents_lead_to_headings() -> None:
    text, _ = written("binary")
    anchors = re.findall(r"\]\(#([\w-]+)\)", text)
    titles = [anchor(title) for title in re.findall(r"^## (.*)$", text, re.MULTILINE)]
    assert set(anchors) <= set(titles)
    readers = re.findall(r"^\*\*(\w+)\*\*: (?:this page, then )?blocks (.*)$", first_page(text), re.MULTILINE)
    assert [reader for reader, _ in readers] == ["Pathologist", "Statistician", "Regulator"]
    assert all(links.count("](#") >= 5 for _, links in readers)


class Tags(HTMLParser):
    """Which elements a text has."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)


@pytest.mark.parametrize(
    "word", [HOSTILE, "a|b", "`x`", "<img src=x>", "[x](javascript:y)", "**x** $y$ ~z~ _q_", "# x"]
)
def test_nothing_that_a_tool_says_is_markup(word: str) -> None:
    evaluation, report = evaluated("multiclass")
    keys = ("title", "organ", "specimen", "question", "pathway", "users", "ground_truth")
    stated: dict[str, Any] = dict.fromkeys(keys, word)
    stated |= {key: [word] for key in ("out_of_scope", "confounders", "public_cohorts")}
    stated |= {"references": [{"text": word, "url": f"https://x.y/{word}"}], "facts": {"en": word, "fr": word}}
    text = card(manifest(evaluation.endpoint, **stated), evaluation.endpoint, report, [])
    body = text.split("---\n", 2)[2]
    tags = Tags()
    tags.feed(body)
    assert tags.names == {"details", "summary"}
    plain = re.sub(r"`report\.json: [^`\n]*`", "", body)
    assert "](javascript" not in plain
    widths: list[int] = []
    for line in body.splitlines():
        if line.startswith("|"):
            widths.append(line.count("|"))
        elif widths:
            assert len(set(widths)) == 1, line
            widths = []


def test_the_same_arguments_give_the_same_bytes() -> None:
    evaluation, report = evaluated("ordinal")
    once, again = (card(manifest(evaluation.endpoint), evaluation.endpoint, report, FIGURES) for _ in range(2))
    assert once == again
    assert once.endswith("\n")
    assert "\n\n\n" not in once


def test_the_changelog_is_in_the_card() -> None:
    evaluation, report = evaluated("binary")
    changes = "## 1.1.0\n\n- Retrained.\n\n## 1.0.0\n\n- First.\n"
    text = card(manifest(evaluation.endpoint), evaluation.endpoint, report, [], changelog=changes)
    last = blocks(text)[24]
    assert last.index("1.1.0") < last.index("Retrained.") < last.index("1.0.0") < last.index("First.")


@pytest.mark.parametrize(
    ("contrast", "sentence"),
    [
        (None, None),
        (1.0, "the simulated encoder mistakes some tiles for another tissue"),
        (2.0, "the simulated encoder separates tissues 2 times as far as usual"),
    ],
)
def test_how_clearly_a_simulated_encoder_sees_is_told(contrast: float | None, sentence: str | None) -> None:
    evaluation, report = evaluated("binary")
    sealed = manifest(evaluation.endpoint)
    simulation = SimulationRecord(sites=4, contrast=contrast)
    changed = sealed.model_copy(update={"data": sealed.data.model_copy(update={"simulation": simulation})})
    text = card(changed, evaluation.endpoint, report, FIGURES)
    line = next((line for line in text.splitlines() if line.startswith("- **How clear the features are**")), None)
    source = "manifest.json: data.simulation.contrast"
    number = next((number for number, cited in sources(text).items() if cited == source), None)
    assert line == (sentence and f"- **How clear the features are**: {sentence} [^{number}]")
