"""What a training step follows: learning rates, averages of weights, decay, seeds by position."""

import pytest
import torch
from torch import nn

from xwam.train.ema import Ema, decay_at
from xwam.train.schedule import learning_rate_at, seeds_at
from xwam.train.trainer import TrainConfig, parameter_groups


def test_average_formula():
    model = nn.Linear(3, 2)
    ema = Ema(model, decay=0.5)
    expected = model.weight.detach().clone()
    for update in range(12):
        with torch.no_grad():
            model.weight += 1.0
        ema.update(update)
        expected = decay_at(update, 0.5) * expected + (1 - decay_at(update, 0.5)) * model.weight.detach()
    assert torch.allclose(ema.tensors()["weight"], expected)
    own = model.weight.detach().clone()
    with pytest.raises(RuntimeError), ema.applied():
        assert torch.allclose(model.weight, expected)
        raise RuntimeError
    assert torch.equal(model.weight, own)


def test_decay_grows_to_its_limit():
    assert decay_at(0, 0.999) == pytest.approx(0.1)
    assert decay_at(10**6, 0.999) == 0.999
    assert decay_at(0, 0.0) == 0.0


def test_learning_rate():
    rates = [learning_rate_at(i, peak=2.0, steps=100, warmup_steps=10, final_ratio=0.1) for i in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == max(rates) == pytest.approx(2.0)
    assert rates[54] == pytest.approx(1.1)  # half of the cosine
    assert rates[99] == min(rates[10:]) == pytest.approx(0.2)
    assert all(later < earlier for earlier, later in zip(rates[10:], rates[11:], strict=False))
    assert learning_rate_at(0, peak=1.0, steps=1, warmup_steps=0, final_ratio=0.5) == 0.5


def test_constant_learning_rate_with_decay():
    asked = {"schedule": "constant", "peak": 2.0, "steps": 100, "warmup_steps": 10, "final_ratio": 0.1}
    rates = [learning_rate_at(i, decay_share=0.2, **asked) for i in range(100)]
    assert rates[9:80] == pytest.approx([2.0] * 71)
    assert rates[89] == pytest.approx(1.1) and rates[99] == pytest.approx(0.2)
    assert all(later < earlier for earlier, later in zip(rates[79:], rates[80:], strict=False))
    assert learning_rate_at(99, decay_share=0.0, **asked) == pytest.approx(0.2)
    assert min(learning_rate_at(i, decay_share=1.0, **asked) for i in range(10, 99)) > 0.2


def test_warmup_longer_than_the_run():
    with pytest.raises(ValueError, match="warmup_steps 4 must be less than steps 4"):
        TrainConfig(steps=4, warmup_steps=4)


def test_seeds_are_functions_of_position():
    seeds = {
        (seed, purpose, index): seeds_at(seed, purpose, index, range(4))
        for seed in (0, 1)
        for purpose in ("training", "validation")
        for index in range(100)
    }
    every = [seed for batch in seeds.values() for seed in batch]
    assert len(every) == 4 * len(seeds) == len(set(every))
    assert all(0 <= seed < 2**63 for seed in every)
    assert all(seeds_at(*key, range(2, 4)) == batch[2:] for key, batch in seeds.items())
    assert seeds_at(0, "training", 0, range(1)) == [7896617691693857887]


def test_what_decays():
    model = nn.ModuleDict(
        {"linear": nn.Linear(2, 3), "conv": nn.Conv3d(1, 1, 3), "norm": nn.LayerNorm(4), "words": nn.Embedding(5, 6)}
    )
    model.register_parameter("modulation", nn.Parameter(torch.zeros(1, 6, 4)))
    model["frozen"] = nn.Linear(2, 2).requires_grad_(False)
    decayed, kept = parameter_groups(model, 0.1)
    assert decayed["weight_decay"] == 0.1 and kept["weight_decay"] == 0.0
    assert {id(p) for p in decayed["params"]} == {id(model["linear"].weight), id(model["conv"].weight)}
    assert len(kept["params"]) == 6  # two biases, two of the norm, the embedding, the table
