"""The three AdamWs agree; what they keep is what they promise; and a run may change them as far as that is possible."""

import pytest
import torch
from torch import nn

from ranks import trainer_of
from xwam.train import checkpoint
from xwam.train.ema import Ema
from xwam.train.optimizers import BLOCK, OPTIMIZERS, AdamW, AdamW8bit, code_values, decode, encode

CPU = torch.device("cpu")
SETTINGS = {"lr": 1e-2, "betas": (0.9, 0.99), "weight_decay": 0.1}


def trained(kind: type[AdamW], steps: int = 50) -> tuple[nn.Module, AdamW]:
    """A regression by one of the optimizers; rows are no multiple of a block, and one layer's are too short for one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(BLOCK + 44, 32), nn.Tanh(), nn.Linear(32, 8))
    optimizer = kind(model.parameters(), **SETTINGS)
    x, y = torch.randn(64, BLOCK + 44), torch.randn(64, 8)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    return model, optimizer


def test_offloaded_moments_change_nothing():
    (plain, _), (offloaded, optimizer) = trained(AdamW), trained(OPTIMIZERS["adamw_offload"])
    for a, b in zip(plain.parameters(), offloaded.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        assert optimizer.state[b]["exp_avg"].device == CPU


def test_eight_bits_learn_as_float32_does():
    (plain, exact), (small, optimizer) = trained(AdamW), trained(AdamW8bit)
    begun = trained(AdamW, steps=0)[0]
    for a, b, start in zip(plain.parameters(), small.parameters(), begun.parameters(), strict=True):
        assert (a - b).norm() < 0.05 * (a - start).norm(), "apart by little of the way that both went"
    assert any(not torch.equal(a, b) for a, b in zip(plain.parameters(), small.parameters(), strict=True))
    matrix, short = small[0].weight, small[2].weight
    assert optimizer.state[matrix].keys() == {
        *("step", "exp_avg_codes", "exp_avg_scales", "exp_avg_sq_codes", "exp_avg_sq_scales")
    }
    assert optimizer.state[short].keys() == {"step", "exp_avg", "exp_avg_sq"}
    kept = sum(x.nbytes for x in optimizer.state[matrix].values()) - 4
    assert kept == 2 * (matrix.numel() + 4 * 2 * 32), "a byte an entry, and two scales a row"
    full = sum(x.nbytes for x in exact.state[plain[0].weight].values()) - 4
    assert kept < 0.27 * full


@pytest.mark.parametrize("signed", [True, False])
def test_codes_are_near(signed):
    values = code_values(signed, CPU)
    assert len(values) == 256 == len(values.unique()) and values[-1] == 1
    assert values[0] == (-values[-2] if signed else 0)
    torch.manual_seed(0)
    x = torch.randn(5, BLOCK + 7) * torch.logspace(-6, 2, 5)[:, None]
    x = x if signed else x.square()
    codes, scales = encode(x, signed)
    back = decode(codes, scales, signed)
    assert codes.dtype == torch.uint8 and scales.shape == (5, 2)
    large = x.abs() > 0.1 * scales.repeat_interleave(BLOCK, 1)[:, : x.shape[1]]
    assert ((back - x).abs()[large] / x.abs()[large]).max() < (0.08 if signed else 0.04)
    again = encode(back, signed)
    torch.testing.assert_close(decode(*again, signed), back, rtol=0.01, atol=0)


def test_a_square_that_is_not_zero_stays_so():
    x = torch.zeros(1, BLOCK)
    x[0, 0], x[0, 1] = 1.0, 1e-12
    back = decode(*encode(x, signed=False), signed=False)
    assert 0 < back[0, 1] < 1e-6 and back[0, 2] == 0
    assert not decode(*encode(torch.zeros(2, BLOCK), signed=True), signed=True).any()


@pytest.mark.parametrize("changes", [{"optimizer": "adamw8bit"}, {"optimizer": "adamw_offload", "ema_on_host": True}])
def test_a_run_goes_on_as_if_it_had_not_stopped(tmp_path, changes):
    from test_parallel import losses_of, stop_at_2

    assert trainer_of(tmp_path / "whole", **changes).fit()
    assert not trainer_of(tmp_path / "stopped", stop_at_2, **changes).fit()
    assert trainer_of(tmp_path / "stopped", **changes).fit()
    assert losses_of(tmp_path / "whole") == losses_of(tmp_path / "stopped")


def test_a_state_of_another_kind_is_refused(tmp_path):
    for kind, other in ((AdamW, AdamW8bit), (AdamW8bit, AdamW)):
        model, optimizer = trained(kind, steps=1)
        saved = checkpoint.save(tmp_path, 1, {"optimizer": checkpoint.optimizer_tensors(model, optimizer)})
        with pytest.raises(ValueError, match="another optimizer's state: give the train.optimizer of before"):
            checkpoint.load_optimizer(model, other(model.parameters()), saved / "optimizer.safetensors")
        saved.rename(tmp_path / kind.__name__)


def test_averages_on_the_host_are_the_same_and_without_decay_there_are_none():
    model = trained(AdamW, steps=1)[0]
    beside, host, none = Ema(model, 0.9), Ema(model, 0.9, on_host=True), Ema(model, 0.0)
    with torch.no_grad():
        for step in range(3):
            for parameter in model.parameters():
                parameter.mul_(0.9)
            for ema in (beside, host, none):
                ema.update(step)
    now = {name: x.clone() for name, x in model.state_dict().items()}
    torch.testing.assert_close(beside.tensors(), host.tensors())
    assert all(torch.equal(x, now[name]) for name, x in none.tensors().items())
    with none.applied():
        assert all(torch.equal(x, now[name]) for name, x in model.state_dict().items())


def test_a_run_without_averages_exports_its_weights(tmp_path):
    trainer = trainer_of(tmp_path, ema_decay=0.0)
    assert trainer.fit()
    saved = checkpoint.latest(tmp_path)
    assert sorted(path.name for path in saved.iterdir()) == [
        "model.safetensors", "optimizer.safetensors", "state.json"
    ]  # fmt: skip
    assert checkpoint.averaged(saved) == saved / "model.safetensors"
    assert trainer_of(tmp_path, ema_decay=0.0).step == 4
