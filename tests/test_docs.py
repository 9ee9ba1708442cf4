"""The documentation names existing paths, and the layers that import-linter checks."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = ("mil", "conf", "docs", "scripts", "tests")


def named_paths(text: str) -> set[str]:
    """Return the repository paths named in a text, without those with a placeholder such as `read_<name>.py`."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)  # commands make folders of their own
    paths = re.findall(rf"(?<![\w/.-])((?:{'|'.join(FOLDERS)})/[\w./-]*)(.?)", text)
    return {path.rstrip(".") for path, following in paths if following not in ("<", "*")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_named_path_exists(page: Path) -> None:
    paths = named_paths(page.read_text(encoding="utf-8"))
    assert len(paths) > (10 if page.name in ("README.md", "architecture.md") else -1)
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_missing_path_is_detected() -> None:
    text = "see `mil/api.py`, `mil/gone.py` and docs/gone.md. Not `my_conf/tool/a.yaml` or `mil/formats/read_<name>.py`"
    assert named_paths(text) == {"mil/api.py", "mil/gone.py", "docs/gone.md"}


def test_documented_layers_equal_the_checked_ones() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = next(
        contract["layers"] for contract in project["tool"]["importlinter"]["contracts"] if contract["type"] == "layers"
    )
    drawn = re.search(r"^```\n(cli\n.*?)^```", ARCHITECTURE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert drawn is not None
    assert drawn[1].splitlines() == [layer for layer in layers if layer != "__main__"]


def test_every_folder_and_module_is_described() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    parts = [path for path in (ROOT / "mil").iterdir() if not path.name.startswith("_")]
    assert len(parts) > 20
    missing = [path.name for path in parts if f"`mil/{path.name}{'/' if path.is_dir() else ''}`" not in text]
    assert missing == []
