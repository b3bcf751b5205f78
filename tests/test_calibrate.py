"""`xwam calibrate-hand-eye` on a recorded dataset: it finds, checks and writes where the wrist camera sits."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from recordings import record, robot, smooth_episode
from test_hand_eye import T_BASE_BOARD, T_EE_CAM, assert_near, hand, noisy
from xwam import cli
from xwam.core.cameras import invert
from xwam.core.embodiment import Embodiment, Part
from xwam.core.embodiment_file import read_embodiment
from xwam.data.layout import EMBODIMENT_PATH, DatasetSpec
from xwam.data.writer import describe_robot


def calibrate(*arguments: object) -> None:
    sys.argv = ["xwam", "calibrate-hand-eye", *map(str, arguments)]
    cli.main()


def refused(capsys, *arguments: object) -> str:
    with pytest.raises(SystemExit) as exit:
        calibrate(*arguments)
    assert exit.value.code == 2
    return capsys.readouterr().err


def turning_robot() -> Embodiment:
    """One whose state holds the hand's whole pose, and which does not know its wrist camera's place."""
    toy = robot()
    place, _ = toy.proprio.parts
    turn = Part(name="ee_orientation", kind="quaternion", size=4, unit="1")
    return toy.model_copy(update={"proprio": toy.proprio.model_copy(update={"parts": (place, turn), "width": 7})})


def recording(root: Path, T_fixed_base: np.ndarray) -> Path:
    """Two episodes; poses of the wrist camera with noise and outliers, in some fixed frame."""
    toy, episodes = turning_robot(), []
    for seed in range(2):
        T_base_ee = hand(100, seed)
        quaternion = Rotation.from_matrix(T_base_ee[:, :3, :3]).as_quat()[:, [3, 0, 1, 2]]
        proprio = np.concatenate([T_base_ee[:, :3, 3], quaternion], axis=1).astype(np.float32)
        plain = smooth_episode(100, seed)
        wrist = noisy(T_fixed_base @ T_base_ee @ T_EE_CAM, 0.002, 0.2, 0.1, seed)
        poses = {"front": plain.T_base_cam["front"], "wrist": wrist}
        episodes.append(smooth_episode(100, seed, proprio=proprio, T_base_cam=poses))
    record(root, [episodes], DatasetSpec.of(toy, 48, 64))
    describe_robot(root, toy, ("Made for a test.",))
    return root


def test_it_finds_writes_and_then_agrees(tmp_path, capsys):
    data = recording(tmp_path / "data", np.eye(4))
    assert "has no T_ee_cam of 'wrist' on 'ee': solve with --write" in refused(capsys, data, "--check")
    calibrate(data, "--write")
    said = capsys.readouterr().out
    assert "agree and were fitted" in said and "Written" in said
    written = read_embodiment(data / EMBODIMENT_PATH)
    assert_near(np.array(written.cameras[1].T_ee_cam), T_EE_CAM)
    assert written.cameras[1].mount == "ee" and written.cameras[0] == turning_robot().cameras[0]
    assert (data / EMBODIMENT_PATH).read_text().startswith("# Made for a test.\n# The robot of this dataset")
    calibrate(data, "--check")
    assert "agrees with the recorded poses" in capsys.readouterr().out


def test_a_wrong_place_is_found_out(tmp_path, capsys):
    data = recording(tmp_path / "data", np.eye(4))
    calibrate(data, "--write")
    path = data / EMBODIMENT_PATH
    told = read_embodiment(path).cameras[1].T_ee_cam[0][3]
    path.write_text(path.read_text().replace(str(told), str(told + 0.01)))
    assert "10." in (said := refused(capsys, data, "--check")) and "mm and 0.0" in said


def test_poses_in_the_frame_of_a_board(tmp_path, capsys):
    data = recording(tmp_path / "data", invert(T_BASE_BOARD))
    assert "are in another frame" in refused(capsys, data)
    calibrate(data, "--poses-in", "other", "--write")
    assert_near(np.array(read_embodiment(data / EMBODIMENT_PATH).cameras[1].T_ee_cam), T_EE_CAM)


def test_what_tells_nothing_is_refused(tmp_path, capsys):
    data = recording(tmp_path / "data", np.eye(4))
    assert "--camera top: this robot's cameras are ['front', 'wrist']" in refused(capsys, data, "--camera", "top")
    assert "camera 'front'" in (said := refused(capsys, data, "--camera", "front")) and "does not ride on it" in said
    assert "no part 'left_position'" in refused(capsys, data, "--mount", "left")
    (data / EMBODIMENT_PATH).unlink()
    assert "describe the robot there" in refused(capsys, data)
