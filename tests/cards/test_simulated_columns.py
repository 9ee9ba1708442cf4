"""The clinical columns of a simulated cohort stand on the card with distribution, effect and source."""

from mil.cards.simulated_columns import clinical_columns
from mil.manifest import SimulationRecord
from mil.study.compose import compose

STATED = {
    "age": {"mean": 67, "sd": 13, "effects": [{"odds_ratio": 1.1, "of": "MSI-H", "source": "A 2001"}]},
    "side": {"shares": {"left": 0.6, "right": 0.4}, "effects": [{"odds_ratio": {"right": 5}, "source": "A 2001"}]},
    "sex": {"shares": {"F": 1}, "source": "B 2002"},
    "menopause": {"given": "age", "bands": [{"start": 0, "shares": {"pre": 1}}, {"start": 50, "shares": {"post": 1}}]},
}


def test_each_column_has_its_distribution_effect_and_source() -> None:
    record = SimulationRecord.model_validate({"clinical": STATED})
    assert record.clinical is not None
    shown = clinical_columns(record.clinical)
    assert shown.tables[0].rows == (
        ("age", "mean 67, SD 13, from 18 to 95", "odds ratio of MSI-H for 10 more: 1.1", "1"),
        ("side", "left 60%, right 40%", "odds ratio: right 5", "1"),
        ("sex", "F 100%", "none", "2"),
        ("menopause", "age from 0: pre 100%; age from 50: post 100%", "none", "set by hand"),
    )
    assert shown.sentences[1:] == ["Source 1: A 2001.", "Source 2: B 2002."]


def test_the_manifest_keeps_what_a_tool_states() -> None:
    plain = compose(["tool=rlapsrisk-bc"]).simulation.plain()
    record = SimulationRecord.model_validate(plain)
    again = SimulationRecord.model_validate_json(record.model_dump_json())
    assert again == record
    assert record.clinical is not None
    assert [effect.of for effect in record.clinical["nodes"].effects] == ["distant_relapse"]
