"""The files of a trained run's explanation, as the command writes them without any choice of formats."""

import gzip
import json
import shutil
from pathlib import Path

import pandas as pd

from mil.explain.explain_patients import Request
from mil.explain.writers import FileChoices
from mil.runs.explain_report import explain_report


def test_a_run_s_patient_has_a_file_of_every_default_format(crc_run: Path, tmp_path: Path) -> None:
    shutil.copytree(crc_run, tmp_path / "run")
    out = tmp_path / "out"
    request = Request(methods=("single", "attention"))
    explain_report(tmp_path / "run", request, out, most=1, choices=FileChoices(top=3))
    table = pd.read_parquet(out / "tiles.parquet")
    assert table["patient"].nunique() == 1
    scores = [name for name in map(str, table) if name.startswith("single:")]
    assert scores
    (path, *_) = sorted((out / "geojson").iterdir())
    features = json.loads(gzip.decompress(path.read_bytes()))["features"]
    tiles = table[table["slide"] == table["slide"].iloc[0]]
    assert len(features) == len(tiles)
    assert {feature["properties"]["measurements"][scores[0]] for feature in features} == set(tiles[scores[0]])
    maps = table["slide"].nunique() * len([name for name in map(str, table) if ":" in name])
    assert len(list((out / "dsa").iterdir())) == maps
    assert len(list((out / "maps").glob("*.png"))) == len(list((out / "maps").glob("*.svg"))) == maps
    (ranked, *_) = sorted((out / "top_tiles").glob("*.single.*.csv"))
    assert pd.read_csv(ranked)["side"].tolist() == ["top"] * 3 + ["bottom"] * 3
