"""Training comes close to the oracle of a simulated cohort, and learns nothing from permuted labels.

Slow: run with `-m slow`; each test takes a few minutes on two cores.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mil import files
from tests.conftest import Mil

WORDS = ["data.workers=0", "trainer.enable_progress_bar=false", "trainer.max_epochs=10", "resamples=1000"]
TOOLS = {"msi-crc": ("auroc", ["MSI"]), "surv-crc": ("c_index", ["time", "event"])}


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
def test_cross_validation_comes_within_0_05_of_the_oracle(tool: str, tmp_path: Path, mil: Mil) -> None:
    metric, _ = TOOLS[tool]
    result = mil("train", f"tool={tool}", *WORDS, f"hydra.run.dir={tmp_path}")
    assert result.code == 0, result.err
    report = files.read_json(tmp_path / "report.json")
    assert report["metrics"][metric]["value"] > report["sections"]["oracle"]["metrics"][metric]["value"] - 0.05


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
def test_permuted_labels_are_not_learnt(tool: str, tmp_path: Path, mil: Mil) -> None:
    metric, columns = TOOLS[tool]
    mil("simulate", tmp_path / "cohort", f"tool={tool}", "simulation.tiles=400")
    table = pd.read_csv(tmp_path / "cohort" / "cohort.csv", dtype=str)
    patients = table.drop_duplicates("patient").set_index("patient")[columns]
    shuffled = patients.sample(frac=1, random_state=np.random.RandomState(0)).set_axis(patients.index)
    table[columns] = shuffled.loc[table["patient"]].to_numpy()
    table.to_csv(tmp_path / "permuted.csv", index=False)
    data = [f"data.cohort={tmp_path}/permuted.csv", f"data.features={tmp_path}/cohort/features"]
    result = mil("train", f"tool={tool}", *WORDS, *data, f"hydra.run.dir={tmp_path}/run")
    assert result.code == 0, result.err
    estimate = files.read_json(tmp_path / "run" / "report.json")["metrics"][metric]
    assert estimate["low"] < 0.5 < estimate["high"]
