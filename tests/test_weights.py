"""Names of weights: every map is undone by its twin, fits the library it names, and says what is wrong."""

import pytest
import torch

from parity import Golden
from test_parity import DATA
from test_transformer import SMALL
from xwam.model.transformer import WorldActionTransformer
from xwam.model.weights import (
    ADDED,
    convert_released,
    load_transformer,
    read_converted,
    read_released_checkpoint,
    transformer_from_diffusers,
    transformer_from_published,
    transformer_to_diffusers,
    transformer_to_published,
    umt5_from_transformers,
    umt5_to_transformers,
    vae_from_diffusers,
    vae_to_diffusers,
    write_released,
)


def published(name: str) -> dict[str, torch.Tensor]:
    return Golden.read(DATA / f"{name}.safetensors").under("weights.")


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "there, back, name",
    [
        (transformer_from_published, transformer_to_published, "transformer"),
        (vae_to_diffusers, vae_from_diffusers, "wan_vae"),
        (umt5_to_transformers, umt5_from_transformers, "umt5"),
    ],
)
def test_names_there_and_back(there, back, name):
    state = published(name)
    assert_same(back(there(state)), state)


def test_every_name_of_ours_has_a_published_one_and_back():
    state = WorldActionTransformer(SMALL).state_dict()
    assert_same(transformer_from_published(transformer_to_published(state)), state)


def test_the_autoencoders_resampling_is_found_whatever_the_number_of_residual_blocks():
    state = {
        f"encoder.downsamples.0.downsamples.{i}.{x}": torch.tensor(float(i))
        for i, x in enumerate(("residual.2.weight", "residual.2.weight", "residual.2.weight", "resample.1.weight"))
    }
    renamed = vae_to_diffusers(state)
    assert renamed["encoder.down_blocks.0.downsampler.resample.1.weight"] == 3
    assert_same(vae_from_diffusers(renamed), state)


def test_diffusers_trunk_fits_and_returns():
    diffusers = pytest.importorskip("diffusers", reason="the names of its transformer are compared")
    c = SMALL
    theirs = diffusers.WanTransformer3DModel(
        patch_size=c.patch,
        num_attention_heads=c.heads,
        attention_head_dim=c.head_width,
        in_channels=c.latent_channels,
        out_channels=c.latent_channels,
        text_dim=c.text_width,
        freq_dim=c.frequency_width,
        ffn_dim=c.ffn_width,
        num_layers=c.blocks,
    )
    network = WorldActionTransformer(c)
    missing = load_transformer(network, transformer_from_diffusers(theirs.state_dict()))
    assert missing and all(name.startswith(ADDED) for name in missing)
    assert_same(transformer_to_diffusers(network.state_dict()), dict(theirs.state_dict()))


def test_a_video_models_trunk_leaves_the_rest_fresh_and_depth_its_copy():
    torch.manual_seed(0)
    trunk = transformer_to_diffusers(WorldActionTransformer(SMALL).state_dict())
    network = WorldActionTransformer(SMALL)
    fresh = network.action_encoder.first.weight.clone()
    missing = load_transformer(network, transformer_from_diffusers(trunk))
    assert {name.split(".")[0] for name in missing} == {
        "view_embedding", "action_encoder", "action_decoder", "proprio_encoder", "proprio_decoder", "depth_blocks",
        "depth_head",
    }  # fmt: skip
    assert torch.equal(network.action_encoder.first.weight, fresh)
    assert_same(network.depth_blocks[-1].state_dict(), network.blocks[-1].state_dict())
    assert_same(network.depth_head.state_dict(), network.head.state_dict())


def test_a_network_on_the_meta_device_takes_the_tensors_as_they_are():
    state = transformer_from_published(published("transformer"))
    with torch.device("meta"):
        network = WorldActionTransformer(SMALL.model_copy(update=GOLDEN_SIZES))
    assert load_transformer(network, state) == []
    assert network.blocks[0].modulation.data_ptr() == state["blocks.0.modulation"].data_ptr()
    with torch.device("meta"):
        network = WorldActionTransformer(SMALL.model_copy(update=GOLDEN_SIZES))
    with pytest.raises(ValueError, match="missing .*action_decoder"):
        load_transformer(network, {name: x for name, x in state.items() if not name.startswith(ADDED)})


GOLDEN_SIZES = {
    "width": 96, "ffn_width": 192, "heads": 4, "blocks": 4, "depth_blocks": 2, "views": 3, "latent_channels": 12,
    "text_width": 40, "frequency_width": 64, "action_width": 14, "proprio_width": 16,
}  # fmt: skip


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda s: s.pop("blocks.0.ffn.up.weight"), "1 missing .*blocks.0.ffn.up.weight"),
        (lambda s: s.update(spare=torch.zeros(1)), "1 unexpected .*spare"),
        (lambda s: s.update({"head.linear.bias": torch.zeros(5)}), r"another shape .*head.linear.bias \(5,\)"),
    ],
)
def test_weights_that_do_not_fit_are_named(change, said):
    network = WorldActionTransformer(SMALL)
    state = dict(network.state_dict())
    change(state)
    with pytest.raises(ValueError, match=said):
        load_transformer(network, state)


def test_an_unknown_name_is_named_with_the_mend():
    with pytest.raises(ValueError, match=r"'model\.blocks\.0\.attn\.q\.weight'.*did you mean blocks.*without a prefix"):
        umt5_to_transformers({"model.blocks.0.attn.q.weight": torch.zeros(1)})


# ---- released checkpoint -------------------------------------------------------------------------------------------


def test_a_released_checkpoint_returns_from_safetensors(tmp_path):
    convert_released(DATA / "released_checkpoint", tmp_path / "parts")
    write_released(read_converted(tmp_path / "parts"), tmp_path / "back" / "states.pt")
    first = read_released_checkpoint(DATA / "released_checkpoint")
    for part, state in read_released_checkpoint(tmp_path / "back" / "states.pt").items():
        assert state
        assert_same(state, first[part])


def test_a_wrong_path_or_file_is_told_what_to_give(tmp_path):
    with pytest.raises(ValueError, match="mp_rank_00_model_states.pt"):
        read_released_checkpoint(tmp_path)
    torch.save({"optimizer": {}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="no 'module' among"):
        read_released_checkpoint(tmp_path / "other.pt")
    torch.save({"module": {"policy.weight": torch.zeros(1)}}, tmp_path / "foreign.pt")
    with pytest.raises(ValueError, match="policy.weight"):
        read_released_checkpoint(tmp_path / "foreign.pt")
