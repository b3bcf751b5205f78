"""Training with many ranks on the CPU: the same losses as with one, from one to many and back, and sudden deaths."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from ranks import trainer_of
from xwam.train import checkpoint, parallel
from xwam.train.pieces import names_in
from xwam.train.trainer import UNFINISHED

STEPS = 4
# Ranks sum in another order than one process; in bfloat16 they also round the gradients of each part.
CLOSE = {"fp32": 2e-6, "bf16": 2e-2}


def launched(ranks: int, *jobs: dict) -> subprocess.Popen:
    """`torchrun` with these jobs for each of so many ranks."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    program = Path(__file__).with_name("ranks.py")
    path = os.pathsep.join([str(program.parent), *sys.path])
    return subprocess.Popen(
        [*command, str(program), *(json.dumps({**job, "run": str(job["run"])}) for job in jobs)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def losses_of(run: Path) -> list[float]:
    """All losses and gradient norms of a whole run, in their order."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    values = [(line["step"], kind, line[kind]) for line in lines for kind in ("losses", "validation") if kind in line]
    assert [step for step, kind, _ in values if kind == "losses"] == list(range(1, STEPS + 1))
    assert len(values) == STEPS + STEPS // 2
    norms = [line["gradient_norm"] for line in lines if "losses" in line]
    return [value for _, _, losses in values for value in losses.values()] + norms


def samples_of(run: Path) -> list[float]:
    """Numbers of what the model imagined at each validation."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [value for line in lines for value in line.get("sampled", {}).values()]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict[str, list[float]]:
    """Losses of one process by precision."""
    runs = {precision: tmp_path_factory.mktemp(precision) for precision in CLOSE}
    for precision, run in runs.items():
        assert trainer_of(run, precision=precision).fit()
    return {precision: losses_of(run) for precision, run in runs.items()}


def stop_at_2(step: int) -> None:
    if step == 2:
        os.kill(os.getpid(), signal.SIGTERM)


def test_two_ranks_train_as_one_does(alone, tmp_path):
    ways = {
        "ddp": {"parallel": "ddp", "accumulate": 2},
        "fsdp": {"parallel": "fsdp", "accumulate": 2, "checkpoint_blocks": True},
        "bf16": {"parallel": "fsdp", "precision": "bf16"},
        "unallocated": {"parallel": "fsdp", "unallocated": True},
        "from one": {"parallel": "fsdp", "uneven": True, "unallocated": True},
        "to one": {"parallel": "fsdp", "stop": 2},
    }
    assert not trainer_of(tmp_path / "from one", stop_at_2).fit()
    process = launched(2, *({"run": tmp_path / name, **changes} for name, changes in ways.items()))
    out, _ = process.communicate(timeout=100)
    assert f"exitcode  : {UNFINISHED}" in out, out
    assert out.count("Stopped and saved after step") == 1, "only rank 0 prints"
    assert out.count("Resuming") == 1 and process.returncode != 0
    pieces = sorted(path.name for path in checkpoint.latest(tmp_path / "to one").iterdir())
    assert pieces == ["ema-00000.safetensors", "ema-00001.safetensors", "model-00000.safetensors",
                      "model-00001.safetensors", "optimizer-00000.safetensors", "optimizer-00001.safetensors",
                      "state.json"]  # fmt: skip
    assert checkpoint.latest(tmp_path / "to one").name < f"step_{STEPS:08d}"
    assert (checkpoint.latest(tmp_path / "ddp") / "model.safetensors").exists()
    assert trainer_of(tmp_path / "to one", unallocated=True).fit()
    for name, changes in ways.items():
        precision = changes.get("precision", "fp32")
        assert losses_of(tmp_path / name) == pytest.approx(alone[precision], rel=CLOSE[precision]), name
    for name in ("ddp", "fsdp", "from one", "to one"):
        assert len(samples_of(tmp_path / name)) == 2 * 4
        assert samples_of(tmp_path / name) == pytest.approx(samples_of(tmp_path / "ddp"), rel=1e-3), name


def test_moments_in_eight_bits_go_on_with_another_number_of_ranks(monkeypatch, tmp_path):
    monkeypatch.setattr("xwam.train.optimizers.BLOCK", 8)  # so that rows of this size have several blocks
    eight = {"parallel": "fsdp", "optimizer": "adamw8bit"}
    process = launched(2, {"run": tmp_path / "two", "block": 8, "stop": 2, **eight})
    out, _ = process.communicate(timeout=100)
    assert f"exitcode  : {UNFINISHED}" in out, out
    saved = checkpoint.latest(tmp_path / "two")
    shutil.copytree(saved, tmp_path / "first")
    for run in ("two", "one"):
        assert trainer_of(tmp_path / run, **eight).fit()
    # a sum in another order may turn a code: neighbours are a few percent of a block's largest apart
    assert losses_of(tmp_path / "two") == pytest.approx(losses_of(tmp_path / "one"), rel=1e-2)
    names = names_in(tmp_path / "first" / "optimizer.safetensors")
    assert any(name.endswith("exp_avg_sq_codes") for name in names)


def test_a_rank_killed_while_it_saves_costs_no_older_checkpoint(alone, tmp_path):
    """Four ranks that hold two copies of the weights; one rank goes on with what is left of them."""
    process = launched(4, {"run": tmp_path, "parallel": "fsdp", "shards": 2, "die": 4})
    out, _ = process.communicate(timeout=100)
    assert process.returncode != 0 and "SIGKILL" in out, out
    folders = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert folders == ["step_00000002", "step_00000004.part"]
    assert len(list((tmp_path / "checkpoints" / "step_00000002").glob("model-*"))) == 2
    assert trainer_of(tmp_path).fit()
    assert losses_of(tmp_path) == pytest.approx(alone["fp32"], rel=CLOSE["fp32"])


def test_sigterm_to_the_launcher_saves(tmp_path):
    process = launched(2, {"run": tmp_path, "parallel": "ddp", "pause_s": 0.05, "steps": 2000, "save_every": 2000})
    log, limit = tmp_path / "log.jsonl", time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") > 2) and time.monotonic() < limit:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and "Stopped and saved after step" in out, out
    last = [json.loads(line) for line in log.read_text().splitlines()][-1]["step"]
    assert checkpoint.latest(tmp_path).name == f"step_{last:08d}"


class Stack(nn.Module):
    """Two blocks outside of which there is a weight, and a frozen list of blocks."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4)) for _ in range(2))
        self.frozen = nn.ModuleList([nn.Linear(4, 4)]).requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return x * self.scale


def test_blocks_are_the_trained_entries_of_module_lists():
    model = Stack()
    assert parallel.blocks_of(model) == list(model.blocks)
    assert parallel.blocks_of(nn.ModuleList([model])) == [model], "the outermost"


def test_prepared_blocks_compute_the_same_under_the_same_names(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    x, plain, prepared = torch.randn(3, 4), Stack(), Stack()
    parallel.prepare_blocks(prepared, recompute=True, compile=True)
    for model in (plain, prepared):
        model(x).square().sum().backward()
    weights = [dict(model.named_parameters()) for model in (plain, prepared)]
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[0].items():
        if weight.requires_grad:
            torch.testing.assert_close(weight.grad, weights[1][name].grad)


def test_how_many_ranks_share_the_weights(monkeypatch):
    assert parallel.columns("fsdp", None, 10**12) == 1, "a single rank has them all"
    monkeypatch.setenv("WORLD_SIZE", "16")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert parallel.columns("ddp", None, 10**12) == 1
    assert parallel.columns("auto", None, 10**6) == 1 and parallel.columns("auto", None, 10**10) == 8
    assert parallel.columns("fsdp", None, 10**6) == 8 and parallel.columns("fsdp", 16, 10**6) == 16
    with pytest.raises(ValueError, match="3 shards do not fit 16 ranks"):
        parallel.columns("fsdp", 3, 10**6)
    with pytest.raises(ValueError, match="parallel is none and there are 16 ranks"):
        parallel.columns("none", None, 10**6)
