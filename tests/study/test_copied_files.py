"""Feature files that are copies of each other, as every training looks for them."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from mil.features import store as store_module
from mil.features.encoders import Encoder
from mil.features.packed import Packed
from mil.features.packing import pack
from mil.features.store import FeatureStore
from mil.splits.folds import Split
from mil.study.copied_files import copies_of


def test_copies_are_an_error_across_a_split_and_a_warning_within_a_side(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for slide in ("a", "b", "c"):
        with h5py.File(tmp_path / f"{slide}.h5", "w") as file:
            file["features"] = rng.standard_normal((50, 4), dtype=np.float32)
    shutil.copy(tmp_path / "a.h5", tmp_path / "copy.h5")
    owner = {"a": "P1", "b": "P2", "c": "P3", "copy": "P4"}
    store = FeatureStore(tmp_path, Encoder("any", 4))

    def split(role: str) -> Split:
        roles = ["train", "train", "report", role]
        return Split(pd.DataFrame({"patient": list(owner.values()), "fold": 0, "role": roles}))

    [across] = copies_of(store, split("report"), owner)
    assert (across.severity, across.first) == ("error", ("a = copy",))
    assert across.message.endswith("have the features of another, and stand on two sides of the split")
    [within] = copies_of(store, split("train"), owner)
    assert (within.severity, within.first) == ("warning", ("a = copy",))
    (tmp_path / "copy.h5").unlink()
    assert copies_of(FeatureStore(tmp_path, Encoder("any", 4)), split("report"), {"a": "P1", "b": "P2"}) == []


@pytest.mark.parametrize("dtype", [None, "float16", "bfloat16"])
def test_a_packed_copy_of_a_slide_is_the_same_slide(tmp_path: Path, dtype: str | None) -> None:
    """A copy of one slide lies among the others under another name, unpacked from a file of another type."""
    rng = np.random.default_rng(0)
    (tmp_path / "features").mkdir()
    for slide in ("a", "b"):
        with h5py.File(tmp_path / "features" / f"{slide}.h5", "w") as file:
            file["features"] = rng.standard_normal((50, 40), dtype=np.float32)
    pack(FeatureStore(tmp_path / "features"), tmp_path / "packed.h5", ["a"], dtype)
    copied = Packed(tmp_path / "packed.h5").read("a").features
    torch.save(copied, tmp_path / "features" / "copy.pt")
    owner = {"a": "P1", "b": "P2", "copy": "P3"}
    [within] = copies_of(FeatureStore(tmp_path / "features", Encoder("any", 40)), None, owner)
    assert within.first == ("a = copy",)


def test_many_slides_are_sampled_in_processes_to_the_same_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for number in range(6):
        with h5py.File(tmp_path / f"s{number}.h5", "w") as file:
            file["features"] = rng.standard_normal((50, 40), dtype=np.float32)
    few = FeatureStore(tmp_path).samples([f"s{number}" for number in range(6)])
    monkeypatch.setattr(store_module, "FILES_OF_A_PROCESS", 2)
    assert FeatureStore(tmp_path).samples([f"s{number}" for number in range(6)]) == few
    assert len(few) == 6


def test_slides_that_share_many_tiles_are_not_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tiles = rng.standard_normal((50, 40), dtype=np.float32)
    for slide in ("a", "b"):
        tiles[7] = rng.standard_normal(40)  # no tile of the small sample
        with h5py.File(tmp_path / f"{slide}.h5", "w") as file:
            file["features"] = tiles
    assert copies_of(FeatureStore(tmp_path, Encoder("any", 40)), None, {"a": "P1", "b": "P2"}) == []
