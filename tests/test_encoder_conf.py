"""Every encoder of conf/encoder/: its facts, and that no two encoders can be confused."""

from itertools import combinations

import pytest

from mil import config
from mil.features.encoders import Encoder, folded
from mil.study import build
from mil.study.compose import compose

OPEN = {"auto", "custom", "simulated"}
WIDTHS = {
    "chief": 768,
    "conch_v1": 512,
    "conch_v15": 768,
    "ctranspath": 768,
    "gigapath": 1536,
    "h_optimus_0": 1536,
    "h_optimus_1": 1536,
    "hibou_b": 768,
    "hibou_l": 1024,
    "lunit_bt": 2048,
    "midnight": 3072,
    "midnight_cls": 1536,
    "moco_coad": 2048,
    "musk": 1024,
    "phikon": 768,
    "phikon_v2": 1024,
    "resnet50": 1024,
    "resnet50_imagenet": 2048,
    "retccl": 2048,
    "uni": 1024,
    "uni2": 1536,
    "virchow": 2560,
    "virchow_cls": 1280,
    "virchow2": 2560,
    "virchow2_cls": 1280,
}
WRITTEN = {  # names as producers write them, with the width of the features
    "TRIDENT": {
        "uni_v1": ("uni", 1024),
        "uni_v2": ("uni2", 1536),
        "conch_v1": ("conch_v1", 512),
        "conch_v15": ("conch_v15", 768),
        "virchow": ("virchow", 2560),
        "virchow2": ("virchow2", 2560),
        "virchow2-cls": ("virchow2_cls", 1280),
        "phikon": ("phikon", 768),
        "phikon_v2": ("phikon_v2", 1024),
        "gigapath": ("gigapath", 1536),
        "hoptimus0": ("h_optimus_0", 1536),
        "hoptimus1": ("h_optimus_1", 1536),
        "musk": ("musk", 1024),
        "midnight12k": ("midnight_cls", 1536),
        "hibou_l": ("hibou_l", 1024),
        "ctranspath": ("ctranspath", 768),
        "resnet50": ("resnet50", 1024),
    },
    "STAMP": {
        "xiyuewang-ctranspath": ("ctranspath", 768),
        "ctranspath": ("ctranspath", 768),
        "chief-ctranspath": ("chief", 768),
        "mahmood-conch": ("conch_v1", 512),
        "conch1_5": ("conch_v15", 768),
        "mahmood-conch1_5": ("conch_v15", 768),
        "uni": ("uni", 1024),
        "mahmood-uni": ("uni", 1024),
        "mahmood-uni2": ("uni2", 1536),
        "gigapath": ("gigapath", 1536),
        "h-optimus-0": ("h_optimus_0", 1536),
        "h-optimus-1": ("h_optimus_1", 1536),
        "virchow": ("virchow_cls", 1280),
        "virchow-full": ("virchow", 2560),
        "virchow2": ("virchow2_cls", 1280),
        "musk": ("musk", 1024),
    },
    "CLAM": {"resnet50_trunc": ("resnet50", 1024), "uni_v1": ("uni", 1024), "conch_v1": ("conch_v1", 512)},
    "LazySlide": {
        "uni2": ("uni2", 1536),
        "conch": ("conch_v1", 512),
        "titan": ("conch_v15", 768),
        "conch_v1.5": ("conch_v15", 768),
        "phikonv2": ("phikon_v2", 1024),
        "h-optimus-0": ("h_optimus_0", 1536),
        "midnight": ("midnight", 3072),
        "hibou-b": ("hibou_b", 768),
        "chief": ("chief", 768),
    },
    "Owkin": {"iBOTViTBasePANCAN": ("phikon", 768), "MoCoWideResNetCOAD": ("moco_coad", 2048)},
    "hub": {
        "MahmoodLab/UNI": ("uni", 1024),
        "MahmoodLab/UNI2-h": ("uni2", 1536),
        "MahmoodLab/conchv1_5": ("conch_v15", 768),
        "paige-ai/Virchow2": ("virchow2", 2560),
        "owkin/phikon-v2": ("phikon_v2", 1024),
        "bioptimus/H-optimus-1": ("h_optimus_1", 1536),
        "prov-gigapath/prov-gigapath": ("gigapath", 1536),
        "xiangjx/musk": ("musk", 1024),
        "histai/hibou-L": ("hibou_l", 1024),
        "kaiko-ai/midnight": ("midnight", 3072),
    },
}


@pytest.fixture(scope="module")
def encoders_by_name() -> dict[str, Encoder]:
    return {encoder.name: encoder for encoder in build.known_encoders()}


@pytest.mark.parametrize("name", sorted(set(config.choices("encoder")) - OPEN))
def test_encoder_states_width_licence_and_pretraining_data(name: str) -> None:
    encoder = build.make(compose([f"encoder={name}"]).encoder)
    assert encoder.name == name
    assert encoder.dim == WIDTHS[name]
    assert encoder.licence
    assert encoder.pretrained_on
    assert encoder.tile_px is None or 224 <= encoder.tile_px <= 512
    assert encoder.mpp in (None, 0.5, 1.0)
    assert len({folded(alias) for alias in (name, *encoder.aliases)}) == 1 + len(encoder.aliases)


def test_every_encoder_is_listed(encoders_by_name: dict[str, Encoder]) -> None:
    assert set(config.choices("encoder")) == {*WIDTHS, *OPEN}
    assert set(encoders_by_name) == set(WIDTHS)
    for name in sorted(OPEN):
        words = ["encoder.name=ours", "encoder.dim=8"] if name == "custom" else []
        assert compose([f"encoder={name}", *words]).encoder.options.name


def test_encoders_of_equal_width_share_no_name(encoders_by_name: dict[str, Encoder]) -> None:
    for first, second in combinations(encoders_by_name.values(), 2):
        shared = [name for name in (second.name, *second.aliases) if first.answers_to(name)]
        assert not shared or first.dim != second.dim, f"{first.name} and {second.name}: {shared}"


def test_only_class_token_variants_answer_to_another_name(encoders_by_name: dict[str, Encoder]) -> None:
    taken = {
        (first.name, second.name)
        for first in encoders_by_name.values()
        for second in encoders_by_name.values()
        if first.answers_to(second.name)
    }
    assert {pair for pair in taken if pair[0] != pair[1]} == {("virchow_cls", "virchow"), ("virchow2_cls", "virchow2")}


@pytest.mark.parametrize("producer", WRITTEN)
def test_names_that_producers_write_are_recognised(producer: str, encoders_by_name: dict[str, Encoder]) -> None:
    for written, (name, width) in WRITTEN[producer].items():
        matches = [
            encoder.name
            for encoder in encoders_by_name.values()
            if encoder.answers_to(written) and encoder.dim == width
        ]
        assert matches == [name], written
