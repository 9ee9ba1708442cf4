"""Imported weights give the outputs of their source's architecture, which each test writes out."""

import json
import pickle
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch
import torchmil.models
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from mil import checkpoint, files
from mil.bags import Bags
from mil.errors import CheckpointError, ConfigError
from mil.inference.import_checkpoint import Origin, import_checkpoint
from tests.conftest import Mil

Weights = dict[str, Tensor]
UNI = Origin("ours", source="someone", licence="MIT")
TILES = torch.randn(9, 8, generator=torch.Generator().manual_seed(3))


def layers(**shapes: tuple[int, int]) -> Weights:
    """Return random weights and biases of linear layers by their names, with `__` for a dot."""
    generator = torch.Generator().manual_seed(0)
    weights: Weights = {}
    for name, (rows, columns) in shapes.items():
        at = name.replace("__", ".")
        weights[f"{at}.weight"] = torch.randn(rows, columns, generator=generator)
        weights[f"{at}.bias"] = torch.randn(rows, generator=generator)
    return weights


def apply(weights: Weights, name: str, rows: Tensor) -> Tensor:
    return linear(rows, weights[f"{name}.weight"], weights[f"{name}.bias"])


def pooled(scores: Tensor, rows: Tensor) -> Tensor:
    """Pool rows `(n, e)` by the softmax of scores `(n, h)`, `(h, e)`."""
    return scores.softmax(0).t() @ rows


def gated(weights: Weights, name: str, rows: Tensor) -> Tensor:
    value, gate = apply(weights, f"{name}.attention_a.0", rows).tanh(), apply(weights, f"{name}.attention_b.0", rows)
    return apply(weights, f"{name}.attention_c", value * gate.sigmoid())


def clam(several: bool, is_gated: bool) -> tuple[Weights, Tensor]:
    heads = 3 if several else 1
    shapes = {"attention_net__0": (6, 8)}
    if is_gated:
        shapes |= {f"attention_net__3__attention_{part}__0": (5, 6) for part in "ab"}
        shapes |= {"attention_net__3__attention_c": (heads, 5)}
    else:
        shapes |= {"attention_net__3__module__0": (5, 6), "attention_net__3__module__3": (heads, 5)}
    shapes |= {f"classifiers__{each}": (1, 6) for each in range(3)} if several else {"classifiers": (3, 6)}
    weights = layers(**shapes, **{f"instance_classifiers__{each}": (2, 6) for each in range(3)})
    rows, net = relu(apply(weights, "attention_net.0", TILES)), "attention_net.3"
    hidden = None if is_gated else apply(weights, f"{net}.module.0", rows).tanh()
    scores = gated(weights, net, rows) if hidden is None else apply(weights, f"{net}.module.3", hidden)
    bag = pooled(scores, rows)
    if several:
        return weights, torch.cat([apply(weights, f"classifiers.{each}", bag[each]) for each in range(3)])
    return weights, apply(weights, "classifiers", bag[0])


def feather() -> tuple[Weights, Tensor]:
    parts = {f"global_attn__attention_{part}__0": (5, 6) for part in "ab"} | {"global_attn__attention_c": (1, 5)}
    weights = layers(patch_embed__0=(6, 8), **parts, classifier=(4, 6))
    rows = relu(apply(weights, "patch_embed.0", TILES))
    return weights, apply(weights, "classifier", pooled(gated(weights, "global_attn", rows), rows)[0])


def xmil() -> tuple[Weights, Tensor]:
    weights = layers(linear_layers__0__0=(6, 8), attention__0=(5, 6), attention__2=(1, 5), classifier=(2, 6))
    rows = relu(apply(weights, "linear_layers.0.0", TILES))
    scores = apply(weights, "attention.2", apply(weights, "attention.0", rows).tanh())
    return weights, apply(weights, "classifier", pooled(scores, rows)[0])


def torchmil_of(has_layer: bool, is_gated: bool) -> tuple[Weights, Tensor]:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(8, 6), nn.ReLU()) if has_layer else nn.Identity()
    model = torchmil.models.ABMIL((8,), att_dim=5, gated=is_gated, feat_ext=layer).eval()
    return dict(model.state_dict()), model(TILES[None]).detach()


BOOLEANS = list(product((False, True), repeat=2))
CASES: dict[str, tuple[str, Callable[[], tuple[Weights, Tensor]]]] = {
    **{f"clam {several} {is_gated}": ("clam", partial(clam, several, is_gated)) for several, is_gated in BOOLEANS},
    "feather": ("feather", feather),
    "xmil": ("xmil", xmil),
    **{f"torchmil {a} {b}": ("torchmil", partial(torchmil_of, a, b)) for a, b in BOOLEANS},
}


@pytest.mark.parametrize("case", CASES)
def test_outputs_equal_those_of_the_source(tmp_path: Path, case: str) -> None:
    kind, make = CASES[case]
    weights, expected = make()
    torch.save(OrderedDict(weights), tmp_path / "weights.pt")
    manifest = import_checkpoint(kind, tmp_path / "weights.pt", tmp_path / "out", UNI)
    loaded = checkpoint.load(tmp_path / "out")
    with torch.inference_mode():
        logits = loaded.model(Bags(TILES, (9,))).logits[0]
    torch.testing.assert_close(logits, expected.flatten(), rtol=1e-5, atol=1e-6)
    assert loaded.manifest == manifest
    assert manifest.imported is not None
    record = manifest.imported
    assert (record.kind, record.file, record.source, record.licence) == (kind, "weights.pt", "someone", "MIT")
    assert record.sha256 == files.sha256(tmp_path / "weights.pt")
    assert record.has_head


def test_a_file_of_training_and_safetensors_with_prefixes_are_read(tmp_path: Path) -> None:
    weights, _ = xmil()
    import numpy as np

    torch.save({"model_state_dict": weights, "loss": np.float64(0.3), "epoch": 4}, tmp_path / "a.pt")
    save_file({f"model.{name}": tensor for name, tensor in weights.items()}, tmp_path / "b.safetensors")
    for place, name in enumerate(("a.pt", "b.safetensors")):
        import_checkpoint("xmil", tmp_path / name, tmp_path / str(place), UNI)
    first, second = (checkpoint.load(tmp_path / str(place)).model.state_dict() for place in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_trunk_without_classifier_says_so(tmp_path: Path, mil: Mil) -> None:
    weights = {name: tensor for name, tensor in feather()[0].items() if not name.startswith("classifier")}
    torch.save(weights, tmp_path / "trunk.pt")
    told = mil("import", "feather", tmp_path / "trunk.pt", "--out", tmp_path / "out", "--encoder", "ours")
    assert told.code == 0, told.err
    assert told.out.splitlines()[0].endswith("no classifier: train it")
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["imported"]["has_head"] is False


class Evil:
    """A pickle that runs a command where it is trusted."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        import os

        return os.system, ("echo run > /dev/null",)


def damaged(change: Callable[[Weights], object]) -> Weights:
    weights, _ = xmil()
    change(weights)
    return weights


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("classifier.weight"), "there is no tensor 'classifier.weight'; it holds 'attention.0.bias'"),
        (lambda w: w.update({"out_layers.0.0.weight": torch.ones(2, 2)}), "'out_layers.0.0.weight' have no place"),
        (
            lambda w: w.update({"attention.2.weight": torch.ones(1, 4)}),
            r"'attention.2.weight' is \(1, 4\), expected \(1, 5\)",
        ),
        (lambda w: w["classifier.bias"].fill_(torch.nan), "'classifier.bias' is torch.float32 or not finite"),
        (lambda w: w.clear(), "holds no weights by name, expected a state_dict"),
    ],
)
def test_other_tensors_than_those_of_the_architecture_are_refused(
    tmp_path: Path, change: Callable[[Weights], object], message: str
) -> None:
    torch.save(damaged(change), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=message) as refusal:
        import_checkpoint("xmil", tmp_path / "w.pt", tmp_path / "out", UNI)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_programs_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pt", "plain.pt"):
        with pytest.raises(CheckpointError, match="cannot be read as weights"):
            import_checkpoint("xmil", tmp_path / name, tmp_path / "out", UNI)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(CheckpointError, match="is not opened while TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set"):
        import_checkpoint("xmil", tmp_path / "evil.pt", tmp_path / "out", UNI)


@pytest.mark.parametrize(
    ("kind", "origin", "message"),
    [
        ("xmil", Origin("uni"), "--encoder uni makes features 1024 wide, the weights read 8"),
        ("xmil", Origin("ours", ("a", "b", "c")), r"--classes names 3 classes \(a, b, c\), the weights have 2"),
        ("mcat", UNI, "source 'mcat', expected one of clam, feather, torchmil, xmil"),
    ],
)
def test_statements_that_do_not_fit_are_refused(tmp_path: Path, kind: str, origin: Origin, message: str) -> None:
    torch.save(xmil()[0], tmp_path / "w.pt")
    with pytest.raises((ConfigError, CheckpointError), match=message):
        import_checkpoint(kind, tmp_path / "w.pt", tmp_path / "out", origin)
