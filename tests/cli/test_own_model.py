"""A model of one's own is one file and one yaml, neither of them in this project."""

from pathlib import Path

import pytest

from mil import checkpoint
from mil.errors import CheckpointError
from tests.conftest import TINY, Mil

MODEL = '''"""The middle of the tiles."""

from typing import ClassVar

import torch
from torch import nn

from mil.bags import Bags
from mil.models.mil_model import MILModel, Output


class Middle(MILModel):
    """The median of the tiles, feature by feature, classified."""

    paper: ClassVar[str] = "Nobody 2024"
    cost: ClassVar[str] = "n log n"

    def __init__(self, in_dim: int, out_dim: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.head = nn.Linear(in_dim, out_dim)

    def forward(self, bags: Bags) -> Output:
        embedding = torch.stack([self.scale * rows.median(0).values for rows in bags.split()])
        return Output(self.head(embedding), embedding)
'''
YAML = "_target_: zoo_of_ours.middle.Middle\nscale: 2.0\n"


def test_a_model_of_one_file_and_one_yaml_trains_from_the_command_line(
    mil: Mil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, conf = tmp_path / "zoo_of_ours", tmp_path / "our conf"
    (conf / "model").mkdir(parents=True)
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "middle.py").write_text(MODEL)
    (conf / "model" / "middle.yaml").write_text(YAML)
    monkeypatch.syspath_prepend(str(tmp_path))
    words = [word for word in TINY if not word.startswith("model.")]
    run = tmp_path / "run"
    said = mil("train", "--config-dir", conf, "model=middle", "model.scale=0.5", *words, f"hydra.run.dir={run}")
    assert said.code == 0, said.err
    assert Path(said.out.splitlines()[-1]) == run
    assert (run / "report.json").is_file()
    folder = run / "fold_0" / "checkpoint"
    model = checkpoint.load(folder, allow=["zoo_of_ours.middle.Middle"]).model
    assert type(model).__name__ == "Middle"
    assert model.scale == 0.5
    with pytest.raises(CheckpointError, match="zoo_of_ours"):
        checkpoint.load(folder)
