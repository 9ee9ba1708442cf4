from pathlib import Path

import h5py
import numpy as np

from mil.features.formats import Header, examine
from tests.features.formats.reading import read


def test_one_vector_without_coordinates_is_a_patient(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "case.h5", "w") as file:
        file["features"] = np.arange(768, dtype="f4")
    slide = read(tmp_path / "case.h5")
    assert slide.header == Header(1, 768, "float32", None, "MOOZY", None, None, False, level="patient")
    np.testing.assert_array_equal(slide.features.numpy(), np.arange(768, dtype="f4")[None])
    assert examine(tmp_path / "case.h5")[0] == "moozy"


def test_an_empty_slide_and_a_matrix_are_not_taken_for_a_vector(tmp_path: Path) -> None:
    for name, values in (("empty", np.zeros(0, "f4")), ("tiles", np.zeros((1, 5), "f4"))):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["features"] = values
        assert examine(tmp_path / f"{name}.h5")[0] == "clam"
