"""Our figures beside what a user would otherwise run: `python -m benchmarks.peers export|compress`."""
