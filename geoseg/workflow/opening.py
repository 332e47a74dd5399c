"""A finished run as an xarray Dataset, for notebooks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.errors import RunFolderError
from geoseg.workflow.folder import read_manifest

if TYPE_CHECKING:
    import xarray as xr

_CHUNKS = {"x": 2048, "y": 2048}


def open_run(folder: Path | str) -> xr.Dataset:
    """The rasters of a finished run, read lazily by Dask, with the legend as attributes of `classes`.

    Variables (y, x): `classes` uint8 (255 is nodata), `confidence` float32 in 0..1 (NaN is nodata), and
    `probabilities` (class, y, x) float32 if the run has them. Raises RunFolderError where there is no finished run.
    """
    import xarray as xr  # noqa: PLC0415  # 0.5 s, and only for notebooks

    folder = Path(folder)
    manifest = read_manifest(folder)
    legend = manifest["model"]["legend"]
    classes = _array(folder / "classes.tif").squeeze("band", drop=True)
    confidence = _array(folder / "confidence.tif", masked=True) / 100
    variables = {
        "classes": classes.assign_attrs({entry["name"]: entry["code"] for entry in legend}),
        "confidence": confidence.squeeze("band", drop=True).assign_attrs(units="1"),
    }
    if "probabilities.tif" in manifest["outputs"]:
        shares = _array(folder / "probabilities.tif", mask_and_scale=True)
        names = [entry["name"] for entry in legend]
        variables["probabilities"] = shares.rename(band="class").assign_coords({"class": names})
    return xr.Dataset(variables, attrs={"geoseg": manifest["geoseg"], "model": manifest["model"]["name"]})


def _array(path: Path, **how: Any) -> xr.DataArray:
    """A raster as a lazy array (band, y, x)."""
    import rioxarray  # noqa: PLC0415  # also gives Datasets their `rio`
    import xarray as xr  # noqa: PLC0415

    array = rioxarray.open_rasterio(path, chunks=_CHUNKS, **how)
    if not isinstance(array, xr.DataArray):  # GeoTIFFs have no subdatasets
        raise RunFolderError(f"{path} is no single raster")
    return array
