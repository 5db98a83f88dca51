"""What a release says of itself is said the same everywhere, and the documentation's pages are all there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import easyedit_split

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="the source tree is not there")


def test_one_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == easyedit_split.__version__
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert f"{easyedit_split.__version__} ({cited['date-released']})" in headings
    assert "Unreleased" in headings


def test_every_page_is_in_the_site_and_every_page_that_is_named_exists() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    named = {page for group in site["nav"] for pages in group.values() for page in _pages(pages)}
    assert named == {page.name for page in (ROOT / "docs").glob("*.md")}
    texts = [ROOT / "README.md", *(ROOT / "docs" / page for page in named)]
    for text in texts:
        for path in re.findall(r"`((?:docs|benchmarks)/[\w./-]+\.\w+)`", text.read_text("utf-8")):
            assert (ROOT / path).exists(), f"{text.name} names {path}"
    for link in re.findall(r"\]\(([^):]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert (ROOT / link).exists(), f"README.md links {link}"


def _pages(entry: object) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    return [page for item in entry for page in _pages(next(iter(item.values())))]  # type: ignore[attr-defined]
