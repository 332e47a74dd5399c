"""Laws of the report: numbers are those of the pixels, pictures show them, the page is whole and stands alone."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

from geoseg.errors import FrameMismatchError, InputError, SceneError
from geoseg.frame import Frame
from geoseg.legend import LAND_COVER, NODATA
from geoseg.report import (
    RgbSource,
    RunReport,
    SceneNumbers,
    SheetEntry,
    class_picture,
    confidence_picture,
    contact_sheet,
    count_classes,
    draw_scale_bar,
    ground_width_m,
    overlay_picture,
    render_report,
    rgb_source,
    scene_picture,
)
from geoseg.report.markup import Markup, data_uri, tag
from geoseg.report.pictures import foreground_picture
from geoseg.scene import BandNeeds, open_scene

if TYPE_CHECKING:
    from pathlib import Path

Array = np.ndarray[Any, Any]

VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
HOSTILE = """<script>alert("x")</script> & 'more' </title>"""


def write(path: Path, bands: Array, **profile: Any) -> Path:
    stack = bands if bands.ndim == 3 else bands[None]
    count, height, width = stack.shape
    options = {"driver": "GTiff", "transform": Affine(0.5, 0, 5e5, 0, -0.5, 4e6), "crs": "EPSG:32631"} | profile
    with rasterio.open(path, "w", count=count, height=height, width=width, dtype=stack.dtype, **options) as dataset:
        dataset.write(stack)
    return path


def labelled(shape: tuple[int, int], seed: int = 0) -> tuple[Array, Array]:
    """Random codes with a good part of nodata, and confidence."""
    rng = np.random.default_rng(seed)
    codes = rng.choice(np.array([0, 1, 2, 3, 4, NODATA], np.uint8), shape, p=[0.3, 0.2, 0.1, 0.2, 0.0, 0.2])
    confidence = rng.integers(0, 101, shape, dtype=np.uint8)
    confidence[codes == NODATA] = NODATA
    return codes, confidence


LAYOUTS = [
    {},
    {"tiled": True, "blockxsize": 16, "blockysize": 16},
    {"tiled": True, "blockxsize": 512, "blockysize": 32},
    {"blockysize": 7},
    {"compress": "deflate", "blockysize": 1301},
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 1), (37, 1500), (1301, 1100)])
def test_counts_are_those_of_the_pixels(tmp_path: Path, shape: tuple[int, int], layout: dict[str, Any]) -> None:
    codes, confidence = labelled(shape)
    classes = write(tmp_path / "classes.tif", codes, nodata=NODATA, **layout)
    numbers = count_classes(classes, write(tmp_path / "confidence.tif", confidence), LAND_COVER, 0.25)
    valid = codes != NODATA
    assert numbers.valid_pixels == valid.sum()
    assert numbers.nodata_pixels == codes.size - valid.sum()
    for entry in numbers.classes:
        here = codes == entry.code
        assert entry.pixels == here.sum()
        assert entry.area_m2 == pytest.approx(here.sum() * 0.25)
        if here.any():
            assert entry.mean_confidence == pytest.approx(confidence[here].mean() / 100)
            assert entry.share == pytest.approx(here.sum() / valid.sum())
        else:
            assert entry.mean_confidence is None
            assert entry.share == 0
    expected, _ = np.histogram(confidence[valid], bins=[0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 101])
    assert list(numbers.confidence_histogram) == expected.tolist()
    if valid.any():
        assert numbers.mean_confidence == pytest.approx(confidence[valid].mean() / 100)


def test_without_a_crs_there_is_no_area(tmp_path: Path) -> None:
    codes, confidence = labelled((20, 30))
    numbers = count_classes(
        write(tmp_path / "a.tif", codes), write(tmp_path / "b.tif", confidence), LAND_COVER, pixel_area_m2=None
    )
    assert numbers.area_m2 is None
    assert {entry.area_m2 for entry in numbers.classes} == {None}


def test_rasters_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    codes, confidence = labelled((20, 30))
    classes, sure = write(tmp_path / "a.tif", codes), write(tmp_path / "b.tif", confidence)
    with pytest.raises(FrameMismatchError, match="one run"):
        count_classes(classes, write(tmp_path / "c.tif", confidence[:10]), LAND_COVER, 1)
    with pytest.raises(InputError, match=r"codes \[77\]"):
        count_classes(write(tmp_path / "d.tif", np.full_like(codes, 77)), sure, LAND_COVER, 1)
    with pytest.raises(InputError, match="no confidence"):
        count_classes(classes, write(tmp_path / "e.tif", np.full_like(confidence, NODATA)), LAND_COVER, 1)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((50, 100), (1400, 700)), ((300, 300), (1200, 1200)), ((2800, 1000), (500, 1400)), ((1, 1), (1400, 1400))],
)
def test_all_pictures_of_a_scene_have_one_size(tmp_path: Path, shape: tuple[int, int], size: tuple[int, int]) -> None:
    codes, confidence = labelled(shape)
    scene = write(tmp_path / "scene.tif", np.stack([codes] * 3))
    pictures = [
        scene_picture(RgbSource(scene, (1, 2, 3))),
        class_picture(write(tmp_path / "a.tif", codes, nodata=NODATA), LAND_COVER),
        confidence_picture(write(tmp_path / "b.tif", confidence, nodata=NODATA)),
    ]
    assert {picture.size for picture in pictures} == {size}


def test_a_scene_is_stretched_as_told_and_its_nodata_transparent(tmp_path: Path) -> None:
    pixels = np.full((4, 10, 10), 500, np.uint16)
    pixels[0] = 1000  # becomes blue
    pixels[2, :5] = 100  # red, black
    pixels[:, 0, 0] = 0
    pixels[1, 9, 9] = 0  # one band alone is no nodata
    source = RgbSource(write(tmp_path / "scene.tif", pixels), (3, 2, 1), low=(100,) * 3, high=(900,) * 3, nodata=0)
    picture = np.array(scene_picture(source, max_side=10))
    assert picture[0, 0, 3] == 0
    assert (picture[..., 3] == 0).sum() == 1
    assert picture[1, 1].tolist() == [0, 128, 255, 255]
    assert picture[9, 9].tolist() == [128, 0, 255, 255]


@pytest.mark.parametrize("kind", ["nan", "alpha", "mask", "grey"])
def test_masks_of_every_kind_are_transparent(tmp_path: Path, kind: str) -> None:
    pixels = np.random.default_rng(0).uniform(1, 200, (4, 8, 8)).astype(np.float32 if kind == "nan" else np.uint8)
    path = tmp_path / "scene.tif"
    hole = np.zeros((8, 8), bool)
    hole[2:4, 5:] = True
    if kind == "nan":
        pixels[1, hole] = np.nan
        write(path, pixels)
        source = RgbSource(path, (1, 2, 3))
    elif kind == "alpha":
        pixels[3] = np.where(hole, 0, 255)
        source = RgbSource(write(path, pixels), (1, 2, 3), alpha=4)
    else:
        write(path, pixels)
        with rasterio.open(path, "r+") as dataset:
            dataset.write_mask(~hole)
        source = RgbSource(path, (1, 1, 1) if kind == "grey" else (1, 2, 3), file_mask=True)
    picture = np.array(scene_picture(source, max_side=8))
    assert np.array_equal(picture[..., 3] == 0, hole)
    assert kind != "grey" or (picture[..., 0] == picture[..., 2]).all()


def test_a_picture_shows_the_bands_and_masks_that_the_scene_reads(tmp_path: Path) -> None:
    pixels = np.random.default_rng(2).integers(1, 255, (4, 30, 40), dtype=np.uint8)
    pixels[:, :5] = 0
    path = write(tmp_path / "scene.tif", pixels, nodata=0)
    needs = BandNeeds(("red", "green", "blue"))
    scene = open_scene(path, needs, bands={"red": 3, "green": 2, "blue": 1})
    assert rgb_source(scene) == RgbSource(str(path), (3, 2, 1), nodata=0)
    grey = open_scene(path, BandNeeds(("nir",)), bands={"nir": 4}, nodata=7)
    assert rgb_source(grey) == RgbSource(str(path), (4, 4, 4), nodata=7)
    with rasterio.open(path, "r+") as dataset:
        dataset.nodata = None
        dataset.write_mask(np.where(np.arange(30 * 40).reshape(30, 40) % 3, 255, 0).astype(np.uint8))
    masked = open_scene(path, needs, bands={"red": 3, "green": 2, "blue": 1})
    assert rgb_source(masked).file_mask
    shown = np.array(scene_picture(rgb_source(masked), max_side=40))[..., 3] > 0
    np.testing.assert_array_equal(shown, masked.read(masked.frame.box)[1])


def test_classes_keep_their_colours_enlarged_and_reduced(tmp_path: Path) -> None:
    codes, _ = labelled((40, 60))
    drawn = class_picture(write(tmp_path / "a.tif", codes, nodata=NODATA), LAND_COVER, max_side=120)
    assert drawn.mode == "P"
    picture = np.array(drawn.convert("RGBA"))
    for entry in LAND_COVER.classes:
        here = np.kron(codes == entry.code, np.ones((2, 2), bool))
        assert (picture[here] == (*entry.rgb, 255)).all()
    assert (picture[np.kron(codes == NODATA, np.ones((2, 2), bool))] == 0).all()
    halves = np.where(np.arange(400) < 200, 1, 3).astype(np.uint8)[None].repeat(400, 0)
    reduced = class_picture(write(tmp_path / "b.tif", halves), LAND_COVER, max_side=40)
    assert reduced.size == (40, 40)
    assert {color for _, color in reduced.convert("RGBA").getcolors()} == {
        (*LAND_COVER.classes[k].rgb, 255) for k in (1, 3)
    }


def test_confidence_grows_lighter(tmp_path: Path) -> None:
    ramp = np.arange(101, dtype=np.uint8)[None]
    picture = confidence_picture(write(tmp_path / "a.tif", ramp), max_side=101).convert("L")
    luminance = np.array(picture)[0].astype(int)
    assert (np.diff(luminance) >= 0).all()
    assert luminance[-1] - luminance[0] > 150


def test_an_overlay_leaves_background_and_nodata_alone() -> None:
    legend = LAND_COVER
    classes = Image.new("RGBA", (9, 9), (*legend.classes[0].rgb, 255))
    classes.paste((*legend.classes[1].rgb, 255), (2, 2, 7, 7))
    classes.putpixel((0, 0), (0, 0, 0, 0))
    scene = Image.new("RGBA", (9, 9), (10, 20, 30, 255))
    scene.putpixel((0, 0), (0, 0, 0, 0))
    laid = np.array(overlay_picture(scene, classes, legend, alpha=0.5))
    assert laid[0, 0, 3] == 0
    assert laid[8, 8].tolist() == [10, 20, 30, 255]
    red = np.array(legend.classes[1].rgb)
    assert laid[2, 2, :3].tolist() == red.tolist()  # the outline
    assert np.abs(laid[4, 4, :3] - np.add(red, [10, 20, 30]) / 2).max() <= 0.5
    with pytest.raises(FrameMismatchError):
        overlay_picture(scene.resize((4, 4)), classes, legend)
    assert np.array(foreground_picture(classes, {legend.classes[0].rgb}))[..., 3].sum() == 25 * 255


def test_a_palette_changes_no_picture_of_the_foreground(tmp_path: Path) -> None:
    codes, _ = labelled((40, 60))
    classes = class_picture(write(tmp_path / "a.tif", codes, nodata=NODATA), LAND_COVER)
    background = {entry.rgb for entry in LAND_COVER.classes if entry.kind == "background"}
    drawn = foreground_picture(classes, background)
    plain = foreground_picture(classes.convert("RGBA"), background)
    assert (drawn.mode, plain.mode) == ("P", "RGBA")
    assert drawn.convert("RGBA").tobytes() == plain.tobytes()
    back = Image.open(BytesIO(base64.b64decode(data_uri(drawn).partition(",")[2])))
    assert back.convert("RGBA").tobytes() == plain.tobytes()
    scene = Image.new("RGBA", classes.size, "red")
    laid = [overlay_picture(scene, picture, LAND_COVER) for picture in (classes, classes.convert("RGBA"))]
    assert laid[0].tobytes() == laid[1].tobytes()


def test_a_damaged_scene_still_has_a_picture_of_what_is_whole(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(1, 255, (3, 512, 512), dtype=np.uint8)
    path = write(tmp_path / "scene.tif", pixels, tiled=True, blockxsize=128, blockysize=128, compress="deflate")
    with rasterio.open(path) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_2_1", "TIFF", bidx=1))
    damaged = bytearray(path.read_bytes())
    damaged[offset : offset + 64] = b"\xff" * 64
    path.write_bytes(damaged)
    empty = np.array(scene_picture(RgbSource(path, (1, 2, 3)), max_side=512))[..., 3] == 0
    assert empty[128:256, 256:384].all()
    assert empty.sum() == 128 * 128
    with pytest.raises(SceneError):
        scene_picture(RgbSource(tmp_path / "missing.tif", (1, 2, 3)))


def test_a_scale_bar_is_as_long_as_it_says() -> None:
    frame = Frame((300, 400), Affine(0.5, 0, 5e5, 0, -0.5, 4e6), "EPSG:32631")
    width_m = ground_width_m(frame)
    assert width_m == pytest.approx(200, rel=1e-3)
    assert ground_width_m(replace(frame, crs=None)) is None
    drawn = np.array(draw_scale_bar(Image.new("RGB", (800, 600), "red"), width_m))
    ink = (drawn[..., :3] == (0x23, 0x28, 0x2B)).all(axis=-1)
    assert abs(max(ink.sum(axis=1)) - 50 / width_m * 800) <= 2


@pytest.mark.parametrize("width_m", [None, float("nan"), float("inf"), 0.0])
def test_a_width_that_is_not_known_has_no_scale_bar(width_m: float | None) -> None:
    red = Image.new("RGBA", (80, 60), "red")
    assert draw_scale_bar(red, width_m).tobytes() == red.tobytes()
    sheet = contact_sheet([SheetEntry((red,), "red", width_m)], LAND_COVER, cell=100)
    assert sheet.tobytes() == contact_sheet([SheetEntry((red,), "red")], LAND_COVER, cell=100).tobytes()


def test_a_page_shows_no_number_that_is_none(tmp_path: Path) -> None:
    nan = float("nan")
    report = run_report(tmp_path, *labelled((30, 20)))
    unknown = replace(
        report,
        scene={"path": "scene.tif", "shape": (30, 20), "gsd_m": (nan, nan), "nodata": nan},
        numbers=count_classes(tmp_path / "classes.tif", tmp_path / "confidence.tif", LAND_COVER, nan),
        feature_counts={"building": {"count": 2, "area_m2": nan, "median_area_m2": nan}},
        seconds={"total": nan, "read": 1.0},
        ground_width_m=nan,
    )
    page = Page(render_report(unknown))
    words = " ".join(page.text)
    assert not re.search(r"\b(nan|inf)\b", words, re.IGNORECASE)
    assert "not a number" in words  # the scene's nodata value, which is one indeed


@pytest.mark.parametrize("across", [False, True])
def test_a_contact_sheet_holds_every_picture(across: bool) -> None:  # noqa: FBT001
    colors = ["#ff0000", "#00ff00", "#0000ff", "#ffff00"]
    sizes = [(30, 30), (30, 30), (900, 300), (900, 300)]
    pictures = [Image.new("RGBA", size, color) for size, color in zip(sizes, colors, strict=True)]
    entries = [SheetEntry(tuple(pictures[:2]), "small"), SheetEntry(tuple(pictures[2:]), "large & <wide>")]
    sheet = contact_sheet(entries, LAND_COVER, cell=200, across=across)
    found = {color: count for count, color in sheet.getcolors(1 << 20)}
    assert [found[(255, 0, 0)], found[(0, 255, 0)]] == [180 * 180] * 2  # six times, not six and two thirds
    assert [found[(0, 0, 255)], found[(255, 255, 0)]] == [200 * 67] * 2
    for entry in LAND_COVER.foreground:
        assert entry.rgb in found


class Page(HTMLParser):
    """Collects what a page refers to; tags must be balanced."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.ids: list[str] = []
        self.images_without_alt = 0
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links += [found["href"] or ""] if "href" in found else []
        self.sources += [found["src"] or ""] if "src" in found else []
        self.ids += [found["id"] or ""] if "id" in found else []
        self.images_without_alt += tag == "img" and not found.get("alt")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in {"rect", "line", "path"}, attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in {"style", "script"}:
            self.text.append(data)


def run_report(tmp_path: Path, codes: Array, confidence: Array) -> RunReport:
    classes = write(tmp_path / "classes.tif", codes, nodata=NODATA)
    sure = write(tmp_path / "confidence.tif", confidence, nodata=NODATA)
    scene = write(tmp_path / "scene.tif", np.stack([codes] * 3))
    return RunReport(
        title="A scene",
        scene={
            "path": "scene.tif",
            "shape": codes.shape,
            "crs": rasterio.open(scene).crs.to_wkt(),
            "gsd_m": (0.5, 0.5),
        },
        model={"name": "aerial", "gsd_m": (0.3, 1.5), "scores": {"iou": {"building": 0.7}, "places": ["X"]}},
        numbers=count_classes(classes, sure, LAND_COVER, 0.25),
        feature_counts={"building": {"count": 12, "area_m2": 800.0}, "road_centerline": {"count": 3, "length_m": 70.0}},
        tiles={"planned": 4, "forwarded": 4, "skipped_nodata": 0, "failed": []},
        seconds={"total": 3.0, "read": 1.0, "forward": 2.0},
        settings={"tile": 512, "resume": True, "aoi": None},
        pictures={
            "scene": scene_picture(RgbSource(scene, (1, 2, 3), nodata=NODATA)),
            "classes": class_picture(classes, LAND_COVER),
            "confidence": confidence_picture(sure),
        },
        outputs=[("classes.tif", 1234, "Class raster")],
        ground_width_m=codes.shape[1] * 0.5,
    )


def test_a_page_is_balanced_and_stands_alone(tmp_path: Path) -> None:
    html = render_report(run_report(tmp_path, *labelled((60, 80))))
    page = Page(html)
    assert len(page.sources) == 3
    assert all(source.startswith("data:image/") for source in page.sources)
    assert page.images_without_alt == 0
    assert len(set(page.ids)) == len(page.ids)
    assert "classes.tif" in page.links
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    written = re.sub('data:image/[^"]*', "", html)
    assert not re.search(r"(https?:)?//[a-z]|url\(|@import", written)
    words = " ".join(page.text)
    assert "EPSG:32631" in words
    assert "Partial" not in words


def test_a_page_escapes_whatever_it_is_told(tmp_path: Path) -> None:
    harmless = run_report(tmp_path, *labelled((8, 8)))
    report = replace(
        harmless,
        title=HOSTILE,
        scene={HOSTILE: HOSTILE, "path": HOSTILE},
        model={"name": HOSTILE, "description": HOSTILE, "card": {"known_weaknesses": [HOSTILE], HOSTILE: HOSTILE},
               "scores": {HOSTILE: {HOSTILE: HOSTILE}}},
        feature_counts={HOSTILE: {HOSTILE: HOSTILE}},
        settings={HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}]},
        notices=(HOSTILE,),
        failed_tiles=[{"window": HOSTILE, "cause": HOSTILE}],
        outputs=[(HOSTILE, 1, HOSTILE), ("javascript:alert(1)", 2, "")],
    )  # fmt: skip
    html = render_report(report)
    page = Page(html)
    for dangerous in ("<script", "</title>"):
        assert html.count(dangerous) == render_report(harmless).count(dangerous)
    assert "".join(page.text).count(HOSTILE) > 10
    assert not any(link.startswith("javascript:") for link in page.links)


@pytest.mark.parametrize("count", [1, 3, 150])
def test_a_partial_run_says_so_first(tmp_path: Path, count: int) -> None:
    window = {"row": 0, "col": 512, "height": 512, "width": 256}
    cause = "/data/scene.tif, rows 0..511, columns 0..4159: the file is damaged here (TIFF); copy the file again"
    failed = [{"tile": [0, k], "window": window, "cause": cause} for k in range(count)]
    report = run_report(tmp_path, *labelled((8, 8)))
    html = render_report(replace(report, failed_tiles=failed, tiles={"planned": 200, "failed": failed}))
    words = " ".join(Page(html).text).replace("\u2060", "")
    assert words.index(f"{count} of 200 tiles could not be read") < words.index("Mapped")
    assert words.count("0–511 512–767 the file is damaged here (TIFF); copy the file again") == min(count, 20)
    assert "/data" not in words
    assert ("And 130 more; all are listed in run.json." in words) == (count == 150)
    assert ("<details open>" in html) == (count <= 5)


def test_a_scene_of_nodata_alone_has_a_page(tmp_path: Path) -> None:
    empty = np.full((30, 20), NODATA, np.uint8)
    report = run_report(tmp_path, empty, empty)
    assert report.numbers.valid_pixels == 0
    assert report.numbers.nodata_pixels == 600
    assert report.numbers.mean_confidence is None
    assert report.pictures["scene"].getchannel("A").getextrema() == (0, 0)
    assert "nan" not in " ".join(Page(render_report(report)).text)


def test_a_page_of_almost_nothing_is_still_a_page() -> None:
    nothing = SceneNumbers((), 0, 0, (0,) * 10)
    page = Page(render_report(RunReport("x", {}, {}, nothing, {}, {}, {}, {})))
    assert page.sources == []


@pytest.mark.parametrize(
    ("mode", "size", "kind"),
    [("few", 600, "png"), ("opaque", 600, "jpeg"), ("holes", 600, "webp"), ("holes", 60, "png")],
)
def test_a_picture_survives_its_address(mode: str, size: int, kind: str) -> None:
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.linspace(0, 120, size), np.linspace(0, 130, size))
    pixels = np.dstack([smooth, smooth[::-1], smooth[:, ::-1], np.full_like(smooth, 255)]).astype(np.uint8)
    if mode == "few":
        colors = rng.integers(0, 256, (200, 4), dtype=np.uint8)
        pixels = colors[rng.integers(0, 200, (size, size))]
    elif mode == "holes":
        pixels[:20, :20] = 0
    uri = data_uri(Image.fromarray(pixels))
    head, _, content = uri.partition(",")
    assert head == f"data:image/{kind};base64"
    back = np.array(Image.open(BytesIO(base64.b64decode(content))).convert("RGBA"))
    if kind == "png":
        assert np.array_equal(back[..., 3], pixels[..., 3])
        assert np.array_equal(back[pixels[..., 3] > 0], pixels[pixels[..., 3] > 0])
    else:
        assert np.array_equal(back[..., 3] == 0, pixels[..., 3] == 0)
        assert np.abs(back.astype(int) - pixels)[30:, 30:].mean() < 4


def test_only_markup_is_not_escaped() -> None:
    assert tag("b", "<i>") == "<b>&lt;i&gt;</b>"
    assert tag("b", Markup("<i></i>")) == "<b><i></i></b>"
    assert tag("a", title='"<&') == '<a title="&quot;&lt;&amp;"></a>'
