"""Segment every scene of a folder, skipping those that are finished.

    python pipelines/segment_folder.py SCENES OUT [--config configs/segment.yaml] [--pattern '*.tif']

Each scene gets a folder of its name below OUT. A scene that cannot be segmented is told and left out; the others go on,
and the exit code is then 3; it is 4 where parts of one could not be read. Run it again and it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from geoseg.config import resolve_settings
from geoseg.errors import GeosegError, InputError, UsageError
from geoseg.workflow import segment_scene

PARTIAL = 4
"""The exit code where all is done, but for tiles that could not be read."""


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
    stems = [scene.stem for scene in scenes]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        names = ", ".join(twice)
        print(f"several scenes are named {names} and would share a folder; rename or --pattern them", file=sys.stderr)
        return UsageError.exit_code
    code = 0
    for scene in scenes:
        run = arguments.out / scene.stem
        try:
            if is_finished(scene, run):
                print(f"{scene.name}: finished before")
                continue
            result = segment_scene(scene, run, settings)
        except InputError as error:
            print(f"{scene.name}: left out: {error}", file=sys.stderr)
            code = error.exit_code
            continue
        except GeosegError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        if result.failed:
            print(f"{scene.name}: {len(result.failed)} tiles failed, see {run / 'report.html'}", file=sys.stderr)
            code = code or PARTIAL
        counts = ", ".join(f"{row['count']} {name}" for name, row in result.manifest["features"].items())
        print(f"{scene.name}: {counts or 'done'}")
    return code


def is_finished(scene: Path, run: Path) -> bool:
    """Whether `run` holds the finished run of `scene`; raises InputError where it holds that of another scene."""
    manifest = run / "run.json"
    if not manifest.exists():
        return False
    try:
        segmented = Path(json.loads(manifest.read_text(encoding="utf-8"))["scene"]["path"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{manifest} is not what a finished run leaves behind; remove {run}") from error
    if segmented != scene.resolve():
        raise InputError(f"{run} holds the run of {segmented}; choose another folder for the runs")
    return True


if __name__ == "__main__":
    sys.exit(main())
