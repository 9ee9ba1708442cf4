"""A cohort that a checkpoint has not seen: scored as it was frozen, and a cut set anew by known positives alone."""

from pathlib import Path

import pandas as pd
import pytest

from mil import build, config
from mil import checkpoint as checkpoints
from mil.checkpoint import Checkpoint
from mil.decisions.guarantee import needed
from mil.decisions.rules import Decision
from mil.errors import CohortError, ConfigError, PredictionsError
from mil.evaluation.report import evaluate
from mil.inference.external import Labelled, labelled, recalibrated
from mil.simulation.cohort import write
from mil.zoo.report import external

RELEASED = Path(__file__).parents[1] / "zoo" / "released" / "schema_1" / "msi-crc"


@pytest.fixture(scope="module")
def abroad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another hospital's cohort, of the width that the stored checkpoint reads."""
    folder = tmp_path_factory.mktemp("abroad") / "cohort"
    words = ["simulation.width=8", "simulation.patients=120", "simulation.tiles=20", "simulation.seed=5"]
    write(build.simulation(config.compose(["tool=msi-crc", *words])), folder)
    return folder


@pytest.fixture(scope="module")
def stored() -> Checkpoint:
    return checkpoints.load(RELEASED)


@pytest.fixture(scope="module")
def found(abroad: Path, stored: Checkpoint) -> Labelled:
    return labelled(stored, abroad / "features", abroad / "cohort.csv")


def test_every_patient_with_a_label_is_reported_beside_it(found: Labelled, abroad: Path) -> None:
    cohort = pd.read_csv(abroad / "cohort.csv", dtype=str).drop_duplicates("patient").set_index("patient")
    assert set(found.table["patient"]) == set(cohort.index)
    assert (found.table["role"] == "report").all()
    assert found.table.set_index("patient")["MSI"].to_dict() == cohort["MSI"].to_dict()
    assert {"site", "sex", "age"} <= set(found.patients.columns)
    assert found.withheld == 0


def test_nothing_is_fitted_to_the_cohort(found: Labelled, stored: Checkpoint) -> None:
    (frozen,) = (Decision.from_state(one) for one in stored.manifest.fitted["decisions"])
    turned = found.table.assign(MSI=found.table["MSI"].map({"MSS": "MSI-H", "MSI-H": "MSS"}))
    for table in (found.table, turned):
        evaluation, report = external(stored, found._replace(table=table), resamples=20)
        (decision,) = report["operating_points"]["decisions"]
        assert decision["cuts"] == [list(frozen.cuts)]
        assert report == {**report, **evaluate(evaluation)}
        assert report["external"]
    called = found.table["p_MSI-H"] >= frozen.cuts[0]
    assert (found.table["call"] == called.map({True: "MSI-H", False: "MSS"})).all()


def test_known_positives_set_the_cut_and_nobody_else_does(found: Labelled, stored: Checkpoint, tmp_path: Path) -> None:
    fresh = recalibrated(stored, found, tmp_path / "one", sensitivity=0.7)
    positives = found.table.loc[found.table["MSI"] == "MSI-H", "p_MSI-H"]
    assert fresh.guarantee is not None
    assert fresh.guarantee.positives == len(positives)
    assert fresh.cuts[0] in positives.to_numpy()
    others = found.table["p_MSI-H"].where(found.table["MSI"] == "MSI-H", 0.123)
    again = recalibrated(
        stored, found._replace(table=found.table.assign(**{"p_MSI-H": others})), tmp_path / "two", sensitivity=0.7
    )
    assert again == fresh
    reloaded = checkpoints.load(tmp_path / "one")
    assert [Decision.from_state(one) for one in reloaded.manifest.fitted["decisions"]] == [fresh]
    for name, tensor in reloaded.model.state_dict().items():
        assert tensor.equal(stored.model.state_dict()[name])


def test_too_few_positives_are_refused_and_nothing_is_written(
    found: Labelled, stored: Checkpoint, tmp_path: Path
) -> None:
    assert int((found.table["MSI"] == "MSI-H").sum()) < needed(0.95, 0.95)
    with pytest.raises(PredictionsError, match="expected 59 or more"):
        recalibrated(stored, found, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_decision_that_is_not_there_and_a_folder_that_is_are_refused(
    found: Labelled, stored: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="decision BRAF, expected one of"):
        recalibrated(stored, found, tmp_path / "out", decision="BRAF")
    with pytest.raises(ConfigError, match="is there already"):
        recalibrated(stored, found, tmp_path)


def test_a_table_without_the_labels_is_refused(abroad: Path, stored: Checkpoint, tmp_path: Path) -> None:
    pd.read_csv(abroad / "cohort.csv", dtype=str).drop(columns="MSI").to_csv(tmp_path / "bare.csv", index=False)
    with pytest.raises(CohortError, match="MSI"):
        labelled(stored, abroad / "features", tmp_path / "bare.csv")
