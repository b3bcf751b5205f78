"""The ablation harness: what is trained for which row, what is kept, and what the table says."""

import json
import math
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from safetensors.torch import save_file

from recordings import record, robot, smooth_episode
from toy_world import ToyWorld
from xwam.ablation import run as harness
from xwam.ablation.figure import MARGIN, WIDTH, draw
from xwam.ablation.report import ablate
from xwam.ablation.rows import BASE, COMPARISONS, ROWS, AblationConfig, Comparison, Row
from xwam.ablation.statistics import SeedEstimate, difference, verdict
from xwam.ablation.table import SUCCESS, as_json, markdown_table, sentence, task_table
from xwam.model.autoencoders import SmallAutoencoder, SmallAutoencoderConfig
from xwam.model.config import TransformerConfig
from xwam.model.text import SmallTextEncoderConfig
from xwam.recipes import configured
from xwam.saved import ModelConfig, NoiseConfig
from xwam.train.runs import DataConfig, ModelRun
from xwam.train.trainer import TrainConfig

CODEC = SmallAutoencoderConfig(channels=8, widths=(8, 8, 8))
TOLD = ("no depth", "sequence concatenation", BASE, "ANS, synchronous")


# ---- rows ----------------------------------------------------------------------------------------------------------


def base_run(home: Path) -> ModelRun:
    """A run of a network small enough to train in milliseconds."""
    transformer = TransformerConfig(
        width=24, ffn_width=48, heads=2, blocks=2, depth_blocks=1, views=2, latent_channels=8, text_width=16,
        text_tokens=12, frequency_width=16, action_width=6, actions_per_frame=2, proprio_width=5,
    )  # fmt: skip
    text = SmallTextEncoderConfig(width=16, tokens=12, buckets=64)
    inputs = {"transformer": transformer, "autoencoder": CODEC, "text": text, "embodiment": robot()}
    noise = NoiseConfig(video_steps=3, action_steps=2)
    return ModelRun(
        data=DataConfig(dataset=str(home / "data"), held_out=1),
        autoencoder=str(home / "codec"),
        model=ModelConfig(**inputs, noise=noise, frames=5, image_size=(32, 32)),
        train=TrainConfig(steps=2, warmup_steps=1, validate_every=2, save_every=2, precision="fp32", device="cpu"),
        batch_size=3,
    )


def config_of(home: Path, **changes) -> AblationConfig:
    settings = {"base": base_run(home), "tasks": ("toy/reach",), "seeds": (0, 1), "episodes": 2, "dreams": 1}
    return AblationConfig(**settings | {"execute": 2} | changes)


def test_a_row_changes_what_it_names_and_nothing_else(tmp_path):
    base = base_run(tmp_path)
    plain = Row(name="as it is").applied_to(base, seed=3)
    assert plain.train == base.train.model_copy(update={"seed": 3, "threads": 1})
    assert plain.model == base.model and plain.data == base.data
    for depth, way, blocks in (("none", "branch", 0), ("channels", "channels", 0), ("branch", "branch", 1)):
        network = Row(name="x", depth=depth).applied_to(base, 0).model.transformer
        assert (network.depth, network.depth_blocks) == (way, blocks)
    coupled = Row(name="x", law="coupled", synchronous=True)
    assert coupled.applied_to(base, 0).model.noise.action_steps == 3 == coupled.action_steps(base)
    assert Row(name="x", synchronous=True).action_steps(base) == 3 and Row(name="x").action_steps(base) == 2


def test_rows_that_sample_differently_share_a_training(tmp_path):
    config = config_of(tmp_path)
    trainings = config.trainings()
    assert len(trainings) == 2 * 7 and [seed for _, seed in trainings] == [0] * 7 + [1] * 7
    assert len({row.training for row, _ in trainings}) == 7
    applied = {row.name: row.applied_to(config.base, 0) for row in ROWS}
    assert applied["ANS, synchronous"] == applied[BASE] != applied["ANS without clean actions"]


def test_every_comparison_is_of_rows_and_chosen_rows_keep_theirs(tmp_path):
    names = {row.name for row in ROWS}
    assert all({c.row, c.against} <= names for c in COMPARISONS)
    chosen = config_of(tmp_path).only(("no depth", BASE))
    assert [c.what for c in chosen.comparisons] == ["depth as an interleaved branch"]
    with pytest.raises(ValueError, match="no row 'depth'; there are no depth, channel"):
        config_of(tmp_path).only(("depth",))


@pytest.mark.parametrize(
    "mistake, message",
    [
        (lambda home: Row(name="x", law="coupled"), "row 'x': the coupled law only samples synchronously"),
        (lambda home: config_of(home, rows=(ROWS[0], ROWS[0])), "each once"),
        (lambda home: config_of(home, seeds=(1, 1)), "each once"),
        (lambda home: NoiseConfig(law="coupled"), "the coupled law never meets 10 action steps beside 50 of the video"),
    ],
)
def test_a_mistake_is_named(mistake, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        mistake(tmp_path)


def test_the_recipe_has_all_rows_and_a_network_of_two_million(tmp_path):
    from xwam.model.depth_stream import network_of

    run = configured("nano-ablation", tmp_path, tmp_path, ())
    for row in ROWS:
        applied = row.applied_to(run, 0)
        with torch.device("meta"):
            network = network_of(applied.model.transformer)
        assert sum(p.numel() for p in network.parameters()) < 2e6, row.name


# ---- statistics and sentences --------------------------------------------------------------------------------------


def test_an_interval_over_seeds_is_students():
    found = SeedEstimate.of({0: 1.0, 1: 2.0, 2: 3.0})
    assert found.mean == 2 and found.half_width == pytest.approx(4.302653 / 3**0.5) and found.seeds == 3
    assert SeedEstimate.of({0: 5.0}).half_width == math.inf
    assert SeedEstimate.of({}) is None and SeedEstimate.of({0: 1.0, 1: math.nan}) is None


def test_what_a_seed_does_to_both_rows_falls_out_of_their_difference():
    found = difference({0: 0.1, 1: 0.5, 2: 0.9}, {0: 0.0, 1: 0.4, 2: 0.8})
    assert found.mean == pytest.approx(0.1) and found.half_width == pytest.approx(0, abs=1e-12)
    assert difference({0: 1.0, 5: 2.0}, {0: 0.5}).seeds == 1


@pytest.mark.parametrize("mean, higher, says", [(1, True, "better"), (-1, True, "worse"), (-1, False, "better")])
def test_a_verdict_needs_an_interval_without_zero(mean, higher, says):
    assert verdict(SeedEstimate(mean, 0.9, 3), higher) == says
    assert verdict(SeedEstimate(mean, 1.1, 3), higher) == "unclear"


def rows(success: dict[int, float], **measures: dict[int, float]) -> dict:
    named = {"psnr": "all/static/psnr_db", "rel": "changed/every/abs_rel"}
    return {"success": success} | {named[name]: values for name, values in measures.items()}


def test_a_sentence_says_both_ways_and_when_it_is_noise():
    compared = Comparison(what="depth", row="with", against="without")

    def said(success, **more):
        before = rows({0: 0.50, 1: 0.52, 2: 0.48}, psnr={0: 20.0, 1: 20.1, 2: 20.2}, rel={0: 0.2, 1: 0.2, 2: 0.2})
        return sentence(compared, {"with": rows(success, **more), "without": before})

    helped = said({0: 0.60, 1: 0.63, 2: 0.57}, psnr={0: 19.0, 1: 19.1, 2: 19.3}, rel={0: 0.1, 1: 0.11, 2: 0.1})
    assert "Depth: success 60.0% against 50.0% (without), +10.0 points (95% interval +7.5 to +12.5): it helps" in helped
    assert helped.endswith("Better: AbsRel of changed (-0.0967). Worse: PSNR of all (-0.97).")
    assert "-10.0 points (95% interval -10.0 to -10.0): it hurts here." in said({0: 0.40, 1: 0.42, 2: 0.38})
    assert "within the noise of 3 seeds." in said({0: 0.60, 1: 0.45, 2: 0.50})
    assert said({0: 0.6}).endswith("+10.0 points; one seed does not tell this from noise.")


def test_the_table_shows_means_and_what_is_missing():
    measured = {"base": rows({0: 0.5, 1: 0.6}, psnr={0: 20.0, 1: 21.0}), "bare": rows({0: 0.5})}
    lines = markdown_table(measured, {"base": 0.2, "bare": 0.1}, "base", "all").splitlines()
    assert lines[0] == "|  | success, % ↑ | PSNR, dB ↑ | latency, × ↓ |", "a measure that no row has is no column"
    assert lines[2] == "| base | 55.0 ± 63.5 | 20.50 ± 6.35 | 1.00 |"
    assert lines[3] == "| bare | 50.0 | – | 0.50 |"
    told = as_json(measured, {"base": 0.2, "bare": 0.1}, [Comparison(what="it", row="base", against="bare")])
    assert told["rows"]["base"]["success"]["mean"] == pytest.approx(0.55) and told["comparisons"][0]["says"]
    assert told["rows"]["bare"]["success"]["interval"] is None
    assert SUCCESS.shown(None) == "–"


def test_success_is_told_for_each_task():
    by_task = {"success/metaworld/a": {0: 1.0, 1: 0.5}, "success/metaworld/b": {0: 0.0, 1: 0.0}}
    measured = {"base": {"success": {0: 0.5, 1: 0.25}} | by_task, "dummy": {}}
    assert task_table(measured).splitlines() == ["|  | a | b |", "| --- | --- | --- |", "| base | 75 | 0 |"]
    assert task_table({"base": {}}) == ""


def test_the_picture_has_a_dot_for_every_seed_and_the_mean_between_them():
    measured = {"a < b": rows({0: 0.2, 1: 0.4}, rel={0: 0.1, 1: 0.3}), "bare": rows({0: 0.3, 1: 0.3})}
    svg = ElementTree.fromstring(draw(measured))
    name = "{http://www.w3.org/2000/svg}"
    assert [text.text for text in svg.findall(f"{name}text")] == ["a < b", "bare"]
    success, rel = svg.findall(f"{name}g")
    assert success.find(f"{name}text").text == "success, % ↑"
    assert [tick.text for tick in success.findall(f"{name}text[@class='tick']")] == ["20.0", "40.0"]
    dots = [(float(dot.get("cx")), dot.get("r")) for dot in success.findall(f"{name}circle")]
    (mean, _), (low, _), (high, _), *bare = dots
    assert MARGIN < low < mean < high < WIDTH - MARGIN and mean == pytest.approx(WIDTH / 2, abs=0.1)
    assert {x for x, _ in bare} == {mean} and len(bare) == 3
    assert len(rel.findall(f"{name}circle")) == 3, "a row without the measure has a line alone"


# ---- end to end ----------------------------------------------------------------------------------------------------


class SmallWorld(ToyWorld):
    """Images of 32 x 32, and too few steps for a model that has learnt nothing."""

    def __init__(self):
        super().__init__(max_steps=6)

    def observe(self, depth=False):
        seen = super().observe(depth)
        images = {name: image[:32, :32] for name, image in seen.images.items()}
        depths = {name: depth_m[:32, :32] for name, depth_m in seen.depths_m.items()}
        return type(seen)(images, seen.proprio, seen.instruction, depths, seen.intrinsics, seen.T_base_cam)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    record(tmp_path / "data", [[smooth_episode(9 + k, seed=k) for k in range(4)]])
    (tmp_path / "codec").mkdir()
    save_file(SmallAutoencoder(CODEC).state_dict(), tmp_path / "codec" / "autoencoder.safetensors")
    monkeypatch.setattr("xwam.evaluate.make_environment", lambda task, height, width: SmallWorld())
    monkeypatch.setattr(harness, "LATENCY_ROUNDS", 1)
    return tmp_path


def compare(home: Path, name: str) -> dict:
    config = config_of(home).only(TOLD)
    arguments = ["ablate", "--dataset", str(home / "data")]
    assert ablate(config, home / name, home / f"{name}-results", 1, "2026-01-01", arguments)
    return json.loads((home / f"{name}-results" / "ablation.json").read_text())


def scores_of(told: dict) -> dict:
    """Without what a clock says."""
    return {row: {k: v for k, v in found.items() if k != "latency_s"} for row, found in told["rows"].items()}


class Killed(Exception):
    pass


def test_a_comparison_that_was_broken_off_goes_on_and_ends_as_one_that_was_not(home, monkeypatch):
    played, play = [], harness.play

    def counted(job):
        played.append(job)
        if len(played) == dies_at:
            raise Killed
        return play(job)

    monkeypatch.setattr(harness, "play", counted)
    dies_at = 0
    whole = compare(home, "whole")
    assert len(played) == 4 * 2 * 2, "rows, seeds, episodes"
    played.clear()
    dies_at = 6
    with pytest.raises(Killed):
        compare(home, "broken")
    dies_at = 0
    resumed = compare(home, "broken")
    assert scores_of(resumed) == scores_of(whole) and len(played) == 4 * 2 * 2 + 2, "what was scored is not again"
    again = compare(home, "broken")
    assert again == resumed and len(played) == 4 * 2 * 2 + 2

    rows = whole["rows"]
    assert list(rows) == [*TOLD, harness.DUMMY] and rows[BASE]["success"]["by_seed"].keys() == {"0", "1"}
    assert "all/every/abs_rel" in rows[BASE] and "all/every/abs_rel" not in rows["no depth"]
    dummy = rows[harness.DUMMY]
    assert "success" not in dummy and dummy["latency_s"] is None
    assert dummy["changed/static/psnr_db"]["mean"] > rows[BASE]["changed/static/psnr_db"]["mean"], "nothing was learnt"
    against = [comparison["against"] for comparison in whole["comparisons"]]
    assert against == ["no depth", "no depth", "sequence concatenation", "ANS, synchronous"]
    assert rows[BASE]["success/toy/reach"] == rows[BASE]["success"], "there is one task"
    assert "<svg" in (home / "whole-results" / "ablation.svg").read_text()
    page = (home / "whole-results" / "ablation.md").read_text()
    assert "by `xwam ablate --dataset data`" in page and str(home) not in page
    assert str(home) not in (home / "whole-results" / "ablation.json").read_text()
    with pytest.raises(ValueError, match="begun with another configuration"):
        changed = config_of(home, base=base_run(home).override(["train.learning_rate=0.5"])).only(TOLD)
        harness.complete(changed, home / "whole", 1)
