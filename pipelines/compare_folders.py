"""Compare every scene of one folder with that of the same name in another, skipping those that are finished.

    python pipelines/compare_folders.py BEFORE AFTER OUT [--config configs/change.yaml] [--pattern '*.tif']

Each pair gets a folder of its name below OUT. A pair that cannot be compared is told and left out; the others go on,
and the exit code is then 3. At the end a table of what changed is printed, pair by pair. Run it again and it goes on.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from geoseg.config import ChangeSettings, resolve_settings
from geoseg.errors import GeosegError, InputError, UsageError
from geoseg.workflow import RunResult, detect_change


def main() -> int:
    """Compare the folders; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="folder of the earlier scenes")
    parser.add_argument("after", type=Path, help="folder of the later scenes")
    parser.add_argument("out", type=Path, help="folder for the comparisons")
    parser.add_argument("--config", type=Path, help="settings, as for geoseg change")
    parser.add_argument("--pattern", default="*.tif", help="which files are scenes (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        settings = resolve_settings({}, arguments.config, os.environ, ChangeSettings)
    except GeosegError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    pairs = [(path, arguments.after / path.name) for path in sorted(arguments.before.glob(arguments.pattern))]
    if not pairs:
        print(f"no {arguments.pattern} in {arguments.before}", file=sys.stderr)
        return 3
    worst = 0
    for before, after in pairs:
        try:
            result = detect_change(before, after, arguments.out / before.stem, settings)
        except (InputError, UsageError) as error:
            print(f"{before.stem}: {error}", file=sys.stderr)
            worst = 3
        else:
            print(row_of(before.stem, result))
    return worst


def row_of(name: str, result: RunResult) -> str:
    """What changed in one pair."""
    changes = ", ".join(f"{row['name']} {row['share']:.2%}" for row in result.manifest["changes"])
    return f"{name}: {result.manifest['changed']['share']:.2%} changed ({changes or 'nothing'})"


if __name__ == "__main__":
    sys.exit(main())
