"""Options that several commands share, each with one name and one default everywhere."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from geoseg.config import CHANGE_CHOICES, CHOICES, FORMATS, ChangeSettings, read_setting

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[..., Any]

_DEFAULTS = {field.name: field.default for field in fields(ChangeSettings)}


def _option(*names: str, default: str | None = None, **details: Any) -> Callable[[Command], Command]:
    """An option whose default is that of `Settings`: None here, so that file and environment may speak first."""
    field = names[0].removeprefix("--").replace("-", "_")
    text = f"{details.pop('help')}  [default: {default or _DEFAULTS[field]}]"
    return click.option(*names, default=None, help=text, **details)


_MODEL = [
    _option("--model", metavar="NAME|DIR", help="Model bundle, by name or folder."),
    _option("--tile", type=int, default="the model's", help="Side of the square that the network sees, in pixels."),
    _option("--overlap", type=int, default="64, at most tile / 4", help="By how many pixels tiles overlap."),
    _option("--blend", type=click.Choice(CHOICES["blend"]), help="How overlapping tiles are weighted."),
    _option("--block", type=int, help="About the side, in pixels, of what one task computes."),
    _option(
        "--batch", type=int, default="what its memory holds", help="Tiles at a time on a GPU; a CPU takes one a thread."
    ),
]
_MACHINE = [
    _option("--workers", type=int, help="Local worker processes; 0 computes in this process."),
    _option("--threads", type=int, default="cores / workers, or the Dask worker's", help="Threads of each process."),
    _option("--scheduler", metavar="ADDRESS", default="none", help="Address of a Dask scheduler to use instead."),
    _option("--device", metavar="auto|cpu|cuda|cuda:N", help="Where the network runs."),
    _option("--engine", type=click.Choice(CHOICES["engine"]), help="What runs the network."),
    _option("--precision", type=click.Choice(CHOICES["precision"]), help="Arithmetic of the network."),
    _option("--tta", type=click.Choice(CHOICES["tta"]), help="Average over mirrored, or turned, views of each tile."),
]
_SCENE = [
    _option("--bands", metavar="ROLE=N,...", default="found by name", help="Which band is red, green, blue, nir."),
    _option("--nodata", type=float, default="the file's", help="Value of pixels that are nodata in all bands."),
    _option("--aoi", metavar="FILE", default="none", help="Polygons outside of which all is nodata."),
    click.option("--force", is_flag=True, default=None, help="Go on where GSD or a missing CRS would stop."),
]
_OUTPUT = [
    _option("--format", metavar="NAMES", default="gpkg", help=f"Of {', '.join(FORMATS)}; several with commas."),
    _option("--min-area", metavar="M2|CLASS=M2,...", help="Smaller polygons go to the class beside them."),
    _option("--min-hole", metavar="M2|CLASS=M2,...", help="Smaller holes are closed; by the class around them."),
    _option("--simplify", type=float, help="Tolerance of outlines in pixels; 0 keeps the stairs."),
    _option("--simplify-m", type=float, metavar="M", default="none", help="The same in metres on the ground."),
    click.option(
        "--square/--no-square", default=None, help="Straight walls at right angles for buildings.  [default: square]"
    ),
    _option(
        "--split",
        type=float,
        metavar="DIP",
        help="Take touching buildings apart, up to 248 px together, where the confidence dips by this; try 0.2.",
    ),
    click.option("--no-vectors", "vectors", flag_value=False, type=bool, default=None, help="Rasters alone."),
    click.option("--probabilities", is_flag=True, default=None, help="Also write the probability of each class."),
]
_CONFIG = [
    click.option("--config", metavar="FILE", type=click.Path(), help="YAML file with any of these options."),
]
_SPEECH = [
    click.option("--quiet", is_flag=True, help="Say nothing but errors."),
    click.option("--log-json", is_flag=True, help="Write progress and notes to stderr as JSON lines."),
]


def _apply(options: list[Any]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_CHANGE = [
    _option("--method", type=click.Choice(CHANGE_CHOICES["method"]), help="How the two dates are compared."),
    _option("--frame", metavar="auto|before|after|FILE", default="auto, the coarser", help="Grid of the comparison."),
    _option("--register", type=click.Choice(CHANGE_CHOICES["register"]), help="Move the later date onto the earlier."),
    _option("--threshold", metavar="auto|otsu|em|NUMBER", default="auto", help="Magnitude where change begins."),
    _option("--mmu", type=float, default="9 pixels", help="Smallest patch of change in m2."),
    _option("--opening", type=float, help="Radius in m of the disk that must fit into change."),
    _option("--closing", type=float, help="Radius in m of the disk that parts two patches."),
    _option("--indices", metavar="NAMES", default="NDVI, NDWI, NBR", help="Spectral indices for --method index."),
    _option("--zones", metavar="FILE", default="none", help="Polygons for each of which areas are told."),
    _option("--bands-after", metavar="ROLE=N,...", default="as --bands", help="Bands of the later date."),
]
segment_options = _apply([*_CONFIG, *_MODEL, *_MACHINE, *_SCENE, *_OUTPUT])
change_options = _apply([*_CONFIG, *_CHANGE, *_MODEL, *_MACHINE, *_SCENE, *_OUTPUT])
tidy_options = _apply([*_OUTPUT[1:7], _MACHINE[0]])
speech_options = _apply(_SPEECH)
out_option = click.option("--out", metavar="DIR", type=click.Path(), required=True, help="Folder for the outputs.")
resume_option = click.option(
    "--resume/--no-resume", default=True, show_default=True, help="Go on with an unfinished run in the folder."
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace the run that lies in the folder.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def read_lists(given: dict[str, Any]) -> dict[str, Any]:
    """The options as `resolve_settings` wants them: formats as a tuple, each once; limits as numbers.

    Raises UsageError where a limit is none.
    """
    read = {name: read_setting(name, given[name], f"--{name.replace('_', '-')}") for name in _LISTS if given.get(name)}
    return {**given, **read}


_LISTS = ("format", "min_area", "min_hole", "indices")
