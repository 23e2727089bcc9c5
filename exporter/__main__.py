"""`python -m exporter` is `pocketship`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if not sys.flags.safe_path and Path(sys.path[0]).resolve() != ROOT:
    del sys.path[0]  # the working folder, where a folder of the user's may have the name of one of our packages

from exporter.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
