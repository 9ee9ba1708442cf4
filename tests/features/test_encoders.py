import pytest

from mil.features.encoders import Encoder

H_OPTIMUS = Encoder("h_optimus_0", 1536, aliases=("hoptimus0", "bioptimus/H-optimus-0"))


@pytest.mark.parametrize("name", ["h_optimus_0", "H-Optimus-0", "hoptimus0", "H optimus 0", "bioptimus/h_optimus_0"])
def test_encoder_matches_any_spelling_of_its_name_and_aliases(name: str) -> None:
    assert H_OPTIMUS.answers_to(name)


@pytest.mark.parametrize("name", ["h_optimus_1", "h_optimus", "uni", ""])
def test_encoder_does_not_match_other_names(name: str) -> None:
    assert not H_OPTIMUS.answers_to(name)


def test_lists_from_yaml_become_tuples() -> None:
    encoder = Encoder("uni", 1024, aliases=["uni_v1"], pretrained_on=["Mass-100K"])  # type: ignore[arg-type] # as yaml gives it
    assert encoder == Encoder("uni", 1024, aliases=("uni_v1",), pretrained_on=("Mass-100K",))
    assert len({encoder, encoder}) == 1
