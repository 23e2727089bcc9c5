"""Android phones over adb: our runner, or LiteRT's benchmark_model, sent there and followed."""
