"""Every format is read back and has the hot tile at its pixel, with its score."""

import gzip
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from mil.errors import ConfigError
from mil.explain.map_colours import colours
from mil.explain.tile_scores import PatientScores, TilePlaces
from mil.explain.writers import FORMATS, ExplanationFiles
from mil.report.figures.style import save_figure
from mil.tables import without_marks
from tests.explain.drawn_scans import SINGLE, explained, grid_places, hot_scores, picture, write_scn, write_tiff

HOT = 7
"""Number of the hot tile."""
_DOWN, _ACROSS = np.divmod(np.arange(12.0), 6.0)
OVERLAPPING = TilePlaces(
    x=128 * _ACROSS,
    y=1000 + 128 * _DOWN,
    width=np.full(12, 256.0),
    height=np.full(12, 256.0),
)
LAYOUTS: Mapping[str, TilePlaces] = {
    "256": grid_places(3, 4, 256, x=512, y=768),
    "512": grid_places(3, 4, 512),
    "overlap": OVERLAPPING,
    "off grid": TilePlaces(
        x=OVERLAPPING.x * 2.01 + 0.5, y=OVERLAPPING.y * 2.3, width=np.full(12, 224.4), height=np.full(12, 224.4)
    ),
}


def read_geojson(path: Path) -> list[dict[str, Any]]:
    """Return the features of a file."""
    content = json.loads(gzip.decompress(path.read_bytes()))
    assert set(content) == {"type", "features"}
    assert content["type"] == "FeatureCollection"
    features: list[dict[str, Any]] = content["features"]
    return features


def check_feature(feature: dict[str, Any]) -> None:
    """Check a feature against what QuPath 0.7 reads (`QuPathTypeAdapters`, `ROITypeAdapters.parsePolygon`)."""
    assert set(feature) == {"type", "id", "geometry", "properties"}
    assert feature["type"] == "Feature"
    assert str(UUID(feature["id"])) == feature["id"]
    assert feature["geometry"]["type"] == "Polygon"
    for ring in feature["geometry"]["coordinates"]:
        assert ring[0] == ring[-1]
        assert len(ring) >= 5
        assert all(len(point) == 2 for point in ring)
    properties = feature["properties"]
    assert set(properties) == {"objectType", "color", "measurements"}
    assert properties["objectType"] == "tile"
    assert len(properties["color"]) == 3
    assert all(type(channel) is int and 0 <= channel <= 255 for channel in properties["color"])
    assert all(isinstance(value, float | int) for value in properties["measurements"].values())


def box(feature: dict[str, Any]) -> tuple[float, float, float, float]:
    """Return left, top, width and height of a feature's outline."""
    corners = np.array(feature["geometry"]["coordinates"][0])
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    return left, top, right - left, bottom - top


def place(places: TilePlaces, tile: int) -> tuple[float, float, float, float]:
    """Return left, top, width and height of a tile."""
    return places.x[tile], places.y[tile], places.width[tile], places.height[tile]


def write_all(files: ExplanationFiles, patients: Sequence[PatientScores]) -> None:
    """Write several patients."""
    for patient in patients:
        files.write(patient)


def written(folder: Path, formats: tuple[str, ...], places: TilePlaces | None, **options: Any) -> ExplanationFiles:
    """Write slide S1, whose tile `HOT` is hot."""
    count = 12 if places is None else len(places.x)
    scores = np.random.default_rng(3).normal(0, 0.1, (count, 2))
    scores[HOT] = (2.0, -2.0)
    with ExplanationFiles(folder, formats, **options) as files:
        files.write(explained({"S1": (places, scores)}))
    return files


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tables_have_the_hot_tile_at_its_place(tmp_path: Path, layout: str) -> None:
    pytest.importorskip("pyarrow")
    places = LAYOUTS[layout]
    files = written(tmp_path, ("parquet", "csv"), places)
    assert files.paths == [tmp_path / "tiles.parquet", tmp_path / "tiles.csv"]
    for table in (pd.read_parquet(files.paths[0]), pd.read_csv(files.paths[1])):
        hot = table.iloc[int(table["single:MSI-H"].argmax())]
        assert (hot["patient"], hot["slide"]) == ("P1", "S1")
        assert tuple(hot[["x", "y", "width", "height"]]) == pytest.approx(place(places, HOT))
        assert hot["single:MSI-H"] == 2.0
        assert hot["single:MSS"] == -2.0
        assert 0 < hot["attention:MSI-H"] < 1
    assert not list(tmp_path.glob(".*"))


def test_a_table_grows_by_patients_and_refuses_another_one_s_columns(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    places = LAYOUTS["256"]
    patients = [explained({f"S{at}": (places, hot_scores(places, at))}, patient=f"P{at}") for at in range(3)]
    with ExplanationFiles(tmp_path, ("parquet",)) as files:
        for patient in patients:
            files.write(patient)
    table = pd.read_parquet(tmp_path / "tiles.parquet")
    assert table["patient"].tolist() == ["P0"] * 12 + ["P1"] * 12 + ["P2"] * 12
    expected = pd.concat([patient.frame() for patient in patients], ignore_index=True)
    pd.testing.assert_frame_equal(table.drop(columns="patient"), expected)
    foreign = explained({"S": (places, hot_scores(places, 0))}, methods=(SINGLE,))
    with pytest.raises(ConfigError, match="expected those of the first"), ExplanationFiles(tmp_path, ("csv",)) as files:
        write_all(files, [patients[0], foreign])
    assert not (tmp_path / "tiles.csv").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_qupath_has_the_hot_tile_at_its_place(tmp_path: Path, layout: str) -> None:
    places = LAYOUTS[layout]
    (path,) = written(tmp_path, ("geojson",), places).paths
    assert path == tmp_path / "geojson" / "S1.geojson.gz"
    features = read_geojson(path)
    assert len(features) == len(places.x)
    for feature in features:
        check_feature(feature)
    assert len({feature["id"] for feature in features}) == len(features)
    hot = max(features, key=lambda feature: feature["properties"]["measurements"]["single:MSI-H"])
    assert box(hot) == pytest.approx(place(places, HOT))
    assert set(hot["properties"]["measurements"]) == {
        "single:MSI-H",
        "single:MSS",
        "attention:MSI-H",
        "attention:MSS",
    }
    assert hot["properties"]["color"] == [0x8C, 0x32, 0x00]


def test_the_same_scores_are_the_same_bytes(tmp_path: Path) -> None:
    formats = ("geojson", "dsa", "figures", "csv", "top")
    first = written(tmp_path / "a", formats, LAYOUTS["256"]).paths
    second = written(tmp_path / "b", formats, LAYOUTS["256"]).paths
    assert first
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_qupath_crops_to_the_bounds_of_the_scan(tmp_path: Path) -> None:
    pytest.importorskip("openslide")
    pytest.importorskip("tifffile")
    write_scn(tmp_path / "S1.scn", picture(768, 1024), origin=(512, 768), size=(2048, 2048))
    places = LAYOUTS["256"]
    for formats in (("geojson",), ("geojson", "dsa")):
        written(tmp_path / "out", formats, places, slides=tmp_path)
    features = read_geojson(tmp_path / "out" / "geojson" / "S1.geojson.gz")
    hot = max(features, key=lambda feature: feature["properties"]["measurements"]["single:MSI-H"])
    left, top, width, height = place(places, HOT)
    assert box(hot) == (left - 512, top - 768, width, height)
    annotation = json.loads((tmp_path / "out" / "dsa" / "S1.single.MSI-H.json").read_text(encoding="utf-8"))
    assert annotation["elements"][0]["origin"] == [0, 0, 0]


def test_merged_tiles_are_few_and_keep_the_hot_place(tmp_path: Path) -> None:
    places = grid_places(20, 30, 256)
    scores = np.zeros((600, 2))
    scores[315] = (2.0, -2.0)
    with ExplanationFiles(tmp_path, ("geojson",), merge=True) as files:
        files.write(explained({"S1": (places, scores)}))
    features = read_geojson(files.paths[0])
    assert len(features) == 2
    for feature in features:
        check_feature(feature)
    hot = max(features, key=lambda feature: feature["properties"]["measurements"]["mean single:MSI-H"])
    assert box(hot) == place(places, 315)
    assert hot["properties"]["measurements"]["area in pixels"] == 256 * 256
    ground = min(features, key=lambda feature: feature["properties"]["measurements"]["mean single:MSI-H"])
    assert len(ground["geometry"]["coordinates"]) == 2  # the hot tile is its hole
    assert ground["properties"]["measurements"]["area in pixels"] == 599 * 256 * 256


def test_many_polygons_are_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mil.explain.writers.qupath.MOST_POLYGONS", 11)
    files = written(tmp_path, ("geojson",), LAYOUTS["256"])
    (warning,) = files.options.warnings
    assert warning.startswith("slide 'S1': 12 polygons in the GeoJSON; viewers stall above 11; --merge joins")
    assert not written(tmp_path, ("geojson",), LAYOUTS["256"], merge=True).options.warnings


def test_overlap_is_said_where_tiles_are_merged(tmp_path: Path) -> None:
    files = written(tmp_path, ("geojson",), OVERLAPPING, merge=True)
    assert files.options.warnings == [
        "slide 'S1': tiles overlap; merged polygons have the mean of the tiles over each place"
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dsa_annotations_follow_the_schema_and_have_the_hot_cell(tmp_path: Path, layout: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(Path(__file__).with_name("dsa_annotation_schema.json").read_text(encoding="utf-8"))
    places = LAYOUTS[layout]
    files = written(tmp_path, ("dsa",), places)
    assert sorted(path.name for path in files.paths) == [
        f"S1.{method}.{output}.json" for method in ("attention", "single") for output in ("MSI-H", "MSS")
    ]
    for path in files.paths:
        annotation = json.loads(path.read_text(encoding="utf-8"))
        jsonschema.Draft6Validator(schema).validate(annotation)
        grid = annotation["elements"][0]
        assert len(grid["values"]) % grid["gridWidth"] == 0
        assert len(grid["colorRange"]) == len(grid["rangeValues"])
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft6Validator(schema).validate({**annotation, "elements": [{**grid, "tiles": 1}]})
    annotation = json.loads((tmp_path / "dsa" / "S1.single.MSI-H.json").read_text(encoding="utf-8"))
    grid = annotation["elements"][0]
    row, column = divmod(int(np.argmax(grid["values"])), grid["gridWidth"])
    centre = (grid["origin"][0] + (column + 0.5) * grid["dx"], grid["origin"][1] + (row + 0.5) * grid["dy"])
    left, top, width, height = place(places, HOT)
    assert left <= centre[0] <= left + width
    assert top <= centre[1] <= top + height
    hottest = [each for each in annotation["elements"][1:] if each["label"]["value"].endswith("to 2")]
    if layout in ("256", "512"):
        assert max(grid["values"]) == 2.0
        corners = np.array(hottest[0]["points"])
        assert (*corners.min(axis=0)[:2], *np.ptp(corners, axis=0)[:2]) == place(places, HOT)


@pytest.mark.parametrize("layout", ["256", "overlap"])
def test_figures_draw_each_tile_at_its_place(tmp_path: Path, layout: str) -> None:
    from mil.explain.writers.map_figure import map_figure
    from mil.explain.writers.writing_options import drawn_maps

    places = LAYOUTS[layout]
    patient = explained({"S1": (places, hot_scores(places, HOT))})
    drawn = next(drawn_maps(patient, patient.slides[0]))
    figure = map_figure(drawn, mpp=0.5)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    axes = figure.axes[0]
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]

    def pixel(x: float, y: float) -> list[int]:
        column, row = axes.transData.transform((x, y))
        return [int(channel) for channel in pixels[pixels.shape[0] - 1 - int(row), int(column)]]

    left, top, width, height = place(places, HOT)
    inner = 16
    expected = [0x8C, 0x32, 0x00]
    if layout == "overlap":
        middle = (left + 64, top + height - 64)  # covered by tiles 6 and 7
        mean = np.mean([drawn.values[HOT - 1], drawn.values[HOT]])
        assert pixel(*middle) == colours(np.array(mean), drawn.method, drawn.limit).tolist()
        assert "Tiles overlap: the mean of the tiles over a place is drawn." in figure.texts[-1].get_text()
        return
    for x in (left + inner, left + width - inner):
        for y in (top + inner, top + height - inner):
            assert pixel(x, y) == expected
    for x, y in ((left - inner, top + inner), (left + inner, top - inner), (left + width + inner, top + inner)):
        assert pixel(x, y) != expected


def test_figures_state_unit_scale_and_what_is_missing(tmp_path: Path) -> None:
    written(tmp_path, ("figures",), LAYOUTS["256"])
    svg = (tmp_path / "maps" / "S1.single.MSI-H.svg").read_text(encoding="utf-8")
    for text in ("tile alone, logit", "0.1 mm", "speaks for MSI-H", "12 tiles", "Drawn from coordinates alone"):
        assert text in svg
    assert svg.count("<image") == 1  # the scale of colours; tiles are shapes
    with Image.open(tmp_path / "maps" / "S1.single.MSI-H.png") as drawn:
        assert drawn.width > 1000
    places = LAYOUTS["256"]
    with ExplanationFiles(tmp_path / "b", ("figures",)) as files:
        files.write(explained({"S1": (places, hot_scores(places, 0))}, mpp=None))
    svg = (tmp_path / "b" / "maps" / "S1.attention.MSS.svg").read_text(encoding="utf-8")
    assert "Resolution unknown: no scale bar." in svg
    assert " mm<" not in svg
    assert "attention, share" in svg


def test_the_scale_bar_is_as_long_as_it_says() -> None:
    from mil.explain.writers.map_figure import map_figure
    from mil.explain.writers.writing_options import drawn_maps

    patient = explained({"S1": (grid_places(9, 7, 512), hot_scores(grid_places(9, 7, 512), HOT))})
    figure = map_figure(next(drawn_maps(patient, patient.slides[0])), mpp=0.25)
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    (line,) = [artist for artist in figure.get_children() if isinstance(artist, Line2D)]
    (text,) = [each.get_text() for each in figure.texts if each.get_text().endswith(" mm")]
    ends = figure.transFigure.transform(np.column_stack([line.get_xdata(), line.get_ydata()]))
    (start, _), (end, _) = figure.axes[0].transData.inverted().transform(ends)
    assert (end - start) * 0.25 / 1000 == pytest.approx(float(text.removesuffix(" mm")))


def test_top_tiles_are_ranked_over_all_slides(tmp_path: Path) -> None:
    places = LAYOUTS["256"]
    slides = {"S1": (places, hot_scores(places, 3, 1.5)), "S2": (places, hot_scores(places, 5, -4.0))}
    with ExplanationFiles(tmp_path, ("top",), top=4) as files:
        files.write(explained(slides))
    table = pd.read_csv(tmp_path / "top_tiles" / "P1.single.MSI-H.csv")
    assert table.groupby("side").size().to_dict() == {"bottom": 4, "top": 4}
    top, bottom = (table[table["side"] == side].iloc[0] for side in ("top", "bottom"))
    assert (top["slide"], top["tile"], top["score"]) == ("S1", 3, 1.5)
    assert (bottom["slide"], bottom["tile"], bottom["score"]) == ("S2", 5, -4.0)
    assert tuple(bottom[["x", "y", "width", "height"]]) == place(places, 5)
    assert set(pd.read_csv(tmp_path / "top_tiles" / "P1.attention.MSI-H.csv")["side"]) == {"top"}
    assert not list(tmp_path.rglob("*.jpg"))


def test_few_tiles_are_not_both_top_and_bottom(tmp_path: Path) -> None:
    places = grid_places(1, 5, 256)
    with ExplanationFiles(tmp_path, ("top",), top=4) as files:
        files.write(explained({"S1": (places, hot_scores(places, 0))}))
    table = pd.read_csv(tmp_path / "top_tiles" / "P1.single.MSI-H.csv")
    assert sorted(table["tile"]) == [0, 1, 2, 3, 4]


def test_the_sheet_shows_the_pixels_of_the_hot_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openslide")
    pytest.importorskip("tifffile")
    from mil.explain.writers import top_tiles

    scanned = picture(768, 1024, tile=256)
    write_tiff(tmp_path / "S1.tiff", scanned)
    cut = list[Image.Image]()
    draw = top_tiles._sheet

    def draw_and_keep(*given: Any) -> Figure:
        cut.append(given[4][given[3][0]])
        return draw(*given)

    monkeypatch.setattr(top_tiles, "_sheet", draw_and_keep)
    places = grid_places(3, 4, 256)
    with ExplanationFiles(tmp_path / "out", ("top",), slides=tmp_path, top=3) as files:
        files.write(explained({"S1": (places, hot_scores(places, HOT))}))
    assert [path.suffix for path in files.paths] == [".csv", ".jpg"] * 4
    assert np.array_equal(np.asarray(cut[0])[100, 100], scanned[256 + 100, 768 + 100])


def test_figures_are_drawn_over_the_scan(tmp_path: Path) -> None:
    pytest.importorskip("openslide")
    pytest.importorskip("tifffile")
    write_tiff(tmp_path / "S1.tiff", picture(768, 1024, tile=256))
    places = grid_places(2, 2, 256)
    for name, slides in (("over", tmp_path), ("alone", None)):
        with ExplanationFiles(tmp_path / name, ("figures",), slides=slides) as files:
            files.write(explained({"S1": (places, hot_scores(places, 0))}, mpp=None))
        assert not files.options.warnings
    svg = (tmp_path / "over" / "maps" / "S1.single.MSI-H.svg").read_text(encoding="utf-8")
    assert "Drawn from coordinates alone" not in svg
    assert "0.1 mm" in svg  # the resolution is that of the scan
    assert svg.count("<image") > (tmp_path / "alone" / "maps" / "S1.single.MSI-H.svg").read_text(
        encoding="utf-8"
    ).count("<image")


def test_a_slide_without_scan_is_warned_of_and_written(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    files = written(tmp_path, ("geojson", "figures", "top"), LAYOUTS["256"], slides=tmp_path / "scans")
    assert len(files.options.warnings) == 1
    assert "slide 'S1': no scan in" in files.options.warnings[0]
    assert (tmp_path / "geojson" / "S1.geojson.gz").exists()


def test_without_coordinates_there_is_the_table_and_a_clear_warning(tmp_path: Path) -> None:
    formats = tuple(name for name in FORMATS if name != "parquet")
    files = written(tmp_path, formats, None)
    (warning,) = files.options.warnings
    assert warning.startswith("slide 'S1': its features have no coordinates: its scores are in the tables")
    table = pd.read_csv(tmp_path / "tiles.csv")
    assert table["x"].isna().all()
    assert table["single:MSI-H"].idxmax() == HOT
    assert {path.parent.name for path in files.paths} == {tmp_path.name, "top_tiles"}
    assert pd.read_csv(tmp_path / "top_tiles" / "P1.single.MSI-H.csv")["x"].isna().all()


def test_names_do_not_leave_the_folder(tmp_path: Path) -> None:
    places = LAYOUTS["256"]
    names = ["../../evil", ".hidden", "a/b\\c", "Å" * 200, "Å" * 201]
    with ExplanationFiles(tmp_path / "out", ("geojson", "dsa", "figures", "top")) as files:
        for name in names:
            files.write(explained({name: (places, hot_scores(places, 0))}, methods=(SINGLE,), patient=name))
    assert all((tmp_path / "out") in path.resolve().parents for path in files.paths)
    assert len(set(files.paths)) == len(files.paths) == len(names) * (1 + 2 + 4 + 2)
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_no_cell_of_a_table_is_a_formula(tmp_path: Path) -> None:
    with ExplanationFiles(tmp_path, ("csv", "top")) as files:
        for name in ("=1+1", "@x"):
            files.write(explained({name: (None, hot_scores(LAYOUTS["256"], 0))}, patient=name))
    for path in files.paths:
        table = pd.read_csv(path)
        assert set(table["slide"].str[:2]) <= {"'=", "'@"}
    assert without_marks(pd.read_csv(tmp_path / "tiles.csv"))["slide"].tolist() == ["=1+1"] * 12 + ["@x"] * 12


def test_an_unknown_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="format 'xml': no such format, expected one of parquet, csv, geojson"):
        ExplanationFiles(tmp_path, ("xml",))


def test_a_figure_that_fails_while_it_is_written_leaves_the_old_one(tmp_path: Path) -> None:
    class Broken(Figure):
        def savefig(self, fname: Any, **options: Any) -> None:
            with fname.open("wb") if isinstance(fname, Path) else nullcontext(fname) as file:
                file.write(b"half")
            raise OSError("No space left on device")

    path = tmp_path / "map.png"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="No space"):
        save_figure(Broken(), path)
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["map.png"]
