"""The page to look into holds everything, exactly, asks no host, and trusts no text."""

import base64
import json
import re
from dataclasses import replace
from html import unescape

import av
import numpy as np
import pytest

import raycast
from world_clips import world_clip
from xwam.core.depth import InverseDepthAlignment
from xwam.core.types import ROBOT, WorldClip
from xwam.scene.baselines import repeat_last_frame
from xwam.scene.comparison import compare
from xwam.scene.flow import streaks
from xwam.scene.page import PageContent, Score, depth_blob, describe, nearest, write_page
from xwam.scene.page_data import ON_SURFACE, STEPS_PER_E, decode_depth, encode_depth, pack, unpack

HOSTILE = "</script><script>window.stolen = 1</script> & \"quotes\" 'too' ${x} $title"


def imagined(**changes) -> WorldClip:
    return world_clip(height=24, width=32, **changes)


def scene_of(page: str) -> dict:
    return json.loads(re.search(r'id="scene">(.*?)</script>', page)[1])


def test_depth_is_coded_within_its_steps():
    depth_m = np.geomspace(0.05, 40.0, 10_000)
    again = decode_depth(encode_depth(depth_m, 0.05), 0.05)
    assert np.abs(again / depth_m - 1).max() <= 0.5001 / STEPS_PER_E
    assert np.abs(again - depth_m)[depth_m < 1].max() < 1.3e-4
    unknown = np.array([0.0, np.nan, np.inf, -1.0])
    assert not encode_depth(unknown, 0.05).any() and not decode_depth(encode_depth(unknown, 0.05), 0.05).any()


def test_what_is_packed_comes_back_exactly():
    random = np.random.default_rng(0)
    codes = random.integers(0, 2**16, (7, 9), dtype=np.uint16)
    surface, layers = random.random((7, 9)) < 0.5, random.integers(0, 3, (7, 9), dtype=np.uint8)
    again, flags = unpack(pack(codes, surface, layers), 7, 9)
    assert (again == codes).all() and ((flags & ON_SURFACE > 0) == surface).all() and (flags >> 1 == layers).all()
    assert (unpack(pack(codes, surface, None), 7, 9)[1] == surface).all()


def test_a_depth_of_nearly_nothing_spoils_no_other():
    depth_m = np.array([[[[1e-12, 0.5], [2.0, 0.0]]]], np.float32)
    scene = replace(world_clip().scene, cameras=("a",), rgb=np.zeros((1, 1, 2, 2, 3), np.uint8), depth_m=depth_m,
                    intrinsics=np.eye(3)[None, None], T_base_cam=np.eye(4)[None, None], layers=None)  # fmt: skip
    codes, _ = unpack(depth_blob(scene, 0, 0, nearest(scene)), 2, 2)
    assert decode_depth(codes, nearest(scene))[0, 1] == pytest.approx(0.5, rel=2e-4)
    assert decode_depth(codes, nearest(scene))[1] == pytest.approx([2.0, 0.0], rel=2e-4)


def test_a_page_holds_every_frame_and_asks_no_host(tmp_path):
    clip = imagined()
    html = write_page(tmp_path / "page.html", PageContent({"imagined": clip}, title="A title")).read_text()
    assert "http://" not in html.replace("http://www.w3.org/2000/svg", "") and "https://" not in html
    assert "connect-src 'none'" in html and not re.search(r'\b(src|href)="(?!data:)', html)
    blobs = dict(re.findall(r'octet-stream" id="([\w-]+)">([^<]*)<', html))
    assert len(blobs) == 3 * 2 * 5
    described = scene_of(html)["clips"][0]
    codes, flags = unpack(base64.b64decode(blobs["depth-0-1-3"]), 24, 32)
    true_m = clip.scene.depth_m[1, 3]
    assert np.allclose(decode_depth(codes, described["nearest"]), true_m, rtol=2e-4)
    assert (flags >> 1 == clip.scene.layers[1, 3]).all()
    drawn = np.frombuffer(base64.b64decode(blobs["flow-0-1-3"]), "<f4").reshape(-1, 2, 3)
    assert described["flow"] and (drawn == streaks(clip.scene, 1, 3)).all()
    assert np.allclose(np.reshape(described["poses"][1][3], (4, 4)).T, clip.scene.T_base_cam[1, 3], atol=1e-5)
    with av.open(str(_file(tmp_path / "a.jpg", base64.b64decode(blobs["rgb-0-1-3"])))) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(picture.astype(int) - clip.scene.rgb[1, 3]).mean() < 4


def _file(path, content: bytes):
    path.write_bytes(content)
    return path


def test_what_a_page_says_of_its_clips():
    clip = imagined(layers=None, actions=np.full((16, 3), np.nan, np.float32))
    true = imagined(origin="recorded", instruction=clip.instruction, actions=None, seams=())
    described = describe(PageContent({"seed 0": clip, "seed 1": clip, "true": true}))
    first, second, third = described["clips"]
    assert described["instruction"] == clip.instruction
    assert (first["seams"], first["moving"], first["layers"], third["layers"]) == ([2], [False, True], False, True)
    assert first["actions"]["units"] == ("m", "m", "1") and first["actions"]["values"][0] == [None] * 3
    assert third["actions"] is None and third["states"]["names"] == ("a", "b")
    assert len({one["colour"] for one in described["clips"]}) == 3
    aligned = replace(true, alignments={"left": InverseDepthAlignment(0.5, -0.01, 0.02, 0.9, 100)})
    [said] = describe(PageContent({"a": aligned}))["clips"][0]["alignments"]
    assert said == "left: 1/depth = 0.5 code -0.01, within 0.02 1/m, 90% of pixels"
    other = replace(true, instruction="another")
    assert describe(PageContent({"a": clip, "b": other}))["instruction"] == ""


def test_no_text_can_leave_its_place(tmp_path):
    names = {"action_names": (HOSTILE, "b", "c"), "action_units": (HOSTILE, "m", "m"), "about": {HOSTILE: HOSTILE}}
    clip = imagined(instruction=HOSTILE, cameras=(HOSTILE, "b"), **names)
    scores = (Score(HOSTILE, (1.0,), HOSTILE),)
    html = write_page(tmp_path / "page.html", PageContent({HOSTILE: clip}, title=HOSTILE, scores=scores)).read_text()
    assert html.count("</script>") == html.count("<script") == 2 + 3 * 2 * 5
    assert "window.stolen = 1</script>" not in html
    assert unescape(re.search(r"<h1>(.*?)</h1>", html)[1]) == HOSTILE
    described = scene_of(html)
    assert described["instruction"] == HOSTILE and described["clips"][0]["about"] == {HOSTILE: HOSTILE}


def test_a_page_of_three_views_of_256_x_320_is_small(tmp_path):
    # With the noise of sensors, which is what no code makes small.
    random = np.random.default_rng(0)
    base = world_clip(frames=9, height=256, width=320)
    scene = base.scene
    three = (0, 1, 0)
    rgb, depth_m = scene.rgb[three, :], scene.depth_m[three, :]
    noisy = rgb + random.normal(scale=6, size=rgb.shape)
    far = depth_m * (1 + 0.002 * random.normal(size=depth_m.shape))
    clip = replace(
        base,
        scene=replace(
            scene,
            cameras=("left", "right", "wrist"),
            rgb=np.clip(noisy, 0, 255).astype(np.uint8),
            depth_m=far.astype(np.float32),
            intrinsics=scene.intrinsics[three, :],
            T_base_cam=scene.T_base_cam[three, :],
            layers=np.full(depth_m.shape, ROBOT, np.uint8),
        ),
    )
    path = write_page(tmp_path / "page.html", PageContent({"imagined": clip}))
    assert path.stat().st_size < 15e6


def test_wrong_content_is_named():
    with pytest.raises(ValueError, match="no clip to show"):
        PageContent({})
    with pytest.raises(ValueError, match="'psnr' has 2 values for 1 clips"):
        PageContent({"a": imagined()}, scores=(Score("psnr", (1.0, 2.0)),))
    with pytest.raises(ValueError, match="no point of the clip is in the box"):
        describe(PageContent({"a": imagined()}, bounds_m=np.array([[9.0] * 3, [10.0] * 3])))


def test_dreams_are_compared_with_the_truth():
    true = WorldClip(raycast.clip(size=32, frames=4), "simulated")
    still = replace(true, scene=repeat_last_frame(true.scene), origin="imagined")
    longer = WorldClip(raycast.clip(size=32, frames=5), "imagined")
    lines = {line.name: line for line in compare({"still": still, "perfect": longer, "true": true})}
    psnr, chamfer = lines["PSNR where it changed"], lines["Chamfer distance everywhere"]
    assert psnr.values[0] == psnr.baseline and psnr.values[1] == 100 and psnr.values[2] is None
    assert (chamfer.unit, chamfer.better, chamfer.values[1]) == ("mm", "lower", 0.0) and chamfer.values[0] > 0
    for clips in ({"true": true}, {"a": still, "b": still}, {"a": true, "b": true, "c": still}):
        with pytest.raises(ValueError, match="scores need one true clip"):
            compare(clips)
