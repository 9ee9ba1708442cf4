"""An evaluation on other patients becomes part of a release, and changes what it says but nothing that it computes."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from mil import checkpoint, files
from mil.cards.external_validation import ExternalValidation
from mil.report.report_files import read_report
from mil.zoo.attach import read_external
from mil.zoo.index import write_index
from mil.zoo.release import release
from mil.zoo.signing import signature_path
from mil.zoo.verify import verify
from tests.conftest import TINY, Mil, Said, as_real, once, run_quietly
from tests.zoo.checkpoints import reseal

pytestmark = pytest.mark.usefixtures("_not_redrawn")

SIMULATION = [word for word in TINY if word.startswith(("simulation.", "experiment="))]


@pytest.fixture(scope="session")
def elsewhere(_cache: None, shared: Path) -> Path:
    """Simulated patients of another hospital."""
    words = [*SIMULATION, "simulation.seed=5", "simulation.patients=30"]
    return once(shared / "elsewhere", lambda at: run_quietly("simulate", at / "cohort", *words)) / "cohort"


@pytest.fixture(scope="session")
def attached(crc_release: Path, elsewhere: Path, shared: Path) -> Path:
    """A release with an external validation; its folder has an index, and a signature beside it."""

    def make(at: Path) -> None:
        place = shutil.copytree(crc_release, at / "zoo" / crc_release.name)
        write_index(place.parent)
        signature_path(place).write_text("of the version before")
        run_quietly(*words(place, elsewhere, at / "out"), "--centre", "Ville", "--dates", "2019 to 2021")

    return once(shared / "attached", make) / "zoo" / crc_release.name


def words(place: Path, cohort: Path, out: Path, name: str = "Hôpital d'Ailleurs") -> list[str | Path]:
    files_of: list[str | Path] = ["--cohort", cohort / "cohort.csv", "--features", cohort / "features", "--out", out]
    return ["evaluate", place, *files_of, "--resamples", "20", "--attach", "--name", name]


def validation(place: Path) -> ExternalValidation:
    (single,) = read_external(place)
    return single


def refused(result: Said, message: str) -> None:
    beside = ("SIMULATED" in result.err) + ("open it in a browser" in result.err)
    assert (result.code, result.err.count("\n")) == (2, 1 + beside), result.err
    assert message in result.err


def test_a_validation_is_attached_as_a_patch_version(attached: Path, crc_release: Path) -> None:
    before, after = checkpoint.read_manifest(crc_release), checkpoint.read_manifest(attached)
    assert (before.tool.version, after.tool.version) == ("1.0.0", "1.0.1")
    assert after.model_copy(update={"tool": before.tool, "files": before.files}) == before
    unchanged = ("weights.safetensors", "golden.safetensors", "predictions.csv", "patients.csv")
    assert all(after.files[name] == before.files[name] for name in unchanged)
    folder = "external/hopital-d-ailleurs"
    assert {f"{folder}/cohort.json", f"{folder}/report.json"} == set(after.files) - set(before.files)
    changelog = (attached / "CHANGELOG.md").read_text()
    assert changelog.startswith(
        "# Changes\n\n- 1.0.1: External validation on Hôpital d'Ailleurs, n 30. Same weights.\n"
    )
    assert changelog.endswith("- 1.0.0: First release.\n")
    assert not signature_path(attached).exists()
    assert verify(attached) == []


def test_the_cohort_is_described_and_no_patient_is_named(attached: Path) -> None:
    cohort, report = validation(attached).cohort, validation(attached).report
    assert (cohort.name, cohort.centre, cohort.dates) == ("Hôpital d'Ailleurs", "Ville", "2019 to 2021")
    assert (cohort.patients["n"], cohort.overlap, cohort.simulated) == (30, 0, True)
    assert cohort.patients == report.patients
    assert report.about.external
    assert all("P00" not in path.read_text() for path in (attached / "external").rglob("*.json"))


def test_card_xml_index_and_gate_show_the_external_result(attached: Path, crc_release: Path, mil: Mil) -> None:
    auroc = validation(attached).report.metrics["auroc"]
    card = (attached / "README.md").read_text()
    head = "| Measure | Development | Hôpital d'Ailleurs, Ville (simulated) |"
    row = next(line for line in card[card.index(head) :].splitlines() if line.startswith("| AUROC |"))
    development = read_report(attached / "report.json").run
    assert development is not None
    assert str(development.metrics["auroc"]) in row
    assert str(auroc) in row
    (footnote,) = re.findall(r"\[\^(\d+)\] \|$", row)
    source = "`report.json: run.metrics.auroc; external/hopital-d-ailleurs/report.json: metrics.auroc`"
    assert f"[^{footnote}]: {source}" in card.splitlines()
    assert "- **External validation**: Hôpital d'Ailleurs, Ville (simulated): AUROC " in card
    assert "no external validation" not in card
    assert "no external validation" in (crc_release / "README.md").read_text()
    xml = (attached / "model_card.xml").read_text()
    assert "Internal validation; external validation on Hôpital d'Ailleurs" in xml
    index = (attached.parent / "README.md").read_text()
    assert "Hôpital d'Ailleurs, Ville (simulated): AUROC" in index
    assert "| 1.0.1 |" in index
    gates = {gate.number: gate for gate in read_report(attached / "report.json").gates}
    assert (gates[10].holds, gates[10].sentence) == (True, "1 external cohorts, 30 patients.")
    assert gates[9] == {gate.number: gate for gate in read_report(crc_release / "report.json").gates}[9]
    assert "External" in mil("zoo", "show", attached).out


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("report.json", "seed", 9, "is not the report that cohort.json names"),
        ("cohort.json", "patients", {"n": 900}, "tool or patients are not those of report.json"),
        ("cohort.json", "weights_sha256", "0", "evaluated other weights"),
        ("cohort.json", "name", "Harvard", "README.md: line"),
        ("cohort.json", "overlap", 3, "3 patients of the development cohort"),
    ],
)
def test_a_changed_validation_is_found_though_the_manifest_was_made_to_fit(
    name: str, key: str, value: object, message: str, attached: Path, tmp_path: Path
) -> None:
    place = shutil.copytree(attached, tmp_path / attached.name)
    path = place / validation(place).source.rpartition("/")[0] / name
    files.write_json(path, files.read_json(path) | {key: value})
    assert any("is not the file" in problem for problem in verify(place))
    reseal(place)
    assert any(message in problem for problem in verify(place)), verify(place)


def test_a_removed_validation_is_found(attached: Path, tmp_path: Path) -> None:
    place = shutil.copytree(attached, tmp_path / attached.name)
    (place / validation(place).source.rpartition("/")[0] / "cohort.json").unlink()
    reseal(place)
    assert verify(place) == ["external/hopital-d-ailleurs/cohort.json is missing"]
    shutil.rmtree(place / "external")
    reseal(place)
    assert any("report.json: gates[9].holds is true" in problem for problem in verify(place))


def test_the_same_patients_are_attached_once(attached: Path, elsewhere: Path, mil: Mil, tmp_path: Path) -> None:
    place = shutil.copytree(attached, tmp_path / attached.name)
    before = (place / "manifest.json").read_bytes()
    refused(mil(*words(place, elsewhere, tmp_path / "a")), "a cohort named Hôpital d'Ailleurs is attached")
    result = mil(*words(place, elsewhere, tmp_path / "b", "Another name"))
    refused(result, "the patients of Another name are attached as Hôpital d'Ailleurs")
    assert (place / "manifest.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_patients_of_the_development_cohort_are_refused_even_under_other_names(
    crc_release: Path, mil: Mil, tmp_path: Path
) -> None:
    place = shutil.copytree(crc_release, tmp_path / "zoo" / crc_release.name)
    cohort = run_quietly("simulate", tmp_path / "cohort", *SIMULATION)
    table = pd.read_csv(cohort / "cohort.csv", dtype=str)
    table.assign(patient="X" + table["patient"]).to_csv(cohort / "cohort.csv", index=False)
    result = mil(*words(place, cohort, tmp_path / "out"))
    refused(result, "24 of 24 patients of Hôpital d'Ailleurs are of the cohort that msi-crc was developed on")
    assert read_external(place) == ()


def test_a_release_of_real_patients_is_compared_with_the_run_that_was_released(
    real_release: Path, real_run: Path, crc_run: Path, hospital: Path, elsewhere: Path, mil: Mil, tmp_path: Path
) -> None:
    place = shutil.copytree(real_release, tmp_path / "zoo" / real_release.name)
    result = mil(*words(place, hospital, tmp_path / "a"), "--trained", real_run)
    refused(result, "24 of 24 patients")
    refused(mil(*words(place, hospital, tmp_path / "b"), "--trained", crc_run), "expected the run that was released")
    refused(mil(*words(place, elsewhere, tmp_path / "c")), "or --simulated to state it")
    assert mil(*words(place, elsewhere, tmp_path / "d", "Pretended"), "--simulated").code == 0
    gates = {gate.number: gate for gate in read_report(place / "report.json").gates}
    assert gates[10].holds is False
    assert "1 simulated, which do not count for a tool of patients" in gates[10].sentence
    strangers = shutil.copytree(elsewhere, tmp_path / "strangers")
    as_real(strangers / "cohort.csv")
    table = pd.read_csv(strangers / "cohort.csv", dtype=str)
    table.assign(patient="S" + table["patient"]).to_csv(strangers / "cohort.csv", index=False)
    assert mil(*words(place, strangers, tmp_path / "e", "Strangers")).code == 0
    assert [validation.cohort.overlap for validation in read_external(place)] == [None, None]
    assert "not compared: the release holds no list of the patients" in (place / "README.md").read_text()
    gates = {gate.number: gate for gate in read_report(place / "report.json").gates}
    assert gates[10].holds is True
    assert verify(place) == []
    spoilt = files.read_json(place / "report.json")
    spoilt["gates"][9]["sentence"] = "9 external cohorts."
    files.write_json(place / "report.json", spoilt)
    reseal(place)
    assert any("report.json: gates[9] is '9 external cohorts.'" in problem for problem in verify(place))


def test_what_is_no_release_is_refused_before_anything_is_predicted(
    crc_run: Path, elsewhere: Path, mil: Mil, tmp_path: Path
) -> None:
    result = mil(*words(crc_run / "fold_0" / "checkpoint", elsewhere, tmp_path / "out"))
    refused(result, "is not a release, expected a folder that mil release wrote")
    assert not (tmp_path / "out").exists()
    refused(mil("evaluate", crc_run, "--centre", "Ville"), "--centre: goes with --attach")
    refused(mil("evaluate", crc_run, "--attach", "--name", "A"), "--attach: goes with a released folder and --cohort")
    refused(mil(*words(crc_run, elsewhere, tmp_path / "out")[:-2]), "--attach: expected --name")


@pytest.mark.usefixtures("_undrawn")
def test_the_next_version_of_the_same_weights_keeps_its_validations(
    attached: Path, crc_run: Path, tmp_path: Path
) -> None:
    place = shutil.copytree(attached, tmp_path / attached.name)
    assert len(read_external(release(crc_run, "1.0.2", tmp_path))) == 1
    assert len(read_external(release(crc_run, "2.0.0", tmp_path, fold=1))) == 0
    assert checkpoint.read_manifest(place).tool.version == "2.0.0"
