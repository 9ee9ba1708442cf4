"""Findings in the content of feature files."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mil.features.formats import Header, Slide
from mil.features.store import FeatureStore
from mil.splits.folds import Split
from mil.study.content_findings import Content, contents, copies, examined, problems
from tests.features.conftest import grid, random_features

Write = Callable[..., Path]


def slide(features: torch.Tensor, coords: torch.Tensor | None = None, extent: float | None = 512) -> Slide:
    header = Header(len(features), features.shape[1], "float16", None, "", extent, None, coords is not None)
    return Slide(features, coords, header)


def features(tiles: int = 20, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    return torch.from_numpy(random_features(tiles, 8, "float32")).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_valid_slide_has_no_findings(dtype: torch.dtype) -> None:
    content = examined(slide(features(dtype=dtype), torch.from_numpy(grid(20))))
    assert content.extremes is not None
    assert content == Content(extremes=content.extremes, tiles=20)
    assert problems({"a": content}) == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_nonfinite_and_zero_tiles_are_counted(dtype: torch.dtype) -> None:
    values = features(dtype=dtype)
    values[2, 1], values[3, 0], values[4, 5] = torch.nan, torch.inf, -torch.inf
    values[7], values[8] = 0, -0.0
    content = examined(slide(values))
    assert (content.not_finite, content.zero, content.constant) == (3, 2, False)
    by_code = {finding.code: finding for finding in problems({"a": content, "b": examined(slide(features()))})}
    assert by_code["not-finite"].severity == "error"
    assert by_code["not-finite"].message == "3 of 40 tiles, in 1 of 2 slides, have NaN or infinite values"
    assert (by_code["zero"].severity, by_code["zero"].first) == ("warning", ("a",))
    assert problems({"a": content}, "warning")[0].severity == "warning"


def test_largest_float16_counts_as_finite() -> None:
    assert examined(slide(torch.full((3, 4), 65504.0, dtype=torch.float16) * torch.eye(3, 4))).not_finite == 0


def test_identical_tiles_are_constant_but_a_single_tile_is_not() -> None:
    tile = features(1)
    assert examined(slide(tile.expand(6, 8))).constant
    assert not examined(slide(tile)).constant
    assert examined(slide(torch.empty(0, 8, dtype=torch.float16))).tiles == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_copies_are_seen_in_any_order_and_type(dtype: torch.dtype) -> None:
    values = features(dtype=torch.float32)
    read = {"a": examined(slide(values)), "b": examined(slide(values.flip(0).to(dtype)))}
    (finding,) = copies(read | {"c": examined(slide(values + 0.1))}, None, {"a": "P1", "b": "P2", "c": "P3"})
    assert finding.first == ("a = b",)


def grid_corners(x: int = 12, y: int = 8, step: int = 512) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(x), np.arange(y)), -1).reshape(-1, 2) * step


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda at: at, None),
        (lambda at: at[::-1].copy(), None),
        (lambda at: at[np.random.default_rng(0).random(len(at)) < 0.5], None),
        (lambda at: np.concatenate([at, at + np.array([7000, 133])]), None),
        (lambda at: np.round(at * 1.003).astype(np.int64), None),
        (lambda at: at // 2, None),
        (lambda at: at - [600, 0], "coords-negative"),
        (lambda at: np.concatenate([at, at[:3]]), "coords-doubled"),
        (lambda at: at // 512, "coords-unit"),
        (lambda at: at + np.random.default_rng(0).integers(0, 200, at.shape) * [1, 0], "coords-off-grid"),
    ],
)
def test_invalid_coordinates_are_reported_and_valid_grids_are_not(
    change: Callable[[np.ndarray], np.ndarray],
    code: str | None,
) -> None:
    at = torch.from_numpy(np.asarray(change(grid_corners())))
    findings = problems({"a": examined(slide(features(len(at)), at))})
    assert [finding.code for finding in findings] == ([code] if code else [])


def test_tiles_beyond_the_slide_are_reported() -> None:
    at = torch.from_numpy(grid_corners())
    whole = slide(features(len(at)), at)
    for size, count in (((6144.0, 4096.0), 0), ((6000.0, 4096.0), 0), ((5632.0, 4096.0), 8), ((6144.0, 3000.0), 24)):
        content = examined(replace(whole, header=replace(whole.header, slide_size=size)))
        assert content.places.outside == count
        assert [finding.code for finding in problems({"a": content})] == (["coords-outside"] if count else [])


@pytest.fixture
def store(tmp_path: Path, trident: Write) -> FeatureStore:
    for number in range(6):
        trident(tmp_path / f"s{number}.h5", random_features(20 + number))
    shutil.copy(tmp_path / "s0.h5", tmp_path / "copy.h5")
    (tmp_path / "text.h5").write_text("no")
    return FeatureStore(tmp_path)


def test_unreadable_files_are_named(store: FeatureStore) -> None:
    progress: list[tuple[int, int]] = []
    read = contents(store, store.slides, 2, lambda done, of: progress.append((done, of)))
    assert list(read) == store.slides
    assert progress[-1] == (8, 8)
    for name in store.slides:
        if name != "text":
            assert read[name] == examined(store.read(name))
    assert "text.h5 cannot be read as HDF5" in read["text"].wrong
    (broken,) = problems(read)
    assert (broken.code, broken.severity, broken.count) == ("unreadable", "error", 1)


def test_copies_are_an_error_only_across_the_split(store: FeatureStore) -> None:
    read = contents(store, store.slides)
    owner = {name: f"p-{name}" for name in store.slides}

    def split(role: str) -> Split:
        roles = ["train" if name != "copy" else role for name in store.slides]
        return Split(pd.DataFrame({"patient": list(owner.values()), "fold": 0, "role": roles}))

    for given, severity in ((split("report"), "error"), (split("train"), "warning"), (None, "warning")):
        (finding,) = copies(read, given, owner)
        assert (finding.severity, finding.code, finding.first) == (severity, "copies", ("copy = s0",))
    assert copies({name: content for name, content in read.items() if name != "copy"}, None, owner) == []
