"""Weights that other software trained, as weights of the models of this package that compute the same.

What is read is data: torch's restricted unpickler, or safetensors. Each source is an architecture as published by its
authors, and every tensor of a file must have a place in it.

    clam      mahmoodlab/CLAM, `s_{fold}_checkpoint.pt`: CLAM_SB and CLAM_MB, gated or not
    feather   mahmoodlab/MIL-Lab, ABMIL with one layer (Feather): with a classifier or without
    torchmil  torchmil.models.ABMIL, with a layer and ReLU before it or without
    xmil      bifold-pathomics/xMIL, `attnmil/best_model.pt`: attention MIL with one layer
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import safe_globals

from mil.errors import CheckpointError
from mil.models.abmil import ABMIL
from mil.models.clam import CLAM
from mil.models.mil_model import MILModel
from mil.storage import check_kind

_SWITCH = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts store the weights next to other things."""
_PREFIXES = ("module.", "model.")


@dataclass(frozen=True, eq=False)
class Mapped:
    """A model of this package that computes what the source's does."""

    model: MILModel
    options: dict[str, object]
    """of its constructor"""
    has_head: bool = True
    """whether the file has the classifier; without one the head's weights are zero"""


@dataclass(eq=False)
class Source:
    """The tensors of a file, each of which must be taken."""

    path: Path
    tensors: Mapping[str, Tensor]
    taken: set[str] = field(default_factory=set)

    def has(self, name: str) -> bool:
        """Return whether there is a tensor of that name."""
        return name in self.tensors

    def take(self, name: str, *shape: int | None) -> Tensor:
        """Return a tensor in single precision; lengths that are not known yet are None.

        Raises:
            CheckpointError: It is missing, of another shape, or not finite.
        """
        if name not in self.tensors:
            raise CheckpointError(f"{self.path}: there is no tensor '{name}'; it holds {_listed(self.tensors)}")
        tensor = self.tensors[name]
        fits = len(tensor.shape) == len(shape) and all(
            want in (None, length) for want, length in zip(shape, tensor.shape, strict=True)
        )
        if not fits:
            expected = ", ".join("any" if want is None else str(want) for want in shape)
            raise CheckpointError(f"{self.path}: '{name}' is {tuple(tensor.shape)}, expected ({expected})")
        if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{self.path}: '{name}' is {tensor.dtype} or not finite, expected finite floats")
        self.taken.add(name)
        return tensor.float()

    def linear(self, name: str, rows: int | None = None, columns: int | None = None) -> tuple[Tensor, Tensor]:
        """Return weight and bias of a linear layer; zeros where it has no bias."""
        weight = self.take(f"{name}.weight", rows, columns)
        bias = f"{name}.bias"
        return weight, self.take(bias, len(weight)) if self.has(bias) else torch.zeros(len(weight))

    def without_bias(self, name: str, columns: int, rows: int | None = None) -> Tensor:
        """Return the weight of scores; a bias, which the softmax removes, is taken and left out."""
        return self.linear(name, rows, columns)[0]

    def finish(self) -> None:
        """Check that every tensor was taken.

        Raises:
            CheckpointError: Some were not.
        """
        if extra := sorted(set(self.tensors) - self.taken):
            raise CheckpointError(f"{self.path}: {_listed(extra)} have no place in the architecture that is imported")


def read(path: Path) -> Source:
    """Return the tensors of a file, without running what it holds.

    Raises:
        CheckpointError: It cannot be read, holds no weights, or is a pipe or a device.
    """
    if os.environ.get(_SWITCH, "0") not in ("", "0"):
        raise CheckpointError(f"{path} is not opened while {_SWITCH} is set, which lets files run code: unset it")
    check_kind(path, CheckpointError, "a file of weights")
    try:
        content: object = load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
    except Exception as error:  # the unpickler raises whatever a broken program leads to
        raise CheckpointError(f"{path} cannot be read as weights: {' '.join(str(error).split())[:200]}") from None
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not tensors:
        raise CheckpointError(f"{path} holds no weights by name, expected a state_dict")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return Source(path, tensors)


def mapped(kind: str, source: Source) -> Mapped:
    """Return the model that computes what the source's does.

    Raises:
        CheckpointError: There is no such source, or the tensors are not those of its architecture.
    """
    if kind not in SOURCES:
        raise CheckpointError(f"source {kind!r}, expected one of {', '.join(SOURCES)}")
    result = SOURCES[kind](source)
    source.finish()
    return result


def _unpickled(path: Path) -> object:
    stand_ins: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
        (_nothing, f"numpy{core}.multiarray.scalar") for core in (".core", "._core")
    ]
    stand_ins += [(_Nothing, "numpy.dtype")]
    with safe_globals(stand_ins):
        content: object = torch.load(path, map_location="cpu", weights_only=True)
        return content


def _nothing(*_: object) -> None:
    """Stand in for numpy's numbers, such as losses, next to the weights."""


class _Nothing:
    """Stands in for numpy's `dtype`."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


def _clam(source: Source) -> Mapped:
    attention = next((m[1] for name in source.tensors if (m := re.match(r"(attention_net\.[23])\.", name))), "")
    embed, embed_bias = source.linear("attention_net.0")
    width, in_dim = embed.shape
    gated = source.has(f"{attention}.attention_a.0.weight")
    if gated:
        branches, score = _gated(source, attention, width)
    else:
        branches = source.linear(f"{attention}.module.0", None, width)
        last = max((n for n in (2, 3) if source.has(f"{attention}.module.{n}.weight")), default=3)
        score = source.without_bias(f"{attention}.module.{last}", len(branches[1]))
    several = source.has("classifiers.0.weight")
    head = _stacked(source, "classifiers", 1, width) if several else source.linear("classifiers", None, width)
    out_dim = len(head[1])
    has_instances = source.has("instance_classifiers.0.weight")
    options: dict[str, object] = {
        "embed_dim": width,
        "attention_dim": score.shape[1],
        "multi_branch": several,
        "gated": gated,
        **({} if has_instances else {"bag_weight": 1.0}),
    }
    state = {"embed.0.weight": embed, "embed.0.bias": embed_bias}
    state |= {"score.branches.weight": branches[0], "score.branches.bias": branches[1], "score.score.weight": score}
    state |= {"head.weight": head[0], "head.bias": head[1]}
    if has_instances:
        instances = _stacked(source, "instance_classifiers", 2, width)
        state |= {"instance.weight": instances[0], "instance.bias": instances[1]}
    model = CLAM(in_dim, out_dim, **options)  # type: ignore[arg-type]  # options by name
    return _loaded(source, model, options | {"in_dim": in_dim, "out_dim": out_dim}, state)


def _feather(source: Source) -> Mapped:
    embed = source.linear("patch_embed.0")
    width = len(embed[1])
    if source.has("global_attn.attention_a.0.weight"):
        branches, score = _gated(source, "global_attn", width)
        gated = True
    else:
        branches = source.linear("global_attn.module.0", None, width)
        score, gated = source.without_bias("global_attn.module.3", len(branches[1]), 1), False
    head = source.linear("classifier", None, width) if source.has("classifier.weight") else None
    return _abmil(source, embed, branches, score, head, gated)


def _torchmil(source: Source) -> Mapped:
    first = source.take("pool.fc1.module.weight", None, None)
    width = first.shape[1]
    value = (first, source.take("pool.fc1.module.bias", len(first)))
    gated = source.has("pool.fc_gated.module.weight")
    gate = source.linear("pool.fc_gated.module", len(first), width) if gated else None
    branches = value if gate is None else (torch.cat([value[0], gate[0]]), torch.cat([value[1], gate[1]]))
    score = source.without_bias("pool.fc2", len(first), 1)
    head = source.linear("classifier.module", None, width)
    if source.has("feat_ext.0.weight"):
        return _abmil(source, source.linear("feat_ext.0", width), branches, score, head, gated)
    # without a layer x itself is pooled, which is ReLU(x) - ReLU(-x)
    eye = torch.eye(width)
    embed = (torch.cat([eye, -eye]), torch.zeros(2 * width))
    branches = (torch.cat([branches[0], -branches[0]], 1), branches[1])
    return _abmil(source, embed, branches, score, (torch.cat([head[0], -head[0]], 1), head[1]), gated)


def _xmil(source: Source) -> Mapped:
    embed = source.linear("linear_layers.0.0")
    width = len(embed[1])
    branches = source.linear("attention.0", None, width)
    score = source.without_bias("attention.2", len(branches[1]), 1)
    return _abmil(source, embed, branches, score, source.linear("classifier", None, width), gated=False)


SOURCES: dict[str, Callable[[Source], Mapped]] = {
    "clam": _clam,
    "feather": _feather,
    "torchmil": _torchmil,
    "xmil": _xmil,
}


def _gated(source: Source, name: str, width: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Return V with U below it, and w, of a gated attention."""
    value, value_bias = source.linear(f"{name}.attention_a.0", None, width)
    gate, gate_bias = source.linear(f"{name}.attention_b.0", len(value), width)
    score = source.without_bias(f"{name}.attention_c", len(value))
    return (torch.cat([value, gate]), torch.cat([value_bias, gate_bias])), score


def _stacked(source: Source, name: str, rows: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the layers `name.0`, `name.1`, ... as one."""
    count = sum(source.has(f"{name}.{place}.weight") for place in range(len(source.tensors)))
    layers = [source.linear(f"{name}.{place}", rows, width) for place in range(count)]
    return torch.cat([weight for weight, _ in layers]), torch.cat([bias for _, bias in layers])


def _abmil(
    source: Source,
    embed: tuple[Tensor, Tensor],
    branches: tuple[Tensor, Tensor],
    score: Tensor,
    head: tuple[Tensor, Tensor] | None,
    gated: bool,
) -> Mapped:
    width, in_dim = embed[0].shape
    out_dim = 1 if head is None else len(head[1])
    options: dict[str, object] = {"embed_dim": width, "attention_dim": score.shape[1], "gated": gated}
    model = ABMIL(in_dim, out_dim, **options)  # type: ignore[arg-type]  # options by name
    names = ("embed.0", "score.branches", "head")
    layers = (embed, branches, head or (torch.zeros(1, width), torch.zeros(1)))
    state = {f"{name}.weight": layer[0] for name, layer in zip(names, layers, strict=True)}
    state |= {f"{name}.bias": layer[1] for name, layer in zip(names, layers, strict=True)}
    options |= {"in_dim": in_dim, "out_dim": out_dim}
    return _loaded(source, model, options, state | {"score.score.weight": score}, head is not None)


def _loaded(
    source: Source, model: MILModel, options: dict[str, object], state: dict[str, Tensor], has_head: bool = True
) -> Mapped:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{source.path}: {' '.join(str(error).split())[:300]}") from None
    return Mapped(model.eval(), options, has_head)


def _listed(names: Mapping[str, Tensor] | list[str]) -> str:
    ordered = sorted(names)
    return ", ".join(f"'{name}'" for name in ordered[:6]) + (
        f" and {len(ordered) - 6} more" if len(ordered) > 6 else ""
    )
