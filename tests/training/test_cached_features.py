"""`data.cache`: a run reads the copy alone, learns the same from it, and says what it copied and rounded."""

import json
import shutil
from pathlib import Path

from mil import files
from mil.features.feature_cache import FeatureCache
from mil.runs.fit_run import _copy_features
from mil.runs.run_inputs import read_inputs, record_inputs, remarks_of
from mil.study.compose import compose
from mil.study.pipeline import read_study
from mil.study.source import cache_options
from tests.conftest import HOSPITAL, Mil
from tests.features.test_feature_cache import spoil


def test_training_reads_the_copy_alone_and_learns_the_same(
    real_run: Path, hospital: Path, mil: Mil, tmp_path: Path
) -> None:
    source = files_of(hospital, tmp_path)
    given = [f"data.cohort={hospital}/cohort.csv", f"data.features={source}", f"data.cache={tmp_path / 'near'}"]
    words = [*HOSPITAL, "split=holdout", *given]
    looked = mil("check", *words)
    assert f"slideswillbecopiedto{tmp_path / 'near'}," in "".join(looked.out.split())  # a long path is folded
    done = mil("train", *words, f"hydra.run.dir={tmp_path / 'first'}")
    assert done.code == 0, done.err
    assert "copying " in done.err
    assert "each read back and compared" in (tmp_path / "first" / "log.txt").read_text()
    for path in source.iterdir():
        spoil(path)
    done = mil("train", *words, f"hydra.run.dir={tmp_path / 'second'}")
    assert done.code == 0, done.err
    assert "copying " not in done.err
    weights = [
        run / "checkpoint" / "weights.safetensors" for run in (real_run, tmp_path / "first", tmp_path / "second")
    ]
    assert len({files.sha256(path) for path in weights}) == 1
    record = read_inputs(tmp_path / "second")
    assert record is not None
    assert (record.features, record.rounding) == (read_inputs(tmp_path / "first").features, None)  # type: ignore[union-attr]  # there
    manifest = (tmp_path / "first" / "checkpoint" / "manifest.json").read_text()
    assert "near" not in manifest, "where a site keeps its files is nobody else's business"
    looked = mil("check", *words, "--json")
    assert json.loads(looked.out)["copy"]["missing"] == 0


def files_of(hospital: Path, tmp_path: Path) -> Path:
    """Return a folder with copies of the hospital's feature files, which keep their times."""
    return Path(shutil.copytree(hospital / "features", tmp_path / "slow"))


def test_a_rounding_is_said_in_the_report(hospital: Path, tmp_path: Path) -> None:
    given = [f"data.cohort={hospital}/cohort.csv", f"data.features={hospital}/features", "data.cache_dtype=bfloat16"]
    config = compose([*HOSPITAL, *given, f"data.cache={tmp_path / 'near'}"])
    study = read_study(config)
    assert study.store.rounding is None
    _copy_features(config, study, tmp_path)
    assert study.store.rounding is not None
    record_inputs(config, study, tmp_path)
    remark = "Features were read from a copy in bfloat16 (data.cache_dtype), whose values were rounded by at most "
    assert any(sentence.startswith(remark) for sentence in remarks_of(tmp_path) or ())
    options = cache_options(config)
    assert options is not None
    again = read_study(config)
    assert FeatureCache(options, again.store).needs(again.cohort.table["slide"]).missing == 0
    assert again.store.rounding == study.store.rounding
