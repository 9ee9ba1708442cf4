"""Every encoder of conf/encoder/: its facts, and that no two encoders can be confused."""

from itertools import combinations

import pytest

from mil import config
from mil.features.encoders import Encoder, folded
from mil.study import build
from mil.study.compose import compose

OPEN = {"auto", "custom", "simulated"}
WIDTHS = {
    "titan": 768,
    "prism": 1280,
    "gigapath_slide": 768,
    "chief_slide": 768,
    "madeleine": 512,
    "cobra": 768,
    "moozy": 768,
    "feather": 512,
    "feather_uni2": 512,
    "biomedclip": 512,
    "chief": 768,
    "conceptclip": 1152,
    "conch_madeleine": 512,
    "conch_v1": 512,
    "conch_v15": 768,
    "crisp": 2560,
    "crown": 1024,
    "ctranspath": 768,
    "dino_bloom_s": 384,
    "gemma4_26b": 1152,
    "gemma4_e4b": 768,
    "genbio_pathfm": 4608,
    "gigapath": 1536,
    "gigapath_flash": 384,
    "gpfm": 1024,
    "h0_mini": 1536,
    "h0_mini_cls": 768,
    "h_optimus_0": 1536,
    "h_optimus_1": 1536,
    "hibou_b": 768,
    "hibou_l": 1024,
    "kaiko_vitb16": 768,
    "kaiko_vitb8": 768,
    "kaiko_vitl14": 1024,
    "kaiko_vits16": 384,
    "kaiko_vits8": 384,
    "keep": 768,
    "lunit_bt": 2048,
    "lunit_dino_s16": 384,
    "lunit_dino_s8": 384,
    "lunit_dino_s8_moozy": 384,
    "lunit_mocov2": 2048,
    "lunit_swav": 2048,
    "mascaret": 1536,
    "medsiglip": 1152,
    "midnight": 3072,
    "midnight_cls": 1536,
    "moco_coad": 2048,
    "mstar": 1024,
    "musk": 1024,
    "openmidnight": 1536,
    "phaet": 1024,
    "phikon": 768,
    "phikon_v2": 1024,
    "plip": 512,
    "quiltnet_b16": 512,
    "quiltnet_b16_pmb": 512,
    "quiltnet_b32": 512,
    "red_dino": 1024,
    "resnet50": 1024,
    "resnet50_imagenet": 2048,
    "retccl": 2048,
    "rudolfv2": 1536,
    "rudolfv2_b": 768,
    "rudolfv2_s": 384,
    "ticon": 1536,
    "uni": 1024,
    "uni2": 1536,
    "virchow": 2560,
    "virchow2": 2560,
    "virchow2_cls": 1280,
    "virchow_cls": 1280,
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
        "keep": ("keep", 768),
        "h0-mini": ("h0_mini", 1536),
        "openmidnight": ("openmidnight", 1536),
        "gpfm": ("gpfm", 1024),
        "kaiko-vitb8": ("kaiko_vitb8", 768),
        "kaiko-vitb16": ("kaiko_vitb16", 768),
        "kaiko-vits8": ("kaiko_vits8", 384),
        "kaiko-vits16": ("kaiko_vits16", 384),
        "kaiko-vitl14": ("kaiko_vitl14", 1024),
        "lunit-vits8": ("lunit_dino_s8", 384),
        "genbio-pathfm": ("genbio_pathfm", 4608),
        "gemma4-e4b": ("gemma4_e4b", 768),
        "gemma4-26b": ("gemma4_26b", 1152),
    },
    "TRIDENT, class tokens alone": {"h0-mini": ("h0_mini_cls", 768)},
    "STAMP": {
        "conch": ("conch_v1", 512),
        "uni2": ("uni2", 1536),
        "dino-bloom": ("dino_bloom_s", 384),
        "mstar": ("mstar", 1024),
        "plip": ("plip", 512),
        "keep": ("keep", 768),
        "ticon": ("ticon", 1536),
        "red-dino": ("red_dino", 1024),
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
        "rudolfv2-s": ("rudolfv2_s", 384),
        "rudolfv2-b": ("rudolfv2_b", 768),
        "rudolfv2": ("rudolfv2", 1536),
        "gpfm": ("gpfm", 1024),
        "gigapath-flash": ("gigapath_flash", 384),
        "hibou-l": ("hibou_l", 1024),
        "crown": ("crown", 1024),
        "virchow": ("virchow", 2560),
        "mascaret": ("mascaret", 1536),
        "phaet": ("phaet", 1024),
        "open-midnight": ("openmidnight", 1536),
        "h0-mini": ("h0_mini", 1536),
        "lunit-bt": ("lunit_bt", 2048),
        "lunit-mocov2": ("lunit_mocov2", 2048),
        "lunit-swav": ("lunit_swav", 2048),
        "lunit-dino-s8": ("lunit_dino_s8", 384),
        "lunit-dino-s8-moozy": ("lunit_dino_s8_moozy", 384),
        "lunit-dino-s16": ("lunit_dino_s16", 384),
        "crisp": ("crisp", 2560),
        "genbio-pathfm": ("genbio_pathfm", 4608),
        "mstar": ("mstar", 1024),
        "conceptclip": ("conceptclip", 1152),
        "plip": ("plip", 512),
        "keep": ("keep", 768),
        "conch-madeleine": ("conch_madeleine", 512),
        "quiltnet-b32": ("quiltnet_b32", 512),
        "quiltnet-b16": ("quiltnet_b16", 512),
        "quiltnet-b16-pmb": ("quiltnet_b16_pmb", 512),
        "medsiglip": ("medsiglip", 1152),
        "biomedclip": ("biomedclip", 512),
    },
    "slides, TRIDENT": {
        "titan": ("titan", 768),
        "prism": ("prism", 1280),
        "gigapath": ("gigapath_slide", 768),
        "chief": ("chief_slide", 768),
        "madeleine": ("madeleine", 512),
        "feather": ("feather", 512),
        "feather_uni_v2": ("feather_uni2", 512),
    },
    "slides, STAMP": {
        "titan": ("titan", 768),
        "prism": ("prism", 1280),
        "gigapath": ("gigapath_slide", 768),
        "chief": ("chief_slide", 768),
        "madeleine": ("madeleine", 512),
        "cobra": ("cobra", 768),
    },
    "slides, LazySlide": {"titan": ("titan", 768), "prism": ("prism", 1280), "madeleine": ("madeleine", 512)},
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


def level_of(producer: str) -> str:
    """Return whether names of `WRITTEN` are of tile or slide encoders."""
    return "slide" if producer.startswith("slides") else "tile"


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
        confused = shared and (first.dim, first.level) == (second.dim, second.level)
        assert not confused, f"{first.name} and {second.name}: {shared}"


def test_only_class_token_variants_answer_to_another_name(encoders_by_name: dict[str, Encoder]) -> None:
    taken = {
        (first.name, second.name)
        for first in encoders_by_name.values()
        for second in encoders_by_name.values()
        if first.answers_to(second.name) and first.level == second.level
    }
    assert {pair for pair in taken if pair[0] != pair[1]} == {
        ("virchow_cls", "virchow"),
        ("virchow2_cls", "virchow2"),
        ("h0_mini_cls", "h0_mini"),
    }


@pytest.mark.parametrize("producer", WRITTEN)
def test_names_that_producers_write_are_recognised(producer: str, encoders_by_name: dict[str, Encoder]) -> None:
    for written, (name, width) in WRITTEN[producer].items():
        matches = [
            encoder.name
            for encoder in encoders_by_name.values()
            if encoder.answers_to(written) and encoder.dim == width and encoder.level == level_of(producer)
        ]
        assert matches == [name], written
