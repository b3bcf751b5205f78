"""A camera's place on the hand is found under noise and outliers; motion that leaves it open is refused."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from xwam.core.cameras import invert, look_at, pose, pose_errors
from xwam.core.hand_eye import hand_eye_in_base, hand_eye_in_fixed

T_EE_CAM = look_at((0.07, -0.05, 0.04), (0.02, 0.08, -0.3))
T_BASE_BOARD = pose(Rotation.from_euler("xyz", [170, 8, 35], degrees=True).as_matrix(), [0.5, 0.1, -0.02])


def hand(count: int, seed: int = 0, turns_deg: tuple[float, float, float] = (20, 20, 20)) -> np.ndarray:
    """Poses of a gripper over a table."""
    random = np.random.default_rng(seed)
    turns = Rotation.from_rotvec(np.radians(random.normal(size=(count, 3)) * turns_deg))
    down = Rotation.from_euler("x", 180, degrees=True)
    return pose((down * turns).as_matrix(), random.uniform([0.3, -0.3, 0.1], [0.7, 0.3, 0.5], (count, 3)))


def noisy(poses: np.ndarray, position_m: float, angle_deg: float, outliers: float, seed: int = 1) -> np.ndarray:
    """Poses as detected: noise of these standard deviations, and a share of wild ones."""
    random = np.random.default_rng(seed)
    wild = random.random(len(poses)) < outliers
    turns = np.radians(np.where(wild[:, None], 60, angle_deg)) * random.normal(size=(len(poses), 3))
    shifts = np.where(wild[:, None], 0.2, position_m) * random.normal(size=(len(poses), 3))
    return poses @ pose(Rotation.from_rotvec(turns).as_matrix(), shifts)


def assert_near(solved: np.ndarray, true: np.ndarray, most_mm: float = 1.0, most_deg: float = 0.1) -> None:
    distance_m, angle_rad = pose_errors(solved, true)
    assert 1000 * distance_m < most_mm and np.degrees(angle_rad) < most_deg


@pytest.mark.parametrize("seed", range(3))
def test_poses_in_the_base_frame(seed):
    T_base_ee = hand(200, seed)
    solved = hand_eye_in_base(T_base_ee, noisy(T_base_ee @ T_EE_CAM, 0.002, 0.3, 0.2, seed))
    assert_near(solved.T_ee_cam, T_EE_CAM)
    assert 0.6 < solved.kept.mean() < 0.85 and solved.T_base_fixed is None
    assert 1000 * np.median(solved.residual_m) == pytest.approx(3, rel=0.4)  # of 2 mm in each of three directions


@pytest.mark.parametrize("seed", range(3))
def test_poses_in_the_frame_of_a_board(seed):
    T_base_ee = hand(200, seed)
    seen = noisy(invert(T_BASE_BOARD) @ T_base_ee @ T_EE_CAM, 0.002, 0.2, 0.2, seed)
    solved = hand_eye_in_fixed(T_base_ee, seen)
    assert_near(solved.T_ee_cam, T_EE_CAM)
    assert_near(solved.T_base_fixed, T_BASE_BOARD)
    assert 0.5 < solved.kept.mean() < 0.85


def test_exact_poses_give_exact_places():
    T_base_ee = hand(30)
    assert_near(hand_eye_in_base(T_base_ee, T_base_ee @ T_EE_CAM).T_ee_cam, T_EE_CAM, 1e-6, 1e-6)
    solved = hand_eye_in_fixed(T_base_ee, invert(T_BASE_BOARD) @ T_base_ee @ T_EE_CAM)
    assert_near(solved.T_ee_cam, T_EE_CAM, 1e-5, 1e-5)
    assert solved.kept.all()


@pytest.mark.parametrize("turns_deg", [(0, 0, 0), (30, 0, 0), (30, 1, 1)])
def test_a_hand_that_turns_about_one_axis_tells_nothing_in_a_fixed_frame(turns_deg):
    T_base_ee = hand(100, turns_deg=turns_deg)
    with pytest.raises(ValueError, match="record poses that tilt the hand"):
        hand_eye_in_fixed(T_base_ee, invert(T_BASE_BOARD) @ T_base_ee @ T_EE_CAM)
    # in the base frame no turn is needed
    assert_near(hand_eye_in_base(T_base_ee, T_base_ee @ T_EE_CAM).T_ee_cam, T_EE_CAM, 1e-6, 1e-6)


def test_poses_that_say_nothing_are_refused():
    T_base_ee = hand(50)
    with pytest.raises(ValueError, match="does not ride on a hand that moves"):
        hand_eye_in_base(T_base_ee, np.repeat(T_EE_CAM[None], 50, axis=0))
    with pytest.raises(ValueError, match="degrees from any one place on the hand"):
        hand_eye_in_base(T_base_ee, hand(50, seed=9))
    with pytest.raises(ValueError, match="9 poses of the hand and 9 of the camera: give 10"):
        hand_eye_in_base(T_base_ee[:9], T_base_ee[:9])
    with pytest.raises(ValueError, match="poses of the camera: pose 0 of 50 is off a rotation"):
        hand_eye_in_base(T_base_ee, T_base_ee * [[1.1], [1.1], [1.1], [1]])
