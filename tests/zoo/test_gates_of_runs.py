"""Each gate fails on a run that deserves it, trained and released as a user does."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from mil import checkpoint, files
from tests.conftest import HOSPITAL, Mil, once, run_quietly

Gates = dict[int, tuple[str, str]]


@pytest.fixture(scope="session")
def bare_run(hospital: Path, shared: Path) -> Path:
    """A question of one's own, on a table without any clinical variable, without a baseline."""

    def make(at: Path) -> None:
        at.mkdir(exist_ok=True)
        table = pd.read_csv(hospital / "cohort.csv", dtype=str)[["patient", "slide", "MSI"]]
        table.to_csv(at / "cohort.csv", index=False)
        tool = ["tool=binary", "tool.endpoint.column=MSI", "tool.endpoint.classes=[MSS,MSI-H]"]
        given = [f"data.cohort={at}/cohort.csv", f"data.features={hospital}/features", "baseline=false"]
        run_quietly("train", *HOSPITAL, *tool, *given, "split=holdout", f"hydra.run.dir={at}/run")

    return once(shared / "bare", make) / "run"


@pytest.fixture
def judged(mil: Mil, tmp_path: Path) -> "Judged":
    return Judged(mil, tmp_path)


class Judged:
    """Releases a run by the command and returns verdict and sentence of each gate."""

    def __init__(self, mil: Mil, folder: Path) -> None:
        self.mil, self.folder = mil, folder

    def __call__(self, run: Path) -> Gates:
        result = self.mil("release", run, "--version", "1.0.0", "--out", self.folder / f"zoo{len(run.parts)}")
        assert result.code == 0, result.err
        lines = re.findall(r"^gate +(\d+)  (holds|does not hold|does not apply) +(.*)$", result.out, re.MULTILINE)
        assert len(lines) == 10
        return {int(number): (verdict, sentence) for number, verdict, sentence in lines}


def fails(gates: Gates, number: int, sentence: str) -> None:
    verdict, text = gates[number]
    assert verdict == "does not hold", text
    assert sentence in text


@pytest.mark.usefixtures("_undrawn")
def test_1_features_of_an_encoder_that_no_file_names(crc_run: Path, judged: Judged, tmp_path: Path) -> None:
    run = shutil.copytree(crc_run, tmp_path / "run")
    assert judged(run)[1][0] == "holds"
    path = run / "fold_0" / "checkpoint" / "manifest.json"
    manifest = files.read_json(path)
    manifest["encoder"]["verified"] = False  # as for feature files that do not name it
    files.write_json(path, manifest)
    shutil.rmtree(tmp_path / f"zoo{len(run.parts)}")
    fails(judged(run), 1, "encoder not named by every feature file")


@pytest.mark.usefixtures("_undrawn")
def test_2_sites_that_were_not_kept_apart_and_10_no_external_cohort(crc_run: Path, judged: Judged) -> None:
    gates = judged(crc_run)
    fails(gates, 2, "sites were not kept apart")
    fails(gates, 7, "0 inputs are withheld")
    fails(gates, 10, "0 external cohorts: no external validation.")
    assert gates[5][0] == gates[8][0] == gates[9][0] == "holds"


@pytest.mark.usefixtures("_undrawn")
def test_3_6_8_a_run_without_baseline_clinical_table_and_statements(bare_run: Path, judged: Judged) -> None:
    gates = judged(bare_run)
    fails(gates, 3, "not compared with mean pooling with a linear model and the clinical variables")
    fails(gates, 6, "0 rows of subgroups: there was no clinical table.")
    fails(gates, 8, "not stated: organ, specimen, intended use, users, pathway, ground truth")


@pytest.mark.usefixtures("_undrawn")
def test_4_probabilities_of_too_few_patients_have_no_calibration(
    hospital: Path, judged: Judged, tmp_path: Path
) -> None:
    tool = ["tool=ordinal", "tool.endpoint.column=stage", "tool.endpoint.classes=[I,II,III,IV]", "baseline=false"]
    given = [f"data.cohort={hospital}/cohort.csv", f"data.features={hospital}/features", "split=holdout"]
    run_quietly("train", *HOSPITAL, *tool, *given, f"hydra.run.dir={tmp_path}/run")
    fails(judged(tmp_path / "run"), 4, "slopes and observed/expected ratios are estimable, of 6 patients.")


@pytest.mark.usefixtures("_undrawn")
def test_5_a_cut_that_somebody_moved_after_training(crc_run: Path, judged: Judged, tmp_path: Path) -> None:
    run = shutil.copytree(crc_run, tmp_path / "run")
    place = run / "fold_0" / "checkpoint"
    manifest = checkpoint.read_manifest(place)
    (decision,) = manifest.fitted.decisions
    moved = decision.model_copy(update={"cuts": (decision.cuts[0] + 0.05,)})
    fitted = manifest.fitted.model_copy(update={"decisions": (moved,)})
    checkpoint.seal(place, manifest.model_copy(update={"fitted": fitted}))
    fails(judged(run), 5, "1 of 1 decisions are not those of their patients: MSI-H is cut at ")


@pytest.mark.usefixtures("_undrawn")
def test_9_a_number_of_the_report_that_the_predictions_do_not_give(
    crc_run: Path, judged: Judged, tmp_path: Path
) -> None:
    run = shutil.copytree(crc_run, tmp_path / "run")
    place = run / "fold_0" / "checkpoint"
    report = files.read_json(place / "report.json")
    report["metrics"]["auroc"]["value"] = 0.999
    files.write_json(place / "report.json", report)
    checkpoint.seal(place, checkpoint.unverified(place))
    fails(judged(run), 9, "first metrics.auroc.value is 0.999")
