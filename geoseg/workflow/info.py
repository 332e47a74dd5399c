"""`info` and `models`: what a scene is, what models there are, and which goes with which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geoseg.errors import GeosegError
from geoseg.model import find_bundle, fit_to_gsd, known_bundles, load_bundle
from geoseg.scene import assign_roles, inspect_scene
from geoseg.scene.roles import known_roles

if TYPE_CHECKING:
    from pathlib import Path

    from geoseg.scene import SceneInfo


def describe_scene(path: Path) -> dict[str, Any]:
    """What a scene is, and for each model whether it fits and if not, why; JSON values."""
    info = inspect_scene(path)
    try:
        roles = {band: role for role, band in known_roles(info).items()}
    except GeosegError:
        roles = {}
    bands = [
        {"band": band, "description": text, "interpretation": interp, "role": roles.get(band)}
        for band, (text, interp) in enumerate(zip(info.descriptions, info.interpretations, strict=True), 1)
    ]
    frame = info.frame
    return {
        "path": info.path,
        "driver": info.driver,
        "height": frame.shape[0],
        "width": frame.shape[1],
        "crs": crs_name(frame.crs),
        "gsd_m": None if frame.gsd_m is None else [round(side, 4) for side in frame.gsd_m],
        "bounds": list(frame.bounds),
        "dtype": info.dtype,
        "bands": bands,
        "nodata": info.nodata,
        "mask": info.mask,
        "scales": list(info.scales),
        "offsets": list(info.offsets),
        "blocks": list(info.blocks),
        "overviews": list(info.overviews),
        "models": [_fits(info, name, folder) for name, folder in sorted(known_bundles().items())],
    }


def _fits(info: SceneInfo, name: str, folder: Path) -> dict[str, Any]:
    try:
        bundle = load_bundle(folder)
    except GeosegError as error:
        return {"model": name, "fits": False, "why": f"damaged: {error}"}
    if bundle.of_two_dates:
        return {"model": name, "fits": False, "why": "it compares two dates: geoseg change --method siamese"}
    try:
        bands = assign_roles(info, bundle.needs)
        fit = fit_to_gsd(info.frame.gsd_m, bundle.gsd_m, bundle.tile, name=info.path)
    except GeosegError as error:
        return {"model": name, "fits": False, "why": str(error)}
    if info.frame.gsd_m is None:
        return {"model": name, "fits": False, "why": "no usable CRS, so the GSD is not known; --force goes on"}
    return {"model": name, "fits": True, "bands": bands, "why": fit.notice}


def crs_name(wkt: str | None) -> str | None:
    """`EPSG:32631` where the CRS has a code, else its name."""
    if wkt is None:
        return None
    from geoseg.frame import parse_crs  # noqa: PLC0415

    crs = parse_crs(wkt)
    authority = crs.to_authority(min_confidence=70)
    return ":".join(authority) if authority else str(crs.name)


def info_text(described: dict[str, Any]) -> str:
    """`describe_scene` for people."""
    gsd = described["gsd_m"]
    lines = [
        described["path"],
        f"  size    {described['width']} x {described['height']} px, {described['driver']}, {described['dtype']}",
        f"  CRS     {described['crs'] or 'none'}",
        f"  GSD     {f'{gsd[1]:g} x {gsd[0]:g} m' if gsd else 'unknown'}",
        f"  blocks  {described['blocks'][1]} x {described['blocks'][0]}, overviews {described['overviews'] or 'none'}",
        f"  nodata  {'none' if described['nodata'] is None else described['nodata']}, mask {described['mask']}",
        "  bands",
    ]
    lines += [
        f"    {band['band']}  {band['role'] or '-':10} {band['description'] or band['interpretation']}"
        for band in described["bands"]
    ]
    lines.append("  models")
    for fit in described["models"]:
        lines.append(f"    {fit['model']}: {'fits' if fit['fits'] else 'does not fit'}")
        lines += [f"      {fit['why']}"] if fit["why"] else []
    return "\n".join(lines)


def describe_model(name: str) -> dict[str, Any]:
    """A model bundle with the path of its folder; JSON values."""
    bundle = find_bundle(name)
    return {**bundle.to_json(), "sha256": bundle.sha256, "path": str(bundle.path)}


def models_text() -> str:
    """All models, a line each, by the name that finds them."""
    rows = [f"{name:14} {_model_line(folder)}" for name, folder in sorted(known_bundles().items())]
    return "\n".join(rows) if rows else "no models"


def _model_line(folder: Path) -> str:
    try:
        bundle = load_bundle(folder)
    except GeosegError as error:
        return f"damaged: {error}"
    low, high = bundle.gsd_m
    return f"{low:g}-{high:g} m  {'+'.join(bundle.needs.roles)}  {', '.join(bundle.legend.names)}"


def model_text(described: dict[str, Any]) -> str:
    """`describe_model` for people."""
    bands = [band["role"] + (" (optional)" if band["optional"] else "") for band in described["bands"]]
    lines = [
        f"{described['name']}: {described['description']}",
        f"  network  {_network(described)}, tiles of {described['tile']} px",
        f"  bands    {', '.join(bands)}",
        f"  GSD      {described['gsd_m'][0]:g} to {described['gsd_m'][1]:g} m",
        f"  classes  {', '.join(str(c['code']) + ' ' + c['name'] for c in described['legend'])}",
        f"  licence  {described['licence']}",
        f"  weights  sha256 {described['weights']['sha256']}",
        f"  path     {described['path']}",
    ]
    if described["agreement"]:
        shares = [f"{precision} {share:.1%}" for precision, share in described["agreement"].items()]
        lines.append(f"  as fp32  {', '.join(shares)} of pixels of real scenes have the same class")
    for part in ("scores", "card"):
        if described[part]:
            lines += [f"  {part}", *_nested(described[part], 4)]
    return "\n".join(lines)


def _network(described: dict[str, Any]) -> str:
    """The network of a model, or those of an ensemble."""
    members = described["decoder"].get("members", [described])
    names = ", ".join(f"{member['architecture']} on {member['encoder']}" for member in members)
    return f"the mean of {names}" if len(members) > 1 else names


def _nested(values: dict[str, Any], indent: int) -> list[str]:
    """A tree of values, a line a leaf; the scores of all classes of one test on one line."""
    lines: list[str] = []
    for key, value in values.items():
        start = f"{' ' * indent}{key.replace('_', ' ')}"
        if isinstance(value, dict) and isinstance(value.get("classes"), dict):
            ious = [f"{name} {_figure(row.get('iou'))}" for name, row in value["classes"].items()]
            lines.append(f"{start}: IoU {', '.join(ious)}; mean {_figure(value.get('mean_iou'))}")
        elif isinstance(value, dict):
            lines += [start, *_nested(value, indent + 2)]
        elif isinstance(value, list):
            lines += [start, *(f"{' ' * (indent + 2)}- {item}" for item in value)]
        else:
            lines.append(f"{start}: {value}")
    return lines


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
