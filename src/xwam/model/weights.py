"""Foreign weights: their names to ours and back, and the released X-WAM checkpoint.

The networks were built to hold the published tensors as they are, so every map is a change of names alone,
loses nothing, and is written once for both ways.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from xwam.model.transformer import WorldActionTransformer

State = dict[str, Tensor]


@dataclass(frozen=True)
class NameMap:
    """Two vocabularies for the same tensors: pairs (name here, name there), `#` a number equal on both sides.

    A name may stop at the module; its `weight`, `bias` or `gamma` is then carried over.
    """

    here: str
    there: str
    pairs: tuple[tuple[str, str], ...]

    def to_there(self, state: Mapping[str, Tensor]) -> State:
        return _renamed(state, self.pairs, self.here)

    def to_here(self, state: Mapping[str, Tensor]) -> State:
        return _renamed(state, tuple((b, a) for a, b in self.pairs), self.there)


def _renamed(state: Mapping[str, Tensor], pairs: tuple[tuple[str, str], ...], vocabulary: str) -> State:
    """A name that matches several pairs is tied there: its tensor appears under each."""
    patterns = [
        (re.compile(re.escape(a).replace(r"\#", r"(\d+)") + r"(\.weight|\.bias|\.gamma|)"), b) for a, b in pairs
    ]
    renamed: State = {}
    unknown = []
    for name, tensor in state.items():
        matches = [(match, target) for pattern, target in patterns if (match := pattern.fullmatch(name))]
        if not matches:
            unknown.append(name)
        for match, target in matches:
            *numbers, suffix = match.groups()
            renamed[_filled(target, numbers) + suffix] = tensor
    if unknown:
        raise ValueError(_complaint(unknown, [a for a, _ in pairs], vocabulary))
    return renamed


def _filled(template: str, numbers: list[str]) -> str:
    for number in numbers:
        template = template.replace("#", number, 1)
    return template


def _complaint(unknown: list[str], known: list[str], vocabulary: str) -> str:
    close = get_close_matches(re.sub(r"\d+", "#", unknown[0].rpartition(".")[0]), known, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return (
        f"{len(unknown)} names are unknown to a {vocabulary}, the first {unknown[0]!r}{hint}; "
        f"give the state dict of that model alone, without a prefix"
    )


# ---- transformer: published Wan2.2 and X-WAM <-> ours <-> diffusers WanTransformer3DModel --------------------------

_ATTENTION = {"query": "q", "key": "k", "value": "v", "out": "o", "query_norm": "norm_q", "key_norm": "norm_k"}
_BLOCK = (
    ("modulation", "modulation"),
    *((f"self_attention.{a}", f"self_attn.{b}") for a, b in _ATTENTION.items()),
    ("cross_norm", "norm3"),
    *((f"cross_attention.{a}", f"cross_attn.{b}") for a, b in _ATTENTION.items()),
    ("ffn.up", "ffn.0"),
    ("ffn.down", "ffn.2"),
)
_CODERS = ("text_embedding", "action_encoder", "action_decoder", "proprio_encoder", "proprio_decoder")

PUBLISHED = NameMap(
    "world action transformer",
    "Wan2.2 or X-WAM transformer",
    (
        ("patch_embedding", "patch_embedding"),
        ("view_embedding", "view_embedding"),
        *((f"time_embedding.{i}", f"time_embedding.{i}") for i in (0, 2)),
        ("time_projection.1", "time_projection.1"),
        *((f"{coder}.{a}", f"{coder}.{b}") for coder in _CODERS for a, b in (("first", "0"), ("second", "2"))),
        *((f"blocks.#.{a}", f"blocks.#.{b}") for a, b in _BLOCK),
        *((f"depth_blocks.#.{a}", f"extra_blocks.0.#.{b}") for a, b in _BLOCK),
        *((f"{a}.linear", f"{b}.head") for a, b in (("head", "head"), ("depth_head", "extra_heads.0"))),
        *((f"{a}.modulation", f"{b}.modulation") for a, b in (("head", "head"), ("depth_head", "extra_heads.0"))),
    ),
)

_ATTENTION_DIFFUSERS = _ATTENTION | {"query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"}
DIFFUSERS = NameMap(
    "Wan2.2 trunk of a world action transformer",
    "diffusers WanTransformer3DModel",
    (
        ("patch_embedding", "patch_embedding"),
        ("text_embedding.first", "condition_embedder.text_embedder.linear_1"),
        ("text_embedding.second", "condition_embedder.text_embedder.linear_2"),
        ("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
        ("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
        ("time_projection.1", "condition_embedder.time_proj"),
        ("blocks.#.modulation", "blocks.#.scale_shift_table"),
        *((f"blocks.#.self_attention.{a}", f"blocks.#.attn1.{b}") for a, b in _ATTENTION_DIFFUSERS.items()),
        ("blocks.#.cross_norm", "blocks.#.norm2"),
        *((f"blocks.#.cross_attention.{a}", f"blocks.#.attn2.{b}") for a, b in _ATTENTION_DIFFUSERS.items()),
        ("blocks.#.ffn.up", "blocks.#.ffn.net.0.proj"),
        ("blocks.#.ffn.down", "blocks.#.ffn.net.2"),
        ("head.linear", "proj_out"),
        ("head.modulation", "scale_shift_table"),
    ),
)


def wan_trunk(folder: Path) -> tuple[list[Path], NameMap]:
    """Files of Wan2.2's transformer and the map of their names: a folder in Wan's own layout or in diffusers'."""
    inner = folder / "transformer" if (folder / "transformer").is_dir() else folder
    files = sorted(inner.glob("diffusion_pytorch_model*.safetensors"))
    if not files:
        raise ValueError(f"{folder} holds no model that xwam exported, and no diffusion_pytorch_model*.safetensors")
    with safe_open(files[0], "pt") as file:
        diffusers = any(name.startswith(("condition_embedder.", "proj_out", "blocks.0.attn")) for name in file.keys())
    return files, DIFFUSERS if diffusers else PUBLISHED


# what X-WAM adds to Wan's trunk, and so what a pretrained video model does not bring
ADDED = ("view_embedding", "action_encoder", "action_decoder", "proprio_encoder", "proprio_decoder", "depth_")


def transformer_from_published(state: Mapping[str, Tensor]) -> State:
    """Of Wan2.2's trunk or of a whole X-WAM transformer."""
    return PUBLISHED.to_here(state)


def transformer_to_published(state: Mapping[str, Tensor]) -> State:
    return PUBLISHED.to_there(state)


def transformer_from_diffusers(state: Mapping[str, Tensor]) -> State:
    return DIFFUSERS.to_here(state)


def transformer_to_diffusers(state: Mapping[str, Tensor]) -> State:
    """The trunk alone: diffusers has no place for what X-WAM adds."""
    return DIFFUSERS.to_there({name: tensor for name, tensor in state.items() if not name.startswith(ADDED)})


def load_transformer(network: WorldActionTransformer, state: Mapping[str, Tensor]) -> list[str]:
    """Loads weights under our names: a whole network, or a video model's trunk.

    What the latter lacks stays as it was made, but the depth branch becomes a copy of the loaded trunk's end.
    Returns the names that were missing. A network on the meta device takes the tensors as they are, so needs all.
    """
    expected = network.state_dict()
    unexpected = sorted(state.keys() - expected.keys())
    missing = sorted(expected.keys() - state.keys())
    on_meta = next(network.parameters()).is_meta
    lost = [name for name in missing if on_meta or not name.startswith(ADDED)]
    wrong = [name for name in state.keys() & expected.keys() if state[name].shape != expected[name].shape]
    if unexpected or lost or wrong:
        raise ValueError(_misfit(unexpected, lost, [f"{x} {tuple(state[x].shape)}" for x in sorted(wrong)]))
    network.load_state_dict(state, strict=False, assign=on_meta)
    if any(name.startswith("depth_") for name in missing):
        network.copy_trunk_to_depth()
    return missing


def _misfit(unexpected: list[str], missing: list[str], wrong: list[str]) -> str:
    problems = {"unexpected": unexpected, "missing": missing, "of another shape": wrong}
    said = "; ".join(f"{len(names)} {what} ({', '.join(names[:3])})" for what, names in problems.items() if names)
    return f"the weights do not fit the network: {said}. Build it from the configuration that belongs to the weights"


# ---- video autoencoder: Wan2.2 <-> diffusers AutoencoderKLWan ----------------------------------------------------


def vae_to_diffusers(state: Mapping[str, Tensor]) -> State:
    residuals = 1 + _largest(state, r"encoder\.downsamples\.\d+\.downsamples\.(\d+)\.residual.*")
    return _vae_names(residuals).to_there(state)


def vae_from_diffusers(state: Mapping[str, Tensor]) -> State:
    residuals = 1 + _largest(state, r"encoder\.down_blocks\.\d+\.resnets\.(\d+)\..*")
    return _vae_names(residuals).to_here(state)


def _largest(state: Mapping[str, Tensor], pattern: str) -> int:
    return max((int(match[1]) for name in state if (match := re.fullmatch(pattern, name))), default=0)


def _vae_names(residuals: int) -> NameMap:
    """Wan numbers the resampling of a stage after its residual blocks, of which the decoder has one more."""
    residual = {"residual.0": "norm1", "residual.2": "conv1", "residual.3": "norm2", "residual.6": "conv2"}
    pairs = [("conv1", "quant_conv"), ("conv2", "post_quant_conv")]
    for half, down, resampler, count in (
        ("encoder", "down", "downsampler", residuals),
        ("decoder", "up", "upsampler", residuals + 1),
    ):
        stage, stage_there = f"{half}.{down}samples.#.{down}samples", f"{half}.{down}_blocks.#"
        middle, middle_there = f"{half}.middle", f"{half}.mid_block"
        pairs += [(f"{half}.conv1", f"{half}.conv_in")]
        pairs += [(f"{half}.head.0", f"{half}.norm_out"), (f"{half}.head.2", f"{half}.conv_out")]
        pairs += [(f"{middle}.1.{x}", f"{middle_there}.attentions.0.{x}") for x in ("norm", "to_qkv", "proj")]
        for a, b in residual.items():
            pairs += [(f"{middle}.{2 * i}.{a}", f"{middle_there}.resnets.{i}.{b}") for i in (0, 1)]
            pairs += [(f"{stage}.#.{a}", f"{stage_there}.resnets.#.{b}")]
        pairs += [(f"{stage}.#.shortcut", f"{stage_there}.resnets.#.conv_shortcut")]
        pairs += [(f"{stage}.{count}.{x}", f"{stage_there}.{resampler}.{x}") for x in ("resample.1", "time_conv")]
    return NameMap("Wan2.2 autoencoder", "diffusers AutoencoderKLWan", tuple(pairs))


# ---- text encoder: Wan's UMT5 <-> transformers UMT5EncoderModel --------------------------------------------------

UMT5 = NameMap(
    "Wan UMT5 encoder",
    "transformers UMT5EncoderModel",
    (
        ("token_embedding", "shared"),
        ("token_embedding", "encoder.embed_tokens"),
        ("norm", "encoder.final_layer_norm"),
        ("blocks.#.norm1", "encoder.block.#.layer.0.layer_norm"),
        *((f"blocks.#.attn.{x}", f"encoder.block.#.layer.0.SelfAttention.{x}") for x in "qkvo"),
        ("blocks.#.pos_embedding.embedding", "encoder.block.#.layer.0.SelfAttention.relative_attention_bias"),
        ("blocks.#.norm2", "encoder.block.#.layer.1.layer_norm"),
        ("blocks.#.ffn.gate.0", "encoder.block.#.layer.1.DenseReluDense.wi_0"),
        ("blocks.#.ffn.fc1", "encoder.block.#.layer.1.DenseReluDense.wi_1"),
        ("blocks.#.ffn.fc2", "encoder.block.#.layer.1.DenseReluDense.wo"),
    ),
)


def umt5_to_transformers(state: Mapping[str, Tensor]) -> State:
    return UMT5.to_there(state)


def umt5_from_transformers(state: Mapping[str, Tensor]) -> State:
    return UMT5.to_here(state)


# ---- the released checkpoint --------------------------------------------------------------------------------------

RELEASED_FILE = Path("checkpoints/last.ckpt/checkpoint/mp_rank_00_model_states.pt")
_PARTS = {
    "transformer": "model.",
    "text_encoder": "text_encoder.model.",
    "autoencoder": "vae.model.",
    "latent_statistics": "vae.",
}


def read_released_checkpoint(path: Path | str) -> dict[str, State]:
    """The parts of a released X-WAM checkpoint, a file or the folder of its run: `transformer` under our names,
    `text_encoder` and `autoencoder` under Wan's, `latent_statistics` the `mean` and `std` of latents.

    The tensors stay on disk until they are used.
    """
    file = Path(path)
    if file.is_dir():
        file = file / RELEASED_FILE
    if not file.is_file():
        raise ValueError(f"no checkpoint at {file}; give the .pt file, or the folder that holds {RELEASED_FILE}")
    content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    if "module" not in content:
        raise ValueError(f"{file} has no 'module' among {sorted(content)[:5]}; give the file with the model's states")
    parts: dict[str, State] = {part: {} for part in _PARTS}
    for name, tensor in content["module"].items():
        part = next((part for part in _PARTS if name.startswith(_PARTS[part])), None)
        if part is None:
            raise ValueError(f"{file} holds {name!r}, which belongs to none of {', '.join(_PARTS.values())}")
        parts[part][name.removeprefix(_PARTS[part])] = tensor
    return parts | {"transformer": transformer_from_published(parts["transformer"])}


def write_released(parts: Mapping[str, State], path: Path | str) -> None:
    """The inverse of `read_released_checkpoint`, for the weights; the optimiser's entries are not kept."""
    published = {**parts, "transformer": transformer_to_published(parts["transformer"])}
    module = {_PARTS[part] + name: tensor for part, state in published.items() for name, tensor in state.items()}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    torch.save({"module": module}, path)


def convert_released(path: Path | str, out_dir: Path | str) -> None:
    """A released checkpoint to one safetensors file a part, bit for bit."""
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    for part, state in read_released_checkpoint(path).items():
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, out / f"{part}.safetensors")


def read_converted(folder: Path | str) -> dict[str, State]:
    """The parts that `convert_released` wrote; give them to `write_released` for the way back."""
    return {part: load_file(Path(folder) / f"{part}.safetensors") for part in _PARTS}
