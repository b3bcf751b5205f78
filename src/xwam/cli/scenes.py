"""Verbs that show what a model imagines, and what was recorded."""

from pathlib import Path

from tyro.conf import Positional

from xwam.cli.app import DATASET, SHIPPED, app


@app.command
def imagine(
    checkpoint: Positional[Path] = SHIPPED,
    task: str = "metaworld/drawer-open-v3",
    instruction: str | None = None,
    seed: int = 1_000_000,
    share: float = 0.3,
    out: Path = Path("out/imagine"),
) -> None:
    """Imagine the future from a moment of a simulated episode, and write it as a page to look at in 3D.

    Args:
        checkpoint: Folder of an exported model; the shipped nano if not given.
        task: Environment, as world/task.
        instruction: What the robot is asked to do, the task's own wording if not given.
        seed: Seed of the episode and of the dream.
        share: How far into the expert's episode the moment lies that the model sees, 0 to 1.
        out: Folder for index.html and the dream's arrays.
    """
    from xwam.demo import imagine_task

    imagine_task(checkpoint, task, instruction, seed, share, out)


@app.command
def view(dataset: Positional[Path] = DATASET, episode: int = 0, stride: int = 4, port: int = 8080) -> None:
    """Show an episode of a dataset in 3D, in the browser, on this machine only.

    Args:
        dataset: Folder of the dataset.
        episode: Which episode.
        stride: Show every so many rows.
        port: Port of the page on 127.0.0.1.
    """
    from xwam.show import view_episode

    view_episode(dataset, episode, stride, port)


@app.command
def demo(
    checkpoint: Path = SHIPPED,
    episodes: int = 2,
    out: Path = Path("out/demo"),
    seed: int = 1_000_000,
    workers: int = 2,
) -> None:
    """Watch nano act in three tasks and imagine their futures; writes out/demo/index.html in a few minutes.

    Args:
        checkpoint: Folder of an exported model; the shipped nano if not given.
        episodes: Closed-loop episodes of each task.
        out: Folder for the page.
        seed: First seed of the episodes.
        workers: Processes that run at the same time.
    """
    from xwam.demo import run_demo

    run_demo(checkpoint, episodes, out, seed, workers)
