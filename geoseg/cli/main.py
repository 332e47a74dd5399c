"""The commands of geoseg."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from geoseg import __version__
from geoseg.cli.options import (
    change_options,
    json_option,
    out_option,
    overwrite_option,
    read_lists,
    resume_option,
    segment_options,
    speech_options,
    tidy_options,
)
from geoseg.cli.terminal import open_progress, say_fault
from geoseg.config import ChangeSettings, Settings, resolve_settings
from geoseg.errors import GeosegError

_FAILURES = 20
"""So many tiles that failed are named on stderr; run.json has them all."""
_SHELL = {"max_content_width": 100, "help_option_names": ["-h", "--help"]}


@click.group(context_settings=_SHELL)
@click.version_option(__version__, prog_name="geoseg")
def geoseg() -> None:
    """Segment large multispectral scenes and get clean polygons."""


@geoseg.command()
@click.option("--out", metavar="DIR", type=click.Path(), default="geoseg-demo", show_default=True, help="Folder.")
@speech_options
def demo(out: str, *, quiet: bool, log_json: bool) -> None:
    """Segment the embedded scenes with the embedded model."""
    from geoseg.workflow import run_demo  # noqa: PLC0415

    with closing(open_progress(quiet=quiet, log_json=log_json)) as progress:
        results, picture = run_demo(Path(out), progress=progress)
    _print_outputs(results)
    click.echo(picture)


@geoseg.command()
@click.argument("scene", type=click.Path())
@json_option
def info(scene: str, *, as_json: bool) -> None:
    """Say what a scene is, and which models fit it."""
    from geoseg.workflow.info import describe_scene, info_text  # noqa: PLC0415

    described = describe_scene(Path(scene))
    click.echo(_json(described) if as_json else info_text(described))


@geoseg.command()
@click.argument("scene", type=click.Path())
@segment_options
@json_option
def plan(scene: str, *, config: str | None, as_json: bool, **given: Any) -> None:
    """Say what `segment` would do: tiles, blocks, memory, disk, time."""
    _plan([scene], _settings(given, config), as_json=as_json)


@geoseg.command()
@click.argument("scenes", nargs=-1, required=True, metavar="SCENE...", type=click.Path())
@out_option
@segment_options
@resume_option
@overwrite_option
@click.option("--dry-run", is_flag=True, help="Plan only, as `geoseg plan`.")
@speech_options
def segment(
    scenes: tuple[str, ...], *, out: str, config: str | None, resume: bool, overwrite: bool, dry_run: bool,
    quiet: bool, log_json: bool, **given: Any,
) -> None:  # fmt: skip
    """Turn scenes into class rasters, polygons and a report."""
    settings = _settings(given, config)
    if dry_run:
        _plan(list(scenes), settings, as_json=False)
        return
    from geoseg.workflow import segment_scenes  # noqa: PLC0415

    paths = [Path(scene) for scene in scenes]
    with closing(open_progress(quiet=quiet, log_json=log_json)) as progress:
        results = segment_scenes(paths, Path(out), settings, overwrite=overwrite, resume=resume, progress=progress)
    _print_outputs(results)
    _leave_partial([line for result in results for line in _failures(result)], log_json=log_json)


@geoseg.command()
@click.argument("classes", metavar="CLASSES.tif", type=click.Path())
@click.option("--out", metavar="FILE", type=click.Path(), required=True, help="Its suffix names the format.")
@click.option("--confidence", metavar="FILE", type=click.Path(), help="Confidence raster.  [default: the one beside]")
@click.option("--model", metavar="NAME|DIR", help="Model whose legend to use.  [default: the raster's own legend]")
@click.option("--raw", is_flag=True, help="No filter, no simplification, no regularisation.")
@click.option("--overwrite", is_flag=True, help="Replace the file, if it is there.")
@tidy_options
def vectorize(
    classes: str, *, out: str, confidence: str | None, model: str | None, raw: bool, overwrite: bool, **given: Any
) -> None:
    """Make polygons of a class raster again, without inference."""
    from geoseg.workflow.vectors import RAW, tidy_rule, vectorize  # noqa: PLC0415

    settings = _settings(given, None)
    rule = RAW if raw else tidy_rule(settings)
    beside = Path(confidence) if confidence else None
    written = vectorize(
        Path(classes), Path(out), confidence=beside, model=model, rule=rule, overwrite=overwrite,
        workers=settings.workers,
    )  # fmt: skip
    for path in written:
        click.echo(path)


@geoseg.command()
@click.argument("before", type=click.Path())
@click.argument("after", type=click.Path())
@out_option
@change_options
@resume_option
@overwrite_option
@speech_options
def change(
    before: str, after: str, *, out: str, config: str | None, resume: bool, overwrite: bool, quiet: bool,
    log_json: bool, **given: Any,
) -> None:  # fmt: skip
    """Say what changed between two dates: two scenes, or two finished runs of segment."""
    settings = resolve_settings(read_lists(given), config, os.environ, ChangeSettings)
    from geoseg.workflow import detect_change  # noqa: PLC0415

    with closing(open_progress(quiet=quiet, log_json=log_json)) as progress:
        result = detect_change(
            Path(before), Path(after), Path(out), settings, overwrite=overwrite, resume=resume, progress=progress
        )
    _print_outputs([result])
    _leave_partial(_failures(result), log_json=log_json)


@geoseg.command()
@click.argument("config", metavar="CONFIG", type=click.Path())
@out_option
@click.option("--resume/--no-resume", default=True, show_default=True, help="Go on from the folder's checkpoint.")
@speech_options
def train(config: str, *, out: str, resume: bool, quiet: bool, log_json: bool) -> None:
    """Train a model and write its bundle."""
    from geoseg.training import load_config  # noqa: PLC0415
    from geoseg.training import train as run_training  # noqa: PLC0415

    with closing(open_progress(quiet=quiet, log_json=log_json)) as progress:
        bundle = run_training(load_config(Path(config)), Path(out), resume=resume, progress=progress.note)
    click.echo(bundle.path)


@geoseg.command()
@click.argument("predicted", type=click.Path())
@click.argument("truth", type=click.Path())
@click.option(
    "--remap", metavar="CODE=CODE,...", default="", help="Codes of the truth to count as others; 255 is unknown."
)
@click.option("--report", metavar="FILE.html", type=click.Path(), help="Also write a page with the worst places.")
@json_option
def evaluate(predicted: str, truth: str, *, remap: str, report: str | None, as_json: bool) -> None:
    """Score class rasters against the truth: pixels, objects, boundaries, confidence.

    PREDICTED is a class raster or a finished run, TRUTH a class raster or a vector file with a column `class`:
    polygons, or points drawn at random within each mapped class, from which areas are estimated. Or both are folders,
    with names that agree.
    """
    from geoseg.workflow.scoring import parse_remap, places_of, score_places, scores_text  # noqa: PLC0415

    places = places_of(Path(predicted), Path(truth))
    scores = score_places(places, parse_remap(remap))
    if report:
        from geoseg.workflow.scoring_page import write_page  # noqa: PLC0415

        write_page(Path(report), places, scores, parse_remap(remap))
    click.echo(_json(scores) if as_json else scores_text(scores))


@geoseg.command()
@click.argument("model", metavar="NAME|DIR")
@click.option(
    "--out", metavar="DIR|FILE.onnx", type=click.Path(), required=True, help="Bundle, or ONNX file, to write."
)
@click.option("--int8", is_flag=True, help="A bundle that also has its network in int8, for --precision int8.")
@click.option(
    "--calibration", metavar="SCENES", multiple=True, help="With --int8: scenes that show the range of values."
)
@click.option(
    "--validation", metavar="SCENES LABELS", nargs=2, multiple=True,
    help="With --int8: scenes with class rasters that judge; folders with files of the same names.",
)  # fmt: skip
@click.option("--bands", metavar="ROLE=N,...", help="With --int8: which band of the scenes is red, green, blue, nir.")
@click.option("--remap", metavar="CODE=CODE,...", default="", help="Codes of the labels to count as others.")
@speech_options
def export(
    model: str, *, out: str, int8: bool, calibration: tuple[str, ...], validation: tuple[tuple[str, str], ...],
    bands: str | None, remap: str, quiet: bool, log_json: bool,
) -> None:  # fmt: skip
    """Write a model as an ONNX file, or as a bundle with int8 weights.

    SCENES is a file, a folder or a quoted pattern; --calibration and --validation may be given several times.
    """
    from geoseg.workflow.exporting import Evidence, export_graph, export_int8  # noqa: PLC0415
    from geoseg.workflow.scoring import parse_remap  # noqa: PLC0415

    if not int8:
        if not out.endswith(".onnx") or calibration or validation:
            raise click.UsageError("--out takes a file that ends with .onnx, or give --int8 and a folder")
        click.echo(export_graph(model, Path(out)))
        return
    if not (calibration and validation):
        raise click.UsageError("--int8 needs --calibration SCENES and --validation SCENES LABELS")
    with closing(open_progress(quiet=quiet, log_json=log_json)) as progress:
        evidence = Evidence(calibration, validation, bands, parse_remap(remap))
        bundle = export_int8(model, Path(out), evidence, progress.note)
    click.echo(bundle.path)


@geoseg.command()
@click.argument("run_dir", metavar="RUN_DIR", type=click.Path())
@click.option("--out", metavar="FILE.gpkg", type=click.Path(), required=True, help="GeoPackage to write.")
@click.option("--count", type=click.IntRange(1), default=20, show_default=True, help="How many windows.")
@click.option("--size", type=click.IntRange(32), default=256, show_default=True, help="Side of a window in pixels.")
def suggest(run_dir: str, *, out: str, count: int, size: int) -> None:
    """Say which windows of a run to label next: where the model was unsure, each unlike the others.

    The GeoPackage also has an empty layer to draw the labels into, which `geoseg train` reads.
    """
    from geoseg.workflow.suggesting import suggest_windows  # noqa: PLC0415

    click.echo(suggest_windows(Path(run_dir), Path(out), count=count, side=size))


@geoseg.group(invoke_without_command=True)
@click.pass_context
def models(context: click.Context) -> None:
    """List the embedded and your own models."""
    if context.invoked_subcommand is None:
        from geoseg.workflow.info import models_text  # noqa: PLC0415

        click.echo(models_text())


@models.command()
@click.argument("name")
@json_option
def show(name: str, *, as_json: bool) -> None:
    """Show a model bundle: what it takes, what it gives, where it comes from."""
    from geoseg.workflow.info import describe_model, model_text  # noqa: PLC0415

    described = describe_model(name)
    click.echo(_json(described) if as_json else model_text(described))


@models.command("import")
@click.argument("file", type=click.Path())
@click.argument("description", metavar="DESCRIPTION.yaml", type=click.Path())
@click.option("--out", metavar="DIR", type=click.Path(), help="Bundle to write.  [default: your models, by its name]")
@click.option("--trust-model-code", is_flag=True, help="Run a TorchScript or exported program, once, to convert it.")
def import_(file: str, description: str, *, out: str | None, trust_model_code: bool) -> None:
    """Make a model of a network trained elsewhere: weights, or an ONNX file.

    The description has the keys of model.json: name, architecture, encoder, bands, scaling, gsd_m, tile, legend,
    licence.
    """
    from geoseg.config import read_yaml  # noqa: PLC0415
    from geoseg.model.bundle import user_folder  # noqa: PLC0415
    from geoseg.model.importing import import_model  # noqa: PLC0415

    described = read_yaml(description)
    folder = _new_bundle(Path(out) if out else user_folder() / str(described.get("name", "model")))
    click.echo(import_model(Path(file), described, folder, trust_code=trust_model_code).path)


@models.command()
@click.argument("named", metavar="MODEL MODEL...", nargs=-1, required=True)
@click.option("--out", metavar="DIR", type=click.Path(), required=True, help="Bundle to write.")
@click.option("--name", metavar="NAME", help="What to call it.  [default: as the folder]")
def average(named: tuple[str, ...], *, out: str, name: str | None) -> None:
    """Make one model of several: its probabilities are the mean of theirs, at the cost of all of them."""
    from geoseg.model.bundle import find_bundle  # noqa: PLC0415
    from geoseg.model.ensemble import average_models  # noqa: PLC0415

    folder = _new_bundle(Path(out))
    click.echo(average_models([find_bundle(one) for one in named], name or folder.resolve().name, folder).path)


@geoseg.command()
@click.argument("run_dir", metavar="RUN_DIR", type=click.Path())
def verify(run_dir: str) -> None:
    """Check a finished run: outputs complete and unchanged, rasters and vectors valid."""
    from geoseg.errors import RunFolderError  # noqa: PLC0415
    from geoseg.workflow import verify_run  # noqa: PLC0415

    faults = verify_run(Path(run_dir))
    if faults:
        raise RunFolderError("; ".join(faults))
    click.echo(f"{run_dir} is complete and unchanged")


def main() -> None:
    """Run the command line and leave with the exit code of the contract."""
    # Files name other files; whatever they name, nothing is fetched. GDAL reads this when it opens its first file.
    os.environ.setdefault("CPL_VSIL_CURL_ALLOWED_EXTENSIONS", ".none")
    try:
        geoseg(standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted; the same command again goes on with what is not finished", 130)
    except GeosegError as error:
        _fail(str(error), error.exit_code)
    except BrokenPipeError:
        # Whoever read us is gone, as in `geoseg ... | head`: nothing to complain about.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}:
            raise
        _fail(f"{error.filename or 'the disk'}: {error.strerror}; make room or choose another folder", 5)


def _new_bundle(folder: Path) -> Path:
    if (folder / "model.json").exists():
        raise click.UsageError(f"{folder} holds a model already; name another --out")
    return folder


def _settings(given: dict[str, Any], config: str | None) -> Settings:
    return resolve_settings(read_lists(given), config, os.environ)


def _plan(scenes: list[str], settings: Settings, *, as_json: bool) -> None:
    from geoseg.workflow.plan import plan_scene, plan_text  # noqa: PLC0415

    plans = [plan_scene(Path(scene), settings) for scene in scenes]
    if as_json:
        click.echo(_json([one.to_json() for one in plans] if len(plans) > 1 else plans[0].to_json()))
    else:
        click.echo("\n\n".join(plan_text(one) for one in plans))


def _json(value: Any) -> str:
    from geoseg.workflow.folder import json_text  # noqa: PLC0415

    return json_text(value).rstrip()


def _print_outputs(results: list[Any]) -> None:
    for result in results:
        for path in result.outputs:
            click.echo(path)


def _leave_partial(failed: list[str], *, log_json: bool) -> None:
    """Leave with the exit code of a partial run, if something failed."""
    if failed:
        for line in failed:
            say_fault(line, log_json=log_json)
        sys.stdout.flush()
        sys.exit(4)


def _failures(result: Any) -> list[str]:
    """A sentence for each tile that could not be read, or for the first of them."""
    lines = [
        "{}: rows {}..{}, columns {}..{} are nodata: {}".format(
            result.folder,
            at["row"],
            at["row"] + at["height"] - 1,
            at["col"],
            at["col"] + at["width"] - 1,
            tile["cause"],
        )
        for tile in result.failed
        for at in (tile["window"],)
    ]
    more = len(lines) - _FAILURES
    return lines if more < 1 else [*lines[:_FAILURES], f"{result.folder}: {more} more tiles failed; see run.json"]


def _fail(message: str, code: int) -> None:
    click.echo(f"geoseg: {message}", err=True)
    sys.exit(code)
