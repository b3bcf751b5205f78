"""Clips in folders to one table: columns, dashes for what is missing, intervals over episodes, a picture."""

import dataclasses
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

import raycast
from xwam import score
from xwam.core.types import WorldClip
from xwam.scene.folder import write_clip
from xwam.scene.horizon import draw
from xwam.scene.score import ClipScores
from xwam.scene.scoreboard import Scoreboard

NAMES = ("ee_position.0", "ee_position.1", "ee_position.2")


def world_clip(slide=0.0, off_m=0.0, episode=0, depth=True, **changes) -> WorldClip:
    """A gripper rolls the ball; actions are its steps, off by `off_m`."""
    scene = raycast.clip(size=32, frames=3, slide=slide)
    if not depth:
        scene = dataclasses.replace(scene, depth_m=np.zeros_like(scene.depth_m))
    place = np.stack([raycast.ball_centre(t) for t in range(3)])
    actions = np.diff(place, axis=0) + [off_m, 0, 0]
    clip = WorldClip(
        scene, "simulated", "roll", actions, 0.2, ("delta.0", "delta.1", "delta.2"), ("m",) * 3,
        place, NAMES, ("m",) * 3, about={"task": "roll", "episode_seed": episode},
    )  # fmt: skip
    return dataclasses.replace(clip, **changes)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    for k in range(3):
        write_clip(root / "true" / f"clip_{k}", world_clip(slide=1.0, episode=k // 2))
        write_clip(root / "model" / f"clip_{k}", world_clip(slide=0.5, off_m=0.01 * k))
        write_clip(root / "flat" / f"clip_{k}", world_clip(slide=0.5, depth=False))
    return root


@pytest.fixture(scope="module")
def board(folders):
    return score.score_folders([folders / "model", folders / "flat"], folders / "true")


def cells(board, title, measure):
    [table] = [table for table in board.tables() if table.title == title]
    [row] = [row for row in table.rows if row[0].startswith(measure)]
    return dict(zip(table.heads[1:], row[1:], strict=True))


def test_predictions_and_baselines_stand_side_by_side(board):
    found = cells(board, "All pixels", "PSNR")
    assert list(found) == ["model", "flat", score.STILL, score.MOVED]
    assert all("(" in cell and " to " in cell for cell in found.values())  # two episodes: intervals
    assert cells(board, "What changed", "Chamfer")["model"] != "–"
    assert cells(board, "All pixels", "Action delta, mm")["model"] == "12.50 (5.00 to 20.00)"


def test_what_a_prediction_lacks_is_a_dash(board):
    for measure in ("Depth AbsRel", "Chamfer", "F-score at 1 cm", "Views apart"):
        found = cells(board, "All pixels", measure)
        assert found["flat"] == "–" and "–" not in (found["model"], found[score.STILL], found[score.MOVED])
    assert cells(board, "All pixels", "PSNR")["flat"] != "–"
    assert cells(board, "All pixels", "Action delta")[score.STILL] == "–"


def test_the_moved_cloud_beats_the_still_one_where_the_gripper_acts(board):
    over = board.numbers()["columns"]
    key = "changed/every/abs_rel"
    assert over[score.MOVED][key]["mean"] < over[score.STILL][key]["mean"]


def test_what_a_baseline_is_told_is_not_scored(board):
    found = cells(board, "All pixels", "Wrist position")
    assert found[score.MOVED] == "–" and found["model"].startswith("0.0") and not found[score.STILL].startswith("0.0")


def test_files_hold_all_of_it(board, tmp_path, capsys):
    page = score.write_scores(board, tmp_path, "4d", {"command": "xwam score"})
    text, numbers = page.read_text(), json.loads((tmp_path / "4d.json").read_text())
    assert page.name == "4d.md" and "Clips: 3, of 2 episodes" in text and "![" in text and "4d.svg" in text
    assert "| Chamfer distance, mm ↓ |" in text and "All pixels" in capsys.readouterr().out
    assert numbers["clips"] == 3 and numbers["episodes"] == 2 and numbers["protocol"]["clouds"]
    chamfer = numbers["columns"]["model"]["all/every/chamfer_m"]
    assert len(chamfer["by_frame"]) == 2 and chamfer["low"] <= chamfer["mean"] <= chamfer["high"]
    assert "all/every/chamfer_m" not in numbers["columns"]["flat"]
    assert np.isclose(np.mean([one["mean"] for one in chamfer["by_frame"]]), chamfer["mean"])


def test_fvd_is_of_all_films_together(board, folders, monkeypatch):
    assert board.fvd == {} and "fvd" not in board.numbers()
    watch = lambda films: films.mean((2, 3)).reshape(len(films), -1)[:, :6]  # noqa: E731  colours over time
    monkeypatch.setattr(score, "_opened", lambda networks: (None, watch))
    seen = score.score_folders([folders / "model", folders / "true"], folders / "true")
    assert seen.fvd["true"] == pytest.approx(0, abs=1e-6) and seen.fvd["model"] > 0.01 < seen.fvd[score.STILL]
    assert seen.numbers()["fvd"] == seen.fvd
    found = cells(seen, "All pixels", "FVD")
    assert found["true"] == "0.0" and found["model"] == f"{seen.fvd['model']:.1f}"


def test_the_picture_has_a_line_for_each_column_that_has_the_measure(board):
    root = ElementTree.fromstring(draw(board))
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"model", "flat", score.STILL, score.MOVED} <= set(texts)
    assert any(text.startswith("Chamfer distance") and text.endswith("what changed") for text in texts)
    assert "nan" not in draw(board)
    lines = list(root.iter("{http://www.w3.org/2000/svg}polyline"))
    assert all(len(line.get("points").split()) == 2 for line in lines if line.get("points"))


def test_a_single_clip_has_no_interval(folders):
    board = score.score_folders([folders / "model" / "clip_0"], folders / "true" / "clip_0")
    assert "(" not in cells(board, "All pixels", "PSNR")["clip_0"]


def test_a_longer_prediction_is_scored_as_far_as_the_truth_goes(folders, tmp_path):
    whole = world_clip()
    write_clip(tmp_path / "true", whole.until(2))
    board = score.score_folders([folders / "model" / "clip_0"], tmp_path / "true")
    assert len(board.steps["clip_0"]["all/static/psnr_db"]) == 1
    assert whole.until(2).actions.shape == (1, 3) and whole.until(3) is whole


def test_a_truth_without_grippers_has_one_baseline(folders, tmp_path):
    write_clip(tmp_path / "true", world_clip(proprio=None, proprio_names=(), proprio_units=()))
    board = score.score_folders([folders / "model" / "clip_0"], tmp_path / "true")
    assert list(board.columns) == ["clip_0", score.STILL]


def test_clips_that_are_not_there_are_named(folders, tmp_path):
    with pytest.raises(ValueError, match="is no clip and holds none"):
        score.score_folders([tmp_path], folders / "true")
    with pytest.raises(ValueError, match="lacks 3 of 3 clips.*'clip_0'"):
        score.score_folders([folders / "model" / "clip_0"], folders / "true")


def test_columns_are_called_by_what_tells_them_apart():
    assert score.names_of([Path("runs/a"), Path("runs/b")]) == ["a", "b"]
    assert score.names_of([Path("runs/a/export"), Path("runs/b/export")]) == ["a/export", "b/export"]
    with pytest.raises(ValueError, match="the same folder twice"):
        score.names_of([Path("runs/a"), Path("runs/a")])


def test_columns_of_other_clips_are_refused():
    scores = [ClipScores(np.array([True]), {"all/every/x": np.zeros(2)}, episode) for episode in ("a", "b")]
    with pytest.raises(ValueError, match="score the same clips"):
        Scoreboard({"one": scores, "other": scores[:1]}, 0.1)
    with pytest.raises(ValueError, match="at least one"):
        Scoreboard({}, 0.1)
