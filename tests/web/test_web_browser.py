"""The page in a real browser: every request stays at the server, and the console stays empty."""

import io
import json
import re
import shutil
import threading
import zipfile
from dataclasses import dataclass, field

import numpy as np
import pytest
from fake_model import FakeModel
from PIL import Image

from ultrasam.web import server
from ultrasam.web.engine import Engine
from ultrasam.web.limits import Limits

pytest.importorskip("fastapi", reason="the page needs the extra 'web'")
sync_api = pytest.importorskip("playwright.sync_api", reason="the browser tests need the package playwright")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="the browser tests need Chromium (apt-get install chromium)")

HEIGHT, WIDTH, RADIUS = 300, 400, 25
WAIT_MS = 30_000
BLUE, ORANGE = (86, 180, 233), (240, 160, 60)


def disc(x, y):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (columns - x) ** 2 + (rows - y) ** 2 <= RADIUS**2


def disc_area(x, y):
    return int(disc(x, y).sum())


def cut_area():
    """Area of the disc at (100, 100) less the one at (120, 100)."""
    return int((disc(100, 100) & ~disc(120, 100)).sum())


@pytest.fixture(scope="module")
def address():
    """A server in a thread."""
    limits = Limits(upload_bytes=4 << 20)
    engine = Engine(FakeModel(radius=RADIUS), limits.cache_bytes)
    ready = threading.Event()
    with server.bind("127.0.0.1", 0) as taken:
        running = server.make_server(server.make_app(engine, limits), ready.set)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [taken]}, daemon=True)
        thread.start()
        assert ready.wait(timeout=30)
        yield server.address_of(taken, "127.0.0.1")
        running.should_exit = True
        thread.join(timeout=30)
        engine.stop()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )
        yield made
        made.close()


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "scan.png"
    Image.fromarray(np.full((HEIGHT, WIDTH), 60, np.uint8)).save(path)
    return path


@pytest.fixture
def loop(tmp_path):
    path = tmp_path / "loop.npy"
    np.save(path, np.arange(12, dtype=np.uint8)[:, None, None] + np.full((12, HEIGHT, WIDTH), 60, np.uint8))
    return path


@dataclass
class Visit:
    """An open page, and what it said and asked for."""

    page: object
    address: str
    console: list = field(default_factory=list)
    asked: list = field(default_factory=list)
    refused: list = field(default_factory=list)

    def __getattr__(self, name):
        return getattr(self.page, name)

    def open(self, path):
        self.page.set_input_files("#chooser", str(path))
        self.says("Ready")

    def says(self, text):
        sync_api.expect(self.page.locator("#status")).to_have_text(re.compile(text))

    def where(self, x, y):
        """Place on the screen of a pixel of the image."""
        box = self.page.locator("#stage").bounding_box()
        scale = min(box["width"] / WIDTH, box["height"] / HEIGHT)
        left = box["x"] + (box["width"] - WIDTH * scale) / 2
        top = box["y"] + (box["height"] - HEIGHT * scale) / 2
        return left + (x + 0.5) * scale, top + (y + 0.5) * scale

    def click(self, x, y, **options):
        self.page.mouse.click(*self.where(x, y), **options)

    def drag(self, x1, y1, x2, y2):
        self.page.mouse.move(*self.where(x1, y1))
        self.page.mouse.down()
        self.page.mouse.move(*self.where((x1 + x2) / 2, (y1 + y2) / 2))
        self.page.mouse.move(*self.where(x2, y2))
        self.page.mouse.up()

    def measures(self, card, value):
        sync_api.expect(self.page.locator(f".object >> nth={card}").locator("dl")).to_contain_text(value)

    def areas(self, *values):
        """Wait for a list of objects with these areas on the frame."""
        cards = self.page.locator(".object")
        sync_api.expect(cards).to_have_count(len(values))
        for number, value in enumerate(values):
            self.measures(number, f"{value:,} px")

    def colour(self, x, y):
        self.page.wait_for_timeout(60)
        picture = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        u, v = self.where(x, y)
        scale = picture.width / self.page.viewport_size["width"]
        return picture.getpixel((int(u * scale), int(v * scale)))


@pytest.fixture
def visit(browser, address):
    """Open pages, each with a storage of its own; afterwards nothing went elsewhere and nothing was said."""
    visits = []

    def start(width=1200, height=760, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(WAIT_MS)
        made = Visit(context.new_page(), address)
        made.page.on("console", lambda message: made.console.append(message.text))
        made.page.on("pageerror", lambda error: made.console.append(str(error)))
        made.page.on("request", lambda request: made.asked.append(request.url))
        made.page.goto(address)
        sync_api.expect(made.page.locator("#limits")).to_contain_text("4 MB")
        visits.append(made)
        return made

    sync_api.expect.set_options(timeout=WAIT_MS)
    yield start
    for made in visits:
        assert made.asked and all(url.startswith((address, "blob:" + address)) for url in made.asked)
        # Chromium reports answers that are refused, which some tests ask for.
        assert [text for text in made.console if text not in made.refused] == []
        made.page.context.close()


def refused(status, words):
    return f"Failed to load resource: the server responded with a status of {status} ({words})"


def is_tinted(colour, like):
    """Whether a grey of 60 has taken some of another colour."""
    return all(abs(value - (60 + 0.35 * (tint - 60))) < 14 for value, tint in zip(colour, like, strict=True))


def test_click_correct_undo_redo(visit, scan):
    page = visit()
    page.open(scan)
    assert max(page.colour(100, 100)) - min(page.colour(100, 100)) < 4
    page.click(100, 100)
    page.areas(disc_area(100, 100))
    assert is_tinted(page.colour(85, 100), BLUE)
    page.click(120, 100, button="right")
    page.areas(cut_area())
    page.page.locator("#undo").click()
    page.areas(disc_area(100, 100))
    page.keyboard.press("Control+z")
    sync_api.expect(page.locator(".object")).to_have_count(0)
    page.keyboard.press("Control+Shift+z")
    page.areas(disc_area(100, 100))
    page.keyboard.down("Shift")
    page.click(120, 100)
    page.keyboard.up("Shift")
    page.areas(cut_area())
    sync_api.expect(page.locator("#redo")).to_be_disabled()


def test_boxes_several_objects_names_and_download(visit, scan):
    page = visit()
    page.open(scan)
    page.drag(40, 40, 120, 100)
    sync_api.expect(page.locator(".object")).to_have_count(1)
    page.measures(0, "px")
    page.drag(200, 120, 300, 220)
    sync_api.expect(page.locator(".object")).to_have_count(2)
    assert is_tinted(page.colour(80, 85), BLUE) and is_tinted(page.colour(250, 200), ORANGE)
    page.locator(".object .name >> nth=1").fill("Cyst")
    page.locator(".object .class >> nth=1").fill("simple cyst")
    page.locator(".object .class >> nth=1").press("Enter")
    page.keyboard.press("h")
    assert max(page.colour(80, 85)) - min(page.colour(80, 85)) < 4
    page.keyboard.press("h")
    page.locator(".object .remove >> nth=0").click()
    sync_api.expect(page.locator(".object")).to_have_count(1)
    sync_api.expect(page.locator(".object .name")).to_have_value("Cyst")
    page.keyboard.press("z")
    sync_api.expect(page.locator(".object")).to_have_count(2)
    page.keyboard.press("s")
    with page.page.expect_download() as saved:
        page.locator("[data-kind=zip]").click()
    assert saved.value.suggested_filename == "scan_ultrasam.zip"
    with zipfile.ZipFile(saved.value.path()) as archive:
        labels = np.asarray(Image.open(io.BytesIO(archive.read("scan_labels.png"))))
        notes = json.loads(archive.read("scan_coco.json"))
    assert (labels[70, 80], labels[170, 250], labels[70, 250]) == (1, 2, 0)
    assert [item["name"] for item in notes["categories"]] == ["object", "simple cyst"]
    sync_api.expect(page.locator("#save-dialog")).to_be_hidden()
    # Clicks that follow at once go to one object, one after the other.
    page.keyboard.press("n")
    page.click(350, 60)
    page.click(352, 60)
    sync_api.expect(page.locator(".object")).to_have_count(3)


def test_an_unreadable_file_is_said_and_the_next_opens(visit, scan, tmp_path):
    page = visit()
    page.refused += [refused(422, "Unprocessable Content"), refused(422, "Unprocessable Entity"),
                     refused(413, "Content Too Large"), refused(413, "Request Entity Too Large"),
                     refused(413, "Payload Too Large")]  # fmt: skip
    bad = tmp_path / "broken.png"
    bad.write_bytes(scan.read_bytes()[:60])
    page.page.set_input_files("#chooser", str(bad))
    alert = page.locator("#alert")
    sync_api.expect(alert).to_contain_text("broken.png")
    large = tmp_path / "large.avi"
    large.write_bytes(bytes(5 << 20))
    page.page.set_input_files("#chooser", str(large))
    sync_api.expect(alert).to_contain_text("larger than")
    sync_api.expect(page.locator("#drop")).to_be_visible()
    page.open(scan)
    sync_api.expect(alert).to_be_hidden()
    page.page.set_input_files("#chooser", str(bad))
    sync_api.expect(alert).to_contain_text("broken.png")
    # What was open is open still.
    page.click(100, 100)
    page.areas(disc_area(100, 100))


def test_two_sessions_at_once(visit, scan):
    first, second = visit(), visit()
    first.open(scan)
    second.open(scan)
    first.click(100, 100)
    second.click(10, 150)
    first.areas(disc_area(100, 100))
    second.areas(disc_area(10, 150))
    first.page.reload()
    first.areas(disc_area(100, 100))
    first.says("Ready")


def test_a_file_that_the_server_closed_is_said(visit, scan):
    page = visit()
    page.refused.append(refused(410, "Gone"))
    page.open(scan)
    key = re.search(r"/api/studies/([\w-]{20,})/", " ".join(page.asked)).group(1)
    page.page.context.request.delete(f"{page.address}api/studies/{key}")
    page.click(100, 100)
    sync_api.expect(page.locator("#alert")).to_contain_text("open it again")


def test_frames_and_keyboard(visit, loop):
    page = visit()
    page.open(loop)
    number = page.locator("#frame-number")
    sync_api.expect(number).to_have_text("1 / 12")
    page.locator("#stage").focus()
    page.keyboard.press("c")
    page.says("Cursor on")
    page.keyboard.press("ArrowRight")
    page.says(f"Cursor at {WIDTH // 2 + 10}, {HEIGHT // 2}")
    page.keyboard.press("Enter")
    page.areas(disc_area(WIDTH // 2 + 10, HEIGHT // 2))
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("PageDown")
    sync_api.expect(number).to_have_text("12 / 12")
    sync_api.expect(page.locator(".elsewhere")).to_have_text("On frame 1")
    page.says("Ready")
    page.click(100, 100)
    page.areas(disc_area(100, 100))
    sync_api.expect(page.locator("#ticks i")).to_have_count(2)
    page.keyboard.press("Home")
    page.areas(disc_area(WIDTH // 2 + 10, HEIGHT // 2))
    # Undo goes to where the step was.
    page.keyboard.press("z")
    sync_api.expect(number).to_have_text("12 / 12")
    sync_api.expect(page.locator(".elsewhere")).to_have_text("On frame 1")
    page.locator("#frame").focus()
    page.keyboard.press("ArrowLeft")
    sync_api.expect(number).to_have_text("11 / 12")
    page.keyboard.press("?")
    sync_api.expect(page.locator("#help-dialog")).to_be_visible()
    page.keyboard.press("Escape")
    sync_api.expect(page.locator("#help-dialog")).to_be_hidden()
    page.keyboard.press("+")
    before = page.locator("#zoom").text_content()
    page.keyboard.press("0")
    sync_api.expect(page.locator("#zoom")).not_to_have_text(before)


def test_touch_in_a_narrow_window(visit, scan):
    page = visit(360, 740, has_touch=True, is_mobile=True, device_scale_factor=2)
    page.open(scan)
    page.touchscreen.tap(*page.where(100, 100))
    page.areas(disc_area(100, 100))
    page.locator(".tools label >> nth=1").tap()
    page.touchscreen.tap(*page.where(120, 100))
    page.areas(cut_area())
    touch = page.page.context.new_cdp_session(page.page)

    def fingers(kind, *places):
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers("touchStart", page.where(220, 150))
    for x in (240, 270, 300):
        fingers("touchMove", page.where(x, x - 60))
    fingers("touchEnd")
    sync_api.expect(page.locator(".object")).to_have_count(2)
    before = int(page.locator("#zoom").text_content().split()[0])
    a, b = page.where(190, 150), page.where(210, 150)
    fingers("touchStart", a, b)
    for step in (10, 20, 40):
        fingers("touchMove", (a[0] - step, a[1]), (b[0] + step, b[1]))
    fingers("touchEnd")
    assert int(page.locator("#zoom").text_content().split()[0]) > 2 * before
    sync_api.expect(page.locator(".object")).to_have_count(2)
    # Nothing is wider than the window, and what is tapped is large enough.
    for button in page.locator("button:visible, .tools label").all():
        box = button.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 360.5
    for name in ("#open", "#save", "#undo", ".object .remove >> nth=0"):
        box = page.locator(name).bounding_box()
        assert min(box["width"], box["height"]) >= 38
