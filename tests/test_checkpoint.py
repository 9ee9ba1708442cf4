"""A checkpoint folder is verified, read as data, and refused in one line where it is not what its manifest says."""

import json
import os
import pickle
import shutil
import struct
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mil import checkpoint, files
from mil import manifest as manifests
from mil.bags import Bags
from mil.data.covariates import Covariates
from mil.data.formats import Reading
from mil.data.geometry import Geometry
from mil.endpoints.classification import Binary
from mil.endpoints.several import Several
from mil.endpoints.survival import Cox
from mil.errors import CheckpointError
from mil.models.abmil import ABMIL
from mil.models.base import MILModel, Output
from mil.models.fusion import FUSIONS, Fused

WEIGHTS, MANIFEST = checkpoint.WEIGHTS, checkpoint.MANIFEST
Node = dict[str, Any]


class Foreign(MILModel):
    """A model of somebody else's package."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.head = torch.nn.Linear(in_dim, out_dim)

    def forward(self, bags: Bags) -> Output:
        embedding = bags.mean(bags.features)
        return Output(self.head(embedding), embedding)


def saved(folder: Path, model: MILModel, options: Node | None = None) -> Path:
    endpoint = Binary("MSI", ["MSS", "MSI-H"])
    manifest = manifests.Manifest(
        tool={"name": "msi-crc", "version": "0.1.0"},
        model=manifests.part(model, {"in_dim": 8, "out_dim": 1} | (options or {})),
        endpoint=manifests.part(endpoint, {"column": "MSI", "classes": ["MSS", "MSI-H"]}),
        fitted={"endpoint": endpoint.state(), "decisions": []},
        encoder={"name": "uni", "dim": 8, "aliases": ["UNI"], "verified": True},
        data={"bag": "patient"},
        training={"seed": 0},
    )
    checkpoint.save(folder, model, manifest)
    (folder / "README.md").write_text("# card\n")
    checkpoint.seal(folder, manifest)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return saved(
        tmp_path / "checkpoint", ABMIL(8, 1, embed_dim=6, attention_dim=4), {"embed_dim": 6, "attention_dim": 4}
    )


def refusal(folder: Path, *allow: str) -> str:
    with pytest.raises(CheckpointError) as error:
        checkpoint.load(folder, allow)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000
    return str(error.value)


def rewrite(folder: Path, change: Callable[[Node], object]) -> None:
    """Changes the manifest as a forger would: everything else still fits."""
    node = json.loads((folder / MANIFEST).read_text())
    change(node)
    (folder / MANIFEST).write_text(json.dumps(node))


def replace_weights(folder: Path, content: bytes) -> None:
    (folder / WEIGHTS).write_bytes(content)
    rewrite(folder, lambda node: node["files"].update({WEIGHTS: files.sha256(folder / WEIGHTS)}))


def replace_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    replace_weights(folder, (folder / WEIGHTS).read_bytes())


def test_what_is_saved_comes_back(folder: Path) -> None:
    torch.manual_seed(0)
    model = ABMIL(8, 1, embed_dim=6, attention_dim=4).eval()
    found = checkpoint.load(folder)
    bags = Bags(torch.randn(7, 8), (3, 4))
    assert torch.equal(found.model(bags).logits, model(bags).logits)
    assert not found.model.training
    assert isinstance(found.endpoint, Binary)
    assert found.endpoint.positive == "MSI-H"
    assert found.manifest.fitted["decisions"] == []
    assert (found.encoder.name, found.encoder.dim, found.encoder.aliases) == ("uni", 8, ("UNI",))
    assert set(found.manifest.files) == {WEIGHTS, "README.md"}


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


@pytest.mark.parametrize(
    "change",
    [
        lambda node: node.update(schema_version=3),
        lambda node: node.update(surprise=1),
        lambda node: node["model"].update(_target_="os.system"),
        lambda node: node.pop("encoder"),
        lambda node: node["encoder"].update(dim="wide"),
        lambda node: node["encoder"].update(colour="red"),
        lambda node: node["encoder"].update(name=None),
        lambda node: node["encoder"].update(dim=9),
        lambda node: node["model"]["options"].update(embed_dim=7),
        lambda node: node["model"]["options"].update(embed_dim=10**7),
        lambda node: node["model"]["options"].update(embed_dim=10**30),
        lambda node: node["model"]["options"].update(embed_dim=-1),
        lambda node: node["model"]["options"].update(heads="many"),
        lambda node: node["model"]["options"].update(nonsense=1),
        lambda node: node["model"]["options"].update(out_dim=3),
        lambda node: node["model"].update(name="mil.models.abmil.DSMIL"),
        lambda node: node["model"].update(name="torch.nn.Linear"),
        lambda node: node["model"].update(name="mil.models.base.MILModel"),
        lambda node: node["model"].update(name="os.system"),
        lambda node: node["endpoint"].update(name="mil.models.abmil.ABMIL"),
        lambda node: node["endpoint"]["options"].update(classes=["one"]),
        lambda node: node["endpoint"].update(name="mil.endpoints.survival.Cox", options={"horizons": {"a": "b"}}),
        lambda node: node["fitted"].update(endpoint=[1, 2]),
        lambda node: node.update(
            endpoint={"name": "mil.endpoints.survival.Cox", "options": {"horizons": {"y": 12}}},
            fitted={"endpoint": {"baseline_times": 3, "baseline_hazard": "x"}},
        ),
    ],
)
def test_a_manifest_that_is_not_this_packages_is_refused_in_one_line(
    folder: Path, change: Callable[[Node], object]
) -> None:
    rewrite(folder, change)
    assert str(folder) in refusal(folder)


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


@pytest.mark.parametrize("value", [0, -0.5, "fine", [0.5], "NaN", 1e999])
@pytest.mark.parametrize("key", ["mpp", "tile_px"])
def test_a_size_of_tiles_that_is_none_is_refused(folder: Path, key: str, value: object) -> None:
    rewrite(folder, lambda node: node["data"].update(geometry={key: value}))
    assert "manifest.json: data.geometry: " in refusal(folder)


@pytest.mark.parametrize("value", [5, [], {"batch_axis": "perhaps"}, {"slide_mpp": {}}, {"layout": 3}])
def test_a_reading_that_is_none_is_refused(folder: Path, value: object) -> None:
    rewrite(folder, lambda node: node["data"].update(reading=value))
    assert "manifest.json: data.reading: " in refusal(folder)


def with_covariates(folder: Path, fusion: str = "gated") -> tuple[Path, Fused, Several]:
    """A checkpoint of several endpoints, whose model reads covariates."""
    torch.manual_seed(0)
    endpoint = Several({"msi": Binary("MSI", ["MSS", "MSI-H"]), "outcome": Cox()}, {"outcome": 0.5})
    node = {"_target_": "mil.endpoints.classification.Binary", "column": "MSI", "classes": ["MSS", "MSI-H"]}
    said = {"endpoints": {"msi": node, "outcome": {"_target_": "mil.endpoints.survival.Cox"}}}
    covariates = Covariates(["age"], {"sex": ["F", "M"]})
    covariates.load_state({"mean": [60.5], "sd": [10.25]})
    model = Fused(ABMIL(8, 2, embed_dim=6, attention_dim=4), covariates.width, 2, fusion, 6)
    torch.nn.init.normal_(model.shift.weight)
    clinical = manifests.Clinical(
        numeric=["age"],
        categorical={"sex": ["F", "M"]},
        fusion=fusion,
        embed_dim=6,
        state=covariates.state(),
    )
    manifest = manifests.Manifest(
        tool={"name": "several", "version": "0.1.0"},
        model=manifests.part(model.inner, {"in_dim": 8, "out_dim": 2, "embed_dim": 6, "attention_dim": 4}),
        endpoint=manifests.endpoint_part(endpoint, said | {"weights": {"outcome": 0.5}}),
        fitted={"endpoint": endpoint.state()},
        encoder={"name": "uni", "dim": 8, "aliases": ["UNI"], "verified": True},
        data={"bag": "patient"},
        training={"seed": 0},
        covariates=clinical,
    )
    checkpoint.save(folder, model, manifest)
    return folder, model.eval(), endpoint


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


@pytest.mark.parametrize(
    "change",
    [
        lambda node: node["endpoint"]["options"]["endpoints"]["msi"].update(name="os.system"),
        lambda node: node["endpoint"]["options"]["endpoints"]["msi"].update(name="mil.models.abmil.ABMIL"),
        lambda node: node["endpoint"]["options"]["endpoints"]["msi"].update(_target_="os.system"),
        lambda node: node["endpoint"]["options"]["endpoints"].update(more={"_target_": "os.system"}),
        lambda node: node["endpoint"]["options"].update(endpoints={"msi": json.loads(json.dumps(node["endpoint"]))}),
        lambda node: node["endpoint"]["options"].update(endpoints=[1]),
        lambda node: node["endpoint"]["options"].update(endpoints=None),
        lambda node: node["endpoint"]["options"].update(weights=["msi"]),
        lambda node: node["fitted"].update(endpoint={"msi": 3}),
        lambda node: node["covariates"].update(fusion="early"),
        lambda node: node["covariates"].update(embed_dim=None),
        lambda node: node["covariates"].update(embed_dim=-1),
        lambda node: node["covariates"].update(embed_dim=10**12),
        lambda node: node["covariates"].update(embed_dim=7),
        lambda node: node["covariates"].update(numeric=["age", "age"]),
        lambda node: node["covariates"].update(numeric=[]),
        lambda node: node["covariates"].update(state={}),
        lambda node: node["covariates"].update(state={"mean": [1], "sd": ["wide"]}),
        lambda node: node["covariates"].update(surprise=1),
        lambda node: node.update(covariates=None),
        lambda node: node["model"].update(name="mil.models.fusion.Fused"),
    ],
)
def test_covariates_and_endpoints_within_that_are_forged_are_refused_in_one_line(
    tmp_path: Path, change: Callable[[Node], object]
) -> None:
    folder, _, _ = with_covariates(tmp_path / "checkpoint")
    rewrite(folder, change)
    assert str(folder) in refusal(folder)


def test_strings_that_would_run_or_read_elsewhere_stay_data(folder: Path) -> None:
    words = {"_target_": "os.system", "command": "touch ran", "home": "${oc.env:HOME}"}
    rewrite(folder, lambda node: (node["tool"].update(words), node["data"].update(words)))
    found = checkpoint.load(folder).manifest
    assert {key: found.tool[key] for key in words} == words
    assert found.data["home"] == "${oc.env:HOME}"


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[1]", b"{", b"\xff\xfe", b'{"tool": ' + b"[" * 100_000, b'{"a":' * 5000, b" " * (2**20 + 1)],
    ids=["empty", "null", "list", "cut", "binary", "deep", "deeper", "huge"],
)
def test_a_manifest_that_is_no_document_is_refused(folder: Path, content: bytes) -> None:
    (folder / MANIFEST).write_bytes(content)
    refusal(folder)


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("ran",))


def test_weights_that_are_no_safetensors_are_refused_and_run_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state": Payload()}, tmp_path / "zipped")
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    contents = {
        "pickle": pickle.dumps(Payload()),
        "torch's pickle": (tmp_path / "zipped").read_bytes(),
        "empty": b"",
        "short": b"1234567",
        "huge header": struct.pack("<Q", 2**40) + b"{}",
        "long header": struct.pack("<Q", 2**20 + 1) + b" " * (2**20 + 1),
        "trailing bytes": (folder / WEIGHTS).read_bytes() + b"#!/bin/sh",
        "cut": (folder / WEIGHTS).read_bytes()[:-4],
        "other names": struct.pack("<Q", len(header)) + header + b"\0\0\0\0",
        "no json": struct.pack("<Q", 8) + b"not json",
        "odd dtype": struct.pack("<Q", len(header)) + header.replace(b"F32", b"Z99") + b"\0\0\0\0",
    }
    for name, content in contents.items():
        replace_weights(folder, content)
        assert WEIGHTS in refusal(folder), name
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: tensors["head.bias"].fill_(float("nan")), "head.bias is not finite"),
        (lambda tensors: tensors["head.weight"].view(-1)[3].fill_(float("inf")), "head.weight is not finite"),
        (lambda tensors: tensors.update({"head.bias": torch.zeros(2)}), r"head.bias is (2,)"),
        (lambda tensors: tensors.update({"head.bias": torch.zeros(1).half()}), "torch.float16"),
        (lambda tensors: tensors.pop("head.bias"), "tensors differ from the model's: head.bias"),
        (lambda tensors: tensors.update(more=torch.zeros(1)), "tensors differ from the model's: more"),
    ],
)
def test_weights_of_another_model_or_not_finite_are_refused(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], object], said: str
) -> None:
    replace_tensors(folder, change)
    assert said in refusal(folder)


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
