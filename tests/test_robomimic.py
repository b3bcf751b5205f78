"""robomimic's, LIBERO's and RoboCasa's HDF5, built from real episodes in each layout, imported and read again."""

import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import robomimic_files as files
from demonstrations import demonstrations
from recordings import stored
from robomimic_files import DELTAS, GRIPPER, write_libero, write_robocasa, write_robomimic
from xwam.core.cameras import invert, pose
from xwam.data.episodes import Episode, EpisodeStore
from xwam.data.importers import convert
from xwam.data.importers.registry import recognise
from xwam.data.importers.robomimic import open_source, recognises
from xwam.data.importers.source import ImportSettings

SETTINGS = ImportSettings()
# The recorded camera that stands for each imported one.
ROBOMIMIC = {"agentview": "left", "sideview": "right", "robot0_eye_in_hand": "wrist"}
LIBERO = {"agentview": "left", "eye_in_hand": "wrist"}
ROBOCASA = {"robot0_agentview_left": "left", "robot0_agentview_right": "right", "robot0_eye_in_hand": "wrist"}


@pytest.fixture(scope="module")
def robomimic(tmp_path_factory) -> Path:
    return write_robomimic(tmp_path_factory.mktemp("robomimic") / "depth_v15.hdf5")


@pytest.fixture(scope="module")
def libero(tmp_path_factory) -> Path:
    return write_libero(tmp_path_factory.mktemp("libero") / "libero_goal/close_the_drawer_demo.hdf5")


@pytest.fixture(scope="module")
def robocasa(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("robocasa") / "single_stage/kitchen_drawer/CloseDrawer/2024-04-30"
    return write_robocasa(folder / "demo_gentex_im128_randcams.hdf5")


def imported(root: Path, dest: Path) -> EpisodeStore:
    return stored(open_source(root, SETTINGS), dest)


def part(source, episode: Episode, name: str) -> np.ndarray:
    return episode.proprio[:, source.embodiment.proprio.slice(name)]


def check_cameras(episode: Episode, true: Episode, cameras: dict[str, str], rows: slice, tolerance: float) -> None:
    for name, of in cameras.items():
        np.testing.assert_allclose(episode.T_base_cam[name], true.T_base_cam[of][rows], atol=tolerance)
        np.testing.assert_allclose(episode.intrinsics[name], true.intrinsics[of][rows], atol=100 * tolerance)


def psnr(seen: np.ndarray, true: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((seen.astype(float) - true) ** 2)))


# ---- what arrives ------------------------------------------------------------------------------------------------


def test_robomimic_survives_the_whole_import(robomimic, tmp_path):
    store, robot = imported(robomimic, tmp_path / "dataset"), open_source(robomimic, SETTINGS).embodiment
    assert (store.spec.fps, store.spec.robot) == (20, "robosuite_panda")
    for index, true in enumerate(demonstrations()):
        seen = store.read_all(index)
        proprio, actions = store.vectors(index, robot)
        np.testing.assert_array_equal(actions, files.osc_actions(true).astype(np.float32))
        expected = [
            true.proprio[:, :3],
            np.tile(files.HAND.as_quat(canonical=True, scalar_first=True), (true.length, 1)),
        ]
        expected += [0.08 * true.proprio[:, 3:4], files.joints(true)]
        np.testing.assert_allclose(proprio, np.concatenate(expected, axis=1), atol=1e-6)
        np.testing.assert_allclose(store.column(index, "timestamp"), np.arange(true.length) / 20, atol=1e-6)
        check_cameras(seen, true, ROBOMIMIC, slice(None), 1e-6)
        for name, of in ROBOMIMIC.items():
            depth = true.depth_m[of]
            near = (depth > 0.01) & (depth < 3.0)
            assert near.mean() > 0.5
            assert np.abs(seen.depth_m[name] - depth)[near].max() < 1.1e-3
            # H.264 with colours at half the size leaves 27 dB or more of images this small; upside down, 15 or less
            assert psnr(seen.rgb[name], true.rgb[of]) > 26 > 18 > psnr(seen.rgb[name][:, ::-1], true.rgb[of])
        assert (seen.instructions, seen.environment) == (("pick place can",), "robosuite/PickPlaceCan")
        assert (seen.seed, seen.success) == (None, True)


def test_calibration_and_images_are_exact_before_they_are_stored(robomimic):
    source = open_source(robomimic, SETTINGS)
    for index, true in enumerate(demonstrations()):
        episode = source.episode(index)
        check_cameras(episode, true, ROBOMIMIC, slice(None), 1e-6)
        for name, of in ROBOMIMIC.items():
            np.testing.assert_array_equal(episode.rgb[name], true.rgb[of])
            np.testing.assert_array_equal(episode.depth_m[name], true.depth_m[of])


def test_the_camera_on_the_hand_is_mounted_there(robomimic):
    robot, true = open_source(robomimic, SETTINGS).embodiment, demonstrations()[0]
    mounted = {camera.name: camera for camera in robot.cameras if camera.mount}
    assert list(mounted) == ["robot0_eye_in_hand"]
    T_base_ee = pose(files.HAND.as_matrix(), true.proprio[0, :3])
    expected = invert(T_base_ee) @ true.T_base_cam["wrist"][0]
    np.testing.assert_allclose(mounted["robot0_eye_in_hand"].T_ee_cam, expected, atol=1e-6)


def test_a_hand_that_turns_takes_its_camera_along(robomimic, tmp_path):
    path, true = shutil.copy(robomimic, tmp_path), demonstrations()[0]
    turns = Rotation.from_rotvec(np.linspace((0, 0, 0), (0.5, 3.0, -1.0), true.length))
    with h5py.File(path, "r+") as file:
        quaternion = (Rotation.from_matrix(files.T_WORLD_BASE[:3, :3]) * turns).as_quat()
        file["data/demo_2/obs/robot0_eef_quat"][...] = quaternion
    source = open_source(Path(path), SETTINGS)
    episode = source.episode(0)
    T_base_hand = pose(turns.as_matrix(), true.proprio[:, :3] - turns.apply(files.GRIP_SITE_M))
    np.testing.assert_allclose(
        episode.T_base_cam["robot0_eye_in_hand"], T_base_hand @ files.T_hand_cam(true), atol=1e-6
    )
    orientation = part(source, episode, "ee_orientation")
    assert (orientation[:, 0] >= 0).all()
    np.testing.assert_allclose(
        (Rotation.from_quat(orientation, scalar_first=True) * turns.inv()).magnitude(), 0, atol=1e-3
    )


def test_libero_pairs_what_was_seen_with_the_action_that_followed(libero, tmp_path):
    source, store = open_source(libero, SETTINGS), imported(libero, tmp_path / "dataset")
    for index, true in enumerate(demonstrations()):
        episode, rows = source.episode(index), slice(1, -1)
        np.testing.assert_array_equal(episode.actions, files.osc_actions(true)[rows].astype(np.float32))
        np.testing.assert_allclose(part(source, episode, "ee_position"), true.proprio[rows, :3], atol=1e-6)
        turned = Rotation.from_quat(part(source, episode, "ee_orientation"), scalar_first=True) * files.HAND.inv()
        np.testing.assert_allclose(turned.magnitude(), 0, atol=1e-5)
        np.testing.assert_allclose(part(source, episode, "joint_position"), files.joints(true)[rows], atol=1e-6)
        for name, of in LIBERO.items():
            np.testing.assert_array_equal(episode.rgb[name], true.rgb[of][rows])
        check_cameras(episode, true, LIBERO, rows, 1e-6)
        assert (episode.instructions, episode.environment) == (("close the drawer",), "libero_goal/close_the_drawer")
        assert episode.success is True
        assert store.info(index).length == true.length - 2
        assert psnr(store.read_all(index).rgb["agentview"], true.rgb["left"][rows]) > 26


@pytest.mark.parametrize("afterwards", [True, False])
def test_copies_of_libero_are_told_apart_by_their_states(tmp_path, afterwards):
    path = write_libero(tmp_path / "KITCHEN_SCENE3_turn_on_the_stove_demo.hdf5", afterwards, bare=True)
    source = open_source(path, SETTINGS)
    for index, true in enumerate(demonstrations()):
        episode, rows = source.episode(index), slice(1, -1) if afterwards else slice(None)
        np.testing.assert_array_equal(episode.actions, files.osc_actions(true)[rows].astype(np.float32))
        # without a model, nobody knows where the robot stands
        np.testing.assert_allclose(part(source, episode, "ee_position"), files.world_hand(true)[0][rows], atol=1e-6)
        np.testing.assert_array_equal(episode.rgb["eye_in_hand"], true.rgb["wrist"][rows])
        assert episode.instructions == ("turn on the stove",)
    assert episode.environment == "libero/KITCHEN_SCENE3_turn_on_the_stove"
    assert "world frame" in source.embodiment.proprio.part("ee_position").unit
    assert not any(camera.calibrated for camera in source.spec.cameras)
    assert "no 'model_file'" in source.assumptions["calibration"]
    assert source.claims == (*DELTAS, GRIPPER) and source.spec.fps == 20


def test_an_image_convention_that_is_told_is_kept_to(libero, tmp_path):
    path = Path(shutil.copy(libero, tmp_path))
    with h5py.File(path, "r+") as file:
        file["data"].attrs["macros_image_convention"] = "opencv"
    turned = open_source(path, SETTINGS).episode(0).rgb["agentview"]
    np.testing.assert_array_equal(turned[:, ::-1], demonstrations()[0].rgb["left"][1:-1])


def test_robocasa_has_its_cameras_where_its_configuration_says(robocasa):
    source = open_source(robocasa.parents[3], SETTINGS)
    names = [action.name for action in source.embodiment.action.parts]
    assert names == ["delta_position", "delta_rotation", "gripper", "base_velocity", "torso", "base_mode"]
    assert source.claims == (*DELTAS, GRIPPER)
    for index, true in enumerate(demonstrations()):
        episode = source.episode(index)
        check_cameras(episode, true, ROBOCASA, slice(None), 1e-6)
        np.testing.assert_allclose(part(source, episode, "ee_position"), true.proprio[:, :3], atol=1e-6)
        np.testing.assert_allclose(
            part(source, episode, "base_position")[:, 0], 0.01 * np.arange(true.length), atol=1e-6
        )
        np.testing.assert_array_equal(episode.actions[:, :7], files.osc_actions(true).astype(np.float32))
        np.testing.assert_allclose(episode.actions[0, 7:], [0.1, 0.2, 0.3, 0.0, -1.0], atol=1e-6)
        assert (episode.instructions, episode.environment) == ((f"close drawer {index}",), "robocasa/CloseDrawer")
        assert episode.success is False and episode.depth_m == {}


def test_cameras_that_differ_by_demo_are_mounted_nowhere(robocasa, tmp_path):
    source = open_source(write_robocasa(tmp_path / "demo.hdf5", randomize_cameras=True), SETTINGS)
    assert [camera.mount for camera in source.embodiment.cameras] == [None] * 3
    check_cameras(source.episode(1), demonstrations()[1], ROBOCASA, slice(None), 1e-6)
    assert "differ by demo" in source.assumptions["calibration"]


def test_the_whole_import_recognises_and_proves(robomimic, tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "run_all", lambda function, jobs, workers: (function(*job) for job in jobs))
    report = convert.import_dataset(robomimic, tmp_path / "out", SETTINGS)
    assert (report.format, report.episodes) == ("robomimic", 2)
    assert [proof.claim for proof in report.proofs] == [*DELTAS, GRIPPER]


# ---- depth -------------------------------------------------------------------------------------------------------


def with_buffer(path: Path, statistic: str) -> None:
    """LIBERO's depth: a buffer of 0 .. 1, row 0 at the bottom, of a scene whose extent is 4 m."""
    near, far = 0.004, 200.0
    with h5py.File(path, "r+") as file:
        for number, true in enumerate(demonstrations()):
            demo = file[f"data/demo_{number}"]
            depth = true.depth_m["left"][1:, ::-1].astype(np.float64)
            demo["obs/agentview_depth"] = ((1 - near / depth) / (1 - near / far))[..., None]
            extra = f'{statistic}<visual><map znear="0.001"/></visual>'
            demo.attrs["model_file"] = files.model(true, extra, "gripper{}")


def test_a_depth_buffer_becomes_metres_where_the_model_tells_its_extent(libero, tmp_path):
    path = Path(shutil.copy(libero, tmp_path))
    with_buffer(path, '<statistic extent="4"/>')
    source = open_source(path, SETTINGS)
    assert source.spec.camera("agentview").depth is not None and source.spec.camera("eye_in_hand").depth is None
    for index, true in enumerate(demonstrations()):
        np.testing.assert_allclose(source.episode(index).depth_m["agentview"], true.depth_m["left"][1:-1], rtol=1e-3)


def test_a_depth_buffer_of_unknown_extent_is_left_out(libero, tmp_path):
    path = Path(shutil.copy(libero, tmp_path))
    with_buffer(path, "")
    source = open_source(path, SETTINGS)
    assert not any(camera.depth for camera in source.spec.cameras) and source.episode(0).depth_m == {}
    assert "metres" in source.assumptions["depth"] and "left out" in source.assumptions["depth"]


def test_depth_that_changes_its_kind_is_refused(robomimic, tmp_path):
    path = Path(shutil.copy(robomimic, tmp_path))
    with h5py.File(path, "r+") as file:
        for name in ROBOMIMIC:
            depth = file[f"data/demo_10/obs/{name}_depth"]
            depth[...] = np.full(depth.shape, 0.99)
    with pytest.raises(
        ValueError, match="depth_v15.hdf5: demo_10 holds depth as a buffer of 0 .. 1, the first demo as"
    ):
        open_source(path, SETTINGS).episode(1)


# ---- files and settings ------------------------------------------------------------------------------------------


def test_the_format_is_recognised(robomimic, libero, robocasa, tmp_path):
    for path in (robomimic, libero.parent, robocasa.parents[3]):
        assert recognises(path) and recognise(path).NAME == "robomimic"
    assert not recognises(tmp_path)
    (tmp_path / "other.hdf5").write_bytes(b"no HDF5")
    assert not recognises(tmp_path)
    with h5py.File(tmp_path / "episode0.hdf5", "w") as file:
        file["joint_action/left_arm"] = np.zeros((3, 6))
    assert not recognises(tmp_path)


def test_files_without_images_are_left_out_and_named(robomimic, tmp_path):
    shutil.copy(robomimic, tmp_path / "b.hdf5")
    shutil.copy(robomimic, tmp_path / "a.hdf5")
    with h5py.File(shutil.copy(robomimic, tmp_path / "low_dim.hdf5"), "r+") as file:
        for demo in file["data"].values():
            for name in ROBOMIMIC:
                del demo[f"obs/{name}_image"]
    source = open_source(tmp_path, SETTINGS)
    assert [Path(source.label(k)).name for k in range(len(source))] == [
        f"{f}.hdf5: demo_{n}" for f in "ab" for n in (2, 10)
    ]
    assert "low_dim.hdf5" in source.assumptions["files"]
    with pytest.raises(ValueError, match="low_dim.hdf5 holds no images.*dataset_states_to_obs"):
        open_source(tmp_path / "low_dim.hdf5", SETTINGS)


def test_files_of_different_robots_are_not_mixed(robomimic, robocasa, tmp_path):
    shutil.copy(robomimic, tmp_path / "a.hdf5")
    shutil.copy(robocasa, tmp_path / "b.hdf5")
    with pytest.raises(ValueError, match="b.hdf5 has other images .* than .*a.hdf5 .*: import them apart"):
        open_source(tmp_path, SETTINGS)


def test_a_source_holds_no_open_file(robomimic):
    source = open_source(robomimic, SETTINGS)
    first = source.episode(0)
    again = pickle.loads(pickle.dumps(source)).episode(0)
    np.testing.assert_array_equal(again.proprio, first.proprio)
    with h5py.File(robomimic, "r+"):  # HDF5 locks what is open for reading
        pass


def test_settings_add_and_leave_out(robomimic, tmp_path):
    path = Path(shutil.copy(robomimic, tmp_path))
    with h5py.File(path, "r+") as file:
        del file["data"].attrs["env_args"]
    with pytest.raises(
        ValueError, match="depth_v15.hdf5 has no control_freq in its env_args: give the rate with --fps"
    ):
        open_source(path, SETTINGS)
    with pytest.raises(ValueError, match="demo_2 has no instruction: give one with --instruction"):
        open_source(path, ImportSettings(fps=20)).episode(0)
    settings = ImportSettings(fps=10, instruction="put it away", cameras=("sideview",), depth=False)
    source = open_source(path, settings)
    episode = source.episode(0)
    assert (source.spec.fps, source.spec.robot) == (10, "robosuite_robot")
    assert episode.instructions == ("put it away",) and list(episode.rgb) == ["sideview"] and episode.depth_m == {}
    assert [part.name for part in source.embodiment.action.parts] == ["control"] and source.claims == ()
    assert open_source(robomimic, ImportSettings(instruction="x")).episode(0).instructions == ("x",)
