"""Named runs: each a function that returns a complete, frozen description of what to build and how to train it."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from xwam.core.embodiment import Embodiment
from xwam.core.embodiment_file import read_embodiment
from xwam.data.episodes import EpisodeStore
from xwam.data.importers.released import robocasa, robotwin
from xwam.data.layout import EMBODIMENT_PATH, INFO_PATH
from xwam.model.autoencoders import SmallAutoencoderConfig
from xwam.model.config import TransformerConfig
from xwam.model.text import SmallTextEncoderConfig
from xwam.model.wan import UMT5TextEncoderConfig, WanAutoencoderConfig
from xwam.saved import ModelConfig, NoiseConfig
from xwam.sim.env import tasks_of
from xwam.sim.metaworld import embodiment as metaworld
from xwam.train.encoding import has_autoencoder
from xwam.train.runs import AutoencoderRun, DataConfig, ModelRun, widened
from xwam.train.trainer import TrainConfig


def nano_autoencoder(dataset: Path, autoencoder: Path) -> AutoencoderRun:
    """The small autoencoder of nano: about an hour on two CPU cores that multiply bfloat16, hours on others."""
    return AutoencoderRun(
        data=DataConfig(dataset=str(dataset)),
        embodiment=metaworld(),
        autoencoder=SmallAutoencoderConfig(),
        train=TrainConfig(
            steps=5400, learning_rate=1.5e-3, warmup_steps=50, ema_decay=0.995, validate_every=250, save_every=250
        ),
    )


def nano(dataset: Path, autoencoder: Path) -> ModelRun:
    """The world action model that ships with the package: over an hour on two such cores, hours on others."""
    robot, codec, text = metaworld(), SmallAutoencoderConfig(), SmallTextEncoderConfig()
    inputs = {"latent_channels": codec.channels, "text_width": text.width, "text_tokens": text.tokens}
    sizes = {"width": 192, "ffn_width": 768, "heads": 6, "blocks": 6, "depth_blocks": 1, "ffn_gelu": "erf"}
    return ModelRun(
        data=DataConfig(dataset=str(dataset)),
        autoencoder=str(autoencoder),
        model=ModelConfig(
            transformer=network_for(robot, **inputs, **sizes),
            autoencoder=codec,
            text=text,
            embodiment=robot,
            noise=NoiseConfig(clean_action_probability=0.15, shift=3.0),
        ),
        batch_size=48,
        export_dtype="float16",
        train=TrainConfig(steps=4200, learning_rate=1e-3, warmup_steps=100, validate_every=500, save_every=250),
    )


def nano_ablation(dataset: Path, autoencoder: Path) -> ModelRun:
    """What the rows of an ablation share: nano at a third of its size, about ten minutes on one CPU core."""
    run = nano(dataset, autoencoder)
    sizes = {"width": 128, "ffn_width": 512, "heads": 4, "blocks": 4, "depth_blocks": 1}
    network, noise = run.model.transformer.model_copy(update=sizes), NoiseConfig(shift=3.0)
    train = TrainConfig(
        steps=800, learning_rate=1.5e-3, warmup_steps=50, ema_decay=0.995, validate_every=400, save_every=200
    )
    model = run.model.model_copy(update={"transformer": network, "noise": noise})
    return run.model_copy(update={"model": model, "train": train, "batch_size": 32})


def wan22_5b(robot: Embodiment) -> ModelConfig:
    """X-WAM's model, 6.7 B parameters over Wan2.2-TI2V-5B's autoencoder and UMT5-XXL; of RoboCasa's it is released."""
    codec, text = WanAutoencoderConfig(), UMT5TextEncoderConfig()
    inputs = {"latent_channels": codec.z_dim, "text_width": text.d_model, "text_tokens": text.tokens}
    sizes = {"width": 3072, "ffn_width": 14336, "heads": 24, "blocks": 30, "depth_blocks": 10}
    return ModelConfig(
        transformer=network_for(robot, **inputs, **sizes),
        autoencoder=codec,
        text=text,
        embodiment=robot,
        noise=NoiseConfig(clean_action_probability=0.5, shift=5.0),
        image_size=(256, 320),
        crop_ratio=0.95,
        text_dropout=0.1,
    )


def wan22_5b_pretrain(dataset: Path, autoencoder: Path) -> ModelRun:
    """X-WAM's pretraining (arXiv 2604.26694): 256 GPUs there, on the datasets of `mixed_in` together.

    The paper keeps no averages of the weights, and does not tell the coefficients of AdamW: they are its usual ones.
    """
    train = TrainConfig(
        steps=40_000,
        learning_rate=1e-4,
        schedule="cosine",
        warmup_steps=1000,
        final_lr_ratio=0.0,
        weight_decay=0.01,
        betas=(0.9, 0.999),
        gradient_clip=1.0,
        ema_decay=0.0,
        precision="bf16",
        checkpoint_blocks=True,
    )
    return ModelRun(
        data=DataConfig(dataset=str(dataset)),
        autoencoder=str(autoencoder),
        model=wan22_5b(robotwin()),
        batch_size=2048,
        train=train,
    )


def wan22_5b_robotwin(dataset: Path, autoencoder: Path) -> ModelRun:
    """X-WAM's post-training on RoboTwin 2.0; the paper's learning rates are between 1e-5 and 3e-5.

    The paper crops and recolours a clip anew each time; here it is shown in four versions that are encoded ahead.
    """
    run = wan22_5b_pretrain(dataset, autoencoder)
    train = run.train.model_copy(update={"steps": 20_000, "learning_rate": 2e-5})
    return run.model_copy(update={"batch_size": 128, "train": train, "versions": 4})


def wan22_5b_robocasa(dataset: Path, autoencoder: Path) -> ModelRun:
    """X-WAM's post-training on RoboCasa."""
    run = wan22_5b_robotwin(dataset, autoencoder)
    return run.model_copy(update={"model": wan22_5b(robocasa())})


def nano_prior(dataset: Path, autoencoder: Path) -> ModelRun:
    """A video prior of nano's size: it learns from video alone, and nano grows from it with start_from."""
    return prior_of(nano(dataset, autoencoder))


VIDEO_ALONE = {"action_width": 0, "proprio_width": 0}


def prior_of(run: ModelRun) -> ModelRun:
    """The run of the same network before it has actions, proprios and depth."""
    network = run.model.transformer.model_copy(update={**VIDEO_ALONE, "depth_blocks": 0})
    noise = run.model.noise.model_copy(update={"law": "coupled", "action_steps": run.model.noise.video_steps})
    model = run.model.model_copy(update={"transformer": network, "noise": noise})
    return run.model_copy(update={"model": model})


def network_for(robot: Embodiment, **sizes: int | str) -> TransformerConfig:
    """A network of these sizes whose views, actions and states are the robot's."""
    return TransformerConfig(**sizes_of(robot), **sizes)


def sizes_of(robot: Embodiment) -> dict[str, int]:
    """The sizes of a network that are the robot's."""
    return {
        "views": len(robot.cameras),
        "action_width": robot.action.width,
        "actions_per_frame": robot.actions_per_frame,
        "proprio_width": robot.proprio.width,
    }


def tiny_autoencoder(dataset: Path, autoencoder: Path) -> AutoencoderRun:
    """The autoencoder at a size that trains in seconds; it shows that the pipeline works, not how well."""
    run = nano_autoencoder(dataset, autoencoder)
    brief = TrainConfig(steps=4, warmup_steps=1, validate_every=2, save_every=2)
    small = SmallAutoencoderConfig(channels=8, widths=(8, 16, 16))
    changed = {"autoencoder": small, "train": brief, "data": tiny_data(dataset), "batch_size": 2}
    return run.model_copy(update=changed | {"image_size": (64, 64)})


def tiny(dataset: Path, autoencoder: Path) -> ModelRun:
    """The world action model at a size that trains in seconds."""
    run = nano(dataset, autoencoder)
    small = SmallAutoencoderConfig(channels=8, widths=(8, 16, 16))
    sizes = {
        "width": 48,
        "ffn_width": 96,
        "heads": 2,
        "blocks": 2,
        "depth_blocks": 1,
        "latent_channels": small.channels,
    }
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


def tiny_prior(dataset: Path, autoencoder: Path) -> ModelRun:
    """The video prior at a size that trains in seconds."""
    return prior_of(tiny(dataset, autoencoder))


def tiny_data(dataset: Path) -> DataConfig:
    return DataConfig(dataset=str(dataset), held_out=1)


RECIPES: dict[str, Callable[[Path, Path], AutoencoderRun | ModelRun]] = {
    "nano-autoencoder": nano_autoencoder,
    "nano-prior": nano_prior,
    "nano": nano,
    "nano-ablation": nano_ablation,
    "tiny-autoencoder": tiny_autoencoder,
    "tiny-prior": tiny_prior,
    "tiny": tiny,
    "wan22-5b-robocasa": wan22_5b_robocasa,
    "wan22-5b-robotwin": wan22_5b_robotwin,
    "wan22-5b-pretrain": wan22_5b_pretrain,
}


# Models whose weights are published; a recipe of the same name trains such a one.
RELEASED: dict[str, Callable[[], ModelConfig]] = {"wan22-5b-robocasa": partial(wan22_5b, robocasa())}


def autoencoder_beside(run: Path) -> Path:
    """Where the autoencoder of a run is if nothing else is said; a prior has that of its model."""
    return run.with_name(f"{run.name.removesuffix('-prior')}-autoencoder")


def stages(
    name: str, dataset: Path, folder: Path, autoencoder: Path | None, overrides: Sequence[str]
) -> list[tuple[AutoencoderRun | ModelRun, Path]]:
    """The runs of a recipe and their folders: its own in `folder`, with single settings overridden.

    Before it comes that of a small autoencoder, in `autoencoder_beside`, if none is given and none is there yet.
    """
    beside, first = autoencoder_beside(folder), f"{name.removesuffix('-prior')}-autoencoder"
    own = configured(name, dataset, autoencoder or beside, overrides)
    if isinstance(own, AutoencoderRun) or autoencoder or first not in RECIPES or has_autoencoder(beside):
        return [(own, folder)]
    return [(configured(first, dataset, beside, ()), beside), (own, folder)]


def configured(name: str, dataset: Path, autoencoder: Path, overrides: Sequence[str]) -> AutoencoderRun | ModelRun:
    """A named run on this dataset and its robot, with single settings overridden."""
    if name not in RECIPES:
        close = get_close_matches(name, RECIPES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(RECIPES)}"
        raise ValueError(f"no recipe {name!r}; {hint}")
    run = RECIPES[name](dataset, autoencoder)
    if (dataset / EMBODIMENT_PATH).exists():
        run = for_robot(run, read_embodiment(dataset / EMBODIMENT_PATH))
    run = run.override(overrides)
    if isinstance(run, AutoencoderRun):
        return run
    tasks_of(run.closed_loop.tasks)  # a misspelt world is told now, and not when the first checkpoint is due
    chosen = any(override.startswith(DEPTH_BLOCKS) for override in overrides)
    return run if chosen else without_unseen_depth(run)


DEPTH_BLOCKS = "model.transformer.depth_blocks"


def without_unseen_depth(run: ModelRun) -> ModelRun:
    """The run without a depth branch, if neither its data nor what it starts from shows it any depth.

    A branch that never learned would tell of surfaces that it made up.
    """
    datasets = [data.dataset for data in (run.data, *run.mixed_in)]
    if run.start_from or any(_has_depth(Path(dataset)) for dataset in datasets):
        return run
    return run.override([f"{DEPTH_BLOCKS}=0"])


def _has_depth(dataset: Path) -> bool:
    """Of a dataset that is not there nothing is known; its run will tell."""
    if not (dataset / INFO_PATH).is_file():
        return True
    return any(camera.depth is not None for camera in EpisodeStore(dataset).spec.cameras)


def for_robot(run: AutoencoderRun | ModelRun, robot: Embodiment) -> AutoencoderRun | ModelRun:
    """The same run for another robot than the recipe's own.

    A network over Wan2.2 keeps its sizes, for its weights come from elsewhere: the robot must fit them.
    """
    if isinstance(run, AutoencoderRun):
        return run.model_copy(update={"embodiment": robot})
    network = run.model.transformer
    if isinstance(run.model.autoencoder, WanAutoencoderConfig):
        robot = widened(robot, network)
    else:
        network = network.model_copy(update=sizes_of(robot) | ({} if network.acts else VIDEO_ALONE))
    model = run.model.model_copy(update={"embodiment": robot, "transformer": network})
    return run.model_copy(update={"model": model})
