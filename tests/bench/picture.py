"""A picture of a report's first screens, for the README.

    make demo && python tests/bench/picture.py runs/demo/report.html tests/bench/results/demo.png

Needs Debian's chromium; nothing is fetched.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars")
OFFLINE = ("--disable-background-networking", "--disable-component-update", "--disable-sync")


def main() -> None:
    """Take the picture."""
    report, picture = (Path(argument).resolve() for argument in sys.argv[1:3])
    with tempfile.TemporaryDirectory() as profile:
        where = (f"--user-data-dir={profile}", "--window-size=1100,1060", f"--screenshot={picture}")
        subprocess.run(["chromium", *QUIET, *OFFLINE, *where, report.as_uri()], check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
