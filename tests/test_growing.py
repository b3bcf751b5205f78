"""A video prior and what grows from it: its video stays bit for bit, and the rest begins where it should."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from recordings import robot
from tiny_model import tiny_config, tiny_model, tiny_observation
from toy_runs import build_home, network, run_of
from xwam.core.streams import NoiseLevels, Streams
from xwam.model.config import TransformerConfig
from xwam.model.growing import grow
from xwam.model.transformer import WorldActionTransformer
from xwam.model.weights import transformer_to_diffusers, transformer_to_published
from xwam.recipes import autoencoder_beside, configured, for_robot
from xwam.saved import described
from xwam.train.start import fill_model
from xwam.wam import WorldActionModel

VIDEO_ALONE = {"action_width": 0, "proprio_width": 0, "depth_blocks": 0}


def prior_of(**changes) -> WorldActionTransformer:
    torch.manual_seed(1)
    prior = WorldActionTransformer(network(**VIDEO_ALONE | changes))
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return prior


def moment(views: int = 2) -> tuple[Streams, NoiseLevels, torch.Tensor]:
    """Noisy video alone, at two levels, and a text."""
    generator = torch.Generator().manual_seed(2)
    video, text = torch.randn(2, 8, 3, views, 2, 4, generator=generator), torch.randn(2, 5, 32, generator=generator)
    levels = NoiseLevels.of_streams(torch.tensor([0.3, 0.9]), torch.tensor([0.3, 0.9]), 3, 0, 0)
    return Streams(video, torch.zeros(2, 0, 0), torch.zeros(2, 0, 0)), levels, text


def video_of(network: WorldActionTransformer, views: int = 2) -> torch.Tensor:
    """What a network answers to video alone; one that acts is given no actions."""
    streams, levels, text = moment(views)
    if network.config.acts:
        streams = replace(streams, action=torch.zeros(2, 0, 6), proprio=torch.zeros(2, 0, 5))
    with torch.no_grad():
        answer = network(streams, levels, text)
    assert answer.action.shape == streams.action.shape and answer.proprio.shape == streams.proprio.shape
    return answer.video


@pytest.mark.parametrize("kind", ["nano", "published", "diffusers", "more views"])
def test_right_after_growing_the_video_is_the_priors(kind, tmp_path):
    prior = prior_of(views=1 if kind == "more views" else 2)
    if kind in ("published", "diffusers"):  # as Wan2.2 is: no views
        torch.nn.init.zeros_(prior.view_embedding.weight)
    seen = 1 if kind == "more views" else 2
    grown = grow(prior.state_dict(), network())
    assert torch.equal(video_of(grown, seen), video_of(prior, seen))
    model = WorldActionModel(run_of(Path(), Path()).model)
    fill_model(model, written(prior, kind, tmp_path))
    assert torch.equal(video_of(model.transformer, seen), video_of(prior, seen)), "a run starts as grow does"
    for made in (grown, model.transformer):
        assert torch.equal(made.view_embedding.weight[seen:], torch.zeros(2 - seen, 24))
        assert torch.equal(made.depth_head.linear.weight, prior.head.linear.weight)
        last = prior.blocks[-1].state_dict()
        assert all(torch.equal(x, last[name]) for name, x in made.depth_blocks[-1].state_dict().items())
        assert made.action_encoder.first.weight.any() and not made.action_decoder.second.weight.any()


def written(prior: WorldActionTransformer, kind: str, folder: Path) -> Path:
    """The prior in a folder, as a run exports it or in a layout of Wan2.2; its weights in two files."""
    state = prior.state_dict()
    if kind not in ("published", "diffusers"):
        config = tiny_prior_config(prior.config)
        model = WorldActionModel(config)
        model.transformer.load_state_dict(state)
        model.save(folder, {}, torch.float32)
        return folder
    foreign = {name: x for name, x in state.items() if "view_embedding" not in name}
    foreign = transformer_to_published(foreign) if kind == "published" else transformer_to_diffusers(foreign)
    inner = folder / "transformer" if kind == "diffusers" else folder
    inner.mkdir(exist_ok=True)
    names = sorted(foreign)
    for part, chosen in enumerate((names[::2], names[1::2]), 1):
        stored = {name: foreign[name].contiguous() for name in chosen}
        save_file(stored, inner / f"diffusion_pytorch_model-{part:05d}-of-00002.safetensors")
    return folder


def tiny_prior_config(transformer: TransformerConfig):
    return run_of(Path(), Path()).model.model_copy(update={"transformer": transformer})


def test_actions_change_the_video_once_they_are_in_the_sequence():
    streams, _, text = moment()
    grown = grow(prior_of().state_dict(), network())
    levels = NoiseLevels.of_streams(torch.tensor([0.3, 0.9]), torch.tensor([0.3, 0.9]), 3, 4, 3)
    acting = replace(streams, action=torch.randn(2, 4, 6), proprio=torch.randn(2, 3, 5))
    with torch.no_grad():
        answer = grown(acting, levels, text)
    assert not torch.equal(answer.video, video_of(grown)) and not answer.action.any()


def test_a_prior_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"9 of another shape|of another shape \(blocks.0.ffn.down.weight"):
        grow(prior_of().state_dict(), network(ffn_width=40))
    with pytest.raises(ValueError, match="the prior has width 24, the network 48"):
        grow(prior_of().state_dict(), network(width=48))
    state = prior_of().state_dict()
    del state["blocks.1.ffn.up.bias"]
    with pytest.raises(ValueError, match=r"1 missing \(blocks.1.ffn.up.bias\)"):
        grow(state, network())
    with pytest.raises(ValueError, match="holds no model that xwam exported, and no diffusion_pytorch_model"):
        fill_model(tiny_model(), tmp_path)


def test_a_prior_has_both_widths_or_none():
    with pytest.raises(ValueError, match="action_width is 0 and proprio_width 5; give both, or 0 for both"):
        network(action_width=0)
    streams, levels, text = moment()
    with pytest.raises(ValueError, match="this network is a video prior"):
        prior_of()(replace(streams, action=torch.zeros(2, 3, 0)), levels, text)


def test_a_prior_imagines_but_does_not_act():
    config = tiny_config().transformer.model_copy(update=VIDEO_ALONE)
    model = tiny_model(transformer=config)
    with pytest.raises(ValueError, match="a video prior has no actions"):
        model.act([tiny_observation()], [0])
    dream = model.imagine(tiny_observation(), 0)
    assert dream.scene.rgb.shape[1] == 9 and not dream.scene.depth_m.any()
    assert dream.chunk.actions.shape == (0, 4) and (dream.proprio == tiny_observation().proprio).all()


@pytest.mark.parametrize("name", ["nano", "tiny"])
def test_the_recipe_of_a_prior_is_its_models_without_what_it_grows(name, tmp_path):
    prior, model = (configured(recipe, tmp_path, tmp_path, []) for recipe in (f"{name}-prior", name))
    kept = {"action_width": 4, "proprio_width": 4, "depth_blocks": 1}
    assert prior.model.transformer.model_copy(update=kept) == model.model.transformer
    assert not prior.model.transformer.acts and not prior.model.transformer.has_depth
    assert for_robot(prior, robot()).model.transformer.action_width == 0
    assert WorldActionModel(prior.model).law.name == "coupled"
    assert (
        autoencoder_beside(Path(f"a/{name}-prior"))
        == autoencoder_beside(Path(f"a/{name}"))
        == Path(f"a/{name}-autoencoder")
    )


def test_from_video_to_a_model_that_acts(tmp_path):
    """The stages as runs: a prior, a world action model grown from it, and post-training of that one."""
    home = build_home(tmp_path, wan=False)
    prior = run_of(home, home / "latents", sizes=VIDEO_ALONE).train_in(home / "prior")
    log = (home / "prior" / "log.jsonl").read_text()
    assert '"action": 0.0' in log and '"depth": 0.0' in log and not re.search(r'"video": 0\.0[,}]', log)
    grown = run_of(home, home / "latents", start_from=str(prior)).train_in(home / "grown")
    post = run_of(home, home / "latents", start_from=str(grown)).train_in(home / "post")
    began = described(post)["provenance"]["started_from"]
    assert began["provenance"]["started_from"]["folder"] == "export"
    names = load_file(post / "model.safetensors").keys()
    assert {"transformer.action_encoder.first.weight", "transformer.depth_head.linear.weight"} <= names
    assert not any("action" in name or "depth" in name for name in load_file(prior / "model.safetensors"))
