"""The report is one page that asks no other host, shows what it is given, and trusts no text."""

import dataclasses
import re

import numpy as np
import pytest

import raycast
from xwam.core.success import SuccessRate
from xwam.scene import estimates, report
from xwam.scene.baselines import repeat_last_frame
from xwam.scene.score import evaluate

HOSTILE = "<script>alert(1)</script> & \"quotes\" 'too'"


def dream(**changes) -> report.ReportDream:
    clip = raycast.clip(size=24, frames=3)
    steps = np.linspace(0, 1, 8)[:, None] * np.array([[0.02, -0.01]])
    given = report.ReportDream(
        task="reach",
        instruction="reach the goal",
        true=clip,
        predicted=repeat_last_frame(clip),
        predicted_actions=steps,
        executed_actions=steps + 0.001,
        action_names=("x", "gripper"),
        action_units=("m", "-1..1"),
        action_period_s=0.05,
    )
    return dataclasses.replace(given, **changes)


def numbers() -> tuple[dict, dict]:
    clip = raycast.clip(size=24, frames=3)
    better = dataclasses.replace(clip, rgb=np.clip(clip.rgb, 5, 250))
    of_dummy = estimates.summarise([evaluate(repeat_last_frame(clip), clip)])
    return estimates.summarise([evaluate(better, clip)]), of_dummy


def write(folder, **parts) -> str:
    content = {"title": "A report", "explanation": "What it shows.", **parts}
    return report.write_report(folder / "out" / "index.html", report.Report(**content)).read_text()


def test_a_full_page_is_self_contained(tmp_path):
    video = tmp_path / "episode.mp4"
    video.write_bytes(b"not really a video")
    ours, dummy = numbers()
    page = write(
        tmp_path,
        success=[SuccessRate("reach", 9, 10), SuccessRate("push", 5, 10)],
        episodes=[report.ReportEpisode("reach", True, video)],
        dreams=[dream()],
        metrics=ours,
        dummy=dummy,
    )
    assert "http://" not in page and "https://" not in page
    sources = re.findall(r'(?:src|href|data-sheet)="([^"]*)"', page)
    assert sources and all(source.startswith(("data:", "scene-1.html")) for source in sources)
    assert (tmp_path / "out" / "scene-1.html").exists()
    assert page.count("<canvas") == 3 * 4
    for text in ("14 / 20", "All tasks", "Closed-loop success", "70%", "Chamfer distance", "left", "wrist"):
        assert text in page


def test_all_text_is_escaped(tmp_path):
    clip = raycast.clip(size=16, frames=2)
    named = dataclasses.replace(clip, cameras=tuple(f"{HOSTILE} {view}".replace("/", "|") for view in range(3)))
    hostile = dream(
        task=HOSTILE,
        instruction=HOSTILE,
        true=named,
        predicted=named,
        action_names=(HOSTILE, "y"),
        action_units=(HOSTILE, "m"),
    )
    video = tmp_path / "episode.mp4"
    video.write_bytes(b"")
    page = write(
        tmp_path,
        title=HOSTILE,
        explanation=HOSTILE,
        success=[SuccessRate(HOSTILE, 1, 2)],
        episodes=[report.ReportEpisode(HOSTILE, False, video)],
        dreams=[hostile],
    )
    assert "<script>alert" not in page and '"quotes"' not in page and "'too'" not in page
    assert page.count("&lt;script&gt;alert(1)") >= 9


def test_what_is_missing_is_left_out(tmp_path):
    page = write(tmp_path)
    assert "<section>" not in page and "$" not in page
    assert "<section>" in write(tmp_path, success=[SuccessRate("reach", 1, 1)])


def test_arrows_point_to_the_better_one():
    chamfer, psnr = report.MEASURES[-1], report.MEASURES[0]
    low, high = estimates.Estimate(1.0, 0.9, 1.1, 5), estimates.Estimate(2.0, 1.9, 2.1, 5)
    wide = estimates.Estimate(1.0, 0.5, 2.5, 5)
    assert "better" in report._mark(chamfer, low, high) and "worse" in report._mark(chamfer, high, low)
    assert "better" in report._mark(psnr, high, low) and "worse" in report._mark(psnr, low, high)
    assert "unsure" in report._mark(psnr, wide, high) and "unsure" not in report._mark(psnr, low, high)
    assert report._mark(psnr, low, low) == ""


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="5 successes of 4 episodes"):
        SuccessRate("reach", 5, 4)
    with pytest.raises(ValueError, match="predicted_actions has shape"):
        dream(action_names=("x", "y", "gripper"), action_units=("m", "m", "-1..1"))
    with pytest.raises(ValueError, match="1 units for 2 actions"):
        dream(action_units=("m",))
    with pytest.raises(ValueError, match="those of the dummy 0"):
        report.Report("t", "e", metrics=numbers()[0])
