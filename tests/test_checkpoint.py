"""A checkpoint folder is verified, read as data, and refused in one line where it is not what its manifest says."""

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
    """A model of somebody else's package."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.head = torch.nn.Linear(in_dim, out_dim)

    def forward(self, bags: Bags) -> Output:
        embedding = bags.mean(bags.features)
        return Output(self.head(embedding), embedding)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small(tmp_path / "checkpoint")


def test_what_is_saved_comes_back(folder: Path) -> None:
    torch.manual_seed(0)
    model = ABMIL(8, 1, embed_dim=6, attention_dim=4).eval()
    found = checkpoint.load(folder)
    bags = Bags(torch.randn(7, 8), (3, 4))
    assert torch.equal(found.model(bags).logits, model(bags).logits)
    assert not found.model.training
    assert isinstance(found.endpoint, Binary)
    assert found.endpoint.positive == "MSI-H"
    assert found.manifest.fitted.decisions == ()
    assert (found.encoder.name, found.encoder.dim, found.encoder.aliases) == ("uni", 8, ("UNI",))
    assert set(found.manifest.files) == {WEIGHTS, "README.md"}


def test_the_words_of_the_training_come_back_by_column(folder: Path) -> None:
    assert checkpoint.load(folder).words == {}
    labels = {"MSI": {"high": "MSI-H", "1": 1, "unclear": None}, "sex": {"w": "F"}}
    rewrite(folder, lambda node: node["training"].update(data={"labels": labels}))
    found = checkpoint.load(folder)
    assert found.words == {"MSI": {"high": "MSI-H", "1": "1", "unclear": None}, "sex": {"w": "F"}}
    assert found.words_of(["sex", "age"]) == {"sex": {"w": "F"}}


def test_a_second_save_leaves_nothing_of_the_first(folder: Path) -> None:
    (folder / ".weights.safetensors.k1ll3d").write_text("half a file")
    saved(folder, ABMIL(8, 1), {})
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", MANIFEST, WEIGHTS]
    checkpoint.load(folder)


def test_every_byte_of_the_weights_is_vouched_for(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    for place in (0, len(content) // 2, len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 1
        (folder / WEIGHTS).write_bytes(changed)
        assert f"{WEIGHTS} is not the file that the manifest counts" in refusal(folder)


def test_a_changed_added_missing_or_linked_file_is_refused(folder: Path, tmp_path: Path) -> None:
    def broken(name: str, break_it: Callable[[Path], object]) -> str:
        copy = shutil.copytree(folder, tmp_path / name)
        break_it(copy)
        return refusal(copy)

    assert "README.md is not the file" in broken("changed", lambda at: (at / "README.md").write_text("# better\n"))
    assert "extra.py is not in the manifest" in broken("added", lambda at: (at / "extra.py").write_text(""))
    assert "README.md is missing" in broken("missing", lambda at: (at / "README.md").unlink())
    assert f"{WEIGHTS} is missing" in broken("bare", lambda at: (at / WEIGHTS).unlink())
    assert f"it holds no {MANIFEST}" in broken("no manifest", lambda at: (at / MANIFEST).unlink())
    assert "is a link" in broken("link", lambda at: (at / "card").symlink_to(at / "README.md"))
    assert "link" in broken("pipe", lambda at: os.mkfifo(at / "pipe"))

    def linked(at: Path) -> None:
        (at / WEIGHTS).unlink()
        (at / WEIGHTS).symlink_to(folder / WEIGHTS)

    assert "is a link" in broken("linked weights", linked)
    assert "it holds no" in refusal(tmp_path / "nothing")


def test_a_manifest_may_count_no_file_outside_the_folder(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.write_text("x")
    rewrite(folder, lambda node: node["files"].update({"../outside": files.sha256(outside)}))
    assert "../outside is missing" in refusal(folder)


def test_a_class_outside_the_package_is_refused_and_not_imported_unless_allowed(tmp_path: Path) -> None:
    folder = saved(tmp_path / "foreign", Foreign(8, 1))
    name = f"{__name__}.Foreign"
    assert f"{name!r} is no MILModel of this package; --allow {name}" in refusal(folder)
    assert isinstance(checkpoint.load(folder, [name]).model, Foreign)
    rewrite(folder, lambda node: node["model"].update(name="antigravity.fly"))
    assert "antigravity" in refusal(folder)
    assert "antigravity" not in sys.modules
    for other in ("no_such_module.Model", "mil.models.abmil.Nothing", "nodots", "os.system"):
        node = json.loads((folder / MANIFEST).read_text())
        node["model"]["name"] = other
        (folder / MANIFEST).write_text(json.dumps(node))
        assert other in refusal(folder, other)


def test_tiles_and_readings_come_back_and_older_manifests_have_none(folder: Path) -> None:
    found = checkpoint.load(folder)
    assert (found.geometry, found.reading) == (Geometry(), Reading())
    geometry, reading = Geometry(0.5, 224, True, False), Reading("owkin", True, 0.25)
    rewrite(folder, lambda node: node["data"].update(geometry=asdict(geometry), reading=asdict(reading)))
    found = checkpoint.load(folder)
    assert (found.geometry, found.reading) == (geometry, reading)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_covariates_and_endpoints_within_come_back(tmp_path: Path, fusion: str) -> None:
    folder, model, endpoint = with_covariates(tmp_path / "checkpoint", fusion)
    found = checkpoint.load(folder)
    bags = Bags(torch.randn(7, 8), (3, 4), covariates=torch.randn(2, 6))
    assert torch.equal(found.model(bags).logits, model(bags).logits)
    assert isinstance(found.endpoint, Several)
    assert found.endpoint.weights == endpoint.weights == {"msi": 1.0, "outcome": 0.5}
    assert list(found.endpoint.decode(torch.zeros(1, 2))) == ["p_MSI-H", "log_hazard"]
    assert found.covariates is not None
    assert (found.covariates.columns, found.covariates.width) == (("age", "sex"), 6)
    assert found.covariates.state() == {"mean": [60.5], "sd": [10.25]}


def test_nothing_is_imported_from_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sitecustomize.py", "mil.py", "abmil.py", "__init__.py", "conftest.py"):
        (folder / name).write_text("raise SystemExit('ran')")
    checkpoint.seal(folder, checkpoint.reopened(folder))
    monkeypatch.chdir(folder)
    before = set(sys.modules)
    checkpoint.load(folder)
    assert not any(str(folder) in str(getattr(sys.modules[name], "__file__", "")) for name in set(sys.modules) - before)


def test_what_a_killed_process_left_half_described_is_described_anew(folder: Path) -> None:
    (folder / ".README.md.k1ll3d").write_text("half")
    (folder / "README.md").write_text("# not yet counted\n")
    refusal(folder)
    checkpoint.seal(folder, checkpoint.reopened(folder))
    assert set(checkpoint.load(folder).manifest.files) == {WEIGHTS, "README.md"}
    (folder / WEIGHTS).write_bytes(b"other weights")
    with pytest.raises(CheckpointError, match=WEIGHTS):
        checkpoint.reopened(folder)
