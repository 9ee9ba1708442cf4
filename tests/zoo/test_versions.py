"""A version says how much changed; one that says too little is refused."""

import pytest

from mil.checkpoint import WEIGHTS
from mil.errors import ConfigError
from mil.fitted.rules import YoudenRule
from mil.manifest import Manifest, TrainingRecord
from mil.zoo.versions import HEAD, Change, change, changelog, check_version, parse
from tests.zoo.checkpoints import described


def with_encoder(manifest: Manifest, changes: dict[str, object]) -> Manifest:
    """The same tool with another encoder."""
    return manifest.model_copy(update={"encoder": manifest.encoder.model_copy(update=changes)})


BEFORE = described("1.2.3", files={WEIGHTS: "a"})
DECIDING = BEFORE.tool.model_copy(update={"decision": YoudenRule(rule="youden")})
RENAMED = BEFORE.tool.model_copy(update={"title": "Other words"})
RETRAINED = described("9", files={WEIGHTS: "b"})
CASES = [
    (described("9", files={WEIGHTS: "a", "README.md": "other"}), Change.PATCH, "card"),
    (RETRAINED, Change.MINOR, "weights"),
    (BEFORE.model_copy(update={"training": TrainingRecord(seed=1)}), Change.MINOR, "training"),
    (with_encoder(BEFORE, {"dim": 9}), Change.MAJOR, "encoder"),
    (with_encoder(BEFORE, {"name": "conch"}), Change.MAJOR, "encoder"),
    (with_encoder(BEFORE, {"tile_px": 512}), Change.MAJOR, "encoder"),
    (with_encoder(BEFORE, {"mpp": 0.25}), Change.MAJOR, "encoder"),
    (with_encoder(BEFORE, {"verified": False}), Change.PATCH, "card"),
    (BEFORE.model_copy(update={"endpoint": BEFORE.model}), Change.MAJOR, "endpoint"),
    (BEFORE.model_copy(update={"tool": DECIDING}), Change.MAJOR, "tool.decision"),
    (BEFORE.model_copy(update={"tool": RENAMED}), Change.PATCH, "card"),
]


@pytest.mark.parametrize("version", ["1", "1.0", "v1.0.0", "1.0.0-rc1", "01.0.0", "1.0.0\n", "../1.0.0", "", "١.0.0"])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(ConfigError, match=r"expected X\.Y\.Z"):
        parse(version)


def test_versions_are_ordered_as_numbers() -> None:
    assert parse("1.10.0") > parse("1.9.9")


@pytest.mark.parametrize(("after", "kind", "what"), CASES)
def test_what_changed_needs_its_part_of_the_version(after: Manifest, kind: Change, what: str) -> None:
    assert change(BEFORE, after) == (kind, what)
    versions = {Change.PATCH: "1.2.4", Change.MINOR: "1.3.0", Change.MAJOR: "2.0.0"}
    for bump, version in versions.items():
        if bump >= kind:
            check_version(BEFORE, after, version, "place")
        else:
            with pytest.raises(ConfigError, match=f"{what} differs: a .* change, expected {versions[kind]} or above"):
                check_version(BEFORE, after, version, "place")


@pytest.mark.parametrize("version", ["1.2.3", "1.2.2", "0.9.9"])
def test_a_version_goes_up(version: str) -> None:
    with pytest.raises(ConfigError, match="expected a higher one"):
        check_version(BEFORE, BEFORE, version, "place")


def test_below_one_a_minor_bump_is_enough_for_everything() -> None:
    early = described("0.2.0", files={WEIGHTS: "a"})
    changed = with_encoder(early, {"dim": 9})
    check_version(early, changed, "0.3.0", "place")
    with pytest.raises(ConfigError, match=r"expected 0\.3\.0 or above"):
        check_version(early, changed, "0.2.1", "place")


def test_the_changelog_has_the_newest_version_on_top_a_line_each() -> None:
    first = changelog("", "1.0.0", "First release.")
    second = changelog(first, "1.1.0", " Retrained. ", "2026-03-01")
    assert second == f"{HEAD}- 1.1.0 (2026-03-01): Retrained.\n- 1.0.0: First release.\n"


@pytest.mark.parametrize(("note", "date"), [("two\nlines", None), ("", None), ("x", "1 March"), ("x", "2026-03-01T10")])
def test_a_note_is_one_line_and_a_date_is_one(note: str, date: str | None) -> None:
    with pytest.raises(ConfigError):
        changelog("", "1.0.0", note, date)
