"""Samples of features that are the same whatever file holds them."""

import numpy as np
import pytest
import torch

from mil.features.content_samples import ContentSample, column_extremes, parse, same_slides, sample, shared, texts
from mil.features.formats import Header
from mil.features.pieces import Pieces


def sample_of(features: torch.Tensor, tiles: int = 4) -> ContentSample:
    header = Header(len(features), features.shape[1], "float32", None, "", None, None, False)
    drawn = sample(Pieces(lambda runs: [features[run] for run in runs], header, 0), tiles)
    assert drawn is not None
    return drawn


@pytest.mark.parametrize("shape", [(1, 768), (3, 25), (2000, 1024)])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 30.0])
def test_a_sample_is_the_same_in_every_type_and_as_text(shape: tuple[int, int], scale: float) -> None:
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32) * scale)
    read = [sample_of(features.to(dtype)) for dtype in (torch.float32, torch.float16, torch.bfloat16)]
    for these in read:
        for those in read:
            assert these.is_of(those)
            assert parse(texts((these,)))[0].is_of(those)
    assert not read[0].is_of(sample_of(features.flip(1)))
    assert not read[0].is_of(sample_of(torch.cat([features, features[:1]])))


def test_groups_are_those_of_all_pairs() -> None:
    rng = np.random.default_rng(1)
    originals = [torch.from_numpy(rng.standard_normal((9, 16), dtype=np.float32)) for _ in range(40)]
    samples = {f"s{number}": (sample_of(each),) for number, each in enumerate(originals)}
    samples |= {f"copy{number}": (sample_of(originals[number].bfloat16()),) for number in (3, 17)}
    samples["third"] = (sample_of(originals[17].half()),)
    assert sorted(map(sorted, same_slides(samples))) == [["copy17", "s17", "third"], ["copy3", "s3"]]
    recorded = [samples["copy3"], samples["s17"]]
    assert shared(samples, recorded) == ["s3", "s17", "copy3", "copy17", "third"]


def test_slides_of_zeros_are_the_same_and_cost_no_error() -> None:
    samples = {name: (sample_of(torch.zeros(9, 8)),) for name in "abc"}
    assert same_slides(samples) == [["a", "b", "c"]]


@pytest.mark.parametrize("features", [torch.ones(1, 39), torch.ones(7, 9)])
def test_few_values_do_not_say_that_two_patients_are_one(features: torch.Tensor) -> None:
    header = Header(len(features), features.shape[1], "float32", None, "", None, None, False)
    assert sample(Pieces(lambda runs: [features[run] for run in runs], header, 0)) is None
    assert column_extremes(features.numpy()) is None
