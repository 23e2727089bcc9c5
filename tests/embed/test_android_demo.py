"""The demo's plain logic with real models on this JVM, and what Android Studio will read."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest

from benchmarks.devices.adb.tensor_files import unpack
from benchmarks.job import Case, Job, JobArtifact
from benchmarks.results.record import Proof, Recorder
from benchmarks.results.result import ArtifactFacts, read_results, result_schema
from runtimes.bundle import read_manifest
from runtimes.golden import read_golden

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "android_demo"
JAVA = DEMO / "app/src/main/java/pocketship/demo"
HERE = Path(__file__).parent
ANDROID = "{http://schemas.android.com/apk/res/android}"


def faces_in(picture: np.ndarray, library_of, jvm, tmp_path) -> tuple[list[list[float]], int]:
    """The faces that the demo finds, and how many windows it looked at."""
    library = library_of("rnet", "android")
    sources = [JAVA / "Face.java", JAVA / "FaceFinder.java", HERE / "FindFaces.java"]
    classes = jvm.compile(tmp_path / "classes", *sources, *(library / "src/main/java").rglob("*.java"))
    (tmp_path / "rgb").write_bytes(picture.tobytes())
    words = (library / "src/main/assets/rnet", tmp_path / "rgb", picture.shape[1], picture.shape[0])
    *lines, last = jvm.run(classes, "pocketship.demo.FindFaces", *words).splitlines()
    return [[float(n) for n in line.split()] for line in lines], int(last.split()[1])


@pytest.mark.device
def test_the_face_in_a_photograph_is_found_and_none_where_there_is_none(library_of, jvm, tmp_path):
    from skimage.data import astronaut

    photograph = np.ascontiguousarray(astronaut())  # Eileen Collins; her face is at 175 to 267, 57 to 172
    faces, windows = faces_in(photograph, library_of, jvm, tmp_path)
    assert windows < 6000
    left, top, right, bottom, probability, agreeing = faces[0]
    overlap = (min(right, 267) - max(left, 175)) * (min(bottom, 172) - max(top, 57))
    assert overlap > 0.6 * (267 - 175) * (172 - 57) and probability > 0.95 and agreeing >= 3
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    assert faces_in(noise, library_of, jvm, tmp_path)[0] == []


@pytest.mark.device
def test_the_bench_does_a_job_of_bench_and_writes_its_results(bundle_of, library_of, jvm, tmp_path):
    bundle = bundle_of("digits")
    manifest = read_manifest(bundle)
    files = {"model-file.onnx": bundle / "model.onnx", "model-file.tflite": bundle / "model.tflite"}
    artifacts = tuple(
        JobArtifact(a.path, a.format, f"model-file.{a.format}", a.size_bytes, a.sha256, golden="golden-file")
        for a in manifest.artifacts
        if a.format != "coreml"
    )
    job = Job(
        "bench in an app", artifacts, (Case(0, 1), Case(0, None), Case(1, 1)), seconds=0.2, warmup_s=0.5, processes=2
    )
    for key, path in files.items():
        shutil.copyfile(path, tmp_path / key)
    unpack(bundle / "golden.npz", tmp_path / "golden-file.safetensors")
    (tmp_path / "job.json").write_text(json.dumps(asdict(job)))
    library = library_of("minilm", "android") / "src/main/java"
    sources = [*(JAVA / "bench").glob("*.java"), HERE / "RunBench.java", *library.rglob("*.java")]
    jvm.run(jvm.compile(tmp_path / "classes", *sources), "pocketship.demo.bench.RunBench", tmp_path)
    jsonschema.Draft202012Validator(result_schema()).validate(json.loads((tmp_path / "results.json").read_text()))
    first, _, missing = read_results(tmp_path / "results.json")
    assert first.executed_by.runtime == "ONNX Runtime" and first.failure is None
    assert first.statistics.blocks >= 50 and 0 < first.statistics.p50_ms < 1000
    assert missing.failure.cause == "refused" and "no runtime for tflite" in missing.failure.detail
    facts = [ArtifactFacts(a.name, a.format, a.size_bytes, a.sha256) for a in artifacts]
    recorder = Recorder("app", job, facts, [Proof(read_golden(bundle / "golden.npz"))] * 2)
    for line in (tmp_path / "events.jsonl").read_text().splitlines():
        recorder.add(json.loads(line))
    recorded = recorder.results()[0]
    assert recorder.ended and recorded.parity.verdict == "pass"
    assert recorded.samples.blocks == first.samples.blocks


def test_every_screen_and_text_that_the_code_names_is_there():
    resources = DEMO / "app/src/main/res"
    for file in resources.rglob("*.xml"):
        ElementTree.parse(file)
    ids = {i for f in resources.rglob("*.xml") for i in re.findall(r"@\+id/(\w+)", f.read_text())}
    strings = {e.get("name") for e in ElementTree.parse(resources / "values/strings.xml").getroot()}
    code = "\n".join(file.read_text() for file in JAVA.rglob("*.java"))
    assert set(re.findall(r"R\.id\.(\w+)", code)) <= ids
    assert {f"{name}.xml" for name in re.findall(r"R\.layout\.(\w+)", code)} <= {
        f.name for f in (resources / "layout").iterdir()
    }
    used = {s for f in resources.rglob("*.xml") for s in re.findall(r"@string/(\w+)", f.read_text())}
    assert used <= strings
    manifest = ElementTree.parse(DEMO / "app/src/main/AndroidManifest.xml").getroot()
    for activity in manifest.iter("activity"):
        assert (JAVA / f"{activity.get(ANDROID + 'name')[1:]}.java").is_file()
    assert list(manifest.iter("uses-permission")) == []


def test_gradle_is_told_of_every_module():
    settings = (DEMO / "settings.gradle.kts").read_text()
    assert all(f'project(":{name}")' in settings for name in ("minilm", "rnet"))
    assert "minSdk = 26" in (DEMO / "app/build.gradle.kts").read_text()
