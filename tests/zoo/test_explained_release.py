"""From `mil explain RUN --cases` to a release: pages, the figure and the measures in report and card, their digests."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from mil.cards import CARD, CARD_PAGE
from mil.report.report_files import read_report
from mil.report.schema import Curve, Estimate
from mil.report.sections.explanations import Faithfulness, MapFaithfulness
from mil.runs.describe import REPORT, add_measured
from mil.runs.explain_run import EXPLAIN
from mil.runs.measured_sections import EXPLANATION
from mil.zoo import verify as verification
from mil.zoo.release import release
from mil.zoo.verify import verify
from tests.conftest import Mil, once
from tests.report.page.test_html import Page

MAPS = "tile_maps.png"


def measured() -> Faithfulness:
    """What `mil explain RUN` measures of one method."""
    curve = Curve(x=(0.0, 1.0), y=(0.0, 1.0))
    gain = Estimate(value=0.41, low=0.3, high=0.52, level=0.95, method="percentile", counts={"n": 10})
    row = MapFaithfulness(
        method="single",
        title="tile alone",
        output="MSI-H",
        unit="log odds",
        srg=gain,
        deletion=curve,
        deletion_least_first=curve,
        insertion=curve,
        insertion_least_first=curve,
    )
    return Faithfulness(maps=(row,))


@pytest.fixture(scope="module")
def explained(crc_run: Path, shared: Path) -> Path:
    """A run of two folds with the pages of five of its report patients."""

    def make(at: Path) -> None:
        from mil.explain.explain_patients import Request
        from mil.explain.writers import FileChoices
        from mil.runs.explain_report import explain_report

        shutil.copytree(crc_run, at / "run")
        request = Request(methods=("single", "attention"))
        choices = FileChoices(formats=["csv"])
        explain_report(at / "run", request, most=5, cases=True, choices=choices, faithfulness=measured())

    return once(shared / "explained_crc", make) / "run"


def test_cases_say_what_the_predictions_say_and_show_the_true_tissue(explained: Path) -> None:
    folder = explained / EXPLANATION / "cases"
    index = Page((folder / "index.html").read_text(encoding="utf-8"))
    files = [str(link["href"]) for link in index.of("a")]
    assert len(files) == 5
    lines = (explained / "predictions.csv").read_text(encoding="utf-8").splitlines()
    patients = {line.split(",")[0] for line in lines}
    for file in files:
        words = Page((folder / file).read_text(encoding="utf-8")).words
        assert f"Patient {Path(file).stem}" in words
        assert "SIMULATED DATA, NO CLINICAL MEANING, RESEARCH USE ONLY" in words
        assert any("Gain over a random order 0.410 (0.300 to 0.520)" in word for word in words)
        assert any(word.startswith("biomarker") for word in words)
        assert Path(file).stem in patients


def test_report_and_card_have_the_maps_and_the_measures(explained: Path) -> None:
    for folder in (explained, explained / "fold_0" / "checkpoint"):
        section = read_report(folder / REPORT).section(Faithfulness)
        assert section is not None
        assert section.maps[0].srg.value == 0.41
    page = Page((explained / "report.html").read_text(encoding="utf-8"))
    assert any("Maps of a few report patients" in str(image["alt"]) for image in page.of("img"))
    card = (explained / "fold_0" / "checkpoint" / CARD).read_text(encoding="utf-8")
    assert "0.410 (0.300 to 0.520)" in card
    assert read_report(explained / REPORT).looks == 1


def test_a_release_carries_the_maps_and_is_verified(
    explained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = release(explained, "1.0.0", tmp_path)
    assert (folder / "figures" / MAPS).stat().st_size < 20_000
    assert f"figures/{MAPS}" in (folder / CARD_PAGE).read_text(encoding="utf-8")
    assert verify(folder) == []
    path = folder / "figures" / MAPS
    with Image.open(path) as image:
        image.convert("RGB").rotate(180).save(path)
    monkeypatch.setattr(verification, "redrawn_problems", lambda *_: iter(()))  # the maps are not drawn again
    assert any(MAPS in problem for problem in verify(folder))


def test_maps_of_real_patients_stay_where_they_are(real_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(real_run, run)
    (run / EXPLANATION).mkdir()
    Image.new("RGB", (8, 8)).save(run / EXPLANATION / MAPS)
    add_measured(run)
    assert (run / "figures" / MAPS).is_file()
    assert not (release(run, "1.0.0", tmp_path / "out") / "figures" / MAPS).exists()


def test_the_command_explains_a_run_and_refuses_inputs_of_its_own(mil: Mil, crc_run: Path, tmp_path: Path) -> None:
    done = mil(
        "explain", crc_run, "--out", tmp_path / "out", "--cases", "--most", "2", "--measure", "3", "--format", "csv"
    )
    assert done.code == 0, done.err
    assert done.out.strip().endswith("index.html")
    assert (tmp_path / "out" / EXPLAIN).is_file()
    assert "attention:MSI-H" in (tmp_path / "out" / "tiles.csv").read_text(encoding="utf-8").splitlines()[0]
    (page, *_) = (path for path in (tmp_path / "out" / "cases").glob("*.html") if path.stem != "index")
    assert "Gain over a random order" in page.read_text(encoding="utf-8")
    assert not (crc_run / EXPLANATION).exists()
    refused = mil("explain", crc_run, "--features", tmp_path)
    assert refused.code != 0
    assert "--features" in refused.err
    lacking = mil("explain", crc_run / "fold_0" / "checkpoint", "--cases")
    assert lacking.code != 0
