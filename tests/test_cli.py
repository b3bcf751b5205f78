"""Every verb end to end, with a model that trains in seconds, and the mistakes that people make with them."""

import json
import sys
from pathlib import Path

import pytest

from xwam import cli
from xwam.scene.folder import read_clip
from xwam.sim.metaworld import MetaWorld

TASK = "metaworld/drawer-close-v3"


def xwam(*arguments: object) -> None:
    sys.argv = ["xwam", *map(str, arguments)]
    cli.main()


def refused(capsys, *arguments: object) -> str:
    """What a verb says on stderr when it refuses."""
    with pytest.raises(SystemExit) as exit:
        xwam(*arguments)
    assert exit.value.code == 2
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A recorded dataset, a trained autoencoder and a trained model, each tiny."""
    home = tmp_path_factory.mktemp("home")
    xwam("record", "--tasks", TASK, "--episodes", 2, "--size", 64, "--dataset", home / "data", "--workers", 1)
    xwam("train", "tiny-autoencoder", "--dataset", home / "data", "--run", home / "autoencoder")
    xwam(*train(home))
    return home


def train(home: Path, *more: object, run: str = "run") -> tuple:
    places = ("--dataset", home / "data", "--run", home / run, "--autoencoder", home / "autoencoder")
    return ("train", "tiny", *places, *more)


@pytest.fixture
def short_episodes(monkeypatch):
    monkeypatch.setattr(MetaWorld, "max_steps", 20)


def test_training_logs_validates_and_exports(home):
    lines = [json.loads(line) for line in (home / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "losses" in line] == [1, 2, 3, 4]
    assert {"video", "action", "proprio", "depth", "total"} <= lines[0]["losses"].keys()
    assert sum("validation" in line for line in lines) == 2
    about = json.loads((home / "run" / "export" / "config.json").read_text())
    assert about["provenance"]["trained_on"] and about["model"]["embodiment"]["action"]["q99"]


def test_a_run_refuses_other_settings_and_names_them(home, capsys):
    said = refused(capsys, *train(home, "--set", "train.learning_rate=0.5"))
    assert "learning_rate" in said


def test_encode_makes_what_training_takes(home, tmp_path, capsys):
    encode = ("encode", "tiny", "--dataset", home / "data", "--autoencoder", home / "autoencoder")
    xwam(*encode)
    assert "1 of 1 shards" in (said := capsys.readouterr().out) and ": 0 made now" in said
    places = ("--out", tmp_path / "latents", "--shard-episodes", 1, "--workers", 1)
    xwam(*encode, *places)
    assert "2 of 2 shards" in (said := capsys.readouterr().out) and ": 2 made now" in said
    shard = tmp_path / "latents" / "shard-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    xwam(*encode, *places, "--verify")
    said = capsys.readouterr().out
    assert ": 1 made now" in said and "1 of these were stale or damaged" in said
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "latents").glob("*.safetensors")}
    xwam(*train(home, "--set", f"latents={tmp_path / 'latents'}", run="other-run"))
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "nanno"), "no recipe 'nanno'; did you mean 'nano'?"),
        (("train", "tiny", "--set", "train.stesp=3"), "no setting 'train.stesp'; did you mean 'steps'?"),
        (("train", "tiny", "--set", "train.steps"), "assigns nothing: write KEY=VALUE"),
        (("train", "tiny", "--set", "train.steps=few"), "setting 'train.steps'"),
        (("eval", "nowhere", "--episodes", "1", "--workers", "1"), "holds no config.json"),
        (("record", "--tasks", "metaworld/fly-v3", "--workers", "1", "--episodes", "1"), "has no task 'fly-v3'"),
        (("record", "--tasks", "fly", "--workers", "1", "--episodes", "1"), "unknown environment 'fly'"),
        (("stats", "nowhere"), "nowhere"),
        (("ablate", "--rows", "depth"), "no row 'depth'; there are no depth, channel"),
        (("encode", "tiny-autoencoder"), "an autoencoder trains on pixels, not on latents"),
        (("encode", "tiny", "--engine", "ray", "--dataset", "nowhere"), "pip install ray"),
        (("convert", "nowhere", "out"), "no checkpoint at nowhere"),
        (("import", "nowhere", "out"), "nowhere does not exist"),
        (("import", "nowhere", "out", "--format", "lerobot"), "no format 'lerobot'; there are lerobot_v30"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, *arguments)


def test_stats_shows_tasks_and_ranges(home, capsys):
    xwam("stats", home / "data")
    printed = capsys.readouterr().out
    assert TASK in printed and "ee_position.0" in printed and "q99" in printed


def test_eval_writes_what_it_measured(home, tmp_path, short_episodes, capsys):
    export, one = home / "run" / "export", ("--episodes", 1, "--workers", 1)
    xwam("eval", export, "--tasks", TASK, *one, "--dreams", 1, "--out", tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["success"][0]["episodes"] == 1 and len(results["episodes"]) == 1
    assert results["dreams"]["changed/every/chamfer_m"]["dummy"]["count"] == 1  # three moments of one episode
    assert list(tmp_path.glob("*.mp4"))


@pytest.mark.parametrize("source", ["simulator", "dataset"])
def test_score_tells_a_model_beside_its_baselines(home, tmp_path, capsys, source):
    place = ("--tasks", TASK) if source == "simulator" else ("--dataset", home / "data")
    few = ("--episodes", 1, "--moments", 1, "--workers", 1)
    xwam("score", "--checkpoint", home / "run" / "export", *place, *few, "--out", tmp_path, "--name", "4d")
    results = json.loads((tmp_path / "4d.json").read_text())
    assert list(results["columns"]) == ["export", "repeat last frame", "moved with gripper"]
    assert results["episodes"] == results["clips"] == 1 and results["command"].startswith("xwam score")
    ours = results["columns"]["export"]
    assert {"all/static/psnr_db", "all/every/cross_view_m", "all/wrist/position_m"} <= ours.keys()
    assert any(name.startswith("all/robot/ee_delta, mm") for name in ours)
    assert "moved with gripper" in capsys.readouterr().out and (tmp_path / "4d.svg").exists()


def test_score_wants_predictions_and_truth_together(home, tmp_path, capsys):
    assert "together" in refused(capsys, "score", "--truth", tmp_path)
    assert "together" in refused(capsys, "score", tmp_path)
    assert "is no clip and holds none" in refused(capsys, "score", tmp_path, "--truth", tmp_path)


def test_eval_may_choose_among_several_futures(home, tmp_path, short_episodes):
    place = (home / "run" / "export", "--tasks", TASK, "--out", tmp_path)
    xwam("eval", *place, "--episodes", 1, "--dreams", 0, "--workers", 1, "--best-of", 2)
    assert json.loads((tmp_path / "results.json").read_text())["best_of"] == 2


def test_eval_refuses_the_checkpoint_of_another_robot(home, tmp_path, capsys):
    export = home / "run" / "export"
    about = json.loads((export / "config.json").read_text())
    about["model"]["embodiment"]["cameras"][0]["name"] = "ceiling"
    (tmp_path / "config.json").write_text(json.dumps(about))
    (tmp_path / "model.safetensors").write_bytes((export / "model.safetensors").read_bytes())
    said = refused(capsys, "eval", tmp_path, "--tasks", TASK, "--episodes", 1, "--workers", 1, "--out", tmp_path / "o")
    assert "checkpoint of another embodiment: camera_names" in said


def test_imagine_writes_a_page_and_clips(home, tmp_path):
    xwam("imagine", home / "run" / "export", "--task", TASK, "--instruction", "shut it", "--out", tmp_path)
    dream, true = read_clip(tmp_path / "seed-1000000"), read_clip(tmp_path / "true")
    assert dream.scene.rgb.shape == true.scene.rgb.shape == (3, 9, 64, 64, 3)
    assert (dream.origin, true.origin, dream.instruction) == ("imagined", "simulated", "shut it")
    assert "shut it" in (tmp_path / "index.html").read_text()


def test_demo_writes_its_page(home, tmp_path, short_episodes, monkeypatch):
    monkeypatch.setattr("xwam.demo.DEMO_TASKS", (TASK,))
    xwam("demo", "--checkpoint", home / "run" / "export", "--episodes", 1, "--out", tmp_path, "--workers", 1)
    page = (tmp_path / "index.html").read_text()
    assert TASK in page and (tmp_path / "scene-1.html").is_file()


def test_help_needs_no_torch_and_teaches(capsys):
    verbs = ("record", "import", "stats", "train", "encode", "eval", "imagine", "view", "export", "convert", "demo")
    for verb in verbs:
        with pytest.raises(SystemExit) as exit:
            xwam(verb, "--help")
        assert exit.value.code == 0
        assert len(capsys.readouterr().out.splitlines()) > 8
