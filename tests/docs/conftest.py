"""The site, built once for all test processes."""

import sys
from pathlib import Path

import pytest

from tests.conftest import once

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def site(shared: Path) -> Path:
    """Return a folder with the assembled pages in `pages/` and the site in `site/`; a warning is an error."""
    pytest.importorskip("mkdocs", reason="needs the extra `docs`")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        import docs

        def build(at: Path) -> None:
            patch.setattr(docs, "PAGES", at / "pages")
            patch.setattr(docs, "SITE", at / "site")
            docs.write_pages()
            docs.build_site()

        folder = once(shared / "built", build)
    sys.modules.pop("docs", None)  # a name that others may use
    return folder
