"""Segment every scene of a folder, skipping those that are finished.

    python pipelines/segment_folder.py SCENES OUT [--config configs/segment.yaml] [--pattern '*.tif']

Each scene gets a folder of its name below OUT. A scene that cannot be segmented is told and left out; the others go on,
and the exit code is then 3. Run it again and it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from geoseg.config import resolve_settings
from geoseg.errors import GeosegError, InputError
from geoseg.workflow import segment_scene


def main() -> int:
    """Segment the folder; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path, help="folder of scenes")
    parser.add_argument("out", type=Path, help="folder for the runs")
    parser.add_argument("--config", type=Path, help="settings, as for geoseg segment")
    parser.add_argument("--pattern", default="*.tif", help="which files are scenes (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        settings = resolve_settings({}, arguments.config, os.environ)
    except GeosegError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    scenes = sorted(arguments.scenes.glob(arguments.pattern))
    if not scenes:
        print(f"no {arguments.pattern} in {arguments.scenes}", file=sys.stderr)
        return InputError.exit_code
    code = 0
    for scene in scenes:
        run = arguments.out / scene.stem
        if (run / "run.json").exists():
            print(f"{scene.name}: finished before")
            continue
        try:
            result = segment_scene(scene, run, settings)
        except InputError as error:
            print(f"{scene.name}: left out: {error}", file=sys.stderr)
            code = error.exit_code
            continue
        except GeosegError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        counts = ", ".join(f"{row['count']} {name}" for name, row in result.manifest["features"].items())
        print(f"{scene.name}: {counts or 'done'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
