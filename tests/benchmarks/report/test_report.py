"""The report: what it shows, what it refuses to show, and that it is one sound page on any screen."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from benchmarks.commands import report as report_cli
from benchmarks.report import write_html, write_markdown, write_png
from benchmarks.report.bars import kernel_bars, memory_bars
from benchmarks.report.charts import MOST_POINTS, distribution, even_ticks, log_ticks, over_time, styles_of
from benchmarks.report.markdown import escaped, markdown
from benchmarks.report.page import html
from benchmarks.report.pareto import pareto
from benchmarks.report.picture import png
from benchmarks.report.sections import commands, heading_of, labels_of, latest, sections_of, summary
from benchmarks.results.execution import execution, latency_is_real
from benchmarks.results.history import append
from benchmarks.results.result import Memory, results_to_json
from benchmarks.results.words import bytes_of, count_of, latency, milliseconds, short
from benchmarks.tables import Cell
from runtimes.errors import BadInput
from runtimes.kernels import KernelTruth
from runtimes.types import EXECUTION_KINDS


def loaded(name: str):
    spec = importlib.util.spec_from_file_location(f"report_tests_{name}", Path(__file__).parents[1] / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


synthetic, browser = loaded("synthetic"), loaded("chromium")
result = synthetic.result
DURATION = re.compile(r"\d\s*(µs|ms|s)\b(?! to measure)")
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Every tag with its attributes, what is not closed, and the text of each section below its heading."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.sections: dict[str, str] = {}
        self._heading: str | None = None
        self._in_heading = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "h2":
            self._heading, self._in_heading = "", True

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()
        if tag == "h2":
            self._heading = " ".join(self._heading.split())
            self.sections.setdefault(self._heading, "")
            self._in_heading = False

    def handle_data(self, data):
        if self._in_heading:
            self._heading += data
        elif self._heading is not None and "style" not in self.open[-1:]:
            self.sections[self._heading] += data


@pytest.fixture(scope="module")
def fleet():
    return synthetic.fleet()


@pytest.fixture(scope="module")
def page(fleet):
    return html(fleet, "Nightly bench")


# --- The rule ------------------------------------------------------------------------------------------------------


def test_a_latency_stands_only_under_what_really_executed(page):
    sections = Page(page).sections
    timed = {heading for heading, text in sections.items() if "median latency" in text}
    assert timed == {
        "physical Xeon Gold 6248",
        "physical Raspberry Pi 5 Model B Rev 1.0",
        "physical Pixel 8",
        "browser Browser on Android 15",
    }
    (emulated,) = (h for h in sections if "Emulated" in h)
    assert emulated == "emulated Emulated Raspberry Pi 4 Model B Rev 1.4: no latency, emulation is not hardware"
    assert "instructions" in sections[emulated] and "peak memory" in sections[emulated] and "pass" in sections[emulated]
    assert not DURATION.search(sections[emulated])
    (elsewhere,) = (h for h in sections if "Off-device" in h)
    assert elsewhere == "off-device Off-device, pocketship MIL evaluator: parity only"
    assert "pass" in sections[elsewhere]
    for word in ("accuracy", "peak memory", "size"):
        assert word not in sections[elsewhere]
    assert not DURATION.search(sections[elsewhere])


@pytest.mark.parametrize("family", ["raspberry-pi", "phone", "desktop", "board"])
@pytest.mark.parametrize("executed", EXECUTION_KINDS)
def test_no_family_and_kind_breaks_the_rule(executed, family):
    """With times of real blocks in the record, whatever it calls itself."""
    device = replace(synthetic.PI_5, executed=executed, family=family, model="Raspberry Pi 5, a phone")
    one = result(synthetic.PI_5, profile=synthetic.PROFILE, settings=synthetic.settings_of(sustained_s=600.0))
    timed = replace(one, device=device, executed_by=replace(one.executed_by, kind=executed))
    for text in (html([timed]), markdown([timed])):
        headings = [line for line in re.findall(r"(?:<h2.*?>|## )(.*?)(?:</h2>|\n)", text) if "Raspberry" in line]
        has_latency = "median latency" in text.partition("How to read it")[0]
        assert has_latency == (executed in ("physical", "browser"))
        assert not headings or executed in ("physical", "emulated")
    if executed in ("emulated", "off-device"):
        body = Page(html([timed])).sections
        assert not any(DURATION.search(text) for heading, text in body.items() if executed in heading)
        with pytest.raises(BadInput, match="nothing to draw"):
            png([timed])


def test_who_names_an_emulator_is_emulated_whatever_it_says():
    forged = result(replace(synthetic.PI_5, emulator="qemu-aarch64"))
    assert execution(forged) == "emulated" and not latency_is_real(forged)
    assert heading_of(forged).startswith("Emulated Raspberry Pi 5")
    by_runtime = result(synthetic.DESKTOP, "coreml", kind="off-device")
    assert execution(by_runtime) == "off-device" and heading_of(by_runtime).startswith("Off-device")
    emulated_runtime = replace(result(), executed_by=replace(result().executed_by, kind="emulated"))
    assert execution(emulated_runtime) == "emulated"


def test_each_result_is_told_how_much_faster_or_slower_than_the_first_it_is():
    first = synthetic.result(median_ms=1.0)
    others = (synthetic.result(precision="int8", median_ms=0.5), synthetic.result(precision="int4", median_ms=2.0))
    (section,) = sections_of([first, *others])
    table = summary(section)
    said = [row[table.columns.index("against the first")] for row in table.rows]
    assert said[0] == Cell("the first", "", "weak")
    assert re.match(r"(1\.9|2\.0)\dx \(", said[1].text) and (said[1].detail, said[1].tone) == ("", "good")
    assert re.match(r"0\.(49|5\d)x \(", said[2].text) and (said[2].detail, said[2].tone) == ("slower", "bad")
    assert html([first, *others]).count("slower") == 1


def test_a_wrong_result_has_no_latency(page):
    wrong = result(verdict="fail")
    assert not latency_is_real(wrong)
    cell = latency(wrong)
    assert (cell.text, cell.tone) == ("PARITY FAILED", "bad")
    text = markdown([wrong])
    assert "**PARITY FAILED**" in text and not DURATION.search(text.partition("## To measure")[0])
    assert "PARITY FAILED" in page


def test_a_latency_never_stands_without_its_interval(fleet):
    for section in sections_of(fleet):
        table = summary(section)
        if "median latency" in table.columns:
            at = table.columns.index("median latency")
            cells = [row[at] for row in table.rows if DURATION.search(row[at].text)]
            assert cells and all(re.fullmatch(r"\S+ \S+ to \S+ \S+", cell.detail) for cell in cells)


# --- Contents ------------------------------------------------------------------------------------------------------


def test_the_page_tells_everything_once(page):
    sections = Page(page).sections
    assert next(iter(sections)) == "Failures" and list(sections)[-3:] == [
        *("Kernel truth", "Settings and versions", "How to read it"),
    ]
    for said in ("crashed with SIGSEGV", "PARITY FAILED", "link-lost", "7 blocks were kept"):
        assert said in sections["Failures"]
    pi = sections["physical Raspberry Pi 5 Model B Rev 1.0"]
    for said in (
        "minute 1 2.9",
        "1.60x the time (",
        "random inputs: good for latency, useless for parity",
        "weights are random",
        "RANDOM INPUTS",
        "Fully Connected (NC, QS8)",
        "54.5%",
        "soft temperature limit",
        "energy 14.1 mJ an inference, whole board (hwmon in0)",
        "ondemand",
        "1.50 to 2.40 GHz",
    ):
        assert said in pi, said
    assert "97% read as codes, 3% floating point" in sections["Kernel truth"]
    again = sections["Settings and versions"]
    assert "pocketship bench digits-float32/model.onnx" in again and "onnxruntime-web" in again
    assert "1 of 45 results were measured with random inputs" in page


def test_the_same_results_give_the_same_bytes(fleet, page):
    assert html(fleet, "Nightly bench") == page
    assert png(fleet[:8]) == png(fleet[:8])


def test_it_is_one_sound_page_that_needs_nothing_else(page):
    parsed = Page(page)
    assert parsed.open == []
    names = {tag for tag, _ in parsed.tags}
    assert not names & {"script", "iframe", "object", "embed", "img", "form", "base", "audio", "video"}
    for tag, attributes in parsed.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href", "action", "data"):
            link = attributes.get(name)
            assert link is None or link.startswith("#") or link == "data:,", (tag, link)
    assert "@import" not in page and "url(" not in page
    policy = next(a for t, a in parsed.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'")


def test_it_can_be_read_without_eyes(page):
    parsed = Page(page)
    ids = [a["id"] for _, a in parsed.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes in parsed.tags:
        if tag == "svg":
            drawn = attributes.get("aria-hidden") == "true"
            assert drawn or set(attributes["aria-labelledby"].split()) <= set(ids)
        if tag == "th":
            assert attributes["scope"] in ("col", "row")
        if tag == "section" and "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids
        if tag == "a":
            assert attributes["href"][1:] in [*ids, "content"]
    assert ("html", {"lang": "en"}) in parsed.tags
    tables, captions = (sum(tag == name for tag, _ in parsed.tags) for name in ("table", "caption"))
    assert tables == captions > 8
    assert "on the Pareto frontier: int8 onnx; int8 tflite; int4 onnx; int4 tflite" in page


def test_hostile_names_are_text_and_short():
    text = html(synthetic.hostile(), synthetic.HOSTILE)
    parsed = Page(text)
    assert not {"script", "img"} & {tag for tag, _ in parsed.tags} and parsed.open == []
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;" in text
    assert max(map(len, text.splitlines())) < 6000
    lines = markdown(synthetic.hostile(), synthetic.HOSTILE).splitlines()
    prose = [line for line in lines if not line.startswith("    ")]
    assert "<" not in re.sub(r"\\.", "", "".join(prose)), "every one is escaped"
    tables = [line for line in lines if line.startswith("| ")]
    for line in tables:
        assert len(re.split(r"(?<!\\)\|", line)) in (6, 8, 11), line


def test_what_no_encoding_holds_is_replaced(tmp_path):
    odd = result(name="a\ud800b.onnx")
    for write, name in ((write_html, "r.html"), (write_markdown, "r.md")):
        write([odd], tmp_path / name, "\udfff")
        assert "a\ufffdb.onnx" in (tmp_path / name).read_text("utf-8")
    write_png([result(name="$x$\0\n.onnx")], tmp_path / "r.png", "$\\frac$")
    assert Image.open(tmp_path / "r.png").width > 400


def test_no_results_are_said(tmp_path):
    assert "No results" in Page(html([])).sections
    assert markdown([]).startswith("# pocketship bench report\n\n0 results, 0 artifacts, 0 devices.")
    with pytest.raises(BadInput, match=r"^--png: nothing to draw; give results with a latency, or at least two with"):
        png([])


def test_older_results_of_the_same_are_left_out_and_counted():
    results = [result(id=f"r{i}", started_at=f"2026-11-2{i}T10:00:00+00:00", median_ms=1 + i) for i in range(3)]
    kept, older = latest([results[2], *results[:2]])
    assert [r.id for r in kept] == ["r2"] and older == 2
    assert "2 older results of the same measurements are left out" in html(results)
    assert latest([results[0], replace(results[0], settings=synthetic.settings_of(4))])[1] == 0


def test_markdown_has_the_same_tables(fleet):
    text = markdown(fleet, "Nightly | bench")
    assert text.startswith("# Nightly \\| bench\n")
    assert "| **crashed** |" in text and "## Emulated Raspberry Pi 4" in text
    assert escaped("a*b_c`d\n|e<f>") == "a\\*b\\_c\\`d \\|e\\<f\\>"


def test_the_picture_is_a_png_of_all_devices_with_something_to_draw(fleet):
    picture = Image.open(io.BytesIO(png(fleet, "Nightly")))
    assert picture.format == "PNG" and picture.width > 1200 and picture.height > 3000


# --- Words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "value", "said"),
    [
        (milliseconds, 0.00123, "1.23 µs"),
        (milliseconds, 0.0433, "43.3 µs"),
        (milliseconds, 0.9994, "999 µs"),
        (milliseconds, 0.9996, "1.00 ms"),
        (milliseconds, 12.345, "12.3 ms"),
        (milliseconds, 61_000, "61.0 s"),
        (milliseconds, float("nan"), "unknown"),
        (bytes_of, 999, "999 B"),
        (bytes_of, 340_000, "340 kB"),
        (bytes_of, 1_146_000, "1.15 MB"),
        (bytes_of, None, "unknown"),
        (count_of, 9_400_000, "9.40 M"),
        (count_of, 41, "41"),
        (short, "a  b\nc", "a b c"),
    ],
)
def test_figures_in_words(function, value, said):
    assert function(value) == said


def test_a_name_can_neither_command_a_terminal_nor_turn_the_line_around():
    assert short("a\x1b[31mred\u202egpj.exe\udc80") == "a\ufffd[31mred\ufffdgpj.exe\ufffd"


def test_a_long_name_keeps_both_ends():
    name = short("a" * 500 + "z" * 500)
    assert len(name) <= 300 and name.startswith("aaa") and name.endswith("zzz") and "…" in name


def test_the_command_line_can_be_pasted():
    one = result(bundle="my net", settings=synthetic.settings_of(4, affinity=(0, 1), precision=0.01, processes=3))
    (line,) = commands([one, replace(one, settings=replace(one.settings, threads=1))])
    assert line == (
        "pocketship bench 'my net-float32/model.onnx' --on local --seconds 2 --warmup 10 --threads 1,4 "
        "--affinity 0,1 --precision 1% --processes 3"
    )
    (named,) = commands([result(bundle="--output=/home/you/x")])
    assert named.startswith("pocketship bench ./--output="), "the name of a stranger's file is no option"
    (sustained,) = commands([synthetic.throttling()])
    assert "--sustained 600s" in sustained and "--processes" not in sustained


def test_labels_are_as_short_as_they_may_be():
    both = [result(precision="int8"), result(precision="int4")]
    assert labels_of(both) == ["int8 onnx", "int4 onnx"]
    assert labels_of([both[0], result(precision="int8", threads=4)]) == ["int8 onnx, 1 thread", "int8 onnx, 4 threads"]
    other = result(bundle="rnet", precision="int8")
    assert labels_of([both[0], other]) == ["digits-int8 onnx, 1 thread", "rnet-int8 onnx, 1 thread"]


# --- Geometry ------------------------------------------------------------------------------------------------------


def of_size(ms: float, size: int, accuracy: float, name: str):
    one = result(name=name, blocks=synthetic.blocks_of(ms, spread=0.0), id=name)
    facts = replace(one.artifact, size_bytes=size)
    return replace(one, artifact=facts, accuracy=replace(one.accuracy, value=accuracy, low=accuracy, high=accuracy))


def test_the_frontier_is_what_nothing_beats_in_all_three():
    shown = [
        of_size(1.0, 100, 0.90, "best.onnx"),
        of_size(1.1, 100, 0.90, "slower.onnx"),
        of_size(0.5, 200, 0.80, "fast.onnx"),
        of_size(2.0, 300, 0.99, "right.onnx"),
        of_size(2.0, 50, 0.70, "small.onnx"),
        of_size(9.0, 900, 0.60, "worst.onnx"),
        replace(of_size(0.1, 10, 0.999, "wrong.onnx"), parity=synthetic.parity_of(result().executed_by, "fail")),
    ]
    chart = pareto(shown)
    best = {mark.style.label for mark in chart.marks if mark.is_best}
    assert best == {"best.onnx", "fast.onnx", "right.onnx", "small.onnx"}
    places = {mark.style.label: (mark.x, mark.y, mark.radius) for mark in chart.marks}
    assert "wrong.onnx" not in places
    assert places["fast.onnx"][0] < places["best.onnx"][0] < places["worst.onnx"][0]
    assert places["right.onnx"][1] < places["worst.onnx"][1], "up is better"
    assert places["small.onnx"][2] < places["best.onnx"][2]
    area = places["worst.onnx"][2] - 3.5
    assert (places["best.onnx"][2] - 3.5) ** 2 == pytest.approx(area**2 / 9, rel=0.01), "the area is the size"
    assert all(54 <= mark.x <= 386 and 12 <= mark.y <= 256 for mark in chart.marks)


def test_without_latency_size_is_the_axis_and_without_accuracy_too():
    emulated = [result(synthetic.PI_4_EMULATED, precision=p) for p in ("float32", "int8")]
    assert (pareto(emulated).x_label, pareto(emulated).y_label) == ("size (log)", "accuracy")
    assert pareto(emulated).title == "size, accuracy"
    unscored = [replace(result(precision=p), accuracy=None) for p in ("float32", "int8")]
    assert (pareto(unscored).x_label, pareto(unscored).y_label) == ("median latency (log)", "size")
    assert pareto(unscored[:1]) is None and pareto([]) is None


def test_the_distribution_passes_through_the_median():
    one = result(blocks=synthetic.blocks_of(2.0, spread=0.0))
    chart = distribution([one], "latency")
    points = [tuple(map(float, p.split(","))) for p in chart.lines[0].points.split()]
    half = next(t.at for t in chart.y_ticks if t.label == "p50")
    assert any(y == pytest.approx(half, abs=0.1) for _, y in points)
    assert points == sorted(points, key=lambda p: (p[0], -p[1])), "it only rises"
    assert distribution([result(synthetic.PI_4_EMULATED)], "") is None


def test_a_sustained_run_is_drawn_over_time_with_where_it_throttled():
    panels = over_time(synthetic.throttling())
    assert [panel.title for panel in panels] == ["median of a block", "temperature", "CPU frequency"]
    assert all(len(panel.lines[0].points.split()) <= MOST_POINTS + 1 for panel in panels)
    (span,) = panels[0].bands
    assert 54 < span[0] < 386 and span[0] + span[1] == pytest.approx(386)
    assert over_time(result()) == ()
    emulated = replace(synthetic.throttling(), device=synthetic.PI_4_EMULATED)
    assert over_time(emulated) == ()


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.8, 120, [1, 10, 100]), (0.9, 6, [1, 2, 5]), (7, 16, [8, 10, 15]), (0.91, 0.99, [0.92, 0.94, 0.96, 0.98])],
)
def test_ticks_are_round_numbers(low, high, ticks):
    assert log_ticks(low, high) == pytest.approx(ticks)


def test_even_ticks():
    assert even_ticks(0.913, 1.0) == pytest.approx([0.92, 0.94, 0.96, 0.98, 1.0])
    assert even_ticks(0, 10, 6) == [0, 2, 4, 6, 8, 10]


def test_styles_tell_artifacts_apart():
    by_precision = styles_of([result(precision=p, format=f) for p in ("int8", "int4") for f in ("onnx", "tflite")])
    assert len({(s.tone, s.shape, s.dash) for s in by_precision.values()}) == 4
    many = [result(name=f"{i}.onnx", id=str(i)) for i in range(20)]
    assert len({(s.tone, s.dash) for s in styles_of(many).values()}) == 20


def test_bars_add_up():
    (bar,) = memory_bars([result(memory=Memory(30, 40, 100))])
    assert [(name, share) for name, share, _ in bar.parts] == [("base", 30), ("steady", 10), ("peak", 60)]
    assert memory_bars([result(memory=None), result(memory=Memory(None, None, None))]) == ()
    truth = result(kernels=KernelTruth(0.5, 0.25, 0.25, 0.8, "by its profile"))
    (bar,) = kernel_bars([truth, truth])
    assert [share for _, share, _ in bar.parts] == [50, 25, 25]
    assert bar.said.endswith("; operators that read codes take 80% of the time (by its profile)")


# --- The command ---------------------------------------------------------------------------------------------------


def command(*words: object):
    return CliRunner().invoke(report_cli.app, ["report", *map(str, words)])


@pytest.fixture
def saved(tmp_path, fleet):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results_to_json(fleet[:10])))
    return path


def test_files_and_history_become_one_report(saved, tmp_path, fleet):
    url = f"sqlite:///{tmp_path}/history.sqlite"
    append(fleet[5:20], url)
    places = [tmp_path / name for name in ("r.html", "r.md", "r.png")]
    words = (saved, "--history", url, "-o", places[0], "--markdown", places[1], "--png", places[2], "--title", "T & t")
    done = command(*words)
    assert done.exit_code == 0, done.exception
    assert done.stderr.startswith("20 results in ")
    assert done.stdout == "next, see what is shown to differ between two runs: pocketship compare OLD.json NEW.json\n"
    assert "<h1>T &amp; t</h1>" in places[0].read_text() and "# T \\& t" in places[1].read_text()
    assert places[2].read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["history.sqlite", "r.html", "r.md", "r.png", "results.json"]


def test_without_a_file_it_takes_the_user_s_history_and_since_leaves_out(monkeypatch, tmp_path, saved):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    url = f"sqlite:///{tmp_path}/pocketship/history.sqlite"
    append([replace(result(), id="old", started_at="2026-01-01T00:00:00+00:00"), replace(result(), id="new")], url)
    page = tmp_path / "r.html"
    assert command("-o", page, "--since", "2026-06-01").exit_code == 0
    assert "1 result, 1 artifact, 1 device, 2026-11-25." in page.read_text()
    done = command(saved, "-o", page, "--since", "2027-01-01")
    assert str(done.exception) == "--since 2027-01-01: there are no results; bench something first"


def test_bad_input_is_one_line_and_exit_code_2(saved, tmp_path):
    (tmp_path / "text.json").write_text("{no")
    out = tmp_path / "r.html"
    os.mkfifo(tmp_path / "pipe")
    for words, message in (
        ((saved, "-o", out, "--png", tmp_path / "pipe"), "pipe: cannot be written (it is no plain file); give another"),
        ((tmp_path / "no.json", "-o", out), "no.json: cannot be read (No such file or directory); check the path"),
        ((tmp_path / "text.json", "-o", out), "text.json: not JSON ("),
        ((saved, "-o", tmp_path), "cannot be written; give a file in a folder that exists"),
        ((saved, "-o", out, "--png", tmp_path / "no" / "x.png"), "x.png: cannot be written; give a file in a folder"),
        ((saved, "-o", out, "--since", "soon"), "--since: 'soon' is no date; write it as 2026-11-25"),
        ((saved, "-o", out, "--history", "what"), "--history what: no database URL; give --history sqlite:///FILE"),
        (("-o", out, "--history", f"sqlite:///{tmp_path}/no.sqlite"), "no.sqlite: no such history; run pocketship"),
        (("-o", out, "--history", "none"), "there are no results; bench something first"),
    ):
        done = command(*words)
        assert isinstance(done.exception, BadInput) and message in str(done.exception), (words, done.exception)
        assert done.exception.exit_code == 2 and not out.exists()


# --- In a browser --------------------------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.parametrize("which", ["fleet", "hostile"])
@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1440, False)])
def test_in_chromium_nothing_overflows_complains_or_asks_the_network(which, width, dark, tmp_path):
    path = tmp_path / "r.html"
    write_html(getattr(synthetic, which)(), path)
    with browser.chromium() as tab:
        tab.open(path.as_uri(), width, dark=dark)
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        boxes = "[...document.querySelectorAll('.card, section, table, svg, pre')]"
        wider = f"{boxes}.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.outerHTML.slice(0, 80))"
        assert tab.evaluate(wider) == []
        squeezed = "[...document.querySelectorAll('dt, th')].filter(e => 4 * e.offsetWidth < e.offsetHeight)"
        assert tab.evaluate(f"{squeezed}.map(e => e.outerHTML.slice(0, 80))") == [], "a letter a line"
        assert tab.requests() == [path.as_uri()] and tab.complaints() == []
        picture = Image.open(tab.picture(tmp_path / "r.png"))
        assert picture.width == width and len(set(picture.convert("RGB").resize((60, 60)).getdata())) > 20
        background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(17, 21, 27)" if dark else "rgb(245, 246, 248)")


@pytest.mark.browser
def test_small_letters_can_be_read_on_a_phone_and_paper_is_white(tmp_path):
    path = tmp_path / "r.html"
    write_html(synthetic.fleet(), path)
    heights = "[...document.querySelectorAll('svg text')].map(e => e.getBoundingClientRect().height)"
    with browser.chromium() as tab:
        tab.open(path.as_uri(), 390)
        assert tab.evaluate(f"Math.min(...{heights})") > 9
        tab.open(path.as_uri(), 1440, dark=True, media="print")
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert tab.evaluate("getComputedStyle(document.querySelector('section')).color") == "rgb(28, 36, 48)"


def test_without_chromium_the_test_says_what_to_do(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(AssertionError, match=r"no chromium here: run tests/rigs/install\.sh"), browser.chromium():
        pass
