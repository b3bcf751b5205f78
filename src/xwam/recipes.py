"""Named runs: each a function that returns a complete, frozen description of what to build and how to train it."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path

from xwam.model.autoencoders import SmallAutoencoderConfig
from xwam.model.config import TransformerConfig
from xwam.model.text import SmallTextEncoderConfig
from xwam.sim.metaworld import embodiment as metaworld
from xwam.train.runs import AutoencoderRun, DataConfig, ModelRun, train_autoencoder, train_model
from xwam.train.trainer import TrainConfig
from xwam.wam import ModelConfig, NoiseConfig


def nano_autoencoder(dataset: Path, autoencoder: Path) -> AutoencoderRun:
    """The small autoencoder of nano: about a quarter of an hour on two CPU cores."""
    return AutoencoderRun(
        data=DataConfig(dataset=str(dataset)),
        embodiment=metaworld(),
        autoencoder=SmallAutoencoderConfig(),
        train=TrainConfig(steps=2000, learning_rate=1.5e-3, warmup_steps=50, ema_decay=0.995, validate_every=250, save_every=250),
    )


def nano(dataset: Path, autoencoder: Path) -> ModelRun:
    """The world action model that ships with the package: over an hour on two CPU cores."""
    robot, codec, text = metaworld(), SmallAutoencoderConfig(), SmallTextEncoderConfig()
    transformer = TransformerConfig(
        width=192, ffn_width=768, heads=6, blocks=6, depth_blocks=2, views=len(robot.cameras),
        latent_channels=codec.channels, text_width=text.width, text_tokens=text.tokens,
        action_width=robot.action.width, actions_per_frame=robot.actions_per_frame, proprio_width=robot.proprio.width,
    )  # fmt: skip
    return ModelRun(
        data=DataConfig(dataset=str(dataset)),
        autoencoder=str(autoencoder),
        model=ModelConfig(
            transformer=transformer, autoencoder=codec, text=text, embodiment=robot,
            noise=NoiseConfig(clean_action_probability=0.15, shift=3.0),
        ),  # fmt: skip
        train=TrainConfig(steps=5000, learning_rate=1e-3, warmup_steps=100, validate_every=500, save_every=250),
    )


def tiny_autoencoder(dataset: Path, autoencoder: Path) -> AutoencoderRun:
    """The autoencoder at a size that trains in seconds; it shows that the pipeline works, not how well."""
    run = nano_autoencoder(dataset, autoencoder)
    brief = TrainConfig(steps=4, warmup_steps=1, validate_every=2, save_every=2)
    small = SmallAutoencoderConfig(channels=8, widths=(8, 16, 16))
    return run.model_copy(update={"autoencoder": small, "train": brief, "data": tiny_data(dataset), "batch_size": 2})


def tiny(dataset: Path, autoencoder: Path) -> ModelRun:
    """The world action model at a size that trains in seconds."""
    run = nano(dataset, autoencoder)
    small = SmallAutoencoderConfig(channels=8, widths=(8, 16, 16))
    sizes = {"width": 48, "ffn_width": 96, "heads": 2, "blocks": 2, "depth_blocks": 1, "latent_channels": small.channels}
    model = run.model.model_copy(
        update={
            "transformer": run.model.transformer.model_copy(update=sizes),
            "autoencoder": small,
            "image_size": (64, 64),
            "noise": NoiseConfig(clean_action_probability=0.25, shift=3.0, video_steps=4, action_steps=2),
        }
    )
    brief = TrainConfig(steps=4, warmup_steps=1, validate_every=2, save_every=2)
    return run.model_copy(update={"model": model, "train": brief, "data": tiny_data(dataset), "batch_size": 4})


def tiny_data(dataset: Path) -> DataConfig:
    return DataConfig(dataset=str(dataset), held_out=1)


RECIPES: dict[str, Callable[[Path, Path], AutoencoderRun | ModelRun]] = {
    "nano-autoencoder": nano_autoencoder,
    "nano": nano,
    "tiny-autoencoder": tiny_autoencoder,
    "tiny": tiny,
}


def start(name: str, dataset: Path, folder: Path, autoencoder: Path, overrides: Sequence[str]) -> None:
    """Trains a recipe in `folder`, or resumes it there."""
    if name not in RECIPES:
        close = get_close_matches(name, RECIPES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(RECIPES)}"
        raise ValueError(f"no recipe {name!r}; {hint}")
    run = RECIPES[name](dataset, autoencoder).override(overrides)
    exported = train_autoencoder(run, folder) if isinstance(run, AutoencoderRun) else train_model(run, folder)
    if exported is not None:
        print(f"Finished: {exported}")
