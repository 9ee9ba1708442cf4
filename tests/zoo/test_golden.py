"""Released weights go on predicting what they predicted: of this version, and of every schema there ever was."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mil import checkpoint, files
from mil.bags import Bags
from mil.checkpoint import Checkpoint
from mil.errors import CheckpointError
from mil.zoo import golden
from tests.zoo.checkpoints import made

RELEASED = sorted(Path(__file__).parent.glob("released/schema_*/*/manifest.json"))


@pytest.fixture
def loaded(tmp_path: Path) -> Checkpoint:
    checkpoint_of_toy = checkpoint.load(made(tmp_path / "toy"))
    golden.write(checkpoint_of_toy, checkpoint_of_toy.folder)
    return checkpoint_of_toy


def change(loaded: Checkpoint, name: str, by: float) -> None:
    """Moves every number of one kept tensor; the file says that it was made here."""
    path = loaded.folder / golden.GOLDEN
    metadata = {"platform": json.dumps(golden.here())}
    save_file({key: value + by if key == name else value for key, value in load_file(path).items()}, path, metadata)


def test_golden_predictions_come_again_bit_for_bit(loaded: Checkpoint) -> None:
    assert golden.check(loaded) == "bit for bit"
    stored = load_file(loaded.folder / golden.GOLDEN)
    assert stored["features"].shape == (sum(golden.SIZES), 8)
    assert stored["logits"].shape == (4, 1)
    threads = torch.get_num_threads()
    again = (loaded.folder / golden.GOLDEN).read_bytes()
    golden.write(loaded, loaded.folder)
    assert (loaded.folder / golden.GOLDEN).read_bytes() == again
    assert torch.get_num_threads() == threads


def test_on_another_platform_they_may_differ_a_little_and_here_not_at_all(
    loaded: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(loaded, "logits", 3e-6)
    with pytest.raises(CheckpointError, match="on the platform that made them, expected none"):
        golden.check(loaded)
    monkeypatch.setattr(golden, "here", lambda: {"machine": "another"})
    assert golden.check(loaded) == "within 3e-06"
    change(loaded, "logits", 1e-3)
    monkeypatch.setattr(golden, "here", lambda: {"machine": "a third"})
    with pytest.raises(CheckpointError, match="expected at most 1e-05 on another platform"):
        golden.check(loaded)


def test_logits_that_are_not_numbers_are_refused_on_another_platform_too(
    loaded: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden, "here", lambda: {"machine": "another"})
    intact = [weight.clone() for weight in loaded.model.parameters()]
    for weight in loaded.model.parameters():
        weight.data.fill_(torch.nan)
    with pytest.raises(CheckpointError, match="differ by nan, expected at most 1e-05 on another platform"):
        golden.check(loaded)
    for weight, values in zip(loaded.model.parameters(), intact, strict=True):
        weight.data.copy_(values)
    change(loaded, "logits", torch.nan)
    monkeypatch.setattr(golden, "here", lambda: {"machine": "a third"})
    with pytest.raises(CheckpointError, match="differ by nan, expected at most 1e-05 on another platform"):
        golden.check(loaded)


@pytest.mark.parametrize("name", ["features", "logits"])
def test_what_was_not_kept_so_is_refused(name: str, loaded: Checkpoint) -> None:
    change(loaded, name, 0.5)
    with pytest.raises(CheckpointError, match=r"golden\.safetensors: logits differ by"):
        golden.check(loaded)


def test_a_golden_file_that_is_none_or_missing_is_named(loaded: Checkpoint) -> None:
    path = loaded.folder / golden.GOLDEN
    for content in (b"", b"x" * 40, save_and_read(path, {"sizes": torch.tensor([3])})):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"golden\.safetensors"):
            golden.check(loaded)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"golden\.safetensors is missing"):
        golden.check(loaded)


def save_and_read(path: Path, tensors: dict[str, torch.Tensor]) -> bytes:
    """The bytes of a file of these tensors."""
    save_file(tensors, path)
    return path.read_bytes()


def test_a_checkpoint_of_every_schema_is_kept() -> None:
    assert {path.parents[1].name for path in RELEASED} >= {"schema_1"}


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: f"{path.parents[1].name}-{path.parent.name}")
def test_checkpoints_of_every_schema_load_for_ever_and_predict_what_they_did(path: Path) -> None:
    loaded = checkpoint.load(path.parent)
    expected = files.read_json(path.parents[1] / f"{path.parent.name}.golden.json")
    bags = [Bags(torch.tensor(rows), (len(rows),)) for rows in expected["features"]]
    with torch.inference_mode():
        logits = torch.cat([loaded.model(bag).logits for bag in bags])
    assert torch.allclose(logits, torch.tensor(expected["logits"]), rtol=1e-5, atol=1e-5)
    columns = loaded.endpoint.decode(logits)
    for name, values in expected["columns"].items():
        assert columns[name].tolist() == pytest.approx(values, rel=1e-5, abs=1e-5)
