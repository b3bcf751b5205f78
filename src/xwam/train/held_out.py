"""A trained model on recorded episodes that its run held out: what there is to measure where there is no simulator."""

from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from xwam.core.files import write_json
from xwam.data.batches import PixelClips
from xwam.data.clips import ClipDataset, ClipIndex, split
from xwam.data.episodes import EpisodeStore
from xwam.data.transforms import ClipTransform
from xwam.saved import described
from xwam.train.runs import ModelRun
from xwam.train.validation import ModelExamination, ValidationConfig
from xwam.wam import WorldActionModel

LEVELS = 5


def evaluate_held_out(checkpoint: Path, dataset: Path, clips: int, dreams: int, out: Path) -> dict[str, dict]:
    """Examines an exported model on clips of `dataset`, prints tables, and writes results.json and pictures to `out`.

    Clips are spread evenly over the episodes that the model's run holds out of this dataset. Raises ValueError if one
    of them is known to have been trained on, as when the dataset grew or another's seeds were the same.
    """
    run, model = run_on(checkpoint, dataset), WorldActionModel.load(checkpoint)
    store = EpisodeStore(dataset)
    _, held_out = split(store, run.data.held_out, run.data.seed)
    check_unseen(store, held_out, described(checkpoint)["provenance"])
    robot, config = model.embodiment, model.config
    index = ClipIndex(store, robot, config.frames, episodes=held_out, start_stride=run.start_stride)
    transform = ClipTransform(size=config.image_size, crop_ratio=config.crop_ratio)
    seen = PixelClips(ClipDataset(store, index, robot, transform), robot, model.encode)
    asked = ValidationConfig(clips=min(clips, len(seen)), levels=LEVELS, dreams=min(dreams, len(seen)))
    with torch.inference_mode():
        results = ModelExamination(model, seen, asked, out, run.train.seed)(step=0)
    write_json(out / "results.json", {"dataset": str(dataset), "episodes": len(held_out), **results})
    print_results(results, asked, len(held_out))
    return results


def run_on(checkpoint: Path, dataset: Path) -> ModelRun:
    """The run that made an exported model, on this dataset."""
    about = described(checkpoint)
    if (recipe := about["provenance"].get("recipe")) is None:
        raise ValueError(f"{checkpoint} does not tell the run that made it, so not what that held out")
    data = recipe["data"] | {"dataset": str(dataset)}
    return ModelRun.parse({**recipe, "model": about["model"], "data": data, "mixed_in": []})


def check_unseen(store: EpisodeStore, episodes: list[int], provenance: dict) -> None:
    """Raises if a training of the model, or of what it began with, had one of these episodes."""
    trained_on = {(environment, seed) for environment, seed in provenance["trained_on"] if seed is not None}
    infos = ((episode, store.info(episode)) for episode in episodes)
    if met := [(at, info) for at, info in infos if (info.environment, info.seed) in trained_on]:
        at, info = met[0]
        raise ValueError(
            f"{len(met)} of {len(episodes)} held-out episodes of {store.root} were trained on, such as {at} "
            f"({info.environment}, seed {info.seed}): evaluate on the dataset as it was trained on, or on another"
        )


def print_results(results: dict[str, dict], asked: ValidationConfig, episodes: int) -> None:
    """The errors of sampled actions, then the imagined futures beside those of the dummy and of a perfect model."""
    console = Console()
    if actions := results.get("actions"):
        table = Table(
            "part", "first action", "whole chunk", title=f"Actions of {asked.clips} clips, {episodes} episodes"
        )
        for part in dict.fromkeys(name.rsplit("/", 1)[0] for name in actions):
            table.add_row(part, *(_told(actions.get(f"{part}/{which}")) for which in ("first", "chunk")))
        console.print(table)
    if imagined := results.get("imagined"):
        names = ("model", "repeat first frame", "autoencoder alone")
        table = Table("measure", *names, title=f"Imagined futures of {asked.dreams} clips")
        for measure in (name for name in imagined if "/" not in name):
            beside = (imagined.get(f"{other}/{measure}") for other in ("still", "autoencoder"))
            table.add_row(measure, _told(imagined[measure]), *map(_told, beside))
        console.print(table)


def _told(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
