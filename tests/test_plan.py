"""The plan of a run: what it counts is what is there, and what it reads off the network is what the network does."""

from pathlib import Path

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from xwam.model.lora import LoraConfig
from xwam.model.tokens import Layout
from xwam.model.transformer import WorldActionTransformer
from xwam.recipes import RECIPES
from xwam.train import plan as planning
from xwam.train.checkpoint import optimizer_tensors
from xwam.train.ema import Ema
from xwam.train.optimizers import OPTIMIZERS
from xwam.train.plan import Plan, Traced, Way, changes, plan, traced, traced_by_few
from xwam.train.plan_table import show_plan
from xwam.train.runs import ModelRun
from xwam.wam import WorldActionModel

# What PyTorch counts of the same kernel on a GPU.
ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda g, q, k, v, *_, **__: (
        sdpa_backward_flop_count(g, q, k, v)
    ),
}
LAYOUT = Layout(frames=3, views=2, rows=4, columns=4, actions=8, proprios=9)


def run_of(**changes) -> ModelRun:
    """The recipe tiny on one sample at a time, in float32."""
    run = RECIPES["tiny"](Path("dataset"), Path("autoencoder"))
    lora = changes.pop("lora", None)
    train = run.train.model_copy(update={"precision": "fp32", "accumulate": 4, **changes})
    return run.model_copy(update={"train": train, "lora": lora})


@pytest.fixture
def reckoned(monkeypatch):
    """Activations by a formula, where the test is about other things: a trace takes a second."""

    def formula(network, layout: Layout, samples: int, way: Way) -> Traced:
        return Traced(samples * (10**6 if way.recompute else 10**7), samples * 10**9)

    monkeypatch.setattr(planning, "traced_by_few", formula)


def nbytes(tensors) -> int:
    return sum(x.nbytes for x in tensors)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_stays_is_counted_exactly(monkeypatch, reckoned, optimizer):
    monkeypatch.setattr("xwam.train.optimizers.BLOCK", 16)  # so that matrices of this size have eight bits
    run = run_of(optimizer=optimizer)
    model = WorldActionModel(run.model)
    trained = [p for p in model.parameters() if p.requires_grad]
    update = OPTIMIZERS[optimizer](trained)
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    update.step()
    found, moments = plan(run), nbytes(optimizer_tensors(model, update).values())
    assert found.device["weights"] == nbytes([*model.parameters(), *model.buffers()])
    assert found.device["gradients"] == nbytes(p.grad for p in trained)
    assert found.device["moments"] == (0 if optimizer == "adamw_offload" else moments)
    assert found.device["averages"] == nbytes(Ema(model, 0.9)._averages.values())
    assert found.host.get("moments", moments) == moments
    written = nbytes(model.state_dict().values()) + nbytes(Ema(model, 0.9).tensors().values()) + moments
    assert found.host["checkpoint being written"] == written
    assert found.trained == sum(p.numel() for p in trained)
    assert sum(found.parameters.values()) == sum(p.numel() for p in model.parameters())


def test_ranks_hold_equal_rows(reckoned):
    one, two = plan(run_of(accumulate=2)), plan(run_of(accumulate=1, parallel="fsdp"), gpus=2)
    assert (two.shards, two.samples) == (2, one.samples)
    frozen = one.device["weights"] - one.device["gradients"]
    assert two.device["weights"] - two.device["gradients"] == frozen, "frozen weights outside of blocks are whole"
    assert 0.5 <= two.device["gradients"] / one.device["gradients"] < 0.51, "of an odd number of rows one has more"
    assert two.device["gathered blocks"] > 0 == one.device["gathered blocks"]


def real(samples: int) -> tuple[WorldActionTransformer, tuple]:
    network = planned()
    torch.manual_seed(0)
    return WorldActionTransformer(network), planning._inputs(network, LAYOUT, samples)


def planned(**sizes):
    return run_of().model.transformer.model_copy(update={"blocks": 4, "depth_blocks": 2, **sizes})


def test_activations_are_those_that_are_saved():
    """Beside what is kept until gradients flow back there is what is made on the way: by half more at most."""
    way = Way(low=False)
    network, inputs = real(16)
    saved, weights = {}, {p.untyped_storage()._cdata for p in network.parameters()}

    def keep(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in weights:
            saved[storage._cdata] = storage.nbytes()
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        streams = network(*inputs, with_depth=True)
        loss = sum(x.square().mean() for x in vars(streams).values())
    loss.backward()
    found = traced(planned(), LAYOUT, 16, way).bytes
    assert sum(saved.values()) < found < 1.5 * sum(saved.values())


@pytest.mark.parametrize("recompute", [False, True])
def test_arithmetic_is_that_of_a_real_step(recompute):
    way = Way(low=False, recompute=recompute)
    network, inputs = real(2)
    planning.parallel.prepare_blocks(network, recompute, compile=False)
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        planning._descend(network, inputs, way)
    assert traced(planned(), LAYOUT, 2, way).flops == counter.get_total_flops()


@pytest.mark.parametrize("way", [Way(), Way(recompute=True, gathered=True)])
def test_few_blocks_tell_of_many(way):
    large = planned(blocks=6, depth_blocks=3)
    assert traced_by_few(large, LAYOUT, 8, way) == traced(large, LAYOUT, 8, way)
    without = planned(depth_blocks=0, depth="sequence")
    assert traced_by_few(without, LAYOUT, 8, way) == traced(without, LAYOUT, 8, way)


def test_blocks_computed_twice_take_less_memory_and_more_arithmetic():
    plain, twice = (traced(planned(), LAYOUT, 16, Way(recompute=twice)) for twice in (False, True))
    assert twice.bytes < 0.6 * plain.bytes
    assert 1.2 < twice.flops / plain.flops < 4 / 3


def test_an_adapter_takes_neither_gradients_nor_moments_of_its_base(reckoned):
    whole, adapter = plan(run_of()), plan(run_of(lora=LoraConfig(rank=2), precision="bf16"))
    assert adapter.trained < 0.3 * whole.trained and adapter.parameters == whole.parameters
    assert adapter.device["moments"] < 0.3 * whole.device["moments"]
    assert adapter.device["weights"] < whole.device["weights"], "what is frozen is in bfloat16"
    small = planned(blocks=1, depth_blocks=1)
    full, low_rank = (traced(small, LAYOUT, 2, Way(lora=lora)) for lora in (None, LoraConfig(rank=2)))
    assert low_rank.flops < 0.9 * full.flops, "what is frozen needs no gradients"


def test_a_batch_that_does_not_divide_is_refused(reckoned):
    with pytest.raises(ValueError, match="batch_size 4 cannot be shared by 3 GPUs in 1 parts each"):
        plan(run_of(accumulate=1), gpus=3)


def test_what_would_help_is_told_with_its_effect(reckoned):
    now = plan(run_of(accumulate=1))
    found: dict[str, Plan] = dict(changes(now, limit=1.0))
    singles = {"--set train.checkpoint_blocks=true", "--set train.accumulate=4", "--set train.ema_on_host=true"}
    singles |= {"--set train.optimizer=adamw8bit", "--set train.optimizer=adamw_offload"}
    assert singles < found.keys()
    assert any(options.endswith("--set lora={} --set start_from=MODEL") for options in found)
    assert all(found[options].bytes < now.bytes for options in singles - {"--set train.optimizer=adamw8bit"})
    enough = found["--set train.accumulate=4"].bytes
    last = [other for options, other in changes(now, limit=enough) if options.count("--set train") > 1]
    assert last and last[0].bytes <= enough, "together they fit"


def test_the_tables_say_whether_it_fits(reckoned, capsys):
    found = plan(run_of(accumulate=1))
    assert show_plan(found, gpu_gb=1, tflops=1)
    assert not show_plan(found, gpu_gb=1e-6, tflops=1)
    fits, lacks = capsys.readouterr().out.split("does not fit")
    assert "fits 1 GB" in fits and "what would take less" in lacks and "accumulate=4" in lacks
