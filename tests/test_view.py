"""`xwam view`: which clips it finds, what it says of an episode, what it writes; and the mistakes that people make."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from recordings import record, smooth_episode, toy_spec
from world_clips import world_clip
from xwam import cli
from xwam.scene.folder import write_clip
from xwam.show import clip_of_episode, clips_at


def view(*arguments: object) -> None:
    sys.argv = ["xwam", "view", *map(str, arguments)]
    cli.main()


def refused(capsys, *arguments: object) -> str:
    with pytest.raises(SystemExit) as exit:
        view(*arguments)
    assert exit.value.code == 2
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Two runs, each with a dream, one with the truth; and a dataset."""
    home = tmp_path_factory.mktemp("view")
    for run in ("a", "b"):
        write_clip(home / run / "seed-0", world_clip(frames=4))
    write_clip(home / "a" / "true", world_clip(frames=5, origin="simulated"))
    record(home / "data", [[smooth_episode()]], toy_spec())
    return home


def test_labels_are_as_short_as_they_can_be(home):
    assert list(clips_at([home / "a"], 0, 1)) == ["seed-0", "true"]
    assert list(clips_at([home / "a", home / "b" / "seed-0"], 0, 1)) == ["a/seed-0", "a/true", "b/seed-0"]


def test_an_episode_is_a_clip_with_names_and_units(home):
    clip, episode = clip_of_episode(home / "data", 0, 2), smooth_episode()
    assert clip.origin == "recorded" and clip.instruction == episode.instructions[0]
    rows = range(0, episode.length, 2)
    assert clip.scene.rgb.shape[1] == len(rows) and clip.scene.period_s == pytest.approx(2 / toy_spec().fps)
    assert np.allclose(clip.proprio, episode.proprio[::2], atol=1e-6)
    assert np.allclose(clip.actions, episode.actions[: rows[-1]], atol=1e-6)
    assert len(clip.action_names) == clip.actions.shape[1] and len(clip.proprio_names) == clip.proprio.shape[1]


def test_a_page_and_a_file_are_written(home, tmp_path, capsys):
    view(home / "a", "--html", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    scene = json.loads(re.search(r'id="scene">(.*?)</script>', page)[1])
    assert [clip["label"] for clip in scene["clips"]] == ["seed-0", "true"]
    assert [clip["frames"] for clip in scene["clips"]] == [4, 5]
    view(home / "a" / "true", "--export", "glb", tmp_path / "clip.glb")
    assert (tmp_path / "clip.glb").read_bytes().startswith(b"glTF")
    said = capsys.readouterr().out
    assert "page.html" in said and "clip.glb" in said


def test_a_urdf_tells_the_robot_from_the_rest(home, tmp_path, capsys):
    urdf = (
        '<robot name="a"><link name="base"><visual><geometry><sphere radius="0.3"/></geometry></visual></link></robot>'
    )
    link = '<link name="l"/><joint name="a" type="revolute"><parent link="base"/><child link="l"/></joint></robot>'
    (tmp_path / "robot.urdf").write_text(urdf.replace("</robot>", link))
    view(home / "b", "--html", tmp_path / "page.html", "--urdf", tmp_path / "robot.urdf")
    assert '"layers":true' in (tmp_path / "page.html").read_text()
    told = refused(capsys, home / "b", "--urdf", tmp_path / "robot.urdf", "--joints", "arm")
    assert "the clip's states have no part 'arm'; they have a, b" in told


def test_without_a_page_it_is_served(home, monkeypatch):
    served = []
    monkeypatch.setattr("xwam.show.serve", lambda content, port: served.append((list(content.clips), port)))
    view(home / "b", home / "data", "--port", 0)
    assert served == [(["seed-0", "data"], 0)]


def test_mistakes_are_told_in_a_line(home, tmp_path, capsys):
    assert "is no clip, holds none and is no dataset" in refused(capsys, tmp_path)
    assert "--export takes one clip, and here are seed-0, true" in refused(
        capsys, home / "a", "--export", "ply", tmp_path / "out"
    )
    assert "no format 'obj'" in refused(capsys, home / "b", "--export", "obj", tmp_path / "out")
    assert "dataset has episodes 0 .. 0" in refused(capsys, home / "data", "--episode", 3)
    assert "stride is 0" in refused(capsys, home / "data", "--stride", 0)
