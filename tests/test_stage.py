"""The 4D page opens from disk, and the live viewer shows one moment at a time."""

import dataclasses
import re

import numpy as np
import pytest

import raycast

pytest.importorskip("viser")

import viser

from xwam.scene import viewer
from xwam.scene.cloud import fuse

SVG_NAMESPACE = "http://www.w3.org/2000/svg"


@pytest.fixture
def server():
    server = viser.ViserServer(host="127.0.0.1", port=0, verbose=False)
    yield server
    server.stop()


def test_the_page_is_one_file_that_needs_no_host(tmp_path):
    clip = raycast.clip(size=24, frames=3)
    path = viewer.write_page(tmp_path / "scene.html", {"imagined": clip, "true": clip}, points=300)
    page = path.read_text()
    assert set(re.findall(r"https?://[^\s\"'`<)]+", page)) <= {SVG_NAMESPACE}
    assert "__VISER_EMBED_DATA__" in page
    assert 0.5e6 < len(page) < 2e6


def test_one_moment_is_visible_at_a_time(server):
    clip = raycast.clip(size=16, frames=3)
    frames = viewer.build(server, {"imagined": clip, "true": clip}, None, points=200)
    player = viewer.Player(server, frames, clip.period_s)
    assert [[node.visible for node in nodes] for nodes in frames] == [[True] * 2, [False] * 2, [False] * 2]
    player.tick()
    assert player.time.value == 1
    assert [nodes[0].visible for nodes in frames] == [False, True, False]
    player.playing.value = False
    player.tick()
    assert player.time.value == 1


def test_play_starts_again_after_the_last_frame(server):
    clip = raycast.clip(size=16, frames=2)
    player = viewer.Player(server, viewer.build(server, {"true": clip}, None, points=100), clip.period_s)
    player.tick()
    player.tick()
    assert player.time.value == 0


def test_clips_stand_side_by_side_across_the_line_of_sight():
    clip = raycast.clip(size=24, frames=1)
    stage = viewer.Stage.around(clip, viewer.workspace(clip), clips=2)
    assert np.allclose(stage.offset(0), 0)
    assert stage.offset(1) @ stage.forward == pytest.approx(0, abs=1e-9)
    assert np.linalg.norm(stage.offset(1)) > stage.width_m
    # Both cameras look along -x and to either side: so does the first view.
    assert stage.forward[0] < -0.99


def test_cameras_that_look_straight_down_still_give_a_view():
    clip = raycast.clip(size=16, frames=1, wrist=False)
    down = np.tile(np.diag([1.0, -1.0, -1.0, 1.0]), (2, 1, 1, 1))
    down[..., 2, 3] = 2.0
    stage = viewer.Stage.around(dataclasses.replace(clip, T_base_cam=down), np.array([[-1.0] * 3, [1.0] * 3]), clips=1)
    assert np.allclose(stage.forward, (1, 0, 0))


def test_about_as_many_points_as_asked_for_are_shown():
    clip = raycast.clip(size=64, frames=1)
    bounds = np.array([[-0.2, -0.2, -0.1], [0.2, 0.2, 0.3]])
    shown = fuse(clip, 0, pixels=viewer._sample(clip, bounds, 500), bounds_m=bounds)
    assert len(shown) == pytest.approx(500, rel=0.15)


def test_the_workspace_holds_what_is_looked_at_and_no_far_wall():
    clip = raycast.clip(size=48, frames=3)
    walled = dataclasses.replace(clip, depth_m=np.where(clip.depth_m > 0, clip.depth_m, 4.5).astype(np.float32))
    for scene in (clip, walled):
        low, high = viewer.workspace(scene)
        assert (low < raycast.BOX_LOW_M).all() and (high > raycast.BOX_HIGH_M).all()
        assert np.ptp([low, high], axis=0).max() < 1.6
    with pytest.raises(ValueError, match="give bounds_m"):
        viewer.workspace(dataclasses.replace(clip, depth_m=np.zeros_like(clip.depth_m)))


def test_clips_of_unequal_length_are_refused(server):
    clips = {"a": raycast.clip(size=8, frames=1), "b": raycast.clip(size=8, frames=2)}
    with pytest.raises(ValueError, match=r"clips of \[1, 2\] frames"):
        viewer.build(server, clips, None, points=10)
