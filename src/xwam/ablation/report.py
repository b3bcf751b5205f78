"""The verb: everything that is missing is done, then the table is written."""

import re
from collections.abc import Sequence
from pathlib import Path
from shlex import join

from xwam.ablation.figure import draw
from xwam.ablation.rows import BASE, AblationConfig
from xwam.ablation.run import complete, digest, kept, latencies, measured
from xwam.ablation.table import as_json, markdown_table, sentence, task_table
from xwam.core.files import write_atomically, write_json
from xwam.data.episodes import EpisodeStore

REGIONS = {
    "all": "Over all pixels, as in X-WAM's Table 4",
    "changed": "Over what changed since the given frame, where a still picture scores badly",
}
HOW = "## How it was measured\n\n" + " ".join(
    (
        "All rows see the same data, steps and batch size; a seed decides on first weights, order of data and noise.",
        "Success is that of closed loop from start states that training never saw, the same for all rows.",
        "PSNR and SSIM are those of still cameras, AbsRel, delta1 and Chamfer distance those of every camera, over",
        "imagined moments of unseen expert episodes; a row without depth has no measures of geometry.",
        "The last row is a dummy that repeats the frame which the model was given.",
        "Numbers are means over seeds ± half of their 95% interval by Student's t. A difference is taken seed by seed;",
        "where its interval holds 0 it is called noise. Nothing is corrected for the number of comparisons.",
        "Latency is the median time of one chunk of actions, 1 being that of the row which others are compared with;",
        "rows took turns in one process with one thread.",
        "LPIPS is measured if weights are given (docs/ablation.md).",
    )
)


def ablate(
    config: AblationConfig, out: Path, results: Path, workers: int, date: str, arguments: Sequence[str]
) -> Path | None:
    """Trains and scores in `out`, then writes ablation.md, .json and .svg to `results`; None if it was stopped.

    `date` and the `arguments` of the command are told in the first two.
    """
    if not complete(config, out, workers):
        return None
    asked = {
        "runs": [[row.name, row.sampling, digest(row.applied_to(config.base, config.seeds[0]))] for row in config.rows]
    }
    latencies_s = dict(kept(out / "latency.json", asked, lambda: latencies(config, out)))
    rows = measured(config, out)
    base = BASE if BASE in rows else config.rows[0].name
    command = join(["xwam", *(_name(argument) for argument in arguments)])
    about = {"date": date, "command": command, "config": _told(config)}
    write_json(results / "ablation.json", about | as_json(rows, latencies_s, config.comparisons))
    write_atomically(results / "ablation.svg", lambda file: file.write_text(draw(rows)))
    tables = [f"## {title}\n\n{markdown_table(rows, latencies_s, base, region)}" for region, title in REGIONS.items()]
    if by_task := task_table(rows):
        tables.append(f"## Success in each task, over all seeds, in percent\n\n{by_task}")
    said = "\n".join(f"- {sentence(comparison, rows)}" for comparison in config.comparisons)
    picture = (
        "![Success and what changed, a dot a seed](ablation.svg)\n\n"
        "Success, and the imagined futures over what changed: small dots are seeds, large ones their means, pale bars "
        "95% intervals."
    )
    parts = [
        "# Ablation",
        _about(config, date, command),
        picture,
        *tables,
        f"## What the differences say\n\n{said}",
        HOW,
    ]
    path = results / "ablation.md"
    write_atomically(path, lambda file: file.write_text("\n\n".join(parts) + "\n"))
    return path


def _about(config: AblationConfig, date: str, command: str) -> str:
    run, data = config.base, config.base.data
    network = run.model.transformer
    sizes = f"{network.blocks} blocks of width {network.width}, a branch of {network.depth_blocks}"
    trained = f"{run.train.steps} steps of {run.batch_size} clips, seeds {', '.join(map(str, config.seeds))}"
    scored = (
        f"{config.episodes} episodes in closed loop and {config.dreams} imagined of each of {len(config.tasks)} tasks"
    )
    dataset = f"{Path(data.dataset).name}, {len(EpisodeStore(data.dataset))} episodes"
    lines = [f"{date}, by `{command}`", f"dataset: {dataset}", f"network: {sizes}", f"training: {trained}"]
    return "\n".join(f"- {line}" for line in [*lines, f"scores, for each seed: {scored}"])


def _told(config: AblationConfig) -> dict:
    """The settings, with names instead of paths, which mean something on one machine only."""
    told = config.model_dump(mode="json")
    told["base"]["data"]["dataset"] = _name(config.base.data.dataset)
    told["base"]["autoencoder"] = _name(config.base.autoencoder)
    told["base"]["latents"] = told["lpips"] = None  # they change nothing of what the other settings say
    return told


def _name(argument: str) -> str:
    """Text with names instead of absolute paths."""
    return re.sub(r"(?<![\w.])/(?:[^/\s]+/)*", "", argument)
