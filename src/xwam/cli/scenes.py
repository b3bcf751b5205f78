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
    dataset: Path | None = None,
    episode: int = 0,
    row: int = 0,
    images: tuple[str, ...] = (),
    depths: tuple[str, ...] = (),
    state: Path | None = None,
    cameras: Path | None = None,
    seeds: int = 1,
    chunks: int | None = None,
    actions: Path | None = None,
    expert: bool = False,
    device: str = "cpu",
    out: Path = Path("out/imagine"),
) -> None:
    """Imagine futures in 4D: a folder each, with colour, depth, cameras, actions and states, and a page to look at.

    From a moment of a simulated episode:
        xwam imagine --task metaworld/drawer-open-v3 --share 0.3 --seeds 4

    From a recorded episode, three chunks long, under the actions that were taken:
        xwam imagine CHECKPOINT --dataset datasets/mine --episode 3 --row 40 --chunks 3 --expert

    From images of your own, under actions of your own:
        xwam imagine CHECKPOINT --images left=l.png wrist=w.png --state state.yaml --cameras cameras.yaml
            --instruction "open the drawer" --actions push.csv

    docs/imagining.md shows these files, and what is in the folders.

    Args:
        checkpoint: Folder of an exported model; the shipped nano if not given.
        task: Environment, as world/task, whose expert's episode holds the moment that the model sees.
        instruction: What the robot is asked to do; the episode's own wording if not given.
        seed: Seed of the simulated episode, and of the first dream.
        share: How far into the simulated episode the moment lies, 0 to 1.
        dataset: Folder of a dataset; begin in one of its episodes rather than in a simulator.
        episode: Which episode of the dataset.
        row: Which row of that episode is the present.
        images: Begin with images: CAMERA=FILE for each camera of the model, PNG or JPEG.
        depths: Measured depth, to align relative depth to: CAMERA=FILE, .npy in metres or 16-bit PNG in millimetres.
        state: The robot's state: a YAML or JSON list of numbers, or a list by part of the model's proprio.
        cameras: YAML or JSON of name, height, width, intrinsics and T_base_cam of each camera.
        seeds: How many dreams, with the seeds that follow.
        chunks: How many chunks long; each begins at the last frame of the one before. 1, or what --actions fill.
        actions: What happens under these actions: .npy or .csv, a row an action, in physical units.
        expert: What happens under the actions that were taken in the episode.
        device: Where the model computes, such as cuda.
        out: Folder for seed-N, true (where it is known) and index.html.
    """
    from xwam.imagine.run import Asked, imagine_futures

    places = {"dataset": dataset, "episode": episode, "row": row}
    files = {"images": images, "depths": depths, "state": state, "cameras": cameras}
    extent = {"seeds": seeds, "chunks": chunks, "actions": actions, "expert": expert}
    imagine_futures(checkpoint, Asked(task, instruction, seed, share, **places, **files, **extent), out, device)


@app.command
def view(
    paths: Positional[tuple[Path, ...]] = (DATASET,),
    episode: int = 0,
    stride: int = 4,
    scores: bool = False,
    html: Path | None = None,
    export: tuple[str, Path] | None = None,
    port: int = 8080,
    urdf: Path | None = None,
    joints: tuple[str, ...] = (),
) -> None:
    """Look into clips in 4D, in the browser: what was imagined beside what is true, models or seeds side by side.

    `xwam view out/imagine` shows all clips in a folder, `xwam view A B C` these three, on one clock and from one eye;
    `xwam view DATASET --episode 3` an episode. `--html page.html` writes a page that opens from disk and needs no
    network; without it, the page is served to this machine until you press Ctrl-C.

    `--urdf robot.urdf --joints joint_position` tells the robot from the rest: a layer to switch, or to colour by.

    Args:
        paths: Folders of clips, folders that hold several, or datasets.
        episode: Which episode of a dataset.
        stride: Show every so many rows of it.
        scores: Score each imagined clip against the one true clip that is shown, in a table.
        html: Write the page to this file.
        export: Write one clip for other programs, as FORMAT OUT: ply (a folder, a file a frame), glb, usd (as .usda),
            blender (a folder with a script to open it) or rrd.
        port: Port of the page on 127.0.0.1, 0 for any.
        urdf: The robot's description, whose root link is at the base frame; its meshes beside it.
        joints: Parts of the states that hold the positions of its first joints, in the URDF's order; entries that are
            called as joints are found without.
    """
    from xwam.show import view

    view(paths, episode, stride, scores, html, export, port, urdf, joints)


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
