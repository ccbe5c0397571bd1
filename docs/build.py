"""Build the documentation: run every example in it, in a folder of its own, and write the pages to site/.

A page whose code fails, or a link that leads nowhere, fails the build.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run mkdocs in build/docs, with the examples beside it as in a clone."""
    work = ROOT / "build" / "docs"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / "examples").symlink_to(ROOT / "examples")
    python = Path(sys.executable).absolute()
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    here = os.pathsep.join(filter(None, [str(ROOT / "docs"), os.environ.get("PYTHONPATH")]))
    quiet = {"PATH": path, "PYTHONPATH": here, "MPLBACKEND": "agg", "NO_MKDOCS_2_WARNING": "1", "COLUMNS": "110", "NO_COLOR": "1"}
    command = [str(python), "-m", "mkdocs", "build", "--strict", "--config-file", str(ROOT / "mkdocs.yml")]
    return subprocess.call(command, cwd=work, env={**os.environ, **quiet})


if __name__ == "__main__":
    raise SystemExit(main())
