"""The world action model: one network with its autoencoder, its text encoder and its robot.

loss      episodes in, losses out                         (learning)
act       the present in, the next actions out            (acting)
imagine   the present in, actions and a 4D future out     (imagining)
save, load
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from xwam.core.streams import Batch, Streams, Velocity
from xwam.core.types import ActionChunk, Clip, Dream, Observation, RGBDClip
from xwam.data.transforms import ClipTransform
from xwam.flow.levels import Fixed, Law, Schedule, covers, forward_dynamics_schedule, policy_schedule, world_schedule
from xwam.flow.objective import LossWeights, counts_of, training_loss
from xwam.flow.sampler import guided, noise_like, sample, started
from xwam.model.autoencoders import SmallAutoencoder, SmallAutoencoderConfig
from xwam.model.depth_stream import network_of
from xwam.model.lora import LoraConfig, add_lora, load_lora, merge_lora
from xwam.model.precision import as_its_weights
from xwam.model.text import SmallTextEncoder, SmallTextEncoderConfig, TextEncoder
from xwam.model.tokens import Layout
from xwam.model.wan import UMT5TextEncoder, WanAutoencoder
from xwam.saved import (
    ModelConfig,
    Reference,
    autoencoder_of,
    base_of,
    check_fit,
    described,
    read_weights,
    references_of,
    text_encoder_of,
    write_saved,
)

# Depth that decodes to the far end of a camera's range may be any distance beyond it: unknown.
FAR_SHARE = 0.98
KEPT_INSTRUCTIONS = 256


class WorldActionModel(nn.Module):
    """See the module's docstring. Inputs and outputs are in physical units; normalisation happens inside."""

    def __init__(self, config: ModelConfig, tokenizer: Path | None = None, text_encoder: TextEncoder | None = None):
        """With random weights; `tokenizer` is the folder of UMT5's, which the small text encoder does without.

        `text_encoder`, a module, stands in for the config's: one that knows its texts' embeddings already.
        """
        super().__init__()
        self.config, self.embodiment = config, config.embodiment
        self.transformer = network_of(config.transformer)
        small = isinstance(config.autoencoder, SmallAutoencoderConfig)
        self.autoencoder = (SmallAutoencoder if small else WanAutoencoder)(config.autoencoder).requires_grad_(False)
        small = isinstance(config.text, SmallTextEncoderConfig)
        if text_encoder is None:
            text_encoder = SmallTextEncoder(config.text) if small else UMT5TextEncoder(config.text, tokenizer)
        self.text_encoder = text_encoder
        self._embedded: dict[str, Tensor] = {}
        self.law = config.noise.training_law()
        self.transform = ClipTransform(crop_ratio=config.crop_ratio, size=config.image_size, train=False)

    @property
    def acts(self) -> bool:
        """Whether it has actions; a video prior has none."""
        return self.config.transformer.acts

    @property
    def device(self) -> torch.device:
        return self.transformer.head.linear.weight.device

    # ---- learning ------------------------------------------------------------------------------------------

    def loss(
        self, batch: Batch, seeds: Sequence[int], counts: Int[Tensor, "4"] | None = None, law: Law | Fixed | None = None
    ) -> dict[str, Tensor]:
        """Losses by stream and their total; what is random in sample b comes from seeds[b] alone.

        With the `counts` of a larger batch, the share of this part of it: the shares of all parts add up. `law` stands
        in for the one of training, as a single noise level does.
        """
        batch = self._seen(batch)
        # Another kind of generator than the noise's: one seed must not give related numbers to both.
        dropout = self.config.text_dropout
        kept = [not dropout or np.random.default_rng(seed).random() >= dropout for seed in seeds]
        velocity = self._velocity([text if keep else "" for text, keep in zip(batch.instructions, kept, strict=True)])
        network = self.config.transformer
        weights = LossWeights(depth=float(network.has_depth))
        return vars(training_loss(velocity, batch, law or self.law, seeds, weights, counts, network.denoises_depth))

    def counts(self, batch: Batch, seeds: Sequence[int]) -> Int[Tensor, "4"]:
        """How many elements of each stream `loss` is a mean over; counts of the parts of a batch add up."""
        return counts_of(self._seen(batch), self.law, seeds)

    def _seen(self, batch: Batch) -> Batch:
        """A batch as the network takes it: a video prior, without actions and proprios."""
        return batch if self.acts else batch.of_video()

    def tokens(self, batch: Batch) -> int:
        """How many tokens of video, actions and states a batch has."""
        return len(batch) * sum(Layout.of(self._seen(batch).streams, self.config.transformer).lengths)

    def velocity(self, texts: Sequence[str]) -> Velocity:
        """The network with its instructions' keys and values prepared."""
        text = self.transformer.prepare_text(self._embed(texts))
        return lambda noisy, levels, with_depth: self.transformer(noisy, levels, text, with_depth)

    def _velocity(self, texts: Sequence[str]) -> Velocity:
        """The network as training calls it, block by block: what is sharded can be called in no other way."""
        text = self._embed(texts)
        return lambda noisy, levels, with_depth: self.transformer(noisy, levels, text, with_depth)

    def _embed(self, texts: Sequence[str]) -> Float[Tensor, "B L D"]:
        """Embeddings of instructions; outside training each is encoded once and kept."""
        if self.training:
            return self.text_encoder.encode(texts)
        if len(self._embedded.keys() | set(texts)) > KEPT_INSTRUCTIONS:
            self._embedded.clear()
        for text in set(texts) - self._embedded.keys():
            self._embedded[text] = self.text_encoder.encode([text])[0]
        return torch.stack([self._embedded[text] for text in texts])

    def train(self, mode: bool = True) -> Self:
        self._embedded.clear()
        return super().train(mode)

    def encode(self, video: Float[Tensor, "B V 3 F H W"]) -> Float[Tensor, "B C T V h w"]:
        """Latents of every view's video in [-1, 1]."""
        latents = self.autoencoder.encode(rearrange(video, "b v c f h w -> (b v) c f h w"))
        return rearrange(latents, "(b v) c t h w -> b c t v h w", v=video.shape[1])

    def decode(self, latents: Float[Tensor, "B C T V h w"]) -> Float[Tensor, "B V 3 F H W"]:
        video = self.autoencoder.decode(rearrange(latents, "b c t v h w -> (b v) c t h w"))
        return rearrange(video, "(b v) c f h w -> b v c f h w", v=latents.shape[3])

    # ---- acting and imagining ------------------------------------------------------------------------------

    @torch.inference_mode()
    @as_its_weights
    def act(
        self, observations: Sequence[Observation], seeds: Sequence[int], action_steps: int | None = None
    ) -> list[ActionChunk]:
        """The next actions for each observation; a request's result depends on its own seed, not on its batch.

        `action_steps` stands in for the config's: with as many as the video's, all streams are denoised together.
        """
        self._must_act()
        velocity = self.velocity([observation.instruction for observation in observations])
        schedule = self._schedule(world=False, action_steps=action_steps)
        streams = self._sample(velocity, self._given(observations), seeds, schedule)
        return [ActionChunk(actions, self.embodiment.action_period_s) for actions in self.actions_of(streams)]

    @torch.inference_mode()
    @as_its_weights
    def imagine(
        self,
        observation: Observation,
        seed: int,
        actions: Float[np.ndarray, "A D"] | None = None,
        proprio: Float[np.ndarray, "T D"] | None = None,
        guidance_scale: float = 1.0,
        on_step: Callable[[int, Streams], None] | None = None,
        action_steps: int | None = None,
    ) -> Dream:
        """The future that the model expects of its own actions, or, as forward dynamics, of `actions`.

        `proprio`, if the states that these actions lead to are known too, holds the present one and the next ones.
        Depth is unknown everywhere if the network has none. `action_steps` is that of `act`.
        """
        noise, schedule = self.config.noise, self._schedule(world=True, action_steps=action_steps)
        known = None
        if actions is not None:
            known = self._normalised("action", actions, self.config.actions)
        if proprio is not None:
            if actions is None:
                raise ValueError("proprio is given without actions: give both, or actions alone")
            schedule = forward_dynamics_schedule(noise.video_steps, noise.shift, schedule.with_depth)
            if not covers(self.law, schedule):
                raise ValueError(f"training under the {noise.law} law never meets clean actions: give no proprio")
        given = self._given([observation])
        if proprio is not None:
            given = replace(given, action=known, proprio=self._normalised("proprio", proprio, self.config.frames))
        velocity = self.velocity([observation.instruction])
        if guidance_scale != 1.0:
            velocity = guided(velocity, self.velocity([""]), guidance_scale)
        streams = self._sample(velocity, given, [seed], schedule, known, on_step)
        return self._dream(observation, streams, actions)

    def _must_act(self) -> None:
        if not self.acts:
            raise ValueError("a video prior has no actions: train a world action model with start_from on its folder")

    @torch.no_grad()
    def sample(self, batch: Batch, seeds: Sequence[int], world: bool) -> Streams:
        """What follows on the presents of clips, in the network's units; of what does, the clips tell nothing.

        The actions alone, as in `act`, or with `world` the clean video and depth too, as in `imagine`.
        """
        streams = self._seen(batch).streams
        given = replace(streams, depth=self._depth_to_denoise(streams.video))
        return self._sample(self._velocity(batch.instructions), given, seeds, self._schedule(world))

    def actions_of(self, streams: Streams) -> Float[np.ndarray, "B A D"]:
        """Actions in physical units, within the robot's limits."""
        robot = self.embodiment
        physical = robot.action.denormalise(streams.action.float().cpu().numpy())
        if robot.action_low is not None or robot.action_high is not None:
            physical = np.clip(physical, robot.action_low, robot.action_high)
        return physical

    def pictures_of(
        self, streams: Streams
    ) -> tuple[UInt8[np.ndarray, "B V F H W 3"], Float[np.ndarray, "B V F H W"] | None]:
        """What the cameras see in these latents: colours, and metres, 0 where unknown; None if there is no depth."""
        rgb = ((self.decode(streams.video).float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        rgb = rearrange(rgb, "b v c f h w -> b v f h w c").cpu().numpy()
        return rgb, None if streams.depth is None else self._depth_m(streams.depth)

    def _schedule(self, world: bool, action_steps: int | None = None) -> Schedule:
        noise = self.config.noise.with_action_steps(action_steps)
        steps = (noise.video_steps, noise.action_steps, noise.shift)
        return world_schedule(*steps, self.config.transformer.has_depth) if world else policy_schedule(*steps)

    def _sample(
        self,
        velocity: Velocity,
        given: Streams,
        seeds: Sequence[int],
        schedule: Schedule,
        known_action: Float[Tensor, "B A Da"] | None = None,
        on_step: Callable[[int, Streams], None] | None = None,
    ) -> Streams:
        robot = self.embodiment
        valid = {
            "action_valid": torch.from_numpy(robot.action.valid)[None, None].to(self.device),
            "proprio_valid": torch.from_numpy(robot.proprio.valid)[None, None].to(self.device),
        }
        valid = valid if self.acts else {}
        start = started(given, noise_like(given, seeds), schedule, **valid)
        return sample(velocity, start, schedule, **valid, known_action=known_action, on_step=on_step)

    def _depth_to_denoise(self, video: Float[Tensor, "B C T V h w"]) -> Float[Tensor, "B C T V h w"] | None:
        """A place for depth where it is denoised with the video; none of it is given."""
        return torch.zeros_like(video) if self.config.transformer.denoises_depth else None

    def _given(self, observations: Sequence[Observation]) -> Streams:
        """The present as the network's streams; what is to be generated is 0."""
        config, robot = self.config, self.embodiment
        images = np.stack([self._present(observation).rgb[:, 0] for observation in observations])
        pixels = torch.from_numpy(images).to(self.device).float() / 127.5 - 1
        latent = self.encode(rearrange(pixels, "b v h w c -> b v c 1 h w")).float()
        video = latent.new_zeros(*latent.shape[:2], config.latent_frames, *latent.shape[3:])
        video[:, :, :1] = latent
        depth = self._depth_to_denoise(video)
        if not self.acts:
            nothing = latent.new_zeros(len(observations), 0, 0)
            return Streams(video, nothing, nothing, depth)
        proprio = latent.new_zeros(len(observations), config.frames, robot.proprio.width)
        now = np.stack([observation.proprio for observation in observations])
        proprio[:, 0] = torch.from_numpy(robot.proprio.normalise(now))
        action = latent.new_zeros(len(observations), config.actions, robot.action.width)
        return Streams(video, action, proprio, depth)

    def _normalised(self, name: str, rows: Float[np.ndarray, "n D"], count: int) -> Float[Tensor, "1 n width"]:
        """Given actions or proprios in the network's units, checked."""
        self._must_act()
        vector = getattr(self.embodiment, name)
        if rows.shape != (count, vector.size) or not np.isfinite(rows).all():
            raise ValueError(f"given {name} has shape {rows.shape}: need {(count, vector.size)}, all finite")
        return torch.from_numpy(vector.normalise(rows)).to(self.device)[None]

    def _present(self, observation: Observation) -> Clip:
        """The observation as a clip of one frame, cropped and resized as the network is used to."""
        self.embodiment.check_observation(observation)
        names = self.embodiment.camera_names
        images = [observation.images[name][None] for name in names]
        known = all(name in observation.intrinsics for name in names)
        matrices = [observation.intrinsics[name][None] for name in names] if known else None
        rgb, _, intrinsics = self.transform.of_views(images, None, matrices, seed=0)
        return Clip(
            cameras=names,
            rgb=rgb,
            depth_m=None,
            intrinsics=intrinsics,
            T_base_cam=None,
            proprio=observation.proprio[None],
            actions=np.zeros((0, self.embodiment.action.size), np.float32),
            actions_valid=np.zeros(0, bool),
            instruction=observation.instruction,
            period_s=self.embodiment.frame_period_s,
        )

    def _dream(self, observation: Observation, streams: Streams, actions: np.ndarray | None) -> Dream:
        robot, present = self.embodiment, self._present(observation)
        if present.intrinsics is None:
            raise ValueError(
                "this observation has no camera calibration: 4D needs intrinsics and T_base_cam per camera"
            )
        if self.acts:
            proprio = robot.proprio.denormalise(streams.proprio[0].float().cpu().numpy())
        else:  # not foretold: cameras stay where they are
            proprio = np.repeat(present.proprio, self.config.frames, axis=0)
        frames, ([rgb], depth_m) = self.config.frames, self.pictures_of(streams)
        scene = RGBDClip(
            cameras=robot.camera_names,
            rgb=rgb,
            depth_m=np.zeros(rgb.shape[:-1], np.float32) if depth_m is None else depth_m[0],
            intrinsics=np.repeat(present.intrinsics, frames, axis=1),
            T_base_cam=robot.camera_poses(proprio, observation.T_base_cam),
            period_s=robot.frame_period_s,
            depth_scale="metric" if all(camera.depth_scale == "metric" for camera in robot.cameras) else "relative",
        )
        if actions is None:
            actions = self.actions_of(streams)[0] if self.acts else present.actions
        return Dream(scene, ActionChunk(actions, robot.action_period_s), proprio)

    def _depth_m(self, latents: Float[Tensor, "B C T V h w"]) -> Float[np.ndarray, "B V F H W"]:
        """Metres; 0 where unknown, because it lies beyond the camera's range."""
        cameras = self.embodiment.cameras
        code = self.decode(latents).float().mean(dim=2).cpu().numpy()
        depth_m = np.stack([camera.depth.decode(code[:, v]) for v, camera in enumerate(cameras)], axis=1)
        far_m = np.array([camera.far_m for camera in cameras])[:, None, None, None]
        return np.where(depth_m < FAR_SHARE * far_m, depth_m, 0.0).astype(np.float32)

    # ---- disk ----------------------------------------------------------------------------------------------

    def save(
        self,
        folder: Path,
        provenance: dict,
        dtype: torch.dtype = torch.bfloat16,
        references: Mapping[str, Reference] | None = None,
    ) -> None:
        """Writes the weights in this precision, and config.json, which also says where they came from.

        The text encoder or autoencoder is left out if `references` tells where it is instead.
        """
        about = {"model": self.config.model_dump(mode="json"), "provenance": provenance}
        write_saved(folder, self.state_dict(), about, dtype, references or {})

    @classmethod
    def load(
        cls,
        folder: Path | str,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        references: Mapping[str, Path | str] | None = None,
    ) -> Self:
        """Builds the model that `save` wrote, in any precision; a folder `tokenizer` beside it is UMT5's.

        Without `dtype` it is bfloat16 on a GPU, which multiplies that ten times as fast, and float32 elsewhere.

        Of what is not inside, the text encoder, the autoencoder or an adapter's base, `references` says where it is,
        or the environment (XWAM_TEXT_ENCODER, XWAM_AUTOENCODER, XWAM_BASE), or config.json. An adapter is merged.
        Raises ValueError if a file is missing, damaged, or does not fit the others.
        """
        dtype = dtype or (torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32)
        folder, references = Path(folder), references or {}
        about, elsewhere = described(folder), references_of(folder)
        config, weights = ModelConfig.parse(about["model"]), read_weights(folder, device)
        if "base" in elsewhere:
            base = cls.load(base_of(elsewhere["base"], references), device, dtype, references)
            return base.adapted(config, LoraConfig.parse(about["adapter"]), weights)
        tokenizer = folder / "tokenizer"
        with torch.device("meta"):  # a model of 13 B parameters must not be there twice
            model = cls(config, tokenizer if tokenizer.is_dir() else None)
        check_fit(folder, weights, model.state_dict(), elsewhere)
        model.load_state_dict({name: x.to(dtype) for name, x in weights.items()}, strict=False, assign=True)
        if "autoencoder" in elsewhere:
            model.autoencoder = autoencoder_of(elsewhere["autoencoder"], references, config.autoencoder)
        if "text_encoder" in elsewhere:
            model.text_encoder = text_encoder_of(elsewhere["text_encoder"], references, tokenizer, config.text)
        model.to(device, dtype)
        return model.eval().requires_grad_(False)

    def adapted(self, config: ModelConfig, lora: LoraConfig, weights: Mapping[str, Tensor]) -> Self:
        """This model with an adapter merged into it; `config` brings the robot and its statistics.

        Raises ValueError if the adapter's weights are not those that `lora` makes of this network.
        """
        if config.transformer != self.config.transformer:
            raise ValueError("the adapter was made for a network of other sizes: give it the base that it names")
        with torch.device("meta"):
            model = type(self)(config, text_encoder=self.text_encoder)
        model.load_state_dict(self.state_dict(), assign=True)
        add_lora(model, lora)
        load_lora(model, weights)
        merge_lora(model)
        kind = self.transformer.head.linear.weight.dtype
        model.transformer.to(kind)
        return model.eval().requires_grad_(False)
