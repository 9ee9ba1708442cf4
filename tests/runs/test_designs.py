"""Two runs that differ in their folds: which is which, and what else may not differ."""

from pathlib import Path

import pytest

from mil.errors import ConfigError
from mil.runs.design_gap import gap
from mil.runs.designs import compare_designs
from mil.runs.run import open_run
from tests.report.tables import binary
from tests.runs.test_run import folder_of


def test_the_gap_is_that_of_the_two_tables_in_either_order(tmp_path: Path) -> None:
    random = open_run(folder_of(tmp_path / "random", "split=kfold"))
    worse = binary(noise=3.0)
    for split in ("site_preserved", "leave_one_site_out"):
        preserved = open_run(folder_of(tmp_path / split, f"split={split}", table=worse))
        result = compare_designs(preserved, random)
        assert result == compare_designs(random, preserved)
        assert (result.random_run, result.preserved_run) == ("random", split)
        expected = gap(random.evaluation(), preserved.evaluation())
        assert result == expected.model_copy(update={"random_run": "random", "preserved_run": split})
        assert result.sentence.startswith("random folds flatter")


def test_what_is_no_pair_of_designs_is_refused(tmp_path: Path) -> None:
    random = open_run(folder_of(tmp_path / "random", "split=kfold"))
    words = "split=site_preserved"
    turned = binary().assign(label=lambda table: 1 - table["label"])
    fewer = binary().query("patient > '019'")
    for name, options, table, message in (
        ("same", ["split=holdout"], None, "both have KFold and HoldOut, expected one of random folds"),
        ("given", ["split=fixed"], None, "split Fixed has no known design"),
        ("silent", [words], binary().assign(role="train"), "no patient has the role report"),
        ("model", [words, "model=mean"], None, "model Pooling .*, expected ABMIL"),
        ("encoder", [words, "encoder=uni"], None, "encoder uni, expected auto"),
        ("tool", [words, "tool=msi-crc"], None, "tool msi-crc, expected binary"),
        ("labels", [words], turned, "120 patients, of which .* has 120 among its 120; expected the same patients"),
        ("fewer", [words], fewer, "100 patients, of which .* has 100 among its 120"),
    ):
        if name == "tool":
            table = binary().rename(columns={"label": "MSI", "p_1": "p_MSI-H"})
        second = open_run(folder_of(tmp_path / name, *options, table=table))
        with pytest.raises(ConfigError, match=message):
            compare_designs(random, second)
