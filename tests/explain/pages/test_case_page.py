"""What stands on a case page and in the index, without a browser."""

import json
import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mil.explain.file_names import file_name, file_names
from mil.explain.map_colours import palette
from mil.explain.pages import INDEX, write_index, write_pages
from mil.explain.pages.case import Call, Verdict
from mil.explain.pages.case_page import case_page
from mil.explain.pages.map_layers import extremes, layers
from mil.explain.pages.map_picture import EMPTY, overlap, raster, scores_png
from mil.explain.tile_scores import TilePlaces
from tests.report.page.test_html import Page

from .synthetic import HOSTILE, SIZE, case, slide


def test_words_of_any_kind_are_text() -> None:
    text = case_page(case(patient=HOSTILE, word=HOSTILE, slides=(slide(HOSTILE),), withheld=HOSTILE))
    page = Page(text)
    scripts = page.of("script")
    assert len(scripts) == 2
    assert "<b>&amp;" not in text
    assert HOSTILE in " ".join(page.words)
    data = json.loads(text.partition('id="case-data">')[2].partition("</script>")[0])
    assert data["slides"][0]["name"] == HOSTILE


def test_only_the_scripts_of_the_package_can_run() -> None:
    policy = str(Page(case_page(case())).of("meta")[-1]["content"])
    assert re.fullmatch(
        r"default-src 'none'; img-src data:; script-src 'sha256-[\w+/=]{44}'; style-src 'unsafe-inline'; "
        r"base-uri 'none'; form-action 'none'",
        policy,
    )


def test_the_page_says_what_was_called_how_sure_and_whether_to_believe_the_map() -> None:
    words = " ".join(Page(case_page(case())).words)
    for text in (
        "not MSI-H",
        "MSI-H is unlikely",
        "probability of MSI-H: 0.083",
        "It cannot show that the call is right",
        "p below 0.2",
        "missed",
        "Yes, as to where",
    ):
        assert text in words


def test_a_withheld_result_says_so_and_why() -> None:
    words = " ".join(Page(case_page(case(withheld="3 tiles, at least 20 expected"))).words)
    assert "Withheld" in words
    assert "3 tiles, at least 20 expected" in words
    assert "0.083" not in words


def test_without_coordinates_tiles_are_listed_and_no_map_is_drawn() -> None:
    page = Page(case_page(case(slides=(slide(places=False),))))
    assert not page.of("img")
    assert "no coordinates" in " ".join(page.words)
    assert "tile 35" in page.words


def test_all_slides_of_a_patient_share_one_scale() -> None:
    patient = case(slides=(slide("weak", scale=0.1), slide("strong")))
    weak = layers(patient.scores)[0]
    assert weak.limit(0) == 3.0
    places = slide().places
    assert places is not None
    drawn = Image.open(BytesIO(scores_png(places, weak.values[0][:, 0], weak.limit(0), True)))
    used = {index for _, index in drawn.getcolors() or [] if index != EMPTY}
    middle = len(palette(True)) // 2
    assert used <= set(range(middle - 20, middle + 20))


def test_pixels_lie_within_their_tile_and_overlapping_tiles_are_averaged() -> None:
    places = TilePlaces(x=np.array([0.0, 5.0]), y=np.zeros(2), width=np.full(2, 10.0), height=np.full(2, 10.0))
    drawn = raster(places, np.array([1.0, 3.0]), longest=15)
    assert overlap(places)
    assert drawn.shape == (10, 15)
    assert (drawn[:, :5] == 1).all()
    assert (drawn[:, 5:10] == 2).all()
    assert (drawn[:, 10:] == 3).all()
    far = TilePlaces(x=np.array([0.0, 10.0]), y=np.zeros(2), width=np.full(2, 10.0), height=np.full(2, 10.0))
    assert not overlap(far)


def test_the_place_without_a_tile_is_empty_and_the_hot_tile_lies_where_it_is() -> None:
    places = slide().places
    assert places is not None
    drawn = raster(places, np.linspace(-1, 3, 35), longest=60)
    assert np.isnan(drawn[:10, :10]).all()
    assert (drawn[50:, 50:] == 3).all()
    assert places.x.max() == SIZE * 8


def test_of_signed_scores_only_those_above_zero_speak_for_it() -> None:
    highest, lowest = extremes(np.array([0.5, -0.2, 0.0, 2.0]), 3, signed=True)
    assert (highest.tolist(), lowest.tolist()) == ([3, 0], [1])
    assert extremes(np.array([0.5, 0.1]), 1, signed=False)[1].size == 0


def test_the_disagreement_of_models_can_be_shown() -> None:
    one = case()
    spread = {("S1", "single"): np.ones((35, 2))}
    shown = layers(replace(one.scores, disagreement=spread))
    assert [layer.spread for layer in shown] == [False, True, False]
    assert "mean of 3 models" in case_page(replace(one, models=3))


@pytest.mark.parametrize("name", [HOSTILE, "../../etc/passwd", "CON", "index", "a b", "", "-rf", "Ä"])
def test_a_file_name_of_any_id_stays_in_its_folder(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", file_name(name))
    assert file_name(name).casefold() not in ("con", "index")


def test_ids_that_differ_in_case_only_have_files_of_their_own() -> None:
    names = file_names(["p1", "P1", "p2", "a/b", "a:b"])
    assert names["p2"] == "p2"
    assert len({name.casefold() for name in names.values()}) == 5


def test_misses_come_first_and_the_surest_of_them_on_top(tmp_path: Path) -> None:
    def named(patient: str, verdict: Verdict, margin: float) -> object:
        return case(patient, calls=(Call(question="q", call="c", verdict=verdict, margin=margin),))

    listed = [
        named("right", Verdict.RIGHT, 0.5),
        named("near", Verdict.UNDECIDED, 0.1),
        named("far", Verdict.UNDECIDED, 0.3),
        named("slightly", Verdict.MISSED, 0.1),
        named("surely", Verdict.MISSED, 0.4),
        named("false", Verdict.FALSE, 0.2),
        case("../held", withheld="too few tiles"),
    ]
    patients = [each.scores.patient for each in listed]  # type: ignore[attr-defined]
    rows = list(write_pages(tmp_path / "cases", listed, patients))  # type: ignore[arg-type]
    index = write_index(tmp_path / "cases", rows, "Screen", "RESEARCH USE ONLY")
    assert index.name == INDEX
    links = [(link["href"]) for link in Page(index.read_text(encoding="utf-8")).of("a")]
    assert links[:5] == ["surely.html", "slightly.html", "false.html", "near.html", "far.html"]
    assert {path.name for path in (tmp_path / "cases").iterdir()} == {INDEX, *links}
    assert [path.name for path in tmp_path.iterdir()] == ["cases"]
