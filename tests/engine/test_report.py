"""`report.html`: what is in it, what cannot get into it, and that a browser builds it."""

from __future__ import annotations

import base64
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

import facerestore.engine.report.report as report
from facerestore.engine.report import DataSection, Picture, write_report
from facerestore.errors import UserError

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
HOSTILE = "<script>document.title='owned'</script></script <!--<script <img src=x onerror=\"document.title='owned'\">'&$title"


class Page(HTMLParser):
    """The page's tags, its scripts by id ("": the one that runs), and the text outside of scripts and styles."""

    def __init__(self, path: Path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict]] = []
        self.scripts: dict[str, str] = {}
        self.text = ""
        self._inside: str | None = None  # the script or style that is being read
        self.feed(self.source)
        self.close()
        self.data = json.loads(self.scripts["data"], parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self._inside = dict(attributes).get("id", "") if tag == "script" else "style"
            self.scripts[self._inside] = ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, text: str) -> None:
        if self._inside is None:
            self.text += text
        else:
            self.scripts[self._inside] += text

    def image(self, identifier: int) -> np.ndarray:
        """The embedded picture, RGB."""
        encoded = np.frombuffer(base64.b64decode(self.scripts[f"image-{identifier}"], validate=True), np.uint8)
        return cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    def means(self) -> list[list[str]]:
        """The table of means, row by row, without its markup."""
        table = re.search(r'<table class="means">(.*?)</table>', self.source, re.DOTALL)[1]
        rows = re.findall(r"<tr.*?>(.*?)</tr>", table, re.DOTALL)
        return [[re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row)] for row in rows]


def picture(name: str = "face", size: int = 24, seed: int = 0, **changes) -> Picture:
    rng = np.random.default_rng(seed)
    hr = rng.integers(0, 256, (size, size, 3), np.uint8)
    images = {"LR": hr[::4, ::4], "bicubic": hr // 2, "SRResNet": hr // 3, "SRGAN": hr // 4, "HR": hr}
    scores = {m: {"psnr": 20.0 + i + seed, "lpips": 0.3 - i / 10} for i, m in enumerate(("bicubic", "SRResNet", "SRGAN"))}
    return Picture(**{"name": name, "images": images, "scores": scores, **changes})


def section(**changes) -> DataSection:
    means = {"bicubic": {"psnr": 20.0, "lpips": 0.3}, "SRResNet": {"psnr": 31.236, "lpips": 0.3}, "SRGAN": {"psnr": 29.0}}
    return DataSection(**{"name": "faces", "pictures": [picture("a"), picture("b", seed=1)], "means": means, **changes})


def page(folder: Path, *sections: DataSection, **keywords) -> Page:
    return Page(write_report(folder / "report.html", **{"title": "run", "sections": sections, **keywords}))


def test_embedded_pictures_are_the_pictures(tmp_path):
    given = section()
    shown = page(tmp_path, given).data["sections"][0]["pictures"]
    parsed = page(tmp_path, given)
    for told, original in zip(shown, given.pictures, strict=True):
        assert [c["label"] for c in told["columns"]] == list(original.images)
        for column, image in zip(told["columns"], original.images.values(), strict=True):
            assert not column["lossy"] and (column["height"], column["width"]) == image.shape[:2]
            np.testing.assert_array_equal(parsed.image(column["image"]), image)


def test_a_picture_is_embedded_once(tmp_path):
    one = picture()
    parsed = page(tmp_path, section(pictures=[one, one]), section(pictures=[one]))
    assert sum(name.startswith("image-") for name in parsed.scripts) == len(one.images)


def test_equal_bytes_of_another_shape_are_another_picture(tmp_path):
    flat = np.zeros((4, 8, 3), np.uint8)
    parsed = page(tmp_path, section(pictures=[Picture("x", {"a": flat, "b": flat.reshape(8, 4, 3)})]))
    assert [parsed.image(i).shape for i in (0, 1)] == [(4, 8, 3), (8, 4, 3)]


def test_a_large_picture_is_stored_as_jpeg_and_says_so(tmp_path):
    gradient = np.repeat(np.linspace(0, 255, 1100).astype(np.uint8)[None, :, None], 3, axis=2).repeat(8, axis=0)
    parsed = page(tmp_path, section(pictures=[Picture("wide", {"LR": gradient[:, :1024], "X": gradient})]))
    small, large = parsed.data["sections"][0]["pictures"][0]["columns"]
    assert (small["lossy"], large["lossy"]) == (False, True)
    kinds = {a["id"]: a["data-type"] for t, a in parsed.tags if t == "script" and "data-type" in a}
    assert kinds == {"image-0": "image/png", "image-1": "image/jpeg"}
    assert np.abs(parsed.image(1).astype(int) - gradient).max() <= 3
    assert "shown here as JPEG (quality 95)" in parsed.scripts[""]


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_picture_is_refused(tmp_path, image):
    with pytest.raises(ValueError, match=r"'odd', 'LR': an image must be uint8 RGB"):
        page(tmp_path, section(pictures=[Picture("odd", {"LR": image})]))
    assert not list(tmp_path.iterdir())


def test_means_show_best_gain_and_direction(tmp_path):
    parsed = page(tmp_path, section())
    assert parsed.means() == [
        ["method", "psnr ↑", "lpips ↓"],
        ["faces"],
        ["bicubic", "20.00", "0.3000"],
        ["SRResNet", "31.24+11.24", "0.3000+0.0000"],
        ["SRGAN", "29.00+9.00", "–"],
    ]
    strong = re.findall(r"<strong>(.*?)</strong>", parsed.source)
    assert strong == ["0.3000", "31.24", "0.3000"]  # values that read the same are equally good
    assert parsed.source.count('<small class="good"') == 2 and '<small class="bad"' not in parsed.source


def test_gain_is_against_the_interpolation_wherever_it_stands(tmp_path):
    means = {"A": {"lpips": 0.5}, "bicubic": {"lpips": 0.25}}
    parsed = page(tmp_path, section(means=means))
    assert parsed.means()[2:] == [["A", "0.5000+0.2500"], ["bicubic", "0.2500"]]
    assert '<small class="bad" title="against bicubic">' in parsed.source


def test_infinite_and_missing_scores(tmp_path):
    scores = {"A": {"psnr": math.inf, "odd": -math.inf}, "B": {"psnr": math.nan}, "C": {"psnr": 30.0, "odd": 2.5e-6}}
    parsed = page(tmp_path, section(pictures=[picture(scores=scores)], means=scores))
    cells = parsed.data["sections"][0]["pictures"][0]["scores"]
    assert cells["A"] == {
        "psnr": {"value": "Infinity", "text": "∞", "best": True},
        "odd": {"value": "-Infinity", "text": "−∞", "best": False},
    }
    assert cells["B"] == {"psnr": {"value": None, "text": "nan", "best": False}}
    assert cells["C"]["odd"] == {"value": 2.5e-6, "text": "2.50e−06", "best": False}  # nobody knows which way is better
    assert parsed.means()[2:] == [["A", "∞", "−∞"], ["B", "nan", "–"], ["C", "30.00", "2.50e−06"]]


@pytest.mark.parametrize(
    "metric, better",
    [("psnr", "higher"), ("psnr_y", "higher"), ("calculate_ssim", "higher"), ("LPIPS", "lower"), ("MS-SSIM", "higher"),
     ("identity_distance", "lower"), ("identity", "higher"), ("shoe size", None)],
)  # fmt: skip
def test_direction_of_a_metric(tmp_path, metric, better):
    parsed = page(tmp_path, section(means={"A": {metric: 1.0}}, pictures=[]))
    assert parsed.data["metrics"] == [{"name": metric, "better": better}]
    own = {metric: "lower" if better == "higher" else "higher"}
    assert (
        page(tmp_path, section(means={"A": {metric: 1.0}}, pictures=[]), better=own).data["metrics"][0]["better"] == own[metric]
    )


@pytest.mark.parametrize(
    "labels, compared",
    [("LR bicubic SRResNet SRGAN HR", ["bicubic", "SRResNet"]), ("LR SRResNet HR", ["LR", "SRResNet"]),
     ("LR bicubic HR", ["bicubic", "HR"]), ("LR HR", ["LR", "HR"]),
     ("lq GFPGAN", ["lq", "GFPGAN"]), ("A B C", ["A", "B"]), ("A", ["A"]), ("HR", ["HR"]), ("", [])],
)  # fmt: skip
def test_what_is_compared_at_first(tmp_path, labels, compared):
    images = {label: np.zeros((4, 4, 3), np.uint8) for label in labels.split()}
    parsed = page(tmp_path, section(pictures=[Picture("x", images)]))
    assert parsed.data["sections"][0]["pictures"][0]["compared"] == compared


def test_curves_are_ordered_and_break_where_not_finite(tmp_path):
    curves = {"loss": {"g": [(200, 0.123456789), (100, math.nan), (300, math.inf)], "empty": []}, "none": {}, "nor": {"x": []}}
    assert page(tmp_path, section(), curves=curves).data["curves"] == [
        {"title": "loss", "series": [{"label": "g", "x": [100, 200, 300], "y": [None, 0.123457, None]}]}
    ]


def test_curves_that_hide_each_other_take_turns(tmp_path):
    curves = {"learning rates": {"g": [(1, 0.1), (2, 0.2)], "d": [(1, 0.1), (2, 0.2)], "f": [(1, 0.1), (2, 0.3)]}}
    (chart,) = page(tmp_path, section(), curves=curves).data["curves"]
    assert [series.get("turn") for series in chart["series"]] == [[0, 2], [1, 2], None]


def test_protocols_stand_beside_the_numbers(tmp_path):
    told = {"psnr": {"measures": "How far.", "type": "calculate_psnr", "crop_border": 4, "test_y_channel": False,
                     "weights": {"file": "a.pth", "sha256": "00ff"}, "sizes": [64, None]}}  # fmt: skip
    text = page(tmp_path, section(), protocols=told).text
    assert "How it was measured" in text and "How far. calculate_psnr" in text
    assert "crop_border 4; test_y_channel no; weights file a.pth, sha256 00ff; sizes 64, none" in text
    assert "How it was measured" not in page(tmp_path, section()).text


def hostile(folder: Path) -> Page:
    rows = {HOSTILE: {HOSTILE: 1.0, "psnr": 2.0}}
    image = np.zeros((4, 4, 3), np.uint8)
    named = Picture(HOSTILE, {HOSTILE: image, "HR": image + 9}, rows, {HOSTILE: HOSTILE})
    bad = DataSection(HOSTILE, [named], rows, HOSTILE)
    told = {HOSTILE: {HOSTILE: HOSTILE, "type": HOSTILE}}
    curves = {HOSTILE: {HOSTILE: [(1, 2.0), (2, 3.0)]}}
    return page(folder, bad, title=HOSTILE, facts={HOSTILE: HOSTILE}, curves=curves, protocols=told)


def test_names_are_harmless(tmp_path):
    plain, bad = page(tmp_path / "plain", section(pictures=[picture()])), hostile(tmp_path)
    structural = ("script", "img", "meta", "style", "link", "iframe")

    def kinds(parsed: Page) -> list[tuple[str, str]]:
        return sorted((t, a.get("id", "")) for t, a in parsed.tags if t in structural and "data-type" not in a)

    assert kinds(bad) == kinds(plain)
    assert "<" not in bad.scripts["data"]  # nothing there can end the script or open a comment
    assert not any(name.startswith("on") for _, attributes in bad.tags for name in attributes)
    assert bad.text.count(HOSTILE) >= 5  # title, heading, set, method, metric
    assert bad.data["sections"][0]["pictures"][0]["name"] == HOSTILE


def test_a_name_that_is_no_unicode_is_written(tmp_path):
    assert page(tmp_path, section(name="caf\udce9", pictures=[picture("caf\udce9")]), title="caf\udce9").means()[1] == ["caf?"]


def test_page_loads_nothing(tmp_path):
    parsed = page(tmp_path, section())
    own = re.sub(r'(?s)<script type="text/plain".*?</script>', "", parsed.source)  # base64 may spell anything
    assert not re.search(r"https?:|//[a-z]|@import|url\(|\bfetch\(|XMLHttpRequest|import\(", own)
    assert not [a for _, a in parsed.tags if "src" in a or a.get("href", "#")[0] != "#"]
    policy = next(a["content"] for t, a in parsed.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src blob:;") and "script-src 'sha256-" in policy


def test_empty_cases(tmp_path):
    nothing = page(tmp_path)
    assert nothing.data == {"metrics": [], "sections": [], "curves": []} and "Nothing was measured" in nothing.text
    bare = page(
        tmp_path, DataSection("no pictures", []), DataSection("no scores", [Picture("x", {"A": picture().images["HR"]})])
    )
    assert [len(s["pictures"]) for s in bare.data["sections"]] == [0, 1] and "Nothing was measured" in bare.text
    alone = page(tmp_path, section(pictures=[], means={"GFPGAN": {"niqe": 4.2}}))
    assert alone.means() == [["method", "niqe ↓"], ["faces"], ["GFPGAN", "4.200"]] and "<strong>" not in alone.source


def test_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "made" / "report.html"
    assert write_report(str(path), title="first", sections=[section()]) == path
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(UserError, match="disk full"):
        write_report(path, title="second", sections=[section()])
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_page_files_are_package_data():
    listed = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    files = {p.name for p in Path(report.__file__).parent.iterdir() if p.suffix not in (".py", "") and p.is_file()}
    assert files == {"page.html", "page.css", "page.js"}
    assert all(f'"{name}"' in listed for name in files)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Runs Chromium on a page, with these flags, and returns what it prints."""
    if CHROMIUM is None:
        pytest.skip("needs chromium (apt-get install chromium): the page's script was not run")

    def run(path: Path, *flags: str) -> str:
        profile = tmp_path_factory.mktemp("profile")
        common = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"]
        command = [CHROMIUM, *common, "--virtual-time-budget=3000", *flags, path.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    return run


@pytest.fixture(scope="module")
def dump(browser):
    """Gives the document as a browser has built it, without scripts and styles."""

    def run(path: Path) -> str:
        document = browser(path, "--window-size=1280,2000", "--dump-dom")
        return re.sub(r"(?s)<(script|style).*?</\1>", "", document)

    return run


def driven(monkeypatch, script: str) -> None:
    """Let pages that are written from here on do something when they are built, as a reader's hand would."""
    resource = report._resource
    monkeypatch.setattr(report, "_resource", lambda name: resource(name) + (script if name == "page.js" else ""))


def shown_cards(document: str) -> list[str]:
    """The pictures' names in the order in which they are seen."""
    cards = re.findall(r'(?s)<article class="card"([^>]*)>\s*<h3>(.*?)</h3>', document)
    return [name for attributes, name in cards if "hidden" not in attributes]


CHOOSE = "const choose = (id, value) => { byId(id).value = value; byId(id).dispatchEvent(new Event('change')); };"


def root_of(document: str) -> str:
    return re.search(r"<html[^>]*>", document)[0]


def test_browser_builds_the_page(tmp_path, dump):
    curves = {"losses": {"l_g": [(i, 1 / i) for i in range(1, 200)], "l_d": [(i, 100.0) for i in range(1, 200)]}}
    document = dump(page(tmp_path, section(), curves=curves) and tmp_path / "report.html")
    root = root_of(document)
    assert "data-ready" in root and "data-error" not in root, root
    assert 'data-cards="2"' in root and 'data-charts="1"' in root
    assert document.count('<article class="card"') == 2 and document.count('type="range"') == 3
    assert len(re.findall(r'<img[^>]* src="blob:', document)) >= 2  # what is in view was decoded
    assert document.count('class="panel"') == 2 and '<path d="M' in document  # curves of different size stand apart
    assert '<td class="best">22.00</td>' in document and "6 rows" in document


def test_browser_dashes_curves_that_hide_each_other(tmp_path, dump):
    curves = {"rates": {name: [(1, 0.1), (2, 0.2)] for name in "gdf"}}
    document = dump(page(tmp_path, section(), curves=curves) and tmp_path / "report.html")
    assert re.findall(r'stroke-dasharray="([^"]*)" stroke-dashoffset="([^"]*)"', document) == [
        ("8 16", "0"), ("8 16", "-8"), ("8 16", "-16")
    ]  # fmt: skip


def test_browser_builds_hostile_and_empty_pages(tmp_path, dump):
    hostile(tmp_path)
    document = dump(tmp_path / "report.html")
    assert "data-ready" in root_of(document) and "data-error" not in root_of(document), root_of(document)
    assert 'data-cards="1"' in root_of(document) and "<title>owned" not in document
    page(tmp_path)
    assert "data-ready" in root_of(empty := dump(tmp_path / "report.html")) and "data-error" not in root_of(empty)


def test_browser_shows_the_worst_ten_by_any_metric(tmp_path, dump, monkeypatch):
    order = [5, 2, 9, 0, 13, 7, 1, 11, 3, 8, 12, 4, 10, 6]  # of sharpness; of noise, the reverse
    pictures = [
        picture(
            f"face{i}", 8, i, scores={"GFPGAN": {"psnr": 20.0 + place, "niqe": 3.0 + place / 4}, "other": {"psnr": 1.0 * i}}
        )
        for place, i in enumerate(order)
    ]
    given = section(pictures=[*pictures, Picture("without images", {}, {"GFPGAN": {"psnr": 1.0}})])
    for metric, expected in (("psnr", order[:10]), ("niqe", order[::-1][:10])):
        with monkeypatch.context() as patch:
            chosen = f"choose('show', '10'); choose('order', JSON.stringify(['GFPGAN', '{metric}']));"
            driven(patch, CHOOSE + chosen)
            page(tmp_path, given)
        document = dump(tmp_path / "report.html")
        assert shown_cards(document) == [f"face{i}" for i in expected]
        assert "10 of 14" in document and "without images" in document  # the table has it
    page(tmp_path, given)
    assert shown_cards(dump(tmp_path / "report.html")) == [p.name for p in pictures]


@pytest.mark.parametrize("width", [700, 1100, 1440])
def test_browser_finds_room_for_the_facts_beside_a_wide_table(tmp_path, browser, monkeypatch, width):
    measure = "const facts = document.querySelector('#summary .facts').getBoundingClientRect();"
    told = "document.documentElement.dataset.room = [facts.width, document.body.scrollWidth - innerWidth].join()"
    driven(monkeypatch, measure + told)
    scores = {f"codebook_perplexity_{i}": 221.6 for i in range(5)}
    image = np.zeros((8, 8, 3), np.uint8)
    path = write_report(
        tmp_path / "report.html", title="run", facts={"options": "options/faces64_codeformer_stage1.yml", "best": "23.2 at 9"},
        sections=[DataSection("faces", [Picture("face", {"input": image, "restored": image}, {"restored": scores}, {})])],
    )  # fmt: skip
    document = browser(path, f"--window-size={width},900", "--dump-dom")
    facts, beyond = map(float, re.search(r'data-room="([^"]*)"', document)[1].split(","))
    assert facts >= 250 and beyond <= 0


def test_browser_sorts_the_table(tmp_path, dump, monkeypatch):
    driven(
        monkeypatch, "[...document.querySelectorAll('.tall th button')].find(b => b.textContent.startsWith('psnr')).click();"
    )
    scores = [{"A": {"psnr": value}} for value in (30.0, 9.5, 21.0)]
    page(tmp_path, section(pictures=[picture(f"p{i}", scores=s) for i, s in enumerate(scores)]))
    body = re.search(r'(?s)<div class="scroll tall".*?<tbody>(.*?)</tbody>', dump(tmp_path / "report.html"))[1]
    assert re.findall(r">(p\d)</a>", body) == ["p1", "p2", "p0"]


WHOLE_FRAMES = ("--run-all-compositor-stages-before-draw", "--disable-checker-imaging")  # no picture that is still decoded
AT_ONCE = "document.querySelectorAll('img[data-image]').forEach(image => { image.decoding = 'sync'; load(image); });"


def test_what_is_seen_is_before_on_the_left_and_after_on_the_right(tmp_path, browser, monkeypatch):
    """Looked at: a screenshot of one picture, all red before, all blue after, green in truth."""
    driven(monkeypatch, AT_ONCE)  # a busy machine may be photographed before pictures have come into view
    red, blue, green = (np.full((256, 256, 3), colour, np.uint8) for colour in ((250, 0, 0), (0, 0, 250), (0, 250, 0)))
    facts = {"kernel": "iso, sigma 2.5"}
    shown = Picture("face", {"bicubic": red, "GFPGAN": blue, "HR": green}, {"GFPGAN": {"psnr": 30.0}}, facts)
    path = write_report(tmp_path / "report.html", title="run", sections=[DataSection("faces", [shown])])
    browser(path, *WHOLE_FRAMES, "--window-size=1200,1400", f"--screenshot={tmp_path / 'seen.png'}")
    seen = cv2.cvtColor(cv2.imread(str(tmp_path / "seen.png")), cv2.COLOR_BGR2RGB).astype(int)
    places = {}
    for name, colour in (("red", (250, 0, 0)), ("blue", (0, 0, 250)), ("green", (0, 250, 0))):
        rows, columns = np.nonzero((np.abs(seen - colour) <= 8).all(axis=2))
        assert len(rows) > 1000, f"no {name} is seen"
        places[name] = rows, columns
    slider = places["red"][0].min() + 100  # a row of the slider
    left, right = (columns[rows == slider] for rows, columns in (places["red"], places["blue"]))
    assert left.max() < right.min() and abs(len(left) - len(right)) <= 8  # the line stands in the middle
    assert places["green"][0].min() > slider, "the truth stands in the strip below"
