"""`mil site`, as a user types it."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mil import files
from mil.stats.site_signature import PERMUTATIONS
from mil.study.compose import compose, read_config, write_config
from tests.conftest import HOSPITAL, Mil, run_quietly

COHORT = ["patients=60", "tiles=25", "width=16", "sites=3"]


@pytest.fixture(scope="module")
def trained(_cache: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A cohort whose sites stain in their own ways, and a hold-out run on it."""
    folder = tmp_path_factory.mktemp("sites")
    cohort = run_quietly("simulate", folder / "cohort", *(f"simulation.{word}" for word in COHORT))
    words = [*HOSPITAL, "split=holdout", f"data.cohort={cohort}/cohort.csv", f"data.features={cohort}/features"]
    return cohort, run_quietly("train", *words, "baseline=false", f"hydra.run.dir={folder}/run")


def moved(trained: tuple[Path, Path], folder: Path) -> tuple[Path, Path]:
    """The run beside a table of its own; the features stay where they are."""
    cohort, run = trained
    shutil.copytree(run, folder / "run")
    shutil.copy(cohort / "cohort.csv", folder / "cohort.csv")
    config = read_config(run / "config.yaml").replaced({"data.cohort": str(folder / "cohort.csv")})
    write_config(folder / "run" / "config.yaml", config)
    return folder / "cohort.csv", folder / "run"


def redesigned(run: Path, folder: Path, split: str) -> Path:
    """The same run under another design's name."""
    shutil.copytree(run, folder)
    config = read_config(run / "config.yaml").replaced({"split": compose([f"split={split}"]).split.plain()})
    write_config(folder / "config.yaml", config)
    return folder


def test_where_sites_stain_in_their_own_ways_the_encoder_tells_them(
    trained: tuple[Path, Path], mil: Mil, tmp_path: Path
) -> None:
    said = mil("site", trained[1], "--out", tmp_path / "out", "--resamples", "100")
    assert said.code == 0, said.err
    found = files.read_json(tmp_path / "out" / "site.json")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"site.json", "site.png", "site.svg"}
    assert (found["schema_version"], found["fold"], found["checkpoint"], found["resamples"]) == (
        2,
        0,
        "checkpoint",
        100,
    )
    assert found["patients"]["n"] == found["patients"]["with_site"] == sum(found["patients"]["sites"].values()) == 60
    chance = found["predicted_from"]["encoder"]["chance"]["balanced_accuracy"]
    encoder = found["predicted_from"]["encoder"]["balanced_accuracy"]
    assert encoder["low"] > 0.7 > chance
    # the mean over permutations of the sites: a third, within four of its standard errors and not exactly
    spread = np.sqrt(1 / 3 * 2 / 3 / 60)
    assert chance == pytest.approx(1 / 3, abs=4 * spread / np.sqrt(PERMUTATIONS))
    assert encoder["p"] == 1 / (PERMUTATIONS + 1), "no permutation is predicted as well"
    assert found["beyond_label"]["encoder"]["balanced_accuracy"]["low"] > 0
    sentence = "a signature is shown: the encoder's mean tile predicts the site of 60"
    assert found["sentences"]["encoder"].startswith(sentence)
    shown = said.out.splitlines()
    assert shown[0].startswith("msi-crc, ABMIL, simulated, fold 0, 60 patients of 3 sites, by the clinical table")
    for at, name in enumerate(("label", "score", "encoder's mean tile", "bag embedding"), start=2):
        assert shown[at].startswith(name)
    assert f"{encoder['value']:.3f} ({encoder['low']:.3f} to {encoder['high']:.3f})" in shown[4]
    assert found["sentences"]["embedding"] in shown
    assert "designs" not in found


def test_where_sites_are_shuffled_no_signature_is_shown(trained: tuple[Path, Path], mil: Mil, tmp_path: Path) -> None:
    table, run = moved(trained, tmp_path)
    cohort = pd.read_csv(table, dtype=str)
    site = cohort.drop_duplicates("patient").set_index("patient")["site"]
    site[:] = np.random.default_rng(0).permutation(site.to_numpy())
    cohort.assign(site=cohort["patient"].map(site)).to_csv(table, index=False)
    said = mil("site", run, "--resamples", "100")
    assert said.code == 0, said.err
    assert "no signature is shown: the encoder's mean tile predicts the site of 60 patients of 3 sites" in said.out
    assert "no signature is shown: the bag embedding" in said.out


def test_both_designs_are_shown_beside_each_other(trained: tuple[Path, Path], mil: Mil, tmp_path: Path) -> None:
    run = trained[1]
    whole = redesigned(run, tmp_path / "whole", "leave_one_site_out")
    said = mil("site", whole, "--preserved", run, "--out", tmp_path / "out", "--resamples", "20")
    assert said.code == 0, said.err
    designs = files.read_json(tmp_path / "out" / "site.json")["designs"]
    assert (designs["random_run"], designs["preserved_run"]) == (run.name, "whole")
    assert designs["difference"]["value"] == 0
    assert "AUROC" in said.out.splitlines()[7]
    assert [line.split()[0] for line in said.out.splitlines()[8:11]] == ["random", "whole", "difference"]
    assert said.out.splitlines()[-1] == designs["sentence"]
    assert "cannot be estimated: too few for a verdict: 15 patients" in designs["sentence"]


def test_features_that_have_moved_are_found_where_the_user_says(
    trained: tuple[Path, Path], mil: Mil, tmp_path: Path
) -> None:
    _, run = moved(trained, tmp_path)
    config = read_config(run / "config.yaml").replaced({"data.features": str(tmp_path / "gone")})
    write_config(run / "config.yaml", config)
    lost = mil("site", run, "--resamples", "5")
    assert (lost.code, lost.err.count("\n")) == (2, 2)
    assert "config.yaml is not what the run began with: it was changed" in lost.err
    assert "gone" in lost.err
    assert mil("site", run, "--resamples", "5", "--features", trained[0] / "features").code == 0


def test_what_cannot_be_told_is_refused_in_one_line(trained: tuple[Path, Path], mil: Mil, tmp_path: Path) -> None:
    table, run = moved(trained, tmp_path)
    whole = pd.read_csv(table, dtype=str)

    def refused(*words: str | Path) -> str:
        said = mil("site", run, *words)
        *warned, line = said.err.splitlines()
        assert (said.code, said.out) == (2, ""), said.err
        assert all("is not what the run began with" in each for each in warned)  # as `moved` has changed it
        return line

    whole.assign(site="here").to_csv(table, index=False)
    assert "1 of 1 sites in the clinical table's column 'site' have 5 patients or more, expected two" in refused()
    whole.drop(columns="site").to_csv(table, index=False)
    assert "have no TCGA barcode to tell it from" in refused()
    whole[whole["patient"] != "P0000"].to_csv(table, index=False)
    assert f"{table}: lacks 1 of the 60 patients" in refused()
    assert "both have HoldOut and HoldOut" in refused("--preserved", trained[1])
    shutil.rmtree(run / "checkpoint")
    assert "holds no checkpoint, expected a run with its models" in refused()
    assert "holds no config.yaml" in refused("--preserved", tmp_path)
