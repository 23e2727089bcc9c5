"""The web library: its processing on node, its page in Chromium, with and without a network."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFORMANCE = ROOT / "tests" / "conformance"
PROCESSORS = ("wordpiece", "image", "audio", "series", "postprocess")
WAIT_S = 120.0


def chromium():
    """tests/benchmarks/chromium.py's browser."""
    spec = importlib.util.spec_from_file_location("pocketship_chromium", ROOT / "tests/benchmarks/chromium.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.chromium()


@pytest.mark.browser
def test_processing_conforms(tmp_path, vocabulary, assert_conforms):
    from exporter.embed.write import environment_of

    (tmp_path / "package.json").write_text('{"type": "module"}')
    for name in PROCESSORS:
        (tmp_path / f"{name}.js").write_text(environment_of("web").get_template(f"{name}.js.j2").render())
    runner = CONFORMANCE / "javascript" / "conformance.mjs"
    words = ["node", runner, tmp_path, vocabulary, ROOT / "runtimes/processing/tokenizers/unicode.txt", CONFORMANCE]
    assert_conforms(subprocess.run(words, capture_output=True, text=True, timeout=300))


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, http.server.ThreadingHTTPServer]]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}  # noqa: RUF012

        def log_message(self, *words: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", server
    finally:
        server.shutdown()
        server.server_close()


def wait_for(page, script: str) -> str:
    deadline = time.monotonic() + WAIT_S
    while not page.evaluate(script):
        assert time.monotonic() < deadline, page.evaluate("document.body.innerText") + str(page.complaints())
        time.sleep(0.2)
    return page.evaluate(script)


READY = "document.documentElement.dataset.ready"
PARITY = "document.getElementById('parity').textContent"


@pytest.mark.browser
@pytest.mark.matrix(one_in=2)
@pytest.mark.parametrize("name", ["minilm", "digits", "rnet", "basicmotions", "hearer", "two_inputs"])
def test_the_page_proves_itself_and_works_without_a_network(name, library_of, error_in_python):
    with served(library_of(name, "web")) as (address, server), chromium() as page:
        page.open(address, 720)
        wait_for(page, READY)
        said = page.evaluate(PARITY)
        assert said.startswith("pass")
        error = float(page.evaluate("document.getElementById('parity').dataset.error"))
        # WebAssembly's kernels are not this processor's: the same size of error, of some steps of float32 at least
        assert error <= 20 * max(error_in_python(name), float(np.finfo(np.float32).eps))
        page.evaluate("document.getElementById('measure').click()")
        latency = "document.getElementById('latency').textContent"
        wait_for(page, f"{latency}.includes('p50')")
        assert re.search(r"p50 [\d.]+ ms, p90 [\d.]+ ms", page.evaluate(latency))
        wait_for(page, "document.getElementById('offline').textContent.includes('without a network')")
        assert {request.split("/")[2] for request in page.requests() if request.startswith("http")} == {
            address.split("/")[2]
        }
        server.shutdown()
        server.server_close()
        page.events.clear()
        page.ask("Page.reload")
        page.wait_for("Page.loadEventFired")
        wait_for(page, READY)
        assert page.evaluate(PARITY) == said
        assert [c for c in page.complaints() if "exceptionThrown" in c] == []


@pytest.mark.browser
def test_two_sentences_are_as_alike_as_in_python(library_of):
    pair = ("The ferry leaves at seven.", "Où est la gare? [SEP] 東京")
    code = f"""
import json, numpy as np, minilm
a, b = (minilm.Minilm(threads=1).embed(t).astype(float) for t in {pair!r})
print(float(a @ b / np.sqrt((a @ a) * (b @ b))))
"""
    there = library_of("minilm", "python")
    want = float(subprocess.run([sys.executable, "-c", code], cwd=there, capture_output=True, text=True).stdout)
    with served(library_of("minilm", "web")) as (address, _), chromium() as page:
        page.open(address, 720)
        wait_for(page, READY)
        page.evaluate("document.getElementById('answer').replaceChildren()")
        for field, text in zip(("first", "second"), pair, strict=True):
            page.evaluate(f"document.getElementById('{field}').value = {json.dumps(text)}")
        page.evaluate("document.getElementById('form').requestSubmit()")
        shown = wait_for(page, "document.querySelector('#answer b') && document.querySelector('#answer b').textContent")
    assert float(shown) == pytest.approx(want, abs=6e-4)


@pytest.mark.browser
def test_labels_are_what_they_were_and_not_code(library_of, nasty):
    with served(library_of("cnn", "web")) as (address, _), chromium() as page:
        page.open(address, 720)
        wait_for(page, READY)
        page.evaluate("import('./cnn.js').then((m) => (window.found = JSON.stringify(m.CLASSES_LABELS)))")
        assert tuple(json.loads(wait_for(page, "window.found"))) == nasty
        shown = page.evaluate("[...document.querySelectorAll('#answer .bar span')].map((s) => s.textContent)")
        assert sorted(shown) == sorted(nasty)


@pytest.mark.browser
@pytest.mark.parametrize("name", ["digits", "detector"])
def test_a_changed_golden_value_shows(name, library_copy):
    library = library_copy(name, "web")
    content = bytearray((library / "data/golden.bin").read_bytes())
    content[-2] ^= 0x40
    (library / "data/golden.bin").write_bytes(content)
    with served(library) as (address, _), chromium() as page:
        page.open(address, 720)
        wait_for(page, READY)
        assert page.evaluate(PARITY).startswith("FAIL")
        assert page.evaluate("document.getElementById('parity').className") == "bad"


@pytest.mark.browser
def test_the_code_is_what_its_types_say(library_of):
    page = ROOT / "benchmarks/devices/browser/page"
    tsc = page / "node_modules/.bin/tsc"
    for name in ("minilm", "cnn", "hearer", "basicmotions", "two_inputs"):
        folder = library_of(name, "web")
        options = "--noEmit --allowJs --checkJs --strict --target es2022 --module esnext --moduleResolution bundler"
        files = [str(f) for f in folder.glob("*.js") if f.name != "service_worker.js"]
        done = subprocess.run(
            [tsc, *options.split(), "--lib", "es2022,dom", "--skipLibCheck", *files],
            capture_output=True,
            text=True,
            timeout=300,
        )
        faults = [line for line in done.stdout.splitlines() if re.search(r"\w\.js\(\d+,\d+\): error", line)]
        assert faults == []  # the minified runtime, which is .mjs, has its own
