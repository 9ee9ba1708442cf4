"""Feature files that are copies of each other, as every training looks for them."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from mil.features.encoders import Encoder
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
    assert across.message.endswith("byte for byte, and stand on two sides of the split")
    [within] = copies_of(store, split("train"), owner)
    assert (within.severity, within.first) == ("warning", ("a = copy",))
    (tmp_path / "copy.h5").unlink()
    assert copies_of(FeatureStore(tmp_path, Encoder("any", 4)), split("report"), {"a": "P1", "b": "P2"}) == []
