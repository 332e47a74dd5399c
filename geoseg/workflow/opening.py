"""A finished run as an xarray Dataset, for notebooks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from geoseg.workflow.folder import read_manifest

if TYPE_CHECKING:
    import xarray as xr

_CHUNKS = {"x": 2048, "y": 2048}


def open_run(folder: Path | str) -> xr.Dataset:
    """The rasters of a finished run, read lazily by Dask, with the legend as attributes of `classes`.

    Variables (y, x): `classes` uint8 (255 is nodata), `confidence` float32 in 0..1 (NaN is nodata), and
    `probabilities` (class, y, x) float32 if the run has them. Raises RunFolderError where there is no finished run.
    """
    import rioxarray  # noqa: PLC0415  # also gives Datasets their `rio`
    import xarray as xr  # noqa: PLC0415

    folder = Path(folder)
    manifest = read_manifest(folder)
    legend = manifest["model"]["legend"]
    classes = rioxarray.open_rasterio(folder / "classes.tif", chunks=_CHUNKS).squeeze("band", drop=True)
    confidence = rioxarray.open_rasterio(folder / "confidence.tif", chunks=_CHUNKS, masked=True) / 100
    variables = {
        "classes": classes.assign_attrs({entry["name"]: entry["code"] for entry in legend}),
        "confidence": confidence.squeeze("band", drop=True).assign_attrs(units="1"),
    }
    if "probabilities.tif" in manifest["outputs"]:
        shares = rioxarray.open_rasterio(folder / "probabilities.tif", chunks=_CHUNKS, mask_and_scale=True)
        names = [entry["name"] for entry in legend]
        variables["probabilities"] = shares.rename(band="class").assign_coords({"class": names})
    return xr.Dataset(variables, attrs={"geoseg": manifest["geoseg"], "model": manifest["model"]["name"]})
