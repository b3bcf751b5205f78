"""Logs as a picture."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xwam.train.curves import draw_curves, moving_average, series_of


def write_log(run: Path, scale: float = 1.0, steps: int = 400) -> Path:
    run.mkdir()
    records = []
    for step in range(1, steps + 1):
        noise = 1 + 0.2 * np.random.default_rng(step).normal()
        total, video = scale * noise * 100 / (100 + step), scale * noise / step**0.3
        numbers = {"gradient_norm": 0.5 * noise, "learning_rate": 1e-3 * (1 - step / steps)}
        records.append({"step": step, "losses": {"total": total, "video": video}, **numbers})
        if step % 100 == 0:
            found = {"validation": {"total": 1.1 * total}, "imagined": {"psnr_db": 10 + step / 50}}
            records.append({"step": step, **found})
    records += [{"step": step, "closed_loop": {"success": step / 500, "episodes": 10}} for step in (200, 100)]
    (run / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return run


def test_curves_of_two_runs_are_drawn_in_their_colours(tmp_path):
    runs = [write_log(tmp_path / "one"), write_log(tmp_path / "other", scale=2)]
    draw_curves(runs, tmp_path / "out" / "curves.png")
    picture = np.asarray(Image.open(tmp_path / "out" / "curves.png"))
    assert picture.shape == (2 * 250 + 30, 4 * 420, 3)  # two losses, success, psnr, and two of training
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (np.abs(picture.astype(int) - colour).max(axis=-1) < 8).sum() > 300


def test_results_that_came_late_stand_at_their_steps(tmp_path):
    steps, values = series_of(write_log(tmp_path / "run"))["closed_loop/success"]
    assert steps.tolist() == [100, 200] and values.tolist() == [0.2, 0.4]


def test_a_number_that_never_changes_and_a_single_step_are_drawn(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 0, "losses": {"total": 0.0}, "gradient_norm": 2.0}\n')
    draw_curves([tmp_path], tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size == (2 * 420, 280)


def test_a_folder_without_a_log_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no log: name the folder of a run"):
        draw_curves([tmp_path], tmp_path / "curves.png")


def test_moving_average():
    assert moving_average(np.array([1.0, 3.0, 5.0, 7.0]), 2).tolist() == [1.0, 2.0, 4.0, 6.0]
