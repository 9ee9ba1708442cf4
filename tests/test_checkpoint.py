"""A checkpoint folder is verified, read as data, and refused in one line if it differs from its manifest."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from mil import checkpoint, files
from mil.bags import Bags
from mil.endpoints.classification import Binary
from mil.endpoints.several import Several
from mil.errors import CheckpointError
from mil.features.formats import Reading
from mil.features.geometry import Geometry
from mil.models.abmil import ABMIL
from mil.models.fusion import FUSIONS
from mil.models.mil_model import MILModel, Output
from tests.checkpoints import MANIFEST, WEIGHTS, refusal, rewrite, saved, small, with_covariates


class Foreign(MILModel):
    """A model of another package."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.head = torch.nn.Linear(in_dim, out_dim)

    def forward(self, bags: Bags) -> Output:
        embedding = bags.mean(bags.features)
        return Output(self.head(embedding), embedding)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small(tmp_path / "checkpoint")


def test_saved_checkpoint_is_loaded(folder: Path) -> None:
    torch.manual_seed(0)
    model = ABMIL(8, 1, embed_dim=6, attention_dim=4).eval()
    loaded = checkpoint.load(folder)
    bags = Bags(torch.randn(7, 8), (3, 4))
    assert torch.equal(loaded.model(bags).logits, model(bags).logits)
    assert not loaded.model.training
    assert isinstance(loaded.endpoint, Binary)
    assert loaded.endpoint.positive == "MSI-H"
    assert loaded.manifest.fitted.decisions == ()
    assert (loaded.encoder.name, loaded.encoder.dim, loaded.encoder.aliases) == ("uni", 8, ("UNI",))
    assert set(loaded.manifest.files) == {WEIGHTS, "README.md"}


def test_label_words_of_training_are_restored_by_column(folder: Path) -> None:
    assert checkpoint.load(folder).words == {}
    labels = {"MSI": {"high": "MSI-H", "1": 1, "unclear": None}, "sex": {"w": "F"}}
    rewrite(folder, lambda node: node["training"].update(data={"labels": labels}))
    loaded = checkpoint.load(folder)
    assert loaded.words == {"MSI": {"high": "MSI-H", "1": "1", "unclear": None}, "sex": {"w": "F"}}
    assert loaded.words_of(["sex", "age"]) == {"sex": {"w": "F"}}


def test_second_save_replaces_the_first(folder: Path) -> None:
    (folder / ".weights.safetensors.k1ll3d").write_text("partial file")
    saved(folder, ABMIL(8, 1), {})
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", MANIFEST, WEIGHTS]
    checkpoint.load(folder)


def test_changed_byte_of_the_weights_is_refused(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    for place in (0, len(content) // 2, len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 1
        (folder / WEIGHTS).write_bytes(changed)
        assert f"{WEIGHTS} is not the file that the manifest counts" in refusal(folder)


def test_changed_added_missing_or_linked_files_are_refused(folder: Path, tmp_path: Path) -> None:
    def refusal_after(name: str, change: Callable[[Path], object]) -> str:
        copy = shutil.copytree(folder, tmp_path / name)
        change(copy)
        return refusal(copy)

    assert "README.md is not the file" in refusal_after(
        "changed", lambda at: (at / "README.md").write_text("# better\n")
    )
    assert "extra.py is not in the manifest" in refusal_after("added", lambda at: (at / "extra.py").write_text(""))
    assert "README.md is missing" in refusal_after("missing", lambda at: (at / "README.md").unlink())
    assert f"{WEIGHTS} is missing" in refusal_after("bare", lambda at: (at / WEIGHTS).unlink())
    assert f"it holds no {MANIFEST}" in refusal_after("no manifest", lambda at: (at / MANIFEST).unlink())
    assert "is a link" in refusal_after("link", lambda at: (at / "card").symlink_to(at / "README.md"))
    assert "link" in refusal_after("pipe", lambda at: os.mkfifo(at / "pipe"))

    def linked(at: Path) -> None:
        (at / WEIGHTS).unlink()
        (at / WEIGHTS).symlink_to(folder / WEIGHTS)

    assert "is a link" in refusal_after("linked weights", linked)
    assert "it holds no" in refusal(tmp_path / "nothing")


def test_manifest_may_not_list_files_outside_the_folder(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.write_text("x")
    rewrite(folder, lambda node: node["files"].update({"../outside": files.sha256(outside)}))
    assert "../outside is missing" in refusal(folder)


def test_foreign_class_is_not_imported_unless_allowed(tmp_path: Path) -> None:
    folder = saved(tmp_path / "foreign", Foreign(8, 1))
    name = f"{__name__}.Foreign"
    assert f"{name!r} is no MILModel of this package; --allow {name}" in refusal(folder)
    assert isinstance(checkpoint.load(folder, [name]).model, Foreign)
    rewrite(folder, lambda node: node["model"].update(name="antigravity.fly"))
    assert "antigravity" in refusal(folder)
    assert "antigravity" not in sys.modules
    for class_path in ("no_such_module.Model", "mil.models.abmil.Nothing", "nodots", "os.system"):
        node = json.loads((folder / MANIFEST).read_text())
        node["model"]["name"] = class_path
        (folder / MANIFEST).write_text(json.dumps(node))
        assert class_path in refusal(folder, class_path)


def test_geometry_and_reading_options_are_restored(folder: Path) -> None:
    loaded = checkpoint.load(folder)
    assert (loaded.geometry, loaded.reading) == (Geometry(), Reading())
    geometry, reading = Geometry(0.5, 224, True, False), Reading("owkin", True, 0.25)
    rewrite(folder, lambda node: node["data"].update(geometry=asdict(geometry), reading=asdict(reading)))
    loaded = checkpoint.load(folder)
    assert (loaded.geometry, loaded.reading) == (geometry, reading)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_covariates_and_nested_endpoints_are_restored(tmp_path: Path, fusion: str) -> None:
    folder, model, endpoint = with_covariates(tmp_path / "checkpoint", fusion)
    loaded = checkpoint.load(folder)
    bags = Bags(torch.randn(7, 8), (3, 4), covariates=torch.randn(2, 6))
    assert torch.equal(loaded.model(bags).logits, model(bags).logits)
    assert isinstance(loaded.endpoint, Several)
    assert loaded.endpoint.weights == endpoint.weights == {"msi": 1.0, "outcome": 0.5}
    assert list(loaded.endpoint.decode(torch.zeros(1, 2))) == ["p_MSI-H", "log_hazard"]
    assert loaded.covariates is not None
    assert (loaded.covariates.columns, loaded.covariates.width) == (("age", "sex"), 6)
    assert loaded.covariates.state() == {"mean": [60.5], "sd": [10.25]}


def test_nothing_is_imported_from_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sitecustomize.py", "mil.py", "abmil.py", "__init__.py", "conftest.py"):
        (folder / name).write_text("raise SystemExit('ran')")
    checkpoint.seal(folder, checkpoint.reopened(folder))
    monkeypatch.chdir(folder)
    before = set(sys.modules)
    checkpoint.load(folder)
    assert not any(str(folder) in str(getattr(sys.modules[name], "__file__", "")) for name in set(sys.modules) - before)


def test_checkpoint_can_be_sealed_again_after_kill(folder: Path) -> None:
    (folder / ".README.md.k1ll3d").write_text("half")
    (folder / "README.md").write_text("# not yet counted\n")
    refusal(folder)
    checkpoint.seal(folder, checkpoint.reopened(folder))
    assert set(checkpoint.load(folder).manifest.files) == {WEIGHTS, "README.md"}
    (folder / WEIGHTS).write_bytes(b"other weights")
    with pytest.raises(CheckpointError, match=WEIGHTS):
        checkpoint.reopened(folder)
