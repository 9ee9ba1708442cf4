"""Commands write neither over what they read nor over a result of another kind."""

from pathlib import Path

import pytest

from mil import files
from mil.errors import ConfigError
from mil.output_places import RESULTS, check_output_file, check_output_folder, check_run_folder, check_tools_folder


def test_new_and_earlier_outputs_are_accepted(tmp_path: Path) -> None:
    features, table = tmp_path / "features", tmp_path / "cohort.csv"
    features.mkdir()
    table.write_text("a")
    for name in ("new.csv", "deep/new.csv"):
        check_output_file(tmp_path / name, [features, table, None])
    (tmp_path / "empty.csv").touch()
    check_output_file(tmp_path / "empty.csv", [features, table])
    (tmp_path / "old.csv").write_text("patient,tool,version,tiles,p_1\n")
    check_output_file(tmp_path / "old.csv", [features, table], replaces_predictions=True)
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
    for out in (features / "S.h5", features / "new.csv", features / "new" / "new.csv"):
        with pytest.raises(ConfigError, match=r"lies in .*features, which is read"):
            check_output_file(out, [features, table])
    with pytest.raises(ConfigError, match=r"holds .*cohort\.csv, which is read, expected a folder of its own"):
        check_output_folder(tmp_path, [features, table], "report.json")
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
    with pytest.raises(ConfigError, match="is there already, expected a new folder"):
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


RUN_PARTS = ("config.yaml", "predictions.csv")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return what a folder of a run with a checkpoint looks like."""
    folder = tmp_path / "run"
    (folder / "checkpoint").mkdir(parents=True)
    for name in (*RUN_PARTS, "checkpoint/manifest.json", "checkpoint/weights.safetensors"):
        (folder / name).write_text("patient,fold,role\n")
    return folder


def test_a_run_keeps_its_files_and_a_checkpoint_gets_none(run: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run)
    for name in ("run/predictions.csv", "run/config.yaml", "link/predictions.csv"):
        with pytest.raises(ConfigError, match="is there already and belongs to the run"):
            check_output_file(tmp_path / name, [])
    for check in (check_output_file, check_output_folder):
        with pytest.raises(ConfigError, match="lies in the checkpoint"):
            check(run / "checkpoint" / "new", [])
    (run / "log").mkdir()
    with pytest.raises(ConfigError, match="belongs to the run"):
        check_output_folder(run / "log", [])
    check_output_file(run / "new.csv", [])
    check_output_folder(run / "external", [], "report.json")


def test_only_tables_of_predictions_are_replaced(tmp_path: Path) -> None:
    for header in ("slide,tool,version,tiles,p_1", "patient,tool,version,simulated,tiles,p_1,call", "old"):
        (tmp_path / "out.csv").write_text(f"{header}\n")
        check_output_file(tmp_path / "out.csv", [], replaces_predictions=True)
        with pytest.raises(ConfigError, match="is there already, expected a new file"):
            check_output_file(tmp_path / "out.csv", [])
    texts = {
        "script.py": "print()",
        "clinic.csv": "patient,slide,label\n",
        "one_column.csv": "patient\nP1\n",
        "notes": "a line of mine\n",
        "counts.csv": "patient,tiles,weight\nP1,3,4\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match="is there already and is no table of predictions"):
            check_output_file(tmp_path / name, [], replaces_predictions=True)


def test_the_result_of_another_command_is_not_replaced(tmp_path: Path) -> None:
    for name, kind in RESULTS.items():
        folder = tmp_path / name
        folder.mkdir()
        for part in (name, "report.json", "predictions.csv"):
            (folder / part).write_text("patient,tiles\n")
        with pytest.raises(ConfigError, match=f"holds {kind}, expected a new folder"):
            check_output_folder(folder, [], "report.json")
        with pytest.raises(ConfigError, match=f"in a folder that holds {kind}|belongs to the run"):
            check_output_file(folder / "predictions.csv", [], replaces_predictions=True)


def test_a_tool_is_released_into_a_folder_of_tools_only(run: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    check_tools_folder(tools, [run])
    (tools / "msi-crc").mkdir(parents=True)
    (tools / "msi-crc" / "manifest.json").write_text("{}")
    (tools / "README.md").write_text("# Released tools")
    check_tools_folder(tools, [run])
    features = tmp_path / "features"
    features.mkdir()
    (features / "S.h5").write_text("")
    with pytest.raises(ConfigError, match="is there already, expected a new folder"):
        check_tools_folder(features, [run])
    (tools / "cohort.csv").write_text("patient")
    with pytest.raises(ConfigError, match=r"holds .*cohort\.csv, which is read"):
        check_tools_folder(tools, [run, tools / "cohort.csv"])
    with pytest.raises(ConfigError, match="which is read"):
        check_tools_folder(run, [run])


def test_a_new_run_takes_no_folder_of_something_else(run: Path, tmp_path: Path) -> None:
    features = tmp_path / "features"
    features.mkdir()
    (features / "S.h5").write_text("")
    check_run_folder(tmp_path / "new", [features], [".h5"])
    for folder, inputs in ((features, [features]), (features / "run", [features])):
        with pytest.raises(ConfigError, match=r"hydra\.run\.dir .*which is read"):
            check_run_folder(folder, inputs)
    with pytest.raises(ConfigError, match=r"holds S\.h5, expected a new folder"):
        check_run_folder(features, [], [".h5"])
    with pytest.raises(ConfigError, match=r"holds manifest\.json"):
        check_run_folder(run / "checkpoint", [])
    (tmp_path / "patients.csv").write_text("patient\n")
    with pytest.raises(ConfigError, match=r"holds patients\.csv"):
        check_run_folder(tmp_path, [])
    with pytest.raises(ConfigError, match=r"holds .*patients\.csv, which is read, expected a folder of its own"):
        check_run_folder(tmp_path, [tmp_path / "patients.csv"])
    for name in ("covariates.csv", "baseline.csv", "figures"):
        (tmp_path / f"with_{name}" / name).mkdir(parents=True)
        with pytest.raises(ConfigError, match=f"holds {name}"):
            check_run_folder(tmp_path / f"with_{name}", [])
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "slurm-1.out").write_text("")
    check_run_folder(tmp_path / "scheduler", [])


def test_a_link_to_a_folder_that_is_gone_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "unmounted")
    for check in (check_run_folder, check_output_folder):
        with pytest.raises(ConfigError, match=r"link: is a link to .*unmounted, which is not there, expected a new"):
            check(tmp_path / "link", [])
