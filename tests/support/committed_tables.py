"""Where results and the text that quotes them lie, for tests."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments" / "results"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
"""README and the pages of the documentation."""
RESULT_PAGES = sorted((ROOT / "docs" / "results").glob("*.md"))
DOCS = "".join(
    path.read_text(encoding="utf-8") for path in PAGES if path.name != "study.md"
)
