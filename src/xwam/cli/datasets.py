"""Verbs that make, check and change datasets."""

import json
from pathlib import Path
from typing import Literal

from tyro.conf import Positional, UseAppendAction

from xwam.cli.app import DATASET, TASKS, app


@app.command
def record(
    tasks: tuple[str, ...] = TASKS,
    episodes: int = 50,
    dataset: Path = DATASET,
    size: int = 128,
    workers: int = 2,
) -> None:
    """Record demonstrations of scripted experts: RGB, depth, calibration, states, actions, instructions.

    Stop it at any time and run it again: finished shards are kept, and a larger --episodes only adds to them.
    In seconds: xwam record --tasks metaworld/reach-v3 --episodes 2 --size 64 --dataset out/tiny

    Args:
        tasks: Environments, as world/task, or groups of them: metaworld/mt10, metaworld/mt50.
        episodes: Seeds to try for each task; those that the expert fails are left out.
        dataset: Folder of the dataset, a LeRobotDataset v3.0.
        size: Height and width of the images in pixels, a multiple of 16.
        workers: Processes that record at the same time.
    """
    from xwam.sim.env import tasks_of
    from xwam.sim.record import record_dataset

    record_dataset(dataset, tasks_of(tasks), episodes, size, size, workers)


@app.command(name="import")
def import_(
    source: Positional[Path],
    dest: Positional[Path],
    format: str | None = None,
    instruction: str | None = None,
    fps: int | None = None,
    cameras: tuple[str, ...] | None = None,
    depth: bool = True,
    workers: int = 2,
    skip_damaged: bool = False,
) -> None:
    """Import recordings of LeRobot, robomimic, LIBERO, RoboCasa, RoboTwin, or X-WAM's release as a dataset.

    The format is recognised. DEST appears whole or not at all; an import that was stopped goes on where it was.
    Drafts DEST/meta/embodiment.yaml, which says what each column means: read it before you train. Then the data are
    asked whether actions do what was assumed of them; if they contradict, the import ends with exit code 1.

    For example
      xwam import ~/aloha datasets/aloha            a LeRobotDataset v3.0: linked, not copied; or v2.1, converted
      xwam import libero_spatial datasets/libero --cameras agentview_rgb eye_in_hand_rgb
      xwam import demo.hdf5 datasets/can --format robomimic --instruction "put the can into its bin" --fps 20

    After it, `xwam validate DEST` looks at the pictures, and `xwam train nano --dataset DEST --run RUN` begins.

    Args:
        source: Folder of the recording, or its file where it is one.
        dest: Folder of the dataset, which must not exist yet.
        format: Name of the format, if it is not to be recognised; an unknown one lists them all.
        instruction: What the robot is asked to do, for episodes that do not say.
        fps: Rows a second, where the recording does not say.
        cameras: Cameras to import; all if not given.
        depth: Whether to import depth where there is some.
        workers: Processes that import at the same time; each holds a whole episode in memory.
        skip_damaged: Leave out episodes that cannot be read, up to a tenth of all, and list them.
    """
    from xwam.data.importers.convert import import_dataset
    from xwam.data.importers.report import print_report
    from xwam.data.importers.source import ImportSettings

    settings = ImportSettings(instruction=instruction, fps=fps, cameras=cameras, depth=depth)
    report = import_dataset(source, dest, settings, format, workers, skip_damaged)
    print_report(dest, report)
    if report.failed:
        raise SystemExit(1)


@app.command
def stats(dataset: Positional[Path] = DATASET) -> None:
    """Show what a dataset holds: episodes, lengths, and the quantiles that normalise states and actions.

    Args:
        dataset: Folder of the dataset.
    """
    from xwam.show import show_dataset

    show_dataset(dataset)


@app.command
def validate(
    dataset: Positional[Path] = DATASET,
    episodes: int | None = None,
    page: Path = Path("out/validation.html"),
    workers: int = 2,
) -> None:
    """Check a dataset: videos, timestamps, numbers, depth, calibration, actions against states, doubles.

    Prints a table, writes a page with pictures of every episode, and exits with 1 if there is an error.

    Args:
        dataset: Folder of the dataset.
        episodes: Examine so many, spread evenly; all if not given.
        page: Where to write the page.
        workers: Processes that examine episodes at the same time.
    """
    from xwam.data.validate import validate as validate_dataset
    from xwam.data.validation_page import print_validation, write_page

    found = validate_dataset(dataset, episodes, workers)
    print_validation(found)
    write_page(page, found)
    print(f"Pictures: {page}")
    if found.errors:
        raise SystemExit(1)


@app.command(name="estimate-depth")
def estimate_depth(
    dataset: Positional[Path],
    model: Path | None = None,
    estimator: str | None = None,
    cameras: tuple[str, ...] | None = None,
    device: str = "cpu",
) -> None:
    """Add estimated depth to a dataset that has none. It is labelled `relative`: nearer and farther, no metres.

    A run that was stopped goes on. docs/importing.md tells how to plug in a model of your own.
    Example: xwam estimate-depth datasets/mine --model Depth-Anything-V2-Small-hf --device cuda

    Args:
        dataset: Folder of the dataset.
        model: Folder of a Depth Anything or DPT model as transformers saves it.
        estimator: Instead of a model: MODULE:CALLABLE of your own, a callable that returns the estimator.
        cameras: Cameras to estimate depth of; all that have none if not given.
        device: Where the model runs.
    """
    from xwam.data.estimated_depth import add_depth, estimator_named

    if (model is None) == (estimator is None):
        raise ValueError("name either --model, a folder, or --estimator, MODULE:CALLABLE")
    if model is not None:
        from xwam.model.depth_estimator import TransformersDepthEstimator

        add_depth(dataset, TransformersDepthEstimator(model, device), cameras)
    else:
        add_depth(dataset, estimator_named(estimator), cameras)


@app.command
def encode(
    recipe: Positional[str],
    dataset: Path = DATASET,
    autoencoder: Path | None = None,
    out: Path | None = None,
    workers: int = 2,
    shard_episodes: int | None = None,
    engine: Literal["processes", "ray"] = "processes",
    verify: bool = False,
    set: UseAppendAction[tuple[str, ...]] = (),
) -> None:
    """Encode a dataset ahead of training: latents of its clips, and its instructions if the text encoder is frozen.

    Stop it at any time and run it again; start it on as many machines as share the folder (docs/encoding.md). `xwam
    train` encodes what is missing by itself. In seconds: xwam encode tiny --dataset out/tiny --autoencoder
    out/tiny-autoencoder

    Args:
        recipe: Name of the recipe that is to be trained.
        dataset: Folder of the dataset.
        autoencoder: Folder of the autoencoder's run, runs/RECIPE-autoencoder if not given.
        out: Folder of the latents; if not given, a folder in `latents` beside the autoencoder, named like the dataset.
        workers: Processes on this machine.
        shard_episodes: Episodes a shard, 10 if not given; another number than before encodes all anew.
        engine: Processes on this machine, or tasks of a Ray cluster.
        verify: Read all shards and all files of the dataset again, and encode anew what is damaged or stale.
        set: Overrides of single settings, such as --set start_stride=4; may be repeated.
    """
    from xwam.encode import encode as encode_dataset
    from xwam.recipes import autoencoder_beside, configured

    autoencoder = autoencoder or autoencoder_beside(Path("runs") / recipe)
    overrides = (*set, *([f"latents={json.dumps(str(out))}"] if out else []))
    encode_dataset(configured(recipe, dataset, autoencoder, overrides), workers, engine, shard_episodes, verify)


@app.command
def export(
    dataset: Positional[Path], out: Positional[Path], format: Literal["lerobot-v2.1"] = "lerobot-v2.1", workers: int = 2
) -> None:
    """Write a dataset in another format, with a card: README.md and a picture. A stopped export goes on.

    xwam's own format is LeRobotDataset v3.0 already. lerobot-v2.1 is for readers that want a file for every episode.
    Example: xwam export datasets/mine out/mine-v21

    Args:
        dataset: Folder of the dataset.
        out: Folder to write, which must not exist yet.
        format: Format to write.
        workers: Processes that export episodes at the same time.
    """
    from xwam.data.export_lerobot_v21 import export_lerobot_v21

    assert format == "lerobot-v2.1"
    export_lerobot_v21(dataset, out, workers)
    print(f"Exported: {out}")


@app.command
def calibrate_hand_eye(
    dataset: Positional[Path] = DATASET,
    camera: str = "wrist",
    mount: str | None = None,
    poses_in: Literal["base", "other"] = "base",
    episodes: int = 50,
    check: bool = False,
    write: bool = False,
) -> None:
    """Find where a camera sits on the hand (T_ee_cam), from recorded poses of the camera and the robot's state.

    Imagined poses of that camera follow the foretold state by it. Prints it, how many poses agree, how far they
    spread, and how far it is from what the dataset's embodiment says. Up to a fifth of the poses may be wrong.

    Args:
        dataset: Folder of the dataset; its meta/embodiment.yaml names the hand's parts of the state.
        camera: Which camera.
        mount: The end-effector that it rides on: parts <mount>_position and, unless it never turns,
            <mount>_orientation; the embodiment's, or else `ee`.
        poses_in: The frame of the recorded poses: the robot's base, or another fixed one, such as a calibration
            board's. Then the hand must have turned about two axes or more.
        episodes: So many episodes, spread over the dataset, are read.
        check: Fail if the embodiment's T_ee_cam is more than 5 mm or 1 degree from what the poses tell.
        write: Write mount and T_ee_cam into meta/embodiment.yaml; remarks at its head stay, other comments do not.
    """
    from xwam.calibrate import calibrate_hand_eye

    calibrate_hand_eye(dataset, camera, mount, poses_in, episodes, check, write)
