"""Verbs about the machine."""

from pathlib import Path

from xwam.cli.app import DATASET, app


@app.command
def doctor(
    recipe: str = "nano",
    dataset: Path = DATASET,
    weights: Path | None = None,
    robotwin: Path | None = None,
    json: bool = False,
) -> None:
    """Tell what this machine lacks for a recipe, and the command that mends it; exits with 1 if it cannot work.

    Example: xwam doctor --recipe wan22-5b-robocasa --weights checkpoints/robocasa

    Args:
        recipe: Name of a recipe or of a released model; an unknown one lists them all.
        dataset: Folder of the dataset to train on.
        weights: Folder of a released model, as `xwam convert --model` wrote it.
        robotwin: Folder of a checkout of RoboTwin 2.0.
        json: Print JSON for programs instead of a table.
    """
    from xwam.doctor.examine import run_doctor

    if not run_doctor(recipe, dataset, weights, robotwin, json):
        raise SystemExit(1)
