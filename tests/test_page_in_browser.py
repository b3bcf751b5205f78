"""The page in a real browser: it draws, time moves, controls change what is seen, nothing is asked of any host."""

import threading
from dataclasses import replace

import numpy as np
import pytest

import raycast
from browser import Browser, browser
from world_clips import world_clip
from xwam.core.pictures import depth_colours, depth_range
from xwam.core.types import OBJECT, ROBOT, WorldClip
from xwam.scene.live import LiveServer
from xwam.scene.page import PageContent, Score, nearest, write_page
from xwam.scene.page_data import encode_depth

SIZE = 64
HOSTILE = "</script><img src=x onerror='window.stolen = 1'>"


@pytest.fixture(scope="module")
def content() -> PageContent:
    """What was imagined, of two chunks, beside what is true; the ball is an object, and the box a robot."""
    true = raycast.clip(size=SIZE, frames=4)
    red = true.rgb[..., 0] > 1.8 * true.rgb[..., 2]
    blue = true.rgb[..., 2] > 1.3 * true.rgb[..., 0]
    layers = np.where(red, OBJECT, np.where(blue & (true.depth_m > 0), ROBOT, 0)).astype(np.uint8)
    true = replace(true, layers=layers)
    driven = world_clip(frames=4)
    names = {"action_names": (HOSTILE, "y", "gripper"), "action_units": driven.action_units}
    both = {"actions": driven.actions, "action_period_s": 0.05, "instruction": HOSTILE, "about": {HOSTILE: HOSTILE}}
    dark = replace(true, rgb=true.rgb // 2, depth_scale="aligned")
    clips = {
        HOSTILE: WorldClip(dark, "imagined", seams=(2,), **names, **both),
        "true": WorldClip(true, "simulated", proprio=driven.proprio, **names, **both),
    }
    scores = (Score("PSNR", (20.0, None), "dB", "higher"), Score("error", (0.5, 0.25), "m", "lower"))
    return PageContent(clips, title=HOSTILE, scores=scores)


@pytest.fixture(scope="module")
def chromium():
    with browser() as one:
        yield one


@pytest.fixture(scope="module")
def opened(chromium: Browser, content: PageContent, tmp_path_factory) -> Browser:
    path = write_page(tmp_path_factory.mktemp("page") / "page.html", content)
    chromium.open(f"{path.as_uri()}#still", 920, 520)
    chromium.run("find('hint').classList.add('known')")  # which else fades at some moment
    return chromium


def colourful(picture: np.ndarray) -> float:
    """Share of pixels that are clearly of a colour, as nothing of the page's own is but for accents."""
    return float((np.ptp(picture.astype(int), axis=-1) > 40).mean())


def go(page: Browser, tick: int) -> None:
    """Moves the slider as a hand does."""
    page.run(f"slider.value = {tick}; slider.dispatchEvent(new Event('input'))")
    page.wait(f"document.body.dataset.shown === '{tick}'")
    page.run("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")


def test_the_canvas_shows_the_scene(opened):
    go(opened, 0)
    picture = opened.picture("#stage")
    assert colourful(picture) > 0.1
    left, right = picture[:, : picture.shape[1] // 2], picture[:, picture.shape[1] // 2 :]
    ball = [((half[..., 0] > 2 * half[..., 2]) & (half[..., 0] > 60)).sum() for half in (left, right)]
    assert min(ball) > 100


def test_strips_show_what_the_cameras_see(opened, content):
    go(opened, 2)
    true = content.scenes[1]
    pixels = f"getImageData(0, 0, {SIZE}, {SIZE}).data"
    seen = {
        kind: np.array(opened.run(f"[...strips.cards.get('1-0').{kind}.{pixels}]")).reshape(SIZE, SIZE, 4)[..., :3]
        for kind in ("rgb", "depth")
    }
    assert np.abs(seen["rgb"] - true.rgb[0, 2]).mean() < 4
    assert np.abs(seen["depth"] - depth_colours(true.depth_m[0, 2], *depth_range(true.depth_m[0]))).max() <= 4


def test_the_slider_moves_time(opened):
    go(opened, 0)
    scene, strip = opened.picture("#stage"), opened.picture("#strips")
    go(opened, 3)
    assert (np.abs(opened.picture("#stage").astype(int) - scene).max(axis=-1) > 30).sum() > 300
    assert (np.abs(opened.picture("#strips").astype(int) - strip).max(axis=-1) > 30).sum() > 100
    assert opened.run("document.getElementById('now').textContent") == "0.60 s"
    assert "frame 3 of 3, chunk 2" in opened.run("document.getElementById('labels').textContent")
    go(opened, 0)
    assert "frame 0, given" in opened.run("document.getElementById('labels').textContent")
    assert np.abs(opened.picture("#stage").astype(int) - scene).mean() < 0.5


def test_keys_play_and_step(opened):
    go(opened, 1)
    opened.run("document.activeElement.blur()")
    opened.press("ArrowRight", "ArrowRight")
    opened.wait("document.body.dataset.shown === '2'")
    opened.run("speed.value = '2'")
    opened.press(" ", "Space", " ")
    assert opened.run("playing")
    opened.wait("document.body.dataset.shown === '0'")
    opened.press(" ", "Space", " ")
    assert not opened.run("playing")


def test_controls_change_what_is_seen(opened):
    go(opened, 0)
    before = opened.picture("#stage")
    for name in ("left", "objects", "hide flying pixels", "frustums", "motion, 5 frames long"):
        press = f"[...document.querySelectorAll('.toggle')].find((b) => b.textContent === {name!r}).click()"
        opened.run(press)
        changed = (np.abs(opened.picture("#stage").astype(int) - before).max(axis=-1) > 30).sum()
        assert changed > 40, name
        opened.run(press)
    opened.run("document.querySelector('#panel select').value = 'overlaid'")
    opened.run("document.querySelector('#panel select').dispatchEvent(new Event('change'))")
    opened.picture("#stage")
    assert opened.run("stage.panels.length") == 1
    opened.run("look.overlaid = false; stage.orbit.turn(1, 0.2)")
    opened.wait("!stage.waiting && !stage.orbit.follow(0)")
    opened.run("stage.orbit.reset(true)")


def test_a_double_click_brings_a_point_to_the_middle(opened):
    go(opened, 0)
    opened.picture("#stage")
    opened.run(
        "(() => { const box = stage.canvas.getBoundingClientRect(), at = project(stage.panels[1], [-0.25, 0.2, 0.2]);"
        "stage.centre({ clientX: box.left + at[0], clientY: box.top + at[1] }); })()"
    )
    assert np.allclose(opened.run("[...stage.orbit.goal.target]"), (-0.25, 0.2, 0.2), atol=0.08)
    opened.run("stage.orbit.reset(true)")


def test_depth_in_the_page_is_that_of_python(opened, content):
    for number, scene in enumerate(content.scenes):
        script = f"(async () => [...(await moments.get(scene.clips[{number}], 2))[1].codes])()"
        codes = np.array(opened.run(script)).reshape(SIZE, SIZE)
        assert (codes == encode_depth(scene.depth_m[1, 2], nearest(scene))).all()


def test_what_is_imagined_and_what_depth_is_worth_is_in_plain_sight(opened):
    text = opened.run("document.getElementById('labels').innerText")
    for words in ("imagined", "aligned depth", "true, simulated", "metric depth"):
        assert words in text
    scores = opened.run("document.getElementById('scores').innerText")
    assert "PSNR, dB ↑" in scores and "−0.25" in scores


def test_a_page_around_it_drives_the_clock(opened):
    go(opened, 0)
    opened.run("postMessage({ tick: 1 }, '*')")
    opened.wait("document.body.dataset.shown === '1'")
    assert opened.run("getComputedStyle(document.getElementById('clock')).display") == "none"
    opened.run("document.body.classList.remove('driven')")


def test_a_phone_shows_all_of_it(opened):
    opened.call("Emulation.setDeviceMetricsOverride", width=360, height=700, deviceScaleFactor=1, mobile=True)
    assert opened.run("document.documentElement.scrollWidth") == 360
    assert colourful(opened.picture("#stage")) > 0.1
    opened.call("Emulation.setDeviceMetricsOverride", width=920, height=520, deviceScaleFactor=1, mobile=False)


def test_nothing_went_wrong_and_nothing_was_fetched(opened):
    assert opened.errors == []
    assert opened.run("window.stolen") is None
    assert opened.requests and all(url.startswith(("file:", "data:", "blob:")) for url in opened.requests)
    assert opened.run("fetch('http://127.0.0.1:9/').then(() => 'went', () => 'held')") == "held"
    assert any("Content Security Policy" in error for error in opened.errors)


def test_live_it_is_the_same_page_from_loopback(opened, content):
    server = LiveServer(content, port=0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        opened.open(server.url + "#still", 920, 520)
        go(opened, 3)
        assert colourful(opened.picture("#stage")) > 0.1
        assert opened.errors == []
        assert len(opened.requests) > 10 and all(url.startswith((server.url, "data:")) for url in opened.requests)
    finally:
        server.shutdown()
        server.server_close()
