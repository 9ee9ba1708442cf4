"""Who was left out of a run, and why: from the hospital's table to report.json, the page and the card."""

from pathlib import Path

import pandas as pd

from mil import files
from mil.report.report_files import read_report
from mil.report.sections.patient_flow import PatientFlow
from mil.report.sections.patient_table import PatientTable
from tests.conftest import HOSPITAL, Mil


def test_a_run_reports_who_was_left_out_and_who_is_in_it(hospital: Path, tmp_path: Path, mil: Mil) -> None:
    table = pd.read_csv(hospital / "cohort.csv", dtype=str)
    first, second = table["patient"].unique()[:2]
    table.loc[table["patient"] == first, "MSI"] = ""
    table.loc[table["patient"] == second, ["age", "sex"]] = ""
    without = table.loc[~table["patient"].duplicated(keep=False) & ~table["patient"].isin([first, second]), "slide"]
    table.loc[table["slide"] == without.iloc[0], "slide"] = "nowhere"
    table.to_csv(tmp_path / "cohort.csv", index=False)
    words = [f"data.cohort={tmp_path}/cohort.csv", f"data.features={hospital}/features", "data.on_missing=skip"]
    run = tmp_path / "run"
    assert mil("train", *HOSPITAL, *words, "split=holdout", f"hydra.run.dir={run}").code == 0
    report = read_report(run / "report.json")
    flow, patients = report.section(PatientFlow), report.section(PatientTable)
    assert flow is not None
    assert [(step.patients, step.patients_left_out) for step in flow.steps] == [(24, 0), (23, 1), (22, 1), (22, 0)]
    assert flow.steps[0].slides == table["slide"].nunique()
    [roles] = flow.roles
    assert roles.train + roles.select + roles.report == 22
    assert patients is not None
    assert sum(group.n for group in patients.groups[:3]) == 22
    for variable in patients.variables:
        unknown = variable.name in ("age", "sex")
        hidden = [count for count in variable.missing[:3] if count != 0]
        assert hidden == ([None] if unknown else []), "one of real patients is not shown"
    page, card = (run / "report.html").read_text(), (run / "checkpoint" / "README.md").read_text()
    for text in (page, card):
        assert "Flow of patients" in text
        assert "no value of what is predicted" in text
        assert "Patients by role and outcome" in text
    first_report = files.read_json(run / "report.json")["sections"]
    assert mil("evaluate", run).code == 0
    again = files.read_json(run / "report.json")["sections"]
    assert again["patient_flow"] == first_report["patient_flow"]
    assert again["patient_table"] == first_report["patient_table"]
