"""Commands that compute nothing load no library that is slow to load."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mil.cli import list_command

HEAVY = {"torch", "pandas", "scipy", "sklearn", "lightning", "matplotlib", "h5py"}
"""Each takes longer to load than the command."""
SCRIPT = """
import sys
from mil.cli.main import main
sys.argv = ["mil", *sys.argv[1:]]
try:
    main()
finally:
    print("loaded", *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words", [["list"], ["train", "--cfg", "job", "model=abmil_gated"], ["train", "--help"], ["--version"]]
)
def test_commands_that_compute_nothing_load_no_heavy_library(words: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    loaded = done.stderr.strip().rpartition("\n")[2].split()
    assert loaded[0] == "loaded"
    assert not HEAVY & set(loaded)


def test_the_doctor_loads_torch_and_nothing_that_trains(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "doctor"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "precision chosen in training: " in done.stdout
    loaded = done.stderr.strip().rpartition("\n")[2].split()
    assert "torch" in loaded
    assert not {"lightning", "sklearn", "matplotlib"} & set(loaded)


def test_the_stored_tables_of_mil_list_are_those_of_the_classes() -> None:
    stored = json.loads(list_command.STORED.read_text(encoding="utf-8"))
    assert stored == list_command.facts(), "python -m mil.cli.list_command > mil/cli/listed.json writes them anew"


def test_models_of_a_changed_folder_are_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stored = json.loads(list_command.STORED.read_text(encoding="utf-8"))
    stored["models"][0]["parameters"] = "wrong"
    (tmp_path / "listed.json").write_text(json.dumps(stored), encoding="utf-8")
    monkeypatch.setattr(list_command, "STORED", tmp_path / "listed.json")
    assert list_command._stored_models()[0]["parameters"] == "wrong"
    monkeypatch.setattr(list_command, "_digest", lambda: "of other files")
    assert list_command._stored_models()[0]["parameters"] == "656,897"
