"""The site of docs/ builds without a warning, with its reference from the code; no link of the repository is broken."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MARKDOWN = [
    file for place in (".", "docs", "android_demo", "benchmarks/devices") for file in (ROOT / place).glob("*.md")
]
MADE_FROM_THE_CODE = {"docs/reference/commands.md", "docs/reference/schemas.md"}
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(?:#[^)\s]*)?\)")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built; a warning is an error: a broken link or anchor, a page that the navigation lacks."""
    folder = tmp_path_factory.mktemp("site")
    words = ["-m", "mkdocs", "build", "--strict", "-f", str(ROOT / "docs/site/mkdocs.yml"), "-d", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_every_command_and_option_has_its_line(site):
    import typer

    from exporter.cli import app

    page = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    commands = typer.main.get_command(app).commands
    assert len(commands) > 15
    for name, command in commands.items():
        assert f'<h2 id="{name}">' in page
        for param in command.params:
            assert all(f"<code>{word}</code>" in page for word in param.opts if word.startswith("--")), param.name


@pytest.mark.slow
def test_functions_and_schemas_are_there(site):
    page = (site / "reference" / "python.html").read_text(encoding="utf-8")
    for name in (
        "exporter.pipeline.export",
        "runtimes.verify.verify",
        "benchmarks.bench.bench",
        "runtimes.errors.BadInput",
    ):
        assert f'id="{name}"' in page, name
    page = (site / "reference" / "schemas.html").read_text(encoding="utf-8")
    for field in ("schema_version", "weights_sha256", "shortest_edge", "started_at"):
        assert f"<code>{field}</code>" in page, field


@pytest.mark.slow
def test_the_site_asks_no_other_server(site):
    loaded = re.compile(
        r'<(?:script|img|iframe)[^>]*\ssrc="https?:|<link[^>]*rel="stylesheet"[^>]*href="https?:|@import'
    )
    assert [page.name for page in site.rglob("*.html") if loaded.search(page.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("file", MARKDOWN, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_lead_to_files(file):
    text = re.sub(r"^```.*?^```$", "", file.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    targets = {(file.parent / link).resolve() for link in LINK.findall(text)}
    missing = {str(target.relative_to(ROOT)) for target in targets if not target.exists()}
    assert missing - MADE_FROM_THE_CODE == set()
