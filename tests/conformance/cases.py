"""Writes cases.tsv and cases.bin: images, sounds, series and outputs with what independent references make of them.

python tests/conformance/cases.py [FOLDER]      docs/preprocessor.md has the format. Pillow resizes, torch computes in
float32, transformers makes spectrograms; none of our own processing is asked.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import audio_utils

FOLDER = Path(__file__).parent
PILLOW = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
TYPES = {"uint8": "u8", "float32": "f32", "float64": "f64", "int64": "i64"}
Case = dict[str, Any]


class Writer:
    """The lines of cases.tsv, and the arrays of cases.bin, each at a multiple of 8 bytes."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.content = bytearray()

    def add(self, case: Case) -> None:
        """Take a case in: arrays go to the one file, all else to the other."""
        self.lines.append("\t".join(f"{key}={self._written(value)}" for key, value in case.items()))

    def _written(self, value: Any) -> str:
        if isinstance(value, np.ndarray):
            self.content += bytes(-len(self.content) % 8)
            place = f"@{TYPES[value.dtype.name]}:{len(self.content)}:{'x'.join(map(str, value.shape))}"
            self.content += np.ascontiguousarray(value).tobytes()
            return place
        if isinstance(value, (list, tuple)):
            return ",".join(map(self._written, value))
        return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


# --- images ----------------------------------------------------------------------------------------------------------

IMAGE = {
    "width": 8, "height": 8, "channels": "rgb", "layout": "nchw", "resize": "stretch", "shortest_edge": 0,
    "interpolation": "bilinear", "crop_rounding": "even", "fill": (0, 0, 0), "divisor": 255.0, "mean": (0.0,), "std": (1.0,),
}  # fmt: skip
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
ASKED = [
    *({"interpolation": i, "source": s, "width": w, "height": h} for i in PILLOW for s, w, h in (
        ((20, 30), 8, 8), ((7, 5), 16, 12), ((48, 33), 9, 20), ((1, 1), 4, 4), ((3, 40), 12, 5), ((24, 24), 24, 24), ((9, 24), 24, 24))),
    *({"resize": "cover", "shortest_edge": e, "crop_rounding": r, "interpolation": i, "source": s, "width": 8, "height": 8, **IMAGENET}
      for e, r, i, s in ((9, "even", "bicubic", (31, 20)), (9, "down", "bicubic", (31, 20)), (11, "even", "bilinear", (20, 33)),
                         (11, "down", "bilinear", (20, 33)), (8, "even", "lanczos", (17, 17)), (13, "even", "nearest", (40, 41)),
                         (10, "down", "lanczos", (6, 9)), (9, "even", "bilinear", (8, 8)))),
    *({"resize": "cover", "shortest_edge": 16, "source": s, "width": 10, "height": 15, "interpolation": "bicubic"} for s in ((33, 21), (21, 33))),
    *({"resize": "fit", "fill": f, "interpolation": i, "source": s, "width": w, "height": h}
      for f, i, s, w, h in (((0, 0, 0), "bilinear", (30, 20), 8, 8), ((114, 114, 114), "bicubic", (20, 33), 9, 8), ((255, 0, 7), "lanczos", (16, 16), 8, 11),
                            ((1, 2, 3), "nearest", (5, 11), 16, 16), ((10, 20, 30), "bilinear", (24, 40), 15, 9), ((3, 2, 1), "bilinear", (10, 10), 6, 6))),
    *({"channels": c, "layout": l, "source": (13, 17), "width": 6, "height": 7, "divisor": 127.5, "mean": (1.0,)}
      for c in ("rgb", "bgr", "gray", "gray3") for l in ("nchw", "nhwc")),
    {"channels": "gray", "resize": "fit", "fill": (200, 100, 50), "source": (9, 20), "width": 10, "height": 10},
    {"channels": "bgr", "source": (12, 12), "width": 5, "height": 5, "divisor": 1.0, "mean": (103.94, 116.78, 123.68), "std": (0.017, 0.018, 0.019)},
    {"source": (24, 24), "width": 24, "height": 24, "divisor": 1.0, "mean": (127.5,), "std": (128.0,)},
    {"source": (10, 10), "width": 10, "height": 10, "divisor": 3.0, "mean": (0.1,), "std": (0.3, 0.7, 1.1)},
    # 23 / 20 of a landscape: what is cut off, and which side of the middle, shows
    *({"resize": "cover", "shortest_edge": 9, "crop_rounding": r, "interpolation": i, "channels": c, "layout": l, "source": (20, 31), "width": 8, "height": 8}
      for r, i, c, l in (("even", "nearest", "gray", "nchw"), ("down", "nearest", "bgr", "nhwc"), ("even", "lanczos", "gray3", "nhwc"),
                         ("down", "bilinear", "gray", "nhwc"), ("even", "bicubic", "bgr", "nchw"), ("down", "bicubic", "gray3", "nchw"))),
    *({"resize": "fit", "interpolation": i, "channels": c, "layout": l, "fill": (9, 80, 230), "source": (31, 20), "width": 13, "height": 12}
      for i, c, l in (("lanczos", "gray3", "nchw"), ("bicubic", "bgr", "nhwc"), ("nearest", "bgr", "nchw"), ("bilinear", "gray", "nhwc"))),
    # halves: of the inner size (2.5 is 2), of the border (1.5 is 2, 2.5 is 2), and h / w * width where h * width / w is a half
    *({"resize": "fit", "interpolation": "bilinear", "fill": (77, 7, 177), "source": s, "width": w, "height": h}
      for s, w, h in (((10, 5), 8, 5), ((5, 10), 5, 8), ((10, 5), 7, 5), ((10, 5), 5, 5), ((5, 10), 5, 7), ((5, 10), 5, 5), ((29, 14), 7, 16))),
    # a pixel high or wide; in a "fit" at least one is left of it
    *({"resize": r, "interpolation": i, "source": s, "width": 12, "height": 5, **({"shortest_edge": 12} if r == "cover" else {})}
      for r, i, s in (("fit", "bilinear", (1, 40)), ("fit", "nearest", (48, 1)), ("cover", "bicubic", (1, 3)), ("cover", "lanczos", (3, 1)), ("stretch", "lanczos", (1, 64)))),
    # sizes where the running sum of "nearest" is not the product
    *({"interpolation": "nearest", "source": s, "width": 15, "height": 22} for s in ((4, 2), (4, 4))),
    # enough pixels for the last unit of a weight to show
    {"channels": "gray", "source": (48, 64), "width": 64, "height": 48},
    *({"interpolation": i, "channels": "gray", "source": (17, 23), "width": 64, "height": 48} for i in ("bicubic", "lanczos")),
]  # fmt: skip


def images() -> Iterator[Case]:
    """Each of ASKED over pixels of a seeded generator; sources are (height, width)."""
    generator = np.random.default_rng(1)
    for number, asked in enumerate(ASKED):
        options = {**IMAGE, **{key: value for key, value in asked.items() if key != "source"}}
        pixels = generator.integers(0, 256, (*asked["source"], 3), dtype=np.uint8)
        if number % 3 == 0:  # hard edges: where overshoot is cut off
            pixels = np.where(pixels > 127, 255, 0).astype(np.uint8)
        name = f"{options['resize']} {options['interpolation']} {options['channels']} {number}"
        yield {"kind": "image", "case": name, **options, "tolerance": "ulp", "pixels": pixels,
               "expected": image_expected(Image.fromarray(pixels), options)}  # fmt: skip


def image_expected(image: Image.Image, o: dict[str, Any]) -> np.ndarray:
    """By Pillow, one axis a call, columns of the result first; and torch in float32."""
    fill = Image.new("RGB", (1, 1), o["fill"])
    if o["channels"].startswith("gray"):
        image, fill = image.convert("L"), fill.convert("L")
    method, size = PILLOW[o["interpolation"]], (o["width"], o["height"])

    def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
        return image.resize((size[0], image.height), method).resize(size, method)

    if o["resize"] == "stretch":
        image = resized(image, size)
    elif o["resize"] == "cover":
        w, h = image.size
        edge = o["shortest_edge"]
        image = resized(image, (edge, int(edge * h / w)) if w <= h else (int(edge * w / h), edge))
        spare = image.width - size[0], image.height - size[1]
        left, top = (round(s / 2.0) if o["crop_rounding"] == "even" else s // 2 for s in spare)
        image = image.crop((left, top, left + size[0], top + size[1]))
    else:
        # Pillow shrinks a thin image to nothing; a row or a column of it is kept here
        w, h = ImageOps.contain(Image.new("1", image.size), size).size
        inner = max(1, w), max(1, h)
        image = ImageOps.pad(resized(image, inner), size, method, color=fill.getpixel((0, 0)))
    values = torch.from_numpy(np.array(image)).reshape(size[1], size[0], -1)
    if o["channels"] == "bgr":
        values = values.flip(2)
    if o["channels"] == "gray3":
        values = values.expand(-1, -1, 3)
    mean, std = torch.tensor(o["mean"], dtype=torch.float32), torch.tensor(o["std"], dtype=torch.float32)
    values = values.to(torch.float32).div(torch.tensor(o["divisor"], dtype=torch.float32)).sub(mean).div(std)
    return np.ascontiguousarray((values if o["layout"] == "nhwc" else values.permute(2, 0, 1)).unsqueeze(0).numpy())


# --- sounds ----------------------------------------------------------------------------------------------------------

AUDIO = {
    "sample_rate": 16000, "samples": 2000, "frame": 200, "hop": 80, "fft": 256, "window": "hann", "centered": True,
    "padding": "reflect", "power": 2.0, "mels": 16, "low_hz": 0.0, "high_hz": 8000.0, "mel_scale": "htk", "mel_norm": "none",
    "log": "log", "floor": 1e-10, "drop_last": False, "range": None, "mean": 0.0, "std": 1.0, "layout": "mel_time",
}  # fmt: skip
SOUNDS = (
    {}, {"layout": "time_mel"}, {"centered": False}, {"padding": "zero"}, {"window": "hamming", "power": 1.0}, {"window": "ones", "hop": 77},
    {"mel_scale": "slaney", "mel_norm": "slaney", "log": "log10", "range": 8.0, "mean": -4.0, "std": 4.0, "drop_last": True, "fft": 200},
    {"mel_scale": "slaney", "log": "db", "low_hz": 50.0, "high_hz": 7000.0}, {"log": "db", "power": 1.0, "mel_norm": "slaney"},
    {"samples": 3000}, {"samples": 1000, "mean": 0.5, "std": 2.5}, {"frame": 199, "fft": 255, "mels": 11}, {"floor": 0.01},
    {"log": "log10", "range": 2.0}, {"log": "db", "range": 15.0, "layout": "time_mel"}, {"range": 3.0, "drop_last": True, "mean": 1.0, "std": 0.5},
    {"floor": 2.0}, {"floor": 0.5, "log": "db", "power": 1.0}, {"length": 3000}, {"length": 700, "padding": "zero", "range": 12.0},
    {"centered": False, "drop_last": True, "hop": 250, "window": "hamming"}, {"frame": 151, "fft": 300, "padding": "zero", "layout": "time_mel"},
    {"mel_scale": "slaney", "mel_norm": "slaney", "low_hz": 300.0, "high_hz": 3000.0, "mels": 7, "sample_rate": 8000, "power": 1.0, "log": "log10"},
    {"length": 1, "centered": False}, {"mels": 1, "window": "ones", "fft": 200},
)  # fmt: skip


def sounds() -> Iterator[Case]:
    """Each of SOUNDS over tones and noise of 2,000 samples, or of `length`."""
    generator = np.random.default_rng(2)
    for number, asked in enumerate(SOUNDS):
        length = asked.get("length", 2000)
        o: dict[str, Any] = {**AUDIO, **{key: value for key, value in asked.items() if key != "length"}}
        time = np.arange(length) / 16000
        sound = 0.4 * np.sin(2 * np.pi * 440 * time * (1 + number)) + 0.05 * generator.standard_normal(length)
        sound = sound.astype(np.float32)
        window = np.ones(o["frame"])
        if o["window"] != "ones":
            window = audio_utils.window_function(o["frame"], o["window"])
        norm = None if o["mel_norm"] == "none" else o["mel_norm"]
        bank = (o["fft"] // 2 + 1, o["mels"], o["low_hz"], o["high_hz"], o["sample_rate"], norm, o["mel_scale"])
        filters = audio_utils.mel_filter_bank(*bank)
        whole = np.zeros(o["samples"], np.float32)
        whole[: min(length, o["samples"])] = sound[: o["samples"]]
        mel = audio_utils.spectrogram(
            whole, window, o["frame"], o["hop"], o["fft"], power=o["power"], center=o["centered"],
            pad_mode="reflect" if o["padding"] == "reflect" else "constant", mel_filters=filters, mel_floor=o["floor"],
            log_mel={"log": "log", "log10": "log10", "db": "dB"}[o["log"]], min_value=o["floor"], dtype=np.float64,
        )  # fmt: skip
        mel = mel[:, :-1] if o["drop_last"] else mel
        mel = mel if o["range"] is None else np.maximum(mel, mel.max() - o["range"])
        mel = ((mel - o["mean"]) / o["std"]).astype(np.float32)
        yield {"kind": "audio", "case": f"audio {number}", **o, "tolerance": 1e-5, "sound": sound, "tables_window": window,
               "tables_filters": filters.T, "expected": (mel if o["layout"] == "mel_time" else mel.T)[np.newaxis]}  # fmt: skip


# --- series ----------------------------------------------------------------------------------------------------------

SERIES = {
    "channels": 2, "steps": 10, "keep": "last", "pad": 0.0, "scaling": "none", "mean": (), "std": (), "low": (), "high": (),
    "epsilon": 1e-5,
}  # fmt: skip
KNOWN = {
    "none": {}, "standard": {"mean": (0.1, -3.0), "std": (0.7, 11.0)}, "minmax": {"low": (-2.0, -30.0), "high": (3.1, 41.0)},
    "instance": {},
}  # fmt: skip


def series() -> Iterator[Case]:
    """Every scaling over shorter, equal and longer series, plain Python doing the sums one after the other."""
    generator = np.random.default_rng(3)
    for scaling, known in KNOWN.items():
        for length, keep, pad in ((10, "last", 0.0), (17, "last", 0.0), (17, "first", 0.0), (4, "last", -1.5), (4, "first", 0.25), (1, "last", 9.0)):  # fmt: skip
            o: dict[str, Any] = {**SERIES, "scaling": scaling, **known, "keep": keep, "pad": pad}
            values = (generator.standard_normal((2, length)) * [[1.0], [13.0]]).astype(np.float32)
            rows = []
            for c, row in enumerate(values.tolist()):
                kept = row[-10:] if keep == "last" else row[:10]
                if scaling == "standard":
                    kept = [(x - o["mean"][c]) / o["std"][c] for x in kept]
                if scaling == "minmax":
                    kept = [(x - o["low"][c]) / (o["high"][c] - o["low"][c]) for x in kept]
                if scaling == "instance":
                    kept = instance(kept)
                filler = [pad] * (10 - len(kept))
                rows.append(filler + kept if keep == "last" else kept + filler)
            yield {"kind": "series", "case": f"{scaling} {keep} {length}", **o, "tolerance": 0, "series": values,
                   "expected": np.array(rows, np.float32)[np.newaxis]}  # fmt: skip

    for epsilon, level, length in ((1e-3, 0.1, 10), (1e-5, 0.1, 10), (1e-5, 1e6, 10), (0.5, -3.3, 7), (1e-5, 12345.678, 7), (1e-12, 0.7, 100)):  # fmt: skip
        values = np.full((2, length), level, np.float32)  # of equal steps only the roundings of the sums are left
        values[1, ::3] += np.float32(level / 16)
        rows = [instance(row, epsilon) for row in values.tolist()]
        o = {**SERIES, "steps": length, "scaling": "instance", "epsilon": epsilon}
        yield {"kind": "series", "case": f"level {level} {length} {epsilon}", **o, "tolerance": 0, "series": values,
               "expected": np.array(rows, np.float32)[np.newaxis]}  # fmt: skip
    wide = generator.standard_normal((2, 40)) * 10.0 ** generator.integers(-6, 9, (2, 40))
    wide[:, 20:] = -wide[:, 19::-1] + wide[:, 20:] * 1e-9  # what is large cancels: the order of the sums shows
    values = wide.astype(np.float32)
    yield {"kind": "series", "case": "wide", **SERIES, "steps": 40, "scaling": "instance", "tolerance": 0, "series": values,
           "expected": np.array([instance(row) for row in values.tolist()], np.float32)[np.newaxis]}  # fmt: skip


def instance(values: list[float], epsilon: float = 1e-5) -> list[float]:
    """(x - mean) / sqrt(variance + epsilon)."""
    total = 0.0
    for x in values:
        total += x
    mean = total / len(values)
    squares = 0.0
    for x in values:
        squares += (x - mean) * (x - mean)
    return [(x - mean) / math.sqrt(squares / len(values) + epsilon) for x in values]


# --- outputs ---------------------------------------------------------------------------------------------------------


def outputs() -> Iterator[Case]:
    """Scores with ties, thresholds and overflow; vectors of every pooling."""
    generator = np.random.default_rng(4)
    rows = [*(generator.standard_normal((4, 5)) * 4), [1.0, 3.0, 3.0, -2.0, 3.0], [0.0] * 5, [1000.0, -1000.0, 999.0, 0.0, 1.0], [-1000.0] * 5]  # fmt: skip
    for number, row in enumerate(rows):
        for activation in ("none", "softmax", "sigmoid"):
            yield scores(f"{activation} {number}", activation, row, (0.0, 0.25, 0.9)[number % 3])
    # the threshold is reached where it equals the score, both in single
    for row, threshold in (
        ([0.1, 0.7, 0.3, 0.7, 0.5], 0.7),
        ([-1.5, -0.25, -2.0, -0.25, -9.0], -0.25),
        ([0.5, 0.4, 0.3, 0.2, 0.1], 0.50001),
    ):
        yield scores(f"none at {threshold}", "none", row, threshold)
    yield scores("sigmoid at 0.5", "sigmoid", [-1.0, 0.0, -2.0, 0.0, 3.0], 0.5)
    yield scores("softmax of one", "softmax", [-4.0], 1.0)
    for number, pooling in enumerate(("none", "mean", "max", "cls") * 3):
        hidden = torch.from_numpy(generator.standard_normal((1, 6, 7)).astype(np.float32)).double()
        mask = torch.ones(1, 6, dtype=torch.int64) if number < 4 else torch.tensor([[1, 1, 1, 1, 0, 0]])
        normalize, masked = number % 2 == 0, pooling in ("mean", "max") and number >= 4
        vector = {
            "none": hidden.flatten(),
            "mean": (hidden * mask[..., None]).sum(1)[0] / mask.sum(),
            "max": hidden.masked_fill(mask[..., None] == 0, -math.inf).amax(1)[0],
            "cls": hidden[0, 0],
        }[pooling]
        vector = torch.nn.functional.normalize(vector, dim=0) if normalize else vector
        case = {"kind": "embedding", "case": f"{pooling} {number}", "pooling": pooling, "normalize": normalize, "tolerance": 1e-6,
                "values": hidden.float().numpy(), "expected": vector.float().numpy()}  # fmt: skip
        yield {**case, "mask": mask.numpy()} if masked else case
    for pooling in ("mean", "max", "cls"):
        for normalize in (False, True):
            yield pooled(
                f"{pooling} with gaps",
                pooling,
                normalize,
                generator.standard_normal((1, 6, 5)) - 4.0,
                [0, 1, 0, 1, 1, 0],
            )
    yield pooled("mean of none", "mean", True, np.ones((1, 3, 4)), [0, 0, 0])
    yield pooled("cls of zeros", "cls", True, np.zeros((1, 2, 4)), [1, 1])
    yield pooled("max of one", "max", False, np.full((1, 1, 1), -2.5), [1])


def scores(name: str, activation: str, row: Sequence[float], threshold: float) -> Case:
    """One case of classes, by torch in float64."""
    labels = ["cat", "dog", "été", "x y", "z"][: len(row)]
    values = np.array([row], np.float32)
    exact = torch.from_numpy(values).double()[0]
    found = {"none": exact, "softmax": exact.softmax(0), "sigmoid": exact.sigmoid()}[activation].float().numpy()
    order = [i for i in np.argsort(-found, kind="stable") if found[i] >= np.float32(threshold)]
    return {"kind": "classes", "case": name, "activation": activation, "labels": labels, "threshold": threshold,
            "tolerance": 1e-6, "values": values, "expected": found, "label": labels[order[0]] if order else None,
            "above": [labels[i] for i in order]}  # fmt: skip


def pooled(name: str, pooling: str, normalize: bool, values: np.ndarray, mask: list[int]) -> Case:
    """One case of an embedding with a mask, as sentence-transformers pools, by torch in float64."""
    single = values.astype(np.float32)
    hidden, weights = torch.from_numpy(single).double(), torch.tensor([mask])[..., None]
    vector = {
        "mean": (hidden * weights).sum(1)[0] / weights.sum().clamp(min=1e-9),
        "max": hidden.masked_fill(weights == 0, -math.inf).amax(1)[0],
        "cls": hidden[0, 0],
    }[pooling]
    vector = torch.nn.functional.normalize(vector, dim=0) if normalize else vector
    return {"kind": "embedding", "case": f"{name} {normalize}", "pooling": pooling, "normalize": normalize, "tolerance": 1e-6,
            "values": single, "expected": vector.float().numpy(), "mask": np.array([mask], np.int64)}  # fmt: skip


def write(folder: Path) -> None:
    """Both files."""
    writer = Writer()
    for source in (images, sounds, series, outputs):
        for case in source():
            writer.add(case)
    (folder / "cases.tsv").write_text("".join(f"{line}\n" for line in writer.lines), encoding="utf-8")
    (folder / "cases.bin").write_bytes(writer.content)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
