"""Commands write neither over what they read nor over a result of another kind."""

from pathlib import Path

import pytest

from mil import files
from mil.errors import ConfigError
from mil.output_places import check_output_file, check_output_folder


def test_new_and_earlier_outputs_are_accepted(tmp_path: Path) -> None:
    features, table = tmp_path / "features", tmp_path / "cohort.csv"
    features.mkdir()
    table.write_text("a")
    for name in ("new.csv", "features/new.csv", "deep/new.csv"):
        check_output_file(tmp_path / name, [features, table, None])
    (tmp_path / "old.csv").write_text("b")
    check_output_file(tmp_path / "old.csv", [features, table])
    for name in ("empty", "earlier"):
        (tmp_path / name).mkdir()
    (tmp_path / "earlier" / "report.json").write_text("{}")
    for name in ("absent", "empty", "earlier"):
        check_output_folder(tmp_path / name, [features, table], "report.json")


def test_inputs_are_not_overwritten_under_any_name(tmp_path: Path) -> None:
    features, table = tmp_path / "features", tmp_path / "cohort.csv"
    features.mkdir()
    table.write_text("a")
    (features / "S.h5").write_text("b")
    (tmp_path / "link.csv").symlink_to(table)
    for out in (table, tmp_path / "features" / ".." / "cohort.csv", tmp_path / "link.csv"):
        with pytest.raises(ConfigError, match=r"is .*cohort\.csv, which is read"):
            check_output_file(out, [features, table])
    with pytest.raises(ConfigError, match=r"is there already and lies in .*features, which is read"):
        check_output_file(features / "S.h5", [features, table])
    with pytest.raises(ConfigError, match="which is read"):
        check_output_folder(features, [features], "report.json")


@pytest.mark.parametrize(("name", "kind"), [("config.yaml", "a run"), ("manifest.json", "a checkpoint")])
def test_a_run_or_checkpoint_is_not_written_over(tmp_path: Path, name: str, kind: str) -> None:
    for each in (name, "report.json"):
        (tmp_path / each).write_text("{}")
    with pytest.raises(ConfigError, match=f"holds {kind}, expected a new folder"):
        check_output_folder(tmp_path, [], "report.json")


def test_what_is_no_file_or_folder_of_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no file"):
        check_output_file(tmp_path, [])
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        check_output_folder(tmp_path, [], "report.json")
    check_output_folder(tmp_path, [])
    for earlier in (None, "report.json"):
        with pytest.raises(ConfigError, match="is there already"):
            check_output_folder(tmp_path / "notes.txt", [], earlier)


def test_messages_name_the_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--tiles .* is .*, which is read"):
        check_output_folder(tmp_path, [tmp_path], option="--tiles")
    with pytest.raises(ConfigError, match=r"^OUT .*: is no file"):
        check_output_file(tmp_path, [], "OUT")


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to("real.csv")
    files.write(tmp_path / "link.csv", "new")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text() == "new"
