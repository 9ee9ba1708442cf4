"""Table 1 and the flow of patients, with counts that were made by hand."""

import numpy as np
import pandas as pd

from mil.endpoints.classification import Binary
from mil.endpoints.competing_risks import CompetingRisks
from mil.endpoints.multilabel import Multilabel
from mil.report.assemble import evaluate
from mil.report.evaluation import Evaluation
from mil.report.schema import Report
from mil.report.sections.patient_flow import PatientFlow
from mil.report.sections.patient_table import REST, PatientTable
from mil.study.flow import NO_FILE, NO_LABEL, UNUSABLE, FlowStep, flow_of
from mil.study.tool import Tool

NAMES = [f"p{k:02}" for k in range(20)]
ROLES = ["train"] * 10 + ["select"] * 4 + ["report"] * 6
LABEL = np.array(["no", "yes"])[np.arange(20) % 2]
TABLE = pd.DataFrame({"patient": NAMES, "fold": 0, "role": ROLES, "label": LABEL, "p_yes": np.linspace(0.1, 0.9, 20)})
CLINIC = pd.DataFrame(
    {
        "age": ["NA", *map(str, range(41, 60))],
        "sex": ["F"] * 5 + [""] * 2 + ["M"] * 13,
        "grade": ["unknown"] * 3 + ["2"] * 17,
        "note": "x",
        "simulated": "yes",
    },
    index=NAMES,
)
REAL = CLINIC.drop(columns="simulated")
ENDPOINT = Binary("label", ["no", "yes"])
TOOL = Tool(subgroups=("grade",))


def table_one(table: pd.DataFrame = TABLE, clinic: pd.DataFrame | None = CLINIC) -> PatientTable | None:
    return PatientTable.compute(Evaluation.of(table, ENDPOINT, TOOL, clinic))


def test_each_variable_is_counted_by_role_and_by_outcome() -> None:
    section = table_one()
    assert section is not None
    named = {group.name: group.n for group in section.groups}
    assert named == {"training": 10, "model selection": 4, "report": 6, "no": 10, "yes": 10}
    by_name = {variable.name: variable for variable in section.variables}
    assert list(by_name) == ["age", "sex", "grade"], "only what the report uses"
    training = by_name["age"].quartiles[0]
    assert (training.lower, training.median, training.upper) == (43.0, 45.0, 47.0)
    assert by_name["age"].missing == (1, 0, 0, 1, 0)
    counts = {level.level: level.counts for level in by_name["sex"].levels}
    assert counts == {"F": (5, 0, 0, 3, 2), "M": (3, 4, 6, 6, 7)}
    assert by_name["sex"].missing == (2, 0, 0, 1, 1)
    assert by_name["grade"].missing == (3, 0, 0, 2, 1)


def test_the_printed_table_has_shares_of_each_column() -> None:
    section = table_one()
    assert section is not None
    shown = section.table()
    assert shown.columns[:2] == ("Variable", "training (n 10)")
    rows = {row[0]: row[1:] for row in shown.rows}
    assert rows["age"][0] == "45 (43 to 47)"
    assert rows["sex: F"][:3] == ("5 (50.0%)", "0 (0.0%)", "0 (0.0%)")
    assert rows["sex: missing"][0] == "2 (20.0%)"


def test_small_counts_of_real_patients_are_not_shown_and_do_not_follow_from_the_others() -> None:
    section = table_one(clinic=REAL)
    assert section is not None
    by_name = {variable.name: variable for variable in section.variables}
    counts = [level.counts for level in by_name["sex"].levels] + [by_name["sex"].missing]
    assert counts == [(5, None, 0, None, None), (None, None, 6, 6, 7), (None, 0, 0, None, None)]
    assert by_name["age"].quartiles[1].median is None, "four patients"
    assert by_name["age"].quartiles[0].median == 45.0
    shown = section.table()
    rows = {row[0]: row[1:] for row in shown.rows}
    assert rows["sex: F"] == ("5 (50.0%)", "not shown", "0 (0.0%)", "not shown", "not shown")
    assert rows["age"][1] == "not shown: under 5 patients"
    assert "Counts under 5 are not shown" in str(shown.note)
    assert '"counts":[null,null,6,6,7]' in section.model_dump_json(), "nor can they be read in report.json"
    simulated = table_one()
    assert simulated is not None
    assert "not shown" not in str(simulated.table())


def test_no_hidden_count_follows_from_a_sum() -> None:
    draw = np.random.default_rng(0)
    for _ in range(50):
        clinic = REAL.assign(grade=draw.choice(["1", "2", "3"], 20, p=[0.1, 0.6, 0.3]))
        section = table_one(clinic=clinic)
        assert section is not None
        grade = next(variable for variable in section.variables if variable.name == "grade")
        cells = np.array([*(level.counts for level in grade.levels), grade.missing], dtype=float)
        assert not ((cells > 0) & (cells < 5)).any()
        for line in (*cells, *cells.T):
            assert np.isnan(line).sum() != 1


def test_with_several_folds_everybody_who_is_reported_is_one_column() -> None:
    other = TABLE.assign(fold=1, role=["report"] * 14 + ["train"] * 6)
    section = table_one(pd.concat([TABLE, other], ignore_index=True))
    assert section is not None
    assert [(group.name, group.n) for group in section.groups] == [("report", 20), ("no", 10), ("yes", 10)]


def test_without_a_clinical_table_or_its_columns_there_is_no_table() -> None:
    assert table_one(clinic=None) is None
    assert table_one(clinic=CLINIC[["note"]]) is None


def test_rare_levels_are_counted_together() -> None:
    words = [f"level {min(k, 25)}" for k in range(20)]
    many = pd.concat([CLINIC.assign(grade=words), CLINIC.assign(grade="a").set_axis([f"q{k}" for k in range(20)])])
    more = pd.concat([TABLE, TABLE.assign(patient=[f"q{k}" for k in range(20)])], ignore_index=True)
    section = table_one(more, many)
    assert section is not None
    grade = next(variable for variable in section.variables if variable.name == "grade")
    assert len(grade.levels) == 21
    assert grade.levels[-1].level == REST
    assert sum(count or 0 for level in grade.levels for count in level.counts[3:]) == 40


def test_labels_and_causes_are_groups_too() -> None:
    labels = TABLE.drop(columns="label").assign(ER=LABEL, PR=["yes"] * 5 + [""] * 5 + ["no"] * 10, p_ER=0.5, p_PR=0.5)
    endpoint = Multilabel(["ER", "PR"], ["no", "yes"])
    section = PatientTable.compute(Evaluation.of(labels, endpoint, TOOL, CLINIC))
    assert section is not None
    assert [group.n for group in section.groups] == [10, 4, 6, 10, 5]
    ended = TABLE.assign(time=5.0, event=["censored"] * 12 + ["relapse"] * 5 + ["death"] * 3, risk=0.1)
    causes = CompetingRisks("time", "event", ["relapse", "death"])
    followed = PatientTable.compute(Evaluation.of(ended, causes, TOOL, CLINIC))
    assert followed is not None
    assert [(group.name, group.n) for group in followed.groups[3:]] == [("no event", 12), ("relapse", 5), ("death", 3)]


SLIDES = pd.DataFrame({"patient": ["a", "a", "b", "c", "c", "d", "e"], "slide": ["1", "2", "3", "4", "5", "6", ""]})
STEPS = tuple(flow_of(SLIDES, SLIDES[SLIDES["patient"] != "d"], {"1", "2", "3", "4"}, {"1", "4"}))


def test_the_flow_counts_patients_and_slides_with_the_reason() -> None:
    assert [(step.patients, step.slides, step.patients_left_out, step.slides_left_out) for step in STEPS] == [
        (5, 6, 0, 0),
        (4, 5, 1, 1),
        (3, 4, 1, 1),
        (2, 2, 1, 2),
    ]
    assert [step.reason for step in STEPS] == [None, NO_LABEL, NO_FILE, UNUSABLE]


def test_the_flow_ends_with_the_roles_of_each_fold() -> None:
    other = TABLE.assign(fold=1, role=["report"] * 14 + ["train"] * 6)
    evaluation = Evaluation.of(pd.concat([TABLE, other], ignore_index=True), ENDPOINT)
    section = PatientFlow.compute(evaluation)
    assert section is not None
    assert [(role.fold, role.train, role.select, role.report) for role in section.roles] == [
        (0, 10, 4, 6),
        (1, 6, 0, 14),
    ]
    assert section.reported == 20
    assert [table.columns[0] for table in section.tables()] == ["Fold"]
    only = TABLE.assign(role="report")
    assert PatientFlow.compute(Evaluation.of(only, ENDPOINT)) is None


def test_both_stand_in_the_report_and_are_read_again() -> None:
    evaluation = Evaluation.of(TABLE, ENDPOINT, TOOL, CLINIC, resamples=10)
    report = evaluate(Evaluation(**{**vars(evaluation), "flow": STEPS}))
    again = Report.model_validate_json(report.model_dump_json())
    flow, table = again.section(PatientFlow), again.section(PatientTable)
    assert flow is not None
    assert table is not None
    assert flow.steps == STEPS
    assert isinstance(flow.steps[0], FlowStep)
    assert flow.block().tables[0].rows[1] == ("with a label", "4", "5", "1 patients, 1 slides", NO_LABEL)
