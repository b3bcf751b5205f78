"""Training: exact resume, schedules, averages, and stops that leave a good checkpoint."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from xwam.data.clips import ClipId
from xwam.model.precision import float32_products, precision_of
from xwam.train import checkpoint
from xwam.train.progress import stop_requests
from xwam.train.schedule import seeds_at
from xwam.train.trainer import TrainConfig, Trainer

FILES = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")


class Toy(nn.Module):
    """Predicts 2x from x and noise; has every kind of tensor a run must bring back."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 4))
        self.modulation = nn.Parameter(torch.zeros(2, 4))
        self.unused = nn.Linear(2, 2)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.register_buffer("seen", torch.zeros(()))

    def counts(self, batch, seeds):
        return torch.tensor([len(batch)])

    def tokens(self, batch):
        return 5 * len(batch)

    def loss(self, batch, seeds, counts):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = torch.stack([torch.randn(batch.shape[1:], generator=generator) for generator in generators])
        if self.training:
            self.seen += 1
        out = self.layers(self.frozen(batch) + 0.1 * noise) * (1 + self.modulation[0])
        error = (out - 2 * batch).square().mean() * len(batch) / counts.item()
        return {"total": error, "twice": 2 * error}


class ToyBatches:
    """Batches from their position; `before` is called with each step first."""

    def __init__(self, before=lambda step: None, scale=lambda step: 1.0):
        self.before, self.scale = before, scale

    def train(self, step):
        self.before(step)
        return self.scale(step) * torch.randn(8, 4, generator=torch.Generator().manual_seed(step))

    def validation(self):
        return [self.train(step) for step in (1000, 1001)]

    def ids(self, step):
        return [ClipId("toys", "toy/double", episode=step, row=row) for row in range(8)]


def settings(**changes) -> TrainConfig:
    values = {"steps": 4, "warmup_steps": 1, "validate_every": 2, "save_every": 2, "precision": "fp32"}
    return TrainConfig(**{**values, "threads": 1, "device": "cpu", **changes})


def log_of(run: Path) -> list[dict]:
    """The log without its times."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def assert_same_run(one: Path, other: Path) -> None:
    ours, theirs = checkpoint.latest(one), checkpoint.latest(other)
    assert ours.name == theirs.name
    for name in FILES:
        a, b = load_file(ours / name), load_file(theirs / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), name
    assert log_of(one) == log_of(other)


class Killed(Exception):
    pass


def die_at(step):
    def before(asked):
        if asked == step:
            raise Killed

    return before


@pytest.mark.parametrize(
    "asked, can, device, got",
    [
        ("auto", {"avx2": True}, "cpu", "fp32"),
        ("auto", {"avx2": True, "avx512_bf16": False}, "cpu", "fp32"),
        ("auto", {"avx512_bf16": True}, "cpu", "bf16"),
        ("auto", {"amx_bf16": True}, "cpu", "bf16"),
        ("auto", {}, "cuda", "bf16"),
        ("bf16", {}, "cpu", "bf16"),
        ("fp32", {"amx_bf16": True}, "cpu", "fp32"),
    ],
)
def test_precision_is_what_the_device_is_fast_at_unless_it_is_asked_for(monkeypatch, asked, can, device, got):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can)
    assert precision_of(asked, torch.device(device)) == got


@pytest.mark.parametrize(
    ("can", "device", "got"),
    [({"avx2": True}, "cpu", "medium"), ({"amx_bf16": True}, "cpu", "highest"), ({"amx_bf16": True}, "cuda", "medium")],
)
def test_float32_stays_float32_on_a_cpu_that_would_take_bfloat16_for_it(monkeypatch, can, device, got):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can)
    assert float32_products(torch.device(device)) == got


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("death", [1, 2, 3])
def test_resume_is_exact(tmp_path, precision, death):
    config = settings(precision=precision)
    assert Trainer(Toy(), ToyBatches(), config, tmp_path / "whole").fit()
    with pytest.raises(Killed):
        Trainer(Toy(), ToyBatches(die_at(death)), config, tmp_path / "broken").fit()
    resumed = Trainer(Toy(), ToyBatches(), config, tmp_path / "broken")
    assert resumed.step == (0 if death == 1 else 2)
    assert resumed.fit()
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resume_after_a_kill_that_nobody_catches(tmp_path, precision):
    program = (
        "import os, signal, time\nfrom pathlib import Path\n"
        "from test_trainer import Toy, ToyBatches, checkpoint, settings, Trainer\n"
        f"run = Path({str(tmp_path / 'broken')!r})\n"
        "def before(step):\n"
        "    if step != 5: return\n"
        "    while checkpoint.latest(run) is None: time.sleep(0.01)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"config = settings(steps=6, precision={precision!r})\n"
        "Trainer(Toy(), ToyBatches(before), config, run).fit()\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == -signal.SIGKILL
    config = settings(steps=6, precision=precision)
    Trainer(Toy(), ToyBatches(), config, tmp_path / "whole").fit()
    resumed = Trainer(Toy(), ToyBatches(), config, tmp_path / "broken")
    assert 2 <= resumed.step <= 4
    resumed.fit()
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def test_half_a_line_in_the_log_is_cut(tmp_path):
    Trainer(Toy(), ToyBatches(), settings(), tmp_path).fit()
    before = log_of(tmp_path)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 5, "los')
    assert Trainer(Toy(), ToyBatches(), settings(), tmp_path).fit()
    assert log_of(tmp_path) == before


def test_a_batch_in_parts_gives_the_same_training(tmp_path):
    for parts in (1, 4):
        assert Trainer(Toy(), ToyBatches(), settings(accumulate=parts), tmp_path / str(parts)).fit()
    whole, parts = (
        [value for line in log_of(tmp_path / name) for value in line.get("losses", line.get("validation")).values()]
        for name in ("1", "4")
    )
    assert parts == pytest.approx(whole, rel=1e-5)
    with pytest.raises(ValueError, match="accumulate 3 does not divide the 8 samples"):
        Trainer(Toy(), ToyBatches(), settings(accumulate=3), tmp_path / "3").fit()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_saved_and_resumed(tmp_path, capsys, number):
    def before(step):
        if step == 2:
            os.kill(os.getpid(), number)

    config = settings(steps=9, save_every=100)
    Trainer(Toy(), ToyBatches(), config, tmp_path / "whole").fit()
    handler = signal.getsignal(number)
    stopped = Trainer(Toy(), ToyBatches(before), config, tmp_path / "stopped")
    assert not stopped.fit()
    assert signal.getsignal(number) is handler
    assert "same command again to resume" in capsys.readouterr().out
    assert checkpoint.latest(tmp_path / "stopped").name == f"step_{stopped.step:08d}"
    Trainer(Toy(), ToyBatches(), config, tmp_path / "stopped").fit()
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_a_second_stop_acts_at_once():
    # A shell's background job ignores Ctrl-C; whether the tests run in one must not matter.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), stop_requests() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.is_set()
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_second_sigterm_is_the_same_request():
    """A cluster sends it to the launcher and to the processes, and the launcher passes it on."""
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as stop:
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
            assert stop.is_set()
    assert signal.getsignal(signal.SIGTERM) is before


def test_another_configuration_is_refused(tmp_path):
    Trainer(Toy(), ToyBatches(), settings(), tmp_path).fit()
    with pytest.raises(ValueError, match="steps: 4 in the run, 8 now"):
        Trainer(Toy(), ToyBatches(), settings(steps=8), tmp_path)
    elsewhere = settings(threads=2, parallel="fsdp", accumulate=2, checkpoint_blocks=True, keep=5)
    assert Trainer(Toy(), ToyBatches(), elsewhere, tmp_path).fit(), "the machine may be another one"


def test_the_resolved_configuration_is_the_runs(tmp_path):
    resolved = {"model": {"width": 16}, "train": settings().model_dump(mode="json")}
    Trainer(Toy(), ToyBatches(), settings(), tmp_path, resolved).fit()
    assert json.loads((tmp_path / "config.json").read_text()) == resolved
    with pytest.raises(ValueError, match="model.width: 16 in the run, 32 now"):
        Trainer(Toy(), ToyBatches(), settings(), tmp_path, {**resolved, "model": {"width": 32}})


def nan_at(*steps):
    return ToyBatches(scale=lambda step: float("nan") if step in steps else 1.0)


def state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    moments = checkpoint.optimizer_tensors(trainer.model, trainer.optimizer)
    averages = {f"average {name}": x for name, x in trainer.ema.tensors().items()}
    tensors = {**trainer.model.state_dict(), **moments, **averages}
    return {name: x.clone() for name, x in tensors.items() if "seen" not in name}


def test_a_step_with_bad_losses_is_skipped(tmp_path, capsys):
    trainer, states = Trainer(Toy(), nan_at(2), settings(save_every=1), tmp_path), []
    update = trainer._update

    def watched(*about):
        states.append(state_of(trainer))
        return update(*about)

    trainer._update = watched
    assert trainer.fit() and trainer.skipped == 1 and trainer.skipped_in_a_row == 0
    assert all(torch.equal(states[2][name], x) for name, x in states[3].items()), "step 3 moved something"
    assert any(not torch.equal(states[1][name], x) for name, x in states[2].items())
    said = capsys.readouterr().out
    assert "Skipped step 3: total, twice, gradient norm not finite, among toys toy/double episode 2 row 0, toys" in said
    assert "episode 2 row 3 and 4 more that log.jsonl names." in said
    lines = [line for line in log_of(tmp_path) if "validation" not in line]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[2] == {
        "step": 3,
        "skipped": ["total", "twice", "gradient norm"],
        "samples": [{"dataset": "toys", "environment": "toy/double", "episode": 2, "row": row} for row in range(8)],
        "learning_rate": settings().learning_rate_at(2),
    }
    assert checkpoint.read_state(checkpoint.latest(tmp_path))["skipped"] == 1


@pytest.mark.parametrize(
    ("bad", "limits", "told"),
    [
        (
            (4, 5, 6),
            {"max_skipped_in_a_row": 2},
            "step 7: .* among toys toy/double episode 6 row 0.* in 3 steps in a row and 3 in all.*step_00000006",
        ),
        ((1, 3, 5), {"max_skipped": 2}, "step 6: .* in 1 steps in a row and 3 in all.*step_00000004"),
    ],
)
def test_too_many_bad_steps_end_the_run_and_keep_its_checkpoint(tmp_path, bad, limits, told):
    trainer = Trainer(Toy(), nan_at(*bad), settings(steps=9, **limits), tmp_path)
    with pytest.raises(FloatingPointError, match=told):
        trainer.fit()
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())
    saved = load_file(checkpoint.latest(tmp_path) / "model.safetensors")
    assert all(x.isfinite().all() for x in saved.values())
    again = Trainer(Toy(), nan_at(*bad), settings(steps=9, **limits), tmp_path)
    assert again.skipped == 2, "a resumed run goes on counting"


def test_a_bad_gradient_of_a_good_loss_is_skipped_too(tmp_path):
    class Root(Toy):
        def loss(self, batch, seeds, counts):
            return {"total": self.modulation.sum().sqrt()}  # 0, with an infinite slope

    with pytest.raises(FloatingPointError, match="step 1: gradient norm not finite.*none yet"):
        Trainer(Root(), ToyBatches(), settings(max_skipped_in_a_row=0), tmp_path).fit()


def test_log(tmp_path):
    Trainer(Toy(), ToyBatches(), settings(), tmp_path).fit()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    training = [line for line in lines if "losses" in line]
    assert [line["step"] for line in training] == [1, 2, 3, 4]
    for line in training:
        assert line.keys() == {"step", "losses", "learning_rate", "gradient_norm", "seconds"}
        assert line["losses"]["twice"] == pytest.approx(2 * line["losses"]["total"])
        assert line["learning_rate"] == settings().learning_rate_at(line["step"] - 1)
        assert line["seconds"] > 0
    validation = [line for line in lines if "validation" in line]
    assert [line["step"] for line in validation] == [2, 4]
    assert validation[0]["validation"].keys() == {"total", "twice"}


def test_it_learns(tmp_path):
    config = settings(steps=150, save_every=150, validate_every=50, learning_rate=1e-2)
    Trainer(Toy(), ToyBatches(), config, tmp_path).fit()
    first = log_of(tmp_path)[0]["losses"]["total"]
    totals = [line["validation"]["total"] for line in log_of(tmp_path) if "validation" in line]
    assert totals[2] < totals[1] < totals[0] and totals[2] < 0.3 * first


def test_validation_repeats_itself_and_changes_nothing(tmp_path):
    trainer = Trainer(Toy(), ToyBatches(), settings(), tmp_path)
    trainer.fit()
    weights = {name: x.clone() for name, x in trainer.model.state_dict().items()}
    assert trainer.validate() == trainer.validate()
    assert all(torch.equal(x, weights[name]) for name, x in trainer.model.state_dict().items())
    assert trainer.model.training


def test_validation_sees_the_averages(tmp_path):
    trainer = Trainer(Toy(), ToyBatches(), settings(), tmp_path)
    trainer.fit()
    twin = Toy().eval()
    checkpoint.load_weights(twin, checkpoint.latest(tmp_path) / "ema.safetensors")
    with torch.no_grad():
        totals = [
            twin.loss(batch, seeds_at(0, "validation", index, range(8)), torch.tensor(8))["total"].item()
            for index, batch in enumerate(ToyBatches().validation())
        ]
    assert trainer.validate()["validation"]["total"] == pytest.approx(sum(totals) / 2, rel=1e-6)
