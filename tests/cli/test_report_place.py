"""The last lines say where the page is and how to open it; standard output stays what a program reads."""

from pathlib import Path

from mil.cli.report_place import say_where
from tests.conftest import TINY, Mil


def test_training_evaluation_and_comparison_end_with_a_page_to_open(mil: Mil, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained = mil("train", *TINY, "baseline=false", "trainer.max_epochs=1", f"hydra.run.dir={run}")
    assert trained.out.splitlines()[-1] == str(run)
    assert trained.err.splitlines()[-1] == f"open it in a browser: {(run / 'report.html').as_uri()}"
    evaluated = mil("evaluate", run)
    assert evaluated.err.splitlines()[-1] == trained.err.splitlines()[-1]
    released = mil("release", run, "--version", "1.0.0", "--out", tmp_path / "released")
    assert released.err.splitlines()[-1].endswith("/released/msi-crc/model_card.html")
    assert "browser" not in trained.out + evaluated.out + released.out


def test_a_page_that_is_not_there_is_not_named(tmp_path: Path, mil: Mil) -> None:
    say_where(tmp_path / "report.html")
    assert mil("--version").err == ""
