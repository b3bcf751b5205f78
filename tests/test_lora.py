"""Adapters: nothing changes at first, only they learn, and merged or alone they give the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ranks import settings, whole_batch
from tiny_model import tiny_config, tiny_model
from toy_runs import build_home, run_of, small_codec
from xwam.model.autoencoders import SmallAutoencoder
from xwam.model.lora import LoraConfig, LoraLinear, add_lora, merge_lora, trained_tensors
from xwam.saved import described
from xwam.train import checkpoint, parallel
from xwam.train.runs import run_of as run_in
from xwam.train.start import fill_model
from xwam.train.trainer import Trainer
from xwam.wam import WorldActionModel

SMALL = LoraConfig(rank=2, alpha=4.0)


def loss_of(model: WorldActionModel) -> torch.Tensor:
    return model.loss(whole_batch(0), [3, 1, 4, 5])["total"]


def awake(model: WorldActionModel) -> None:
    """Adapters that change something."""
    torch.manual_seed(5)
    for name, parameter in trained_tensors(model).items():
        if name.endswith("lora_up"):
            torch.nn.init.normal_(parameter, std=0.1)


def test_fresh_adapters_change_nothing():
    model = tiny_model()
    before = loss_of(model).item()
    add_lora(model, SMALL)
    assert loss_of(model).item() == before
    adapted = [name for name, layer in model.named_modules() if isinstance(layer, LoraLinear)]
    assert len(adapted) == 3 * (4 + 4 + 2), "query, key, value, out of two attentions and the two of ffn, in 3 blocks"


def test_only_adapters_and_what_is_named_learn():
    model = tiny_model()
    names = set(dict(model.named_parameters()))
    add_lora(model, SMALL.model_copy(update={"full": ("transformer.head", "text_encoder")}))
    whole = {name for name in trained_tensors(model) if "lora_" not in name}
    assert whole == {name for name in names if name.startswith(("transformer.head.", "text_encoder."))}
    loss_of(model).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (name in trained_tensors(model)), name


def test_merged_weights_give_what_the_adapters_give():
    model = tiny_model()
    before = loss_of(model).item()
    add_lora(model, SMALL)
    awake(model)
    adapted = loss_of(model).item()
    assert abs(adapted - before) > 1e-3
    merge_lora(model)
    assert not any(isinstance(layer, LoraLinear) for layer in model.modules())
    assert loss_of(model).item() == pytest.approx(adapted, rel=1e-5)
    assert model.state_dict().keys() == tiny_model().state_dict().keys()


def test_a_base_in_bfloat16_takes_two_bytes_a_weight():
    model = tiny_model()
    add_lora(model, SMALL, torch.bfloat16)
    for name, parameter in model.transformer.named_parameters():
        assert parameter.dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16), name
    with torch.autocast("cpu", torch.bfloat16):
        loss_of(model).backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in trained_tensors(model).values())


def test_an_unknown_target_is_named():
    with pytest.raises(ValueError, match=r"no linear layer of a block is called 'q'; \['query'\] would do"):
        add_lora(tiny_model(), LoraConfig(targets=("q", "query")))


# ---- many ranks ---------------------------------------------------------------------------------------------------


class Same:
    def __init__(self, part: slice):
        self.part = part

    def train(self, step: int):
        return whole_batch(step)[self.part]

    def validation(self):
        return []


def adapted_losses(run: Path, part: slice, **changes) -> Trainer:
    model = tiny_model()
    add_lora(model, SMALL, torch.bfloat16 if changes.get("precision") == "bf16" else None)
    trainer = Trainer(model, Same(part), settings(**changes), run, only_trained=True)
    assert trainer.fit()
    return trainer


def losses_in(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["losses"]["total"] for line in lines if "losses" in line]


def grown(prior: Path, ranks: int) -> dict[str, torch.Tensor]:
    """All weights of a model that a prior filled, while it was shared between so many ranks."""
    model = tiny_model()
    parallel.shard(model, torch.device("cpu"), ranks, "fp32")
    fill_model(model, prior)
    return {name: parallel.whole(x).clone() for name, x in model.state_dict().items()}


def test_two_ranks_adapt_and_grow_as_one_does(tmp_path):
    """FSDP2 over a frozen base, in float32 and with a base in bfloat16; checkpoints hold what was trained, no more."""
    smaller = {"action_width": 0, "proprio_width": 0, "depth_blocks": 0, "views": 2}
    tiny_model(transformer=tiny_config().transformer.model_copy(update=smaller)).save(tmp_path / "prior", {})
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", __file__]
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*program, str(tmp_path)], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    shared, own = load_file(tmp_path / "grown.safetensors"), grown(tmp_path / "prior", 1)
    assert shared.keys() == own.keys() and all(torch.equal(x, shared[name]) for name, x in own.items())
    for precision, close in {"fp32": 2e-6, "bf16": 2e-2}.items():
        alone = tmp_path / f"alone-{precision}"
        trainer = adapted_losses(alone, slice(0, 4), precision=precision)
        assert losses_in(tmp_path / precision) == pytest.approx(losses_in(alone), rel=close)
        expected = set(trained_tensors(trainer.model))
        for run in (alone, tmp_path / precision):
            stored = {name for file in checkpoint.latest(run).glob("ema*") for name in load_file(file)}
            assert stored == expected, run


# ---- runs ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = build_home(tmp_path_factory.mktemp("home"), wan=False)
    run_of(home, home / "latents", export_dtype="float32").train_in(home / "first")
    return home


@pytest.fixture(scope="module")
def adapter(home) -> Path:
    return adapter_run(home).train_in(home / "adapter")


def adapter_run(home: Path, **changes):
    settings = {"start_from": str(home / "first" / "export"), "lora": SMALL, "export_dtype": "float32"}
    return run_of(home, home / "latents", **settings | changes)


def test_an_adapter_is_loaded_with_its_base(home, adapter, tmp_path):
    """Alone in its folder, or merged by export: the same weights, which are the base's and the adapter's change."""
    assert (adapter / "model.safetensors").stat().st_size < (home / "first/export/model.safetensors").stat().st_size / 2
    run_in(home / "adapter").export(home / "adapter", tmp_path / "merged", merge=True)
    loaded, merged = (WorldActionModel.load(folder).state_dict() for folder in (adapter, tmp_path / "merged"))
    base = WorldActionModel.load(home / "first" / "export").state_dict()
    assert loaded.keys() == merged.keys() == base.keys()
    assert all(torch.equal(x, merged[name]) for name, x in loaded.items())
    moved = {name for name, x in base.items() if not torch.equal(x, merged[name])}
    assert "transformer.blocks.0.self_attention.query.weight" in moved and "transformer.head.linear.weight" in moved
    assert not any(name.startswith(("autoencoder.", "text_encoder.", "transformer.time_")) for name in moved)
    began = described(adapter)["provenance"]["started_from"]
    assert described(adapter)["references"]["base"]["fingerprint"] == began["fingerprint"]


def test_an_adapter_goes_on_another_base_only_by_name(home, adapter, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for file in (home / "first" / "export").iterdir():
        (elsewhere / file.name).write_bytes(file.read_bytes())
    monkeypatch.setenv("XWAM_BASE", str(elsewhere))
    WorldActionModel.load(adapter)
    weights = load_file(elsewhere / "model.safetensors")
    weights["transformer.head.linear.bias"] += 1
    save_file(weights, elsewhere / "model.safetensors")
    with pytest.raises(ValueError, match="the base in .* has fingerprint .*: set XWAM_BASE to where those"):
        WorldActionModel.load(adapter)
    WorldActionModel.load(adapter, references={"base": home / "first" / "export"})
    monkeypatch.setenv("XWAM_BASE", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="no base at .*nowhere: set XWAM_BASE"):
        WorldActionModel.load(adapter)


def test_an_adapter_resumes_on_the_base_that_it_began_with(home, tmp_path):
    run = adapter_run(home)
    run.train_in(tmp_path / "run")
    checkpoint.latest(tmp_path / "run")
    assert run.train_in(tmp_path / "run") == tmp_path / "run" / "export"
    account = tmp_path / "run" / "started_from.json"
    account.write_text(json.dumps(json.loads(account.read_text()) | {"fingerprint": "0"}))
    with pytest.raises(ValueError, match="are not those that .* began with: put them back"):
        run.train_in(tmp_path / "run")


def test_what_cannot_be_adapted_is_refused(home, adapter, tmp_path):
    with pytest.raises(ValueError, match="lora adapts a model: give the folder of an exported one as start_from"):
        run_of(home, home / "latents", lora=SMALL)
    with pytest.raises(ValueError, match="is an adapter: merge it first, by `xwam export-weights RUN OUT --merge`"):
        adapter_run(home, start_from=str(adapter)).train_in(tmp_path / "a")
    with pytest.raises(ValueError, match=r"is no base of this run, it has model.transformer.eps=1e-06: set it"):
        adapter_run(home, sizes={"eps": 1e-5}).train_in(tmp_path / "b")
    torch.manual_seed(9)
    (tmp_path / "other").mkdir()
    save_file(SmallAutoencoder(small_codec()).state_dict(), tmp_path / "other" / "autoencoder.safetensors")
    with pytest.raises(ValueError, match="was trained with another autoencoder than this run"):
        other = {"autoencoder": str(tmp_path / "other"), "latents": str(tmp_path / "latents")}
        adapter_run(home).model_copy(update=other).train_in(tmp_path / "c")
    with pytest.raises(ValueError, match="trained no adapter: leave merge away"):
        run_in(home / "first").export(home / "first", tmp_path / "c", merge=True)


if __name__ == "__main__":
    part = slice(2 * int(os.environ["RANK"]), 2 * int(os.environ["RANK"]) + 2)
    for precision in ("fp32", "bf16"):
        adapted_losses(Path(sys.argv[1]) / precision, part, precision=precision, parallel="fsdp")
    weights = grown(Path(sys.argv[1]) / "prior", 2)
    if parallel.rank() == 0:
        save_file(weights, Path(sys.argv[1]) / "grown.safetensors")
