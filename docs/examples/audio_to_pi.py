"""An audio classifier on a Raspberry Pi: `python audio_to_pi.py ssh://pi@raspberrypi` (or `local`).

A quarter of a second of sound becomes a log-mel spectrogram, which preprocessor.json describes as data; a small CNN
tells hum from hiss. The bundle is measured on the board, which needs an account and Python 3.9, nothing else.
"""

import sys
from pathlib import Path

import torch
from torch import nn

import exporter
from benchmarks.bench import Board, Plan, bench, bench_artifacts
from benchmarks.devices import Options
from benchmarks.results.execution import latency_is_real
from runtimes.processing.preprocessor import Audio, Classes, Preprocessor, to_bytes

SOUND = Audio("mel", sample_rate=8000, samples=2000, frame=160, hop=80, fft=256, mels=16, low_hz=0.0, high_hz=4000.0)


class Listener(nn.Module):
    """`[1, 16 mels, frames]` -> scores of hum and hiss."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(16, 32, 3, 2), nn.ReLU(), nn.Conv1d(32, 64, 3, 2), nn.ReLU())
        self.head = nn.Linear(64 * 5, 2)

    def forward(self, mel):
        return {"scores": self.head(self.stem(mel).flatten(1))}


def main():
    """Export with the spectrogram, then measure on the board and print what it told."""
    torch.manual_seed(0)  # random weights: good for size and speed, useless for accuracy
    outputs = (Classes("scores", ("hum", "hiss"), "softmax"),)
    Path("audio.json").write_bytes(to_bytes(Preprocessor((SOUND,), outputs)))
    bundle = exporter.export(
        (Listener(), {"mel": torch.randn(1, 16, SOUND.frames)}),
        targets="onnx",
        output="listener",
        preprocessor=Path("audio.json"),
        force=True,
    )
    board = Board(sys.argv[1] if len(sys.argv) > 1 else "local", Plan(seconds=0.5, processes=1), Options())
    (done,) = bench(bench_artifacts(bundle.path), [board])
    if done.error:
        raise SystemExit(f"{board.target}: {done.error}")
    for result in done.results:
        real = result.statistics is not None and latency_is_real(result)
        latency = f"{result.statistics.p50_ms:.3f} ms" if real else "no latency"
        print(f"{result.artifact.name}: {result.parity.verdict}, {latency}, {result.executed_by.kind}")


if __name__ == "__main__":
    main()
