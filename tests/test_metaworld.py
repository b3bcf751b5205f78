"""Meta-World: seeds decide, calibration is exact, depth is metres along z, experts solve their tasks."""

import ctypes.util

import mujoco
import numpy as np
import pytest
from scipy.ndimage import minimum_filter
from scipy.spatial import cKDTree

from xwam.core.cameras import project, unproject
from xwam.sim import metaworld
from xwam.sim.env import difficulties_of, make_environment, tasks_of
from xwam.sim.metaworld_tasks import DIFFICULTIES, INSTRUCTIONS
from xwam.sim.record import MAX_DEMONSTRATION_STEPS

SIZE = 64


@pytest.fixture(scope="module")
def reach():
    environment = make_environment("metaworld/reach-v3", SIZE, SIZE)
    yield environment
    environment.close()


def play(environment, steps):
    for _ in range(steps):
        environment.step(environment.expert_action())


def goal(environment):
    """Position of the red ball as the expert knows it, in metres."""
    return environment._env._target_pos.copy()


def assert_same(one, other):
    np.testing.assert_array_equal(one.proprio, other.proprio)
    for name in one.images:
        np.testing.assert_array_equal(one.images[name], other.images[name])
        np.testing.assert_array_equal(one.depths_m[name], other.depths_m[name])


def test_the_seed_alone_decides_on_the_start_and_on_what_follows(reach):
    reach.reset(3)
    start = reach.observe(depth=True)
    play(reach, 12)
    later = reach.observe(depth=True)
    reach.reset(4)
    play(reach, 7)
    reach.reset(3)
    assert_same(reach.observe(depth=True), start)
    play(reach, 12)
    assert_same(reach.observe(depth=True), later)


@pytest.mark.parametrize("task", tasks_of(["metaworld/mt10"]))
def test_each_task_starts_anew_by_its_seed_and_is_solved_by_its_expert(task):
    environment = make_environment(task, SIZE, SIZE)
    try:
        environment.reset(5)
        fresh = environment.observe(depth=True)
        environment.reset(6)
        assert any(environment.step(environment.expert_action()) for _ in range(MAX_DEMONSTRATION_STEPS))
        np.random.seed(0)  # the start must not hang on the global generator either
        environment.reset(5)
        assert_same(environment.observe(depth=True), fresh)
        mujoco.mj_forward(environment._env.model, environment._env.data)
        assert_same(environment.observe(depth=True), fresh)  # nothing is left where it was before the reset
        assert len(set(environment.instructions)) >= 3
    finally:
        environment.close()


def test_different_seeds_differ_and_policies_can_see_it(reach):
    goals, images = [], []
    for seed in range(3):
        reach.reset(seed)
        goals.append(goal(reach))
        images.append(reach.observe().images["left"].astype(int))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.linalg.norm(goals[one] - goals[other]) > 0.01
        assert np.abs(images[one] - images[other]).max() > 40


def test_observations_hold_what_the_embodiment_says(reach):
    reach.reset(0)
    seen = reach.observe(depth=True)
    assert tuple(seen.images) == reach.embodiment.camera_names
    assert all(image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8 for image in seen.images.values())
    assert all(depth.shape == (SIZE, SIZE) for depth in seen.depths_m.values())
    assert seen.proprio.shape == (reach.embodiment.proprio.size,)
    assert seen.instruction == reach.instructions[0]
    assert reach.observe().depths_m == {}


def test_the_wrist_camera_is_where_proprio_and_hand_eye_say(reach):
    reach.reset(2)
    for _ in range(3):
        play(reach, 8)
        seen = reach.observe()
        predicted = reach.embodiment.camera_poses(seen.proprio[None].astype(np.float64), seen.T_base_cam)
        for view, name in enumerate(reach.embodiment.camera_names):
            np.testing.assert_allclose(predicted[view, 0], seen.T_base_cam[name], atol=1e-6)


def test_fixed_cameras_are_upright_and_do_not_move(reach):
    reach.reset(0)
    before = reach.observe().T_base_cam
    play(reach, 10)
    after = reach.observe().T_base_cam
    for name in ("left", "right"):
        np.testing.assert_array_equal(after[name], before[name])
        right, down, _ = before[name][:3, :3].T
        assert abs(right[2]) < 1e-9 and down[2] < 0
    assert np.linalg.norm(after["wrist"][:3, 3] - before["wrist"][:3, 3]) > 0.01


def flat(depth_m):
    """Pixels whose neighbours lie about as deep: not on a border, where a pixel's centre says little of its content."""
    nearer, farther = minimum_filter(depth_m, 3), -minimum_filter(-depth_m, 3)
    return farther - nearer < 0.05 * depth_m


def visible(points, depth_m, intrinsics, T_base_cam):
    """Points that fall into an image with nothing nearer before them (z-test), and on no border."""
    pixels, z = project(points, intrinsics, T_base_cam)
    column, row = np.floor(pixels).astype(int).T
    inside = (z > 0) & (0 <= column) & (column < SIZE) & (0 <= row) & (row < SIZE)
    column, row = np.where(inside, column, 0), np.where(inside, row, 0)
    return inside & flat(depth_m)[row, column] & (z < depth_m[row, column] * 1.05)


@pytest.mark.parametrize("other", ["right", "wrist"])
def test_points_lifted_from_two_cameras_agree_within_the_spacing_of_pixels(reach, other):
    reach.reset(1)
    play(reach, 5)
    seen = reach.observe(depth=True)

    def lifted(name):
        points = unproject(seen.depths_m[name], seen.intrinsics[name], seen.T_base_cam[name])
        return points[(seen.depths_m[name] < 2.5) & flat(seen.depths_m[name])]

    left = (seen.depths_m["left"], seen.intrinsics["left"], seen.T_base_cam["left"])
    points = lifted(other)
    points = points[visible(points, *left)]
    assert len(points) > 300
    distance, _ = cKDTree(lifted("left")).query(points)
    spacing = project(points, *left[1:])[1] / seen.intrinsics["left"][0, 0]
    assert np.median(distance / spacing) < 1.0
    assert np.quantile(distance / spacing, 0.95) < 3.0


def test_the_goal_marker_is_seen_where_it_projects_to_at_its_own_depth(reach):
    sightings = 0
    for seed in range(3):
        reach.reset(seed)
        seen = reach.observe(depth=True)
        for name in ("left", "right"):
            (x, y), z = project(goal(reach), seen.intrinsics[name], seen.T_base_cam[name])
            row, column = int(y), int(x)
            depth_m = seen.depths_m[name][row, column]
            if depth_m < z - 0.03:
                continue  # the arm stands before it
            red, green, blue = seen.images[name][row, column].astype(int)
            assert red > 2 * max(green, blue), f"seed {seed}, {name}: no red at the goal"
            assert z - 0.025 < depth_m < z + 0.001, "a ball of 2 cm radius begins less than that before its centre"
            sightings += 1
    assert sightings >= 4


def test_the_red_ball_is_centred_on_its_projection(reach):
    reach.reset(0)
    seen = reach.observe()
    image = seen.images["left"].astype(int)
    pixel, z = project(goal(reach), seen.intrinsics["left"], seen.T_base_cam["left"])
    y, x = np.nonzero((image[..., 0] > 100) & (image[..., 0] > 2 * image[..., 1:].max(axis=-1)))
    near = np.hypot(x + 0.5 - pixel[0], y + 0.5 - pixel[1]) < 0.04 / z * seen.intrinsics["left"][0, 0]
    np.testing.assert_allclose([x[near].mean() + 0.5, y[near].mean() + 0.5], pixel, atol=0.6)


def test_actions_displace_the_gripper_in_their_own_direction(reach):
    for axis in range(3):
        reach.reset(0)
        action = np.zeros(4)
        action[axis] = 1.0
        before = reach.observe().proprio[:3]
        for _ in range(5):
            reach.step(action)
        moved = reach.observe().proprio[:3] - before
        assert np.argmax(np.abs(moved)) == axis and moved[axis] > metaworld.STEP_M


def test_opening_and_closing_show_in_the_proprio(reach):
    reach.reset(0)
    openings = []
    for effort in (-1.0, 1.0):
        for _ in range(15):
            reach.step(np.array([0, 0, 0, effort]))
        openings.append(reach.observe().proprio[3])
    assert openings[0] > openings[1] + 0.1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_action_that_is_not_finite_never_reaches_the_motors(reach, bad):
    reach.reset(0)
    before = reach.observe().proprio
    with pytest.raises(ValueError, match="not finite"):
        reach.step(np.array([0, bad, 0, 0]))
    np.testing.assert_array_equal(reach.observe().proprio, before)


def test_an_unknown_task_names_those_there_are():
    with pytest.raises(ValueError, match="no task 'rech-v3'.*'reach-v3'"):
        make_environment("metaworld/rech-v3")


@pytest.mark.parametrize("name", ["metawrld/reach-v3", "metaworld", "metaworld/", "reach-v3"])
def test_an_unknown_world_names_those_there_are(name):
    with pytest.raises(ValueError, match=r"world/task.*\['metaworld'"):
        make_environment(name)


def test_without_a_gl_library_the_packages_to_install_are_named(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(RuntimeError, match="apt-get install libegl1.*libosmesa6"):
        make_environment("metaworld/reach-v3")


@pytest.mark.parametrize("library, variable", [("EGL", "egl"), ("OSMesa", "osmesa")])
def test_the_gl_library_that_is_there_is_chosen(monkeypatch, library, variable):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.delenv("PYOPENGL_PLATFORM", raising=False)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: name if name == library else None)
    metaworld._require_gl()
    assert metaworld.os.environ["MUJOCO_GL"] == metaworld.os.environ["PYOPENGL_PLATFORM"] == variable


def test_every_task_is_in_one_difficulty_and_told_in_its_own_words():
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    assert set(INSTRUCTIONS) == set(ALL_V3_ENVIRONMENTS)
    assert {name: len(tasks) for name, tasks in DIFFICULTIES.items()} == {
        "easy": 28,
        "medium": 11,
        "hard": 6,
        "very hard": 5,
    }
    assert sorted(sum(DIFFICULTIES.values(), ())) == sorted(INSTRUCTIONS)
    told = sum(INSTRUCTIONS.values(), ())
    assert len(told) == len(set(told)), "an instruction that two tasks share does not say what to do"


def test_a_group_stands_for_its_tasks_each_once():
    assert tasks_of(["metaworld/push-v3", "metaworld/mt10"])[:2] == ("metaworld/push-v3", "metaworld/reach-v3")
    assert len(tasks_of(["metaworld/mt10", "metaworld/mt50"])) == 50


def test_difficulties_are_told_of_the_whole_benchmark_only():
    tasks = tasks_of(["metaworld/mt50"])
    assert [len(members) for members in difficulties_of(tasks).values()] == [28, 11, 6, 5]
    assert difficulties_of(tasks[:-1]) == difficulties_of(tasks_of(["metaworld/mt10"])) == {}
