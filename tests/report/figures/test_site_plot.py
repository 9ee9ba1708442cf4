"""The figure of what tells the site."""

from typing import Any

import numpy as np
from matplotlib.colors import to_hex

from mil.report.figures.site_plot import draw_site
from mil.report.figures.style import COLOURS


def told(value: float, low: float, high: float, chance: float = 0.25) -> dict[str, Any]:
    return {"n": 100, "sites": 4, "balanced_accuracy": {"value": value, "low": low, "high": high, "chance": chance}}


def found(**more: Any) -> dict[str, Any]:
    rows = {"embedding": told(0.8, 0.7, 0.9), "label": told(0.26, 0.2, 0.3), "encoder": told(0.3, 0.25, 0.35)}
    return {"tool": "msi-crc", "told_by": rows, "designs": None} | more


def test_each_has_a_row_and_stands_out_where_its_interval_is_above_chance() -> None:
    (axes,) = draw_site(found()).axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["label", "encoder's mean tile", "bag embedding"]
    texts = {text.get_text(): to_hex(text.get_color()) for text in axes.texts}
    assert list(texts) == ["0.260 (0.200–0.300)", "0.300 (0.250–0.350)", "0.800 (0.700–0.900)"]
    assert [colour == COLOURS[1].lower() for colour in texts.values()] == [False, False, True]
    assert axes.get_title(loc="left") == "msi-crc: the site of 100 patients of 4 sites"


def test_what_cannot_be_told_says_so() -> None:
    nothing = {
        "n": 4,
        "sites": 1,
        "left_out": 2,
        "value": None,
        "reason": "sites of 5 patients or more: 1, expected two",
    }
    (axes,) = draw_site(found(told_by={"label": told(0.3, 0.2, 0.4), "score": nothing})).axes
    assert [text.get_text() for text in axes.texts] == ["0.300 (0.200–0.400)", "not estimable"]


def test_designs_are_beside_each_other_with_their_gap() -> None:
    ends = {"random": (0.8, 0.7, 0.9), "preserved": (0.7, 0.6, 0.8), "difference": (0.1, 0.05, 0.15)}
    designs = {name: dict(zip(("value", "low", "high"), one, strict=True)) for name, one in ends.items()}
    _, axes = draw_site(found(designs={"metric": "auroc", **designs})).axes
    assert axes.get_title(loc="left") == "Random folds minus folds of whole sites: +0.100 (0.050–0.150)"
    points = axes.lines[1::2]
    assert [float(np.asarray(line.get_xdata())[0]) for line in points] == [0.8, 0.7]
