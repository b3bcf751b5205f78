"""`xwam imagine` from a dataset, from images, and under given actions; and the mistakes that people make with them."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from demonstrations import SIZE, demonstrated_spec, demonstrations
from recordings import record
from tiny_model import tiny_model
from xwam import cli
from xwam.core.pictures import png, read_depth_picture, read_picture
from xwam.core.types import WorldClip
from xwam.imagine.files import from_files, read_actions, read_state
from xwam.scene.folder import read_clip


def imagine(*arguments: object) -> None:
    sys.argv = ["xwam", "imagine", *map(str, arguments)]
    cli.main()


def refused(capsys, *arguments: object) -> str:
    with pytest.raises(SystemExit) as exit:
        imagine(*arguments)
    assert exit.value.code == 2
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A tiny model, a recording, and a moment of it as files."""
    home = tmp_path_factory.mktemp("imagine")
    tiny_model().save(home / "model", {"made": "for a test"})
    episode = demonstrations()[0]
    record(home / "data", [[episode]], demonstrated_spec())
    cameras = []
    for name in ("left", "right", "wrist"):
        (home / f"{name}.png").write_bytes(png(episode.rgb[name][3]))
        np.save(home / f"{name}.npy", episode.depth_m[name][3])
        matrices = {
            "intrinsics": episode.intrinsics[name][3].tolist(),
            "T_base_cam": episode.T_base_cam[name][3].tolist(),
        }
        cameras.append({"name": name, "height": SIZE, "width": SIZE} | matrices)
    del cameras[2]["T_base_cam"]  # the wrist's pose follows from the state
    (home / "cameras.yaml").write_text(yaml.safe_dump({"cameras": cameras}))
    state = {"ee_position": episode.proprio[3, :3].tolist(), "gripper_opening": float(episode.proprio[3, 3])}
    (home / "state.json").write_text(json.dumps(state))
    return home


def files(home: Path, **changes: object) -> tuple:
    images = {name: home / f"{name}.png" for name in ("left", "right", "wrist")}
    options = {"images": [f"{name}={path}" for name, path in images.items()], "state": home / "state.json"}
    options |= {"cameras": home / "cameras.yaml", "instruction": "shut it"} | changes
    told = []
    for name, value in options.items():
        told += [f"--{name}", *(value if isinstance(value, list) else [value])]
    return tuple(told)


def test_from_a_recorded_episode_with_the_actions_that_were_taken(home, tmp_path, capsys):
    out, where = tmp_path / "out", ("--dataset", home / "data", "--row", 2)
    imagine(home / "model", *where, "--chunks", 2, "--seeds", 2, "--expert", "--seed", 7, "--out", out)
    said = capsys.readouterr().out
    assert "metric" in said and "true" in said and "mm and" in said
    truth, clips = read_clip(out / "true"), [read_clip(out / f"seed-{seed}") for seed in (7, 8)]
    assert truth.origin == "recorded" and truth.about["row"] == 2
    for clip in clips:
        assert clip.seams == (8,) and clip.scene.rgb.shape == truth.scene.rgb.shape == (3, 17, 32, 32, 3)
        np.testing.assert_array_equal(clip.actions, truth.actions)
        np.testing.assert_allclose(clip.scene.T_base_cam[:, 0], truth.scene.T_base_cam[:, 0], atol=1e-5)
        assert clip.about["wrist_position_error_mm"] > 0 and clip.about["actions"] == "given"
    assert (clips[0].scene.rgb != clips[1].scene.rgb).any()
    page = (out / "index.html").read_text()
    assert all(f'"label":"{name}"' in page for name in ("seed 7", "seed 8", "true")) and '"scale":"metric"' in page
    # what an earlier call left does not stay beside the truth of another moment
    imagine(home / "model", *where, "--seed", 8, "--out", out)
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"seed-8", "true"}
    assert read_clip(out / "true").scene.rgb.shape[1] == 9


def test_a_future_beyond_the_recording_has_a_shorter_truth(home, tmp_path, capsys):
    row = demonstrations()[0].length - 6
    where = (home / "model", "--dataset", home / "data", "--row", row, "--out", tmp_path / "out")
    imagine(*where)
    assert read_clip(tmp_path / "out/true").scene.rgb.shape[1] == 3
    assert read_clip(tmp_path / "out/seed-1000000").scene.rgb.shape[1] == 9
    capsys.readouterr()
    assert "goes on for 4 actions, 1 chunks take 16: begin earlier" in refused(capsys, *where, "--expert")


def test_from_images_state_and_cameras(home, tmp_path, capsys):
    actions = np.tile([[0.5, 0, 0, -1.0]], (32, 1))
    np.savetxt(tmp_path / "push.csv", actions, delimiter=",", comments="",
               header="ee_delta.0,ee_delta.1,ee_delta.2,gripper_effort")  # fmt: skip
    imagine(home / "model", *files(home, actions=tmp_path / "push.csv"), "--out", tmp_path / "out")
    assert "not known" in capsys.readouterr().out
    clip: WorldClip = read_clip(tmp_path / "out/seed-1000000")
    assert not (tmp_path / "out/true").exists() and (tmp_path / "out/index.html").is_file()
    assert clip.instruction == "shut it" and clip.seams == (8,)
    np.testing.assert_allclose(clip.actions, actions)
    episode = demonstrations()[0]
    for v, name in enumerate(clip.scene.cameras):
        np.testing.assert_allclose(clip.scene.T_base_cam[v, 0], episode.T_base_cam[name][3], atol=1e-5)
        np.testing.assert_allclose(clip.scene.intrinsics[v, 0, :2], episode.intrinsics[name][3, :2] / 2)


def test_files_give_the_present_that_was_recorded(home):
    depths = [f"left={home / 'left.npy'}"]
    images = [f"{name}={home / name}.png" for name in ("left", "right", "wrist")]
    present = from_files(tiny_model(), images, home / "state.json", home / "cameras.yaml", "shut it", depths)
    seen, episode = present.observation, demonstrations()[0]
    np.testing.assert_array_equal(seen.images["wrist"], episode.rgb["wrist"][3])
    np.testing.assert_array_equal(seen.depths_m["left"], episode.depth_m["left"][3])
    np.testing.assert_allclose(seen.proprio, episode.proprio[3], rtol=1e-6)


def edited(home: Path, path: Path, camera: int, **changes: object) -> Path:
    """A copy of the cameras' file with one camera changed; None removes an entry."""
    content = yaml.safe_load((home / "cameras.yaml").read_text())
    content["cameras"][camera] |= changes
    content["cameras"][camera] = {name: x for name, x in content["cameras"][camera].items() if x is not None}
    path.write_text(yaml.safe_dump(content))
    return path


def test_wrong_files_are_refused_with_the_value(home, tmp_path, capsys):
    cameras, left = tmp_path / "cameras.yaml", f"left={home / 'left.png'}"
    others = [f"{name}={home / name}.png" for name in ("right", "wrist")]
    (tmp_path / "wide.png").write_bytes(png(np.zeros((SIZE, 2 * SIZE, 3), np.uint8)))
    (tmp_path / "no.png").write_text("no picture")
    (tmp_path / "short.json").write_text("[0.1, 0.2]")
    (tmp_path / "parts.yaml").write_text("ee_position: [1, 2]\ngripper_opening: 1\n")
    np.save(tmp_path / "mm.npy", 1000 * demonstrations()[0].depth_m["left"][3])
    np.save(tmp_path / "short.npy", np.zeros((15, 4)))
    far = 3 * SIZE * np.eye(3)
    far[2, 2] = 1
    wrong = [
        ({"images": others}, "--images lacks camera 'left'"),
        ({"images": [f"top={home / 'left.png'}", *others]}, "CAMERA=FILE with a camera of ['left', 'right', 'wrist']"),
        ({"images": ["left=gone.png", *others]}, "picture gone.png cannot be read: No such file"),
        ({"images": [f"left={tmp_path / 'no.png'}", *others]}, "no.png is neither PNG nor JPEG"),
        ({"images": [f"left={tmp_path / 'wide.png'}", *others]}, "wide.png is 64 x 128, its camera 'left' has 64 x 64"),
        ({"state": tmp_path / "short.json"}, "the state is [0.1"),
        ({"state": tmp_path / "parts.yaml"}, "part 'ee_position' has 2 numbers: give 3"),
        ({"state": tmp_path / "gone.json"}, "gone.json cannot be read as a state"),
        ({"cameras": edited(home, tmp_path / "a.yaml", 0, name="top")}, "lacks camera 'left'"),
        ({"cameras": edited(home, tmp_path / "b.yaml", 0, T_base_cam=None)}, "'left' stands still and has no"),
        ({"cameras": edited(home, tmp_path / "c.yaml", 0, T_base_cam=[[1, 0], [0, 1]])}, "is no 4 x 4 matrix"),
        ({"cameras": edited(home, tmp_path / "d.yaml", 1, T_base_cam=(2 * np.eye(4)).tolist())}, "without scale"),
        ({"cameras": edited(home, tmp_path / "e.yaml", 1, intrinsics=np.eye(3).tolist())}, "not normalised"),
        ({"cameras": edited(home, cameras, 1, with_=64)}, "no setting 'with_'"),
        ({"actions": tmp_path / "short.npy"}, "15 actions: give a multiple of 16"),
        ({"depths": [f"left={tmp_path / 'mm.npy'}"]}, "millimetres taken for metres"),
    ]  # fmt: skip
    for changes, told in wrong:
        said = refused(capsys, home / "model", *files(home, **changes), "--out", tmp_path / "out")
        assert told in said, (changes, said)
    assert not (tmp_path / "out").exists() and left


def test_options_that_contradict_each_other_are_refused(home, capsys):
    for options, told in [
        ((*files(home), "--dataset", home / "data"), "--dataset and --images"),
        (("--state", home / "state.json"), "belong to --images"),
        ((*files(home), "--expert"), "nobody knows"),
        (("--images", f"left={home / 'left.png'}"), "need --state, --cameras and --instruction"),
        (("--seeds", 0), "--seeds 0"),
        (("--dataset", home / "data", "--row", 9999), "row 9999: episode 0"),
        (("--dataset", home / "data", "--episode", 7), "episode 7: this dataset has episodes 0 .. 0"),
    ]:
        assert told in refused(capsys, home / "model", *options)


def test_vectors_from_files(tmp_path):
    robot = tiny_model().embodiment
    (tmp_path / "list.yaml").write_text("[1, 2, 3, 0.5]")
    np.testing.assert_allclose(read_state(tmp_path / "list.yaml", robot.proprio), [1, 2, 3, 0.5])
    (tmp_path / "a.csv").write_text("1,2,3,4\n5,6,7,8\n\n")
    np.testing.assert_allclose(read_actions(tmp_path / "a.csv", robot.action), [[1, 2, 3, 4], [5, 6, 7, 8]])
    for text, told in (
        ("x,y,z,grip\n1,2,3,4\n", "first line may name the columns"),
        ("1,2,3\n", "rows of 3 numbers"),
        ("1,2,3,nan\n", "not finite"),
        ("1,2,3,4\n1,2\n", "no table of numbers"),
    ):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(ValueError, match=told):
            read_actions(tmp_path / "a.csv", robot.action)


def test_pictures_of_other_programs(tmp_path):
    image = pytest.importorskip("PIL.Image")
    depth_mm = np.arange(12, dtype=np.uint16).reshape(3, 4) * 1000
    image.fromarray(depth_mm).save(tmp_path / "depth.png")
    np.testing.assert_allclose(read_depth_picture(tmp_path / "depth.png"), depth_mm / 1000)
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, axis=2))
    with pytest.raises(ValueError, match="16-bit grey PNG in millimetres"):
        read_depth_picture(tmp_path / "grey.png")
    smooth = np.full((32, 32, 3), [200, 30, 90], np.uint8)
    image.fromarray(smooth).save(tmp_path / "photo.jpg", quality=95)
    assert np.abs(read_picture(tmp_path / "photo.jpg").astype(int) - smooth).max() < 8
    (tmp_path / "half.png").write_bytes((tmp_path / "depth.png").read_bytes()[:40])
    with pytest.raises(ValueError, match="half.png is damaged"):
        read_picture(tmp_path / "half.png")
