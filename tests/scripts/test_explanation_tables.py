"""The page of `scripts/benchmark_explain`: what it says of cells whose answer is known."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

Script = Callable[[str], ModuleType]


def cell(tables: ModuleType, model: str, seed: int, right: float, attention: float, score: float = 0.8) -> Any:
    """A cell of four patients: single at `right`, attention at `attention`, each with a little spread."""
    spread = (-0.02, -0.01, 0.01, 0.02)
    maps = {
        "single": tables.Map(telling=tuple(right + each for each in spread), gain=(1.0, 1.1, 0.9, 1.0)),
        "attention": tables.Map(telling=tuple(attention + each for each in spread), gain=(-1.0, -1.1, -0.9, -1.0)),
    }
    common = {"metric": "auroc", "output": "1", "score": score, "oracle": (0.99,) * 4}
    return tables.Cell.model_validate(
        {"cohort": "sparse", "endpoint": "binary", "model": model, "seed": seed, "maps": maps, **common}
    )


def test_the_page_says_plainly_where_a_map_points_the_wrong_way(script: Script) -> None:
    tables = script("explanation_tables")
    placeless = tables.Cell(
        cohort="sparse", endpoint="binary", model="patchgcn", seed=0, metric="auroc", output="1", reason="needs places"
    )
    measured = [("abmil", 0, 0.90, 0.2), ("abmil", 1, 0.94, 0.3), ("max", 0, 0.5, 0.5)]
    lost = cell(tables, "mean", 0, 0.1, 0.1, score=0.54)
    cells = [*(cell(tables, *values) for values in measured), lost, placeless]
    text = tables.page(cells, 9)
    assert "Below are 6 maps of 3 models on a cohort, of 9 that there are;" in text
    assert "- **attention points the wrong way** in 1 of 2 maps: sparse, binary, `abmil`: 0.25 (0.22 to 0.28)." in text
    assert (
        "- single points the wrong way in none of 2 maps.\n  It is no better than a random map in 1 (sparse 1)." in text
    )
    able, _, unable = text.partition("## Maps of models whose result is near chance")
    assert "| single | 2 | 1 | 1 | 0 | 2 | 0.71 |" in able
    assert "| single | 1 | 0 | 0 | 1 | 1 | 0.10 |" in unable
    assert "`mean`" not in text
    assert "| abmil | auroc 0.80 | 4 | 2 | 0.92 (0.89 to 0.95) + | 0.25 (0.22 to 0.28) − | 0.99 |" in text
    assert "| patchgcn | needs places | – |" in text
