"""The site: its reference names everything that there is, and its pages lead nowhere that does not exist."""

import importlib.util
import re
from pathlib import Path

import pytest

from mil import config
from mil.cli.examples import EXAMPLES

ROOT = Path(__file__).parents[2]
pytest.importorskip("mkdocs", reason="needs the extra `docs`")
_specification = importlib.util.spec_from_file_location("site_of_docs", ROOT / "scripts" / "docs.py")
assert _specification is not None
assert _specification.loader is not None
docs = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(docs)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The assembled pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(docs, "PAGES", tmp_path_factory.mktemp("docs"))
        docs.write_pages()
        return Path(docs.PAGES)


def test_the_reference_names_every_command_model_encoder_format_and_endpoint(pages: Path) -> None:
    reference = {path.stem: path.read_text(encoding="utf-8") for path in (pages / "reference").glob("*.md")}
    assert all(f"\n## mil {name}\n" in reference["commands"] for name in EXAMPLES)
    assert all(f"\n## {name}\n" in reference["models"] for name in config.choices("model"))
    assert all(f"| {name} |" in reference["encoders"] for name in config.choices("encoder"))
    readers = {path.stem.removeprefix("read_") for path in (ROOT / "mil" / "features" / "formats").glob("read_*.py")}
    assert all(f"\n## {name}\n" in reference["formats"] for name in readers)
    assert all(f"\n## {name}\n" in reference["endpoints"] for name in ("Binary", "Cox", "CompetingRisks", "Several"))
    assert "batch_bags" in reference["configuration"]
    assert "| `metrics` |" in reference["report"]


def test_every_page_is_in_the_menu(pages: Path) -> None:
    menu = (ROOT / "docs" / "mkdocs.yml").read_text(encoding="utf-8")
    written = {str(path.relative_to(pages)) for path in pages.rglob("*.md")}
    assert written == set(re.findall(r"([\w/-]+\.md)", menu.partition("\nnav:")[2]))


def test_links_out_of_the_documentation_are_turned_to_pages_of_the_site(pages: Path) -> None:
    home = (pages / "index.md").read_text(encoding="utf-8")
    assert "](docs/" not in home
    assert "](zoo.md)" in home
    assert "](cards/msi-crc/model_card.html)" in (pages / "zoo.md").read_text(encoding="utf-8")
    assert (pages / "cards" / "msi-crc" / "model_card.html").is_file()
