"""A robot of one's own, end to end: its LeRobotDataset is imported, and the recipes train on it as it is."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from recordings import HEIGHT, WIDTH, record, smooth_episode
from xwam import cli
from xwam.core.types import Observation
from xwam.data.episodes import EpisodeStore
from xwam.data.layout import DatasetSpec, StoredCamera
from xwam.recipes import configured
from xwam.train.held_out import check_unseen
from xwam.wam import WorldActionModel

JOINTS = ("shoulder_pan.pos", "shoulder_lift.pos", "elbow_flex.pos", "wrist_flex.pos", "wrist_roll.pos", "gripper.pos")
CAMERAS = ("top", "side")


def xwam(*arguments: object) -> None:
    sys.argv = ["xwam", *map(str, arguments)]
    cli.main()


def recorded(root: Path, joints: tuple[str, ...] = JOINTS, views: tuple[str, ...] = CAMERAS) -> None:
    """What a follower arm with two webcams records: no depth, no calibration, targets that it then reaches."""
    cameras = [StoredCamera(name=name, height=HEIGHT, width=WIDTH, calibrated=False) for name in views]
    spec = DatasetSpec(robot="so100_follower", fps=30, cameras=tuple(cameras), proprio=joints, action=joints)
    episodes = []
    for seed in range(3):
        random = np.random.default_rng(seed)
        targets = 30 * np.cumsum(random.normal(scale=0.1, size=(40, len(joints))), axis=0).astype(np.float32)
        states = np.concatenate([targets[:1], targets[:-1]])
        rgb = dict(zip(views, smooth_episode(40, seed).rgb.values(), strict=False))
        bare = {"depth_m": {}, "intrinsics": {}, "T_base_cam": {}, "environment": "", "success": None}
        episodes.append(smooth_episode(40, seed, rgb=rgb, proprio=states, actions=targets, **bare))
    record(root, [episodes], spec)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("home")
    recorded(home / "so100")
    xwam("import", home / "so100", home / "data")
    xwam("train", "tiny", "--dataset", home / "data", "--run", home / "run")  # and its autoencoder before it
    return home


def test_the_follower_is_proven_to_reach_its_targets(home):
    proofs = json.loads((home / "data" / "meta" / "import.json").read_text())["proofs"]
    assert [(proof["claim"]["action"], proof["held"]) for proof in proofs] == [("joints", True), ("gripper", True)]


def test_training_without_depth_learns_of_everything_else(home):
    lines = [json.loads(line) for line in (home / "run" / "log.jsonl").read_text().splitlines()]
    losses = [line["losses"] for line in lines if "losses" in line]
    assert len(losses) == 4
    assert all(loss["video"] > 0 and loss["action"] > 0 and loss["proprio"] > 0 for loss in losses)
    assert all(loss.get("depth", 0.0) == 0.0 for loss in losses)


def test_the_model_acts_in_the_robots_own_columns(home):
    model = WorldActionModel.load(home / "run" / "export")
    assert model.embodiment.camera_names == CAMERAS and model.embodiment.name == "so100_follower"
    assert model.embodiment.action.column_names == JOINTS and len(model.embodiment.action.q01) == 6
    images = dict.fromkeys(CAMERAS, np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    [chunk] = model.act([Observation(images, np.zeros(6, np.float32), "touch ball number 1")], seeds=[0])
    assert chunk.actions.shape == (8 * model.embodiment.actions_per_frame, 6) and np.isfinite(chunk.actions).all()
    assert chunk.period_s == pytest.approx(1 / 30)


def test_without_depth_in_the_data_none_is_imagined(home):
    model = WorldActionModel.load(home / "run" / "export")
    assert not model.config.transformer.has_depth
    images = dict.fromkeys(CAMERAS, np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    known = {"intrinsics": dict.fromkeys(CAMERAS, np.eye(3)), "T_base_cam": dict.fromkeys(CAMERAS, np.eye(4))}
    dream = model.imagine(Observation(images, np.zeros(6, np.float32), "touch ball number 1", **known), seed=0)
    assert dream.scene.rgb.any() and not dream.scene.depth_m.any()
    kept = configured("tiny", home / "data", home / "autoencoder", ["model.transformer.depth_blocks=2"])
    assert kept.model.transformer.depth_blocks == 2


def test_it_is_measured_on_the_episodes_that_training_held_out(home, capsys):
    xwam(
        "eval", home / "run" / "export", "--dataset", home / "data", "--clips", 3, "--dreams", 1, "--out", home / "eval"
    )
    results = json.loads((home / "eval" / "results.json").read_text())
    store = EpisodeStore(home / "data")
    assert results["episodes"] == 1 and len(store) > 1
    errors = results["actions"]
    assert {name.rsplit("/", 1)[1] for name in errors} == {"first", "chunk"} and all(e > 0 for e in errors.values())
    assert results["imagined"]["psnr_db"] < results["imagined"]["autoencoder/psnr_db"] + 20
    assert (home / "eval" / results["pictures"]["imagined"]).is_file()
    assert "whole chunk" in capsys.readouterr().out


def test_episodes_that_were_trained_on_are_no_held_out_ones(home):
    store = EpisodeStore(home / "data")
    known = [(store.info(0).environment, 7)]
    check_unseen(store, [0], {"trained_on": [(name, None) for name, _ in known]})  # of an unknown seed nothing is known
    seen = SimpleNamespace(root=store.root, info=lambda episode: SimpleNamespace(environment=known[0][0], seed=7))
    with pytest.raises(ValueError, match="1 of 1 held-out episodes .* were trained on, such as 0"):
        check_unseen(seen, [0], {"trained_on": known})


def test_another_robot_is_mixed_in_by_its_weight(home):
    recorded(home / "arm", joints=JOINTS[1:], views=CAMERAS[:1])
    xwam("import", home / "arm", home / "other")
    mixed_in = json.dumps([{"dataset": str(home / "other"), "held_out": 1, "weight": 3.0}])
    places = ("--dataset", home / "data", "--run", home / "mixed", "--autoencoder", home / "run-autoencoder")
    xwam("train", "tiny", *places, "--set", f"mixed_in={mixed_in}")
    lines = [json.loads(line) for line in (home / "mixed" / "log.jsonl").read_text().splitlines()]
    assert sum("losses" in line for line in lines) == 4
    model = WorldActionModel.load(home / "mixed" / "export")
    assert model.embodiment.camera_names == CAMERAS and len(model.embodiment.action.q01) == 6
    about = json.loads((home / "mixed" / "export" / "config.json").read_text())["provenance"]
    assert len(about["trained_on"]) == 2 * 2 and about["recipe"]["mixed_in"][0]["weight"] == 3.0


def test_what_the_network_has_no_room_for_is_told(home, capsys):
    recorded(home / "wide", joints=(*JOINTS, "rail.pos"))
    xwam("import", home / "wide", home / "wide_data")
    mixed_in = json.dumps([{"dataset": str(home / "wide_data"), "held_out": 1}])
    places = ("--dataset", home / "data", "--run", home / "no", "--autoencoder", home / "run-autoencoder")
    with pytest.raises(SystemExit):
        xwam("train", "tiny", *places, "--set", f"mixed_in={mixed_in}")
    assert "has 7 entries, the network 6" in " ".join(capsys.readouterr().err.split())
