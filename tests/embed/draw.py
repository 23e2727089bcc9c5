"""Draws docs/web-page.png, the page of minilm in Chromium, and docs/android-*.png, the demo's screens by their layouts.

No Android is here: the layouts are read and drawn as a phone 360 dp wide would lay them out, near enough to see what a
screen holds. What is filled in was computed by the demo's own code on this JVM (similarity, face, parity); no latency
is, since no phone measured one. Needs what tests/rigs/install.sh, `make page` and `make android-models` bring.

python tests/embed/draw.py
"""

from __future__ import annotations

import base64
import html
import importlib.util
import io
import re
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "android_demo"
RESOURCES = DEMO / "app/src/main/res"
DOCS = ROOT / "docs"
ANDROID = "{http://schemas.android.com/apk/res/android}"
WIDTH = 360

Values = dict[str, dict[str, str]]


def module(path: Path):
    """A file of the tests as a module."""
    spec = importlib.util.spec_from_file_location(f"pocketship_{path.stem}", path)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


# --- layouts ---------------------------------------------------------------------------------------------------------


class Resources:
    """The demo's strings, colours and styles."""

    def __init__(self) -> None:
        named = [e for f in (RESOURCES / "values").glob("*.xml") for e in ElementTree.parse(f).getroot()]
        self.strings = {e.get("name"): (e.text or "").replace("\\'", "'") for e in named if e.tag == "string"}
        self.colours = {e.get("name"): e.text or "" for e in named if e.tag == "color"}
        self.styles = {
            e.get("name"): {i.get("name", "").removeprefix("android:"): i.text or "" for i in e}
            for e in named
            if e.tag == "style"
        }

    def attributes(self, element: ElementTree.Element) -> dict[str, str]:
        """An element's own over those of its style."""
        style = self.styles.get((element.get("style") or "").removeprefix("@style/"), {})
        own = {k.removeprefix(ANDROID): v for k, v in element.attrib.items()}
        return {**style, **own}

    def text(self, value: str) -> str:
        """A string, or what it refers to."""
        return self.strings.get(value.removeprefix("@string/"), value) if value.startswith("@string/") else value

    def colour(self, value: str) -> str:
        """A colour as CSS has it."""
        found = self.colours.get(value.removeprefix("@color/"), value)
        return f"#{found[3:]}{found[1:3]}" if len(found) == 9 else found


def pixels(value: str) -> str:
    """dp and sp as CSS pixels."""
    return re.sub(r"([\d.]+)(dp|sp)", r"\1px", value)


def css_of(a: dict[str, str], resources: Resources, row: bool) -> str:
    """The style of an element, inside a row or a column."""
    rules = []
    width, height = a.get("layout_width", ""), a.get("layout_height", "")
    if a.get("layout_weight"):
        rules.append(f"flex:{a['layout_weight']} 1 0")
    elif width == "match_parent" and not row:
        rules.append("width:100%")
    if height.endswith("dp"):
        rules.append(f"height:{pixels(height)}")
    for name, rule in (("marginTop", "margin-top"), ("marginEnd", "margin-right")):
        if f"layout_{name}" in a:
            rules.append(f"{rule}:{pixels(a[f'layout_{name}'])}")
    for name, rule in (("padding", "padding"), ("minHeight", "min-height"), ("textSize", "font-size")):
        if name in a:
            rules.append(f"{rule}:{pixels(a[name])}")
    if "textColor" in a:
        rules.append(f"color:{resources.colour(a['textColor'])}")
    if a.get("background", "").startswith("@drawable/"):
        rules += shape_of(a["background"].removeprefix("@drawable/"), resources)
    return ";".join(rules)


def shape_of(name: str, resources: Resources) -> list[str]:
    """A drawable's fill, border and corners."""
    rules = []
    for part in ElementTree.parse(RESOURCES / f"drawable/{name}.xml").getroot():
        a = {k.removeprefix(ANDROID): v for k, v in part.attrib.items()}
        if part.tag == "solid":
            rules.append(f"background:{resources.colour(a['color'])}")
        elif part.tag == "stroke":
            rules.append(f"border:{pixels(a['width'])} solid {resources.colour(a['color'])}")
        elif part.tag == "corners":
            rules.append(f"border-radius:{pixels(a['radius'])}")
    return rules


def drawn(element: ElementTree.Element, resources: Resources, values: Values, row: bool = False) -> str:
    """An element as HTML; `values` says by id what the code puts into it."""
    if element.tag == "include":
        layout = (element.get("layout") or "").removeprefix("@layout/")
        return drawn(ElementTree.parse(RESOURCES / f"layout/{layout}.xml").getroot(), resources, values, row)
    a = resources.attributes(element)
    given = values.get(a.get("id", "").removeprefix("@+id/"), {})
    text = html.escape(given.get("text", resources.text(a.get("text", ""))))
    colour = f";color:{given['colour']}" if "colour" in given else ""
    style = css_of(a, resources, row) + colour
    if element.tag == "ImageView":
        return f'<div class="image" style="{style}">{given.get("html", "")}</div>'
    if element.tag == "ProgressBar":
        return f'<div class="bar" style="{style}"><div style="width:{float(given.get("share", 0)):.1%}"></div></div>'
    if element.tag == "RadioButton":
        mark = "on" if a.get("checked") == "true" else ""
        dim = ";opacity:.45" if given.get("off") else ""
        return f'<label class="radio" style="{style}{dim}"><i class="{mark}"></i>{text}</label>'
    if element.tag in ("TextView", "EditText", "Button"):
        dim = ";opacity:.55" if given.get("off") else ""
        return f'<div class="{element.tag}" style="{style}{dim}">{text}</div>'
    is_row = a.get("orientation") == "horizontal" and element.tag in ("LinearLayout", "RadioGroup")
    inner = "".join(drawn(child, resources, values, is_row) for child in element)
    return f'<div class="{"row" if is_row else "column"}" style="{style}">{inner}</div>'


PAGE = """<!doctype html><meta charset="utf-8"><style>
* {{ box-sizing: border-box; }}
body {{ margin: 0; width: {width}px; background: {paper}; color: {ink}; }}
body {{ font: 16px/1.35 "Roboto", "DejaVu Sans", sans-serif; }}
.row {{ display: flex; flex-direction: row; align-items: center; }}
.column {{ display: block; }}
.TextView {{ overflow-wrap: anywhere; }}
.Button {{ display: flex; align-items: center; justify-content: center; text-align: center; padding: 0 8px; }}
.EditText {{ border-bottom: 2px solid {accent}; padding: 6px 2px; }}
.image {{ display: flex; justify-content: center; align-items: center; }}
.image {{ background: #eef0ec; border-radius: 8px; overflow: hidden; }}
.image svg {{ height: 100%; }}
.bar {{ height: 6px; background: #dfe5e2; border-radius: 3px; margin: 8px 0; }}
.bar div {{ height: 6px; background: {accent}; border-radius: 3px; }}
.radio {{ display: flex; align-items: center; font-size: 14px; }}
.radio i {{ width: 18px; height: 18px; border: 2px solid {accent}; border-radius: 9px; margin-right: 8px; }}
.radio i.on {{ box-shadow: inset 0 0 0 3px {card}; background: {accent}; }}
</style>{body}"""


def screen(name: str, values: Values, page, place: Path) -> None:
    """Draw a layout into a PNG."""
    resources = Resources()
    body = drawn(ElementTree.parse(RESOURCES / f"layout/{name}.xml").getroot(), resources, values)
    colours = {key: resources.colour(f"@color/{key}") for key in ("paper", "ink", "accent", "card")}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "screen.html"
        file.write_text(PAGE.format(width=WIDTH, body=body, **colours), encoding="utf-8")
        page.open(file.as_uri(), WIDTH, 640)
        page.ask("Emulation.setDeviceMetricsOverride", width=WIDTH, height=640, deviceScaleFactor=1, mobile=False)
        page.picture(place)


# --- what the screens show -------------------------------------------------------------------------------------------

GOOD = "#0B6E4F"


def figures(parity: str, size: str) -> Values:
    """The lower card, in an APK without LiteRT."""
    return {
        "litert": {"text": "LiteRT (not in this APK)", "off": "yes"},
        "size": {"text": size},
        "parity": {"text": parity, "colour": GOOD},
    }


def parity_of(said: str, exported: float) -> str:
    """As Figures.parityInWords has it."""
    error, passed, samples = said.split()
    verdict = "pass" if passed == "true" else "FAIL"
    return f"{verdict}: max error {float(error):.2e} over {samples} samples (Python at export: {exported:.2e})"


def framed(picture: np.ndarray, faces: list[list[float]]) -> str:
    """The picture with the frames that the demo draws, as SVG."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=80)
    data = base64.b64encode(stream.getvalue()).decode()
    h, w = picture.shape[:2]
    frame = f'fill="none" stroke="#00C853" stroke-width="{w / 120}"'
    boxes = (f'<rect x="{a}" y="{b}" width="{c - a}" height="{d - b}" {frame}/>' for a, b, c, d, *_ in faces)
    image = f'<image width="{w}" height="{h}" href="data:image/jpeg;base64,{data}"/>'
    return f'<svg viewBox="0 0 {w} {h}">{image}{"".join(boxes)}</svg>'


def main() -> None:
    """All four pictures."""
    sys.path.insert(0, str(Path(__file__).parent))
    from skimage.data import astronaut

    from exporter.embed.describe import describe

    tools = module(Path(__file__).with_name("conftest.py"))
    demo = module(Path(__file__).with_name("test_android_demo.py"))
    library_tests = module(Path(__file__).with_name("test_embed_android.py"))
    web = module(Path(__file__).with_name("test_embed_web.py"))
    first, second = (Resources().strings[f"{which}_example"] for which in ("first", "second"))
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        tools.fill_jvm(scratch)
        jvm = tools.jvm_in(scratch)
        bundles = ROOT / "build/android/bundles"
        told = {}
        for name in ("minilm", "rnet"):
            artifact = describe(bundles / name, ("onnx",)).artifacts[0]
            size = f"{artifact.file}, {artifact.size_bytes / 1e6:.2f} MB, {artifact.precision}, in ONNX Runtime"
            told[name] = (artifact.max_abs_error, size)
        body = f"""
            float[] a = model.embed("{first}"), b = model.embed("{second}");
            double dot = 0;
            for (int i = 0; i < a.length; i++) dot += (double) a[i] * b[i];
            System.out.println(dot);
        """
        generated = DEMO / "generated"
        said = library_tests.run_main("minilm", "Minilm", body, generated / "minilm", jvm, scratch / "a")
        face = library_tests.run_main("rnet", "Rnet", "", generated / "rnet", jvm, scratch / "b")
        photograph = np.ascontiguousarray(astronaut())
        faces, _ = demo.faces_in(photograph, lambda name, platform: generated / name, jvm, scratch / "c")
        similarity = float(said[1])
        tab = {"off": "yes"}
        with web.chromium() as page:
            sentences = {
                "similarity": {"text": f"{similarity:.3f}"},
                "bar": {"share": str(similarity)},
                "tab_sentences": tab,
                **figures(parity_of(said[0], told["minilm"][0]), told["minilm"][1]),
            }
            screen("sentences", sentences, page, DOCS / "android-sentences.png")
            found = "One face found." if len(faces) == 1 else f"{len(faces)} faces found."
            values = {
                "picture": {"html": framed(photograph, faces)},
                "found": {"text": found},
                "tab_face": tab,
                **figures(parity_of(face[0], told["rnet"][0]), told["rnet"][1]),
            }
            screen("face", values, page, DOCS / "android-face.png")
            where = "/storage/emulated/0/Android/data/pocketship.demo/files/bench"
            screen("bench", {"folder": {"text": where}, "tab_bench": tab}, page, DOCS / "android-bench.png")
        from exporter.embed.write import embed

        embed(bundles / "minilm", "web", scratch / "web")
        with web.served(scratch / "web") as (address, _), web.chromium() as page:
            page.open(address, 720)
            web.wait_for(page, web.READY)
            web.wait_for(page, "document.getElementById('offline').textContent.includes('without a network')")
            time.sleep(0.2)
            page.picture(DOCS / "web-page.png")


if __name__ == "__main__":
    main()
