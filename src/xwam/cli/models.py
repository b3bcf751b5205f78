"""Verbs that train, measure and convert models."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional, UseAppendAction

from xwam.cli.app import DATASET, SHIPPED, TASKS, app


@app.command
def train(
    recipe: Positional[str],
    dataset: Path = DATASET,
    run: Path | None = None,
    autoencoder: Path | None = None,
    set: UseAppendAction[tuple[str, ...]] = (),
    plan: bool = False,
    gpus: int = 1,
    gpu_memory: float = 80.0,
    tflops: float = 355.0,
) -> None:
    """Train a recipe, or resume it: the same command goes on where the run was stopped.

    Ctrl-C and SIGTERM save and leave with exit code 75. docs/training.md tells how to train with many GPUs.

    `xwam train nano` takes hours on two CPU cores, and trains its autoencoder first if there is none. That can be done
    by itself, with settings of its own: xwam train nano-autoencoder --run runs/nano-autoencoder.
    In seconds: xwam train tiny --dataset out/tiny --run out/tiny-run

    Args:
        recipe: Name of a recipe; an unknown one lists them all.
        dataset: Folder of the dataset.
        run: Folder of the run, runs/RECIPE if not given.
        autoencoder: Folder of the autoencoder's run; if not given, RUN-autoencoder, trained first where it is missing.
        set: Overrides of single settings of the recipe, such as --set train.steps=100; may be repeated.
        plan: Train nothing; tell what it would take of memory and time, and leave with 1 if it does not fit.
        gpus: GPUs of the plan.
        gpu_memory: Memory of each, in GB.
        tflops: TFLOP/s that each sustains; 355 are 45% of what an H200 multiplies in bfloat16.
    """
    from xwam.recipes import stages
    from xwam.train import parallel
    from xwam.train.trainer import UNFINISHED

    runs = stages(recipe, dataset, run or Path("runs") / recipe, autoencoder, set)
    if plan:
        from xwam.train.plan_table import tell_plan

        raise SystemExit(0 if tell_plan(runs[-1][0], gpus, gpu_memory, tflops) else 1)
    for stage, folder in runs:
        exported = stage.train_in(folder)
        if exported is None:
            raise SystemExit(UNFINISHED)
        if parallel.rank() == 0:
            print(f"Finished: {exported}")


@app.command
def eval(
    checkpoint: Positional[Path] = SHIPPED,
    tasks: tuple[str, ...] = TASKS,
    episodes: int = 20,
    dreams: int = 5,
    out: Path = Path("out/eval"),
    execute: int = 8,
    workers: int = 2,
    device: str = "cpu",
    dataset: Path | None = None,
    clips: int = 64,
    best_of: int = 1,
) -> None:
    """Measure success in closed loop on seeds that training never saw, and the imagined futures against the truth.

    In seconds: xwam eval --tasks metaworld/drawer-close-v3 --episodes 1 --dreams 0
    Of a robot that is in no simulator: xwam eval runs/mine/export --dataset datasets/mine

    Args:
        checkpoint: Folder of an exported model; the shipped nano if not given.
        tasks: Environments, as world/task, or groups of them: metaworld/mt10, metaworld/mt50.
        episodes: Closed-loop episodes of each task; 0 skips them.
        dreams: Unseen expert episodes of each task to imagine three moments of; 0 skips them.
        out: Folder for results.json and one video a task.
        execute: Actions of each chunk to execute before looking again.
        workers: Processes that run at the same time.
        device: Where the model computes, such as cuda.
        dataset: Where there is no simulator: measure on the episodes that training held out of this dataset.
        best_of: Imagine so many futures at each look, and act on the one whose views agree best; slow.
        clips: With --dataset, so many clips to sample actions of; --dreams are clips to imagine the future of.
    """
    if dataset is not None:
        from xwam.train.held_out import evaluate_held_out

        evaluate_held_out(checkpoint, dataset, clips, dreams, out)
        print(f"Written: {out / 'results.json'}")
        return
    from xwam.evaluate import evaluate
    from xwam.sim.env import tasks_of

    evaluate(checkpoint, tasks_of(tasks), episodes, dreams, out, execute, workers, device, best_of)


@app.command
def score(
    predicted: Positional[tuple[Path, ...]] = (),
    truth: Path | None = None,
    checkpoint: tuple[Path, ...] = (SHIPPED,),
    tasks: tuple[str, ...] = TASKS,
    dataset: Path | None = None,
    episodes: int = 3,
    moments: int = 2,
    given: bool = False,
    lpips: Path | None = None,
    fvd: Path | None = None,
    out: Path = Path("out/score"),
    name: str = "scores",
    workers: int = 2,
    device: str = "cpu",
) -> None:
    """Score predicted 4D clips against the truth: images, depth, clouds in metres, wrist and actions, over time.

    Of clips in folders: xwam score out/imagine/seed-* --truth out/imagine/true
    Of models, by moments of episodes: xwam score --checkpoint runs/a/export runs/b/export
    A minute: xwam score --tasks metaworld/reach-v3 --episodes 1 --moments 1
    Two baselines stand beside: the last frame repeated, and its cloud moved with the gripper. docs/scoring.md tells
    how everything is measured.

    Args:
        predicted: Folders of clips, or folders that hold such; each is a column of the table.
        truth: Folder of the true clip, or a folder that holds true clips of the same names.
        checkpoint: Without folders: exported models, each a column; the shipped nano if not given.
        tasks: Environments, as world/task, or groups of them: metaworld/mt10, metaworld/mt50.
        dataset: Instead of simulated tasks: of this dataset, the episodes that the first model's training held out.
        episodes: Unseen expert episodes of each task, or so many of the dataset.
        moments: Moments of each episode, evenly spread, from which each model imagines a future.
        given: Tell the models the actions that were executed: their world alone is scored, not what they would do.
        lpips: Folder of LPIPS's published weights (docs/ablation.md); without it LPIPS is not measured.
        fvd: File of I3D's published weights (docs/scoring.md); without it FVD is not measured.
        out: Folder for the results.
        name: Writes NAME.json, NAME.md and NAME.svg.
        workers: Processes that run at the same time, each with one thread.
        device: Where the models compute, such as cuda.
    """
    import sys
    from datetime import date

    from xwam import score as scoring
    from xwam.sim.env import tasks_of

    if bool(predicted) != (truth is not None):
        raise ValueError("give folders of predicted clips and --truth together, or neither to score a model")
    networks = scoring.Networks(lpips, fvd)
    asked = scoring.Work(checkpoint, moments, given, networks, device)
    if predicted:
        board = scoring.score_folders(predicted, truth, networks)
    elif dataset is not None:
        board = scoring.score_models(scoring.recorded_works(asked, dataset, episodes), workers)
    else:
        board = scoring.score_models(scoring.simulated_works(asked, tasks_of(tasks), episodes), workers)
    # where a folder lies on this machine says nothing elsewhere
    said = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    about = {"date": date.today().isoformat(), "command": " ".join(["xwam", *said])}
    print(f"Written: {scoring.write_scores(board, out, name, about)}")


@app.command
def curves(runs: Positional[tuple[Path, ...]], out: Path = Path("out/curves.png")) -> None:
    """Draw what the logs of runs hold as curves in one picture: losses, validation, success.

    Args:
        runs: Folders of runs, each of which gets a colour.
        out: The PNG to write.
    """
    from xwam.train.curves import draw_curves

    draw_curves(runs, out)
    print(f"Written: {out}")


@app.command
def export_weights(
    run: Positional[Path],
    out: Positional[Path],
    step: int | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    merge: bool = False,
    frozen: Literal["auto", "inside", "reference"] = "auto",
) -> None:
    """Write the averaged weights of a run's checkpoint as a small folder that eval and imagine take.

    Example: xwam export-weights runs/mine out/mine --dtype bfloat16

    Args:
        run: Folder of the run, finished or not.
        out: Folder to write.
        step: Which checkpoint; the newest if not given.
        dtype: Precision of the weights; that of the run if not given.
        merge: Add a LoRA adapter into its base, rather than write it alone.
        frozen: Whether Wan2.2's autoencoder and UMT5 are inside or referred to; auto refers to large ones.
    """
    from xwam.train.runs import run_of

    run_of(run).export(run, out, step, dtype, merge, frozen)
    print(f"Written: {out}")


@app.command
def ablate(
    dataset: Path = DATASET,
    autoencoder: Path = Path("runs/nano-autoencoder"),
    out: Path = Path("runs/ablation"),
    results: Path = Path("docs/results"),
    recipe: str = "nano-ablation",
    rows: tuple[str, ...] = (),
    seeds: tuple[int, ...] = (0, 1, 2),
    tasks: tuple[str, ...] = TASKS,
    episodes: int = 5,
    dreams: int = 1,
    workers: int = 2,
    lpips: Path | None = None,
    set: UseAppendAction[tuple[str, ...]] = (),
) -> None:
    """Train and score variants of depth, noise and sampling alike, and write what makes a difference as a table.

    Stop it at any time: the same command goes on. A night on two CPU cores as it is; docs/ablation.md tells more.

    Args:
        dataset: Folder of the dataset.
        autoencoder: Folder of the autoencoder's run, which all rows share.
        out: Folder for the runs and their scores.
        results: Folder for ablation.md and ablation.json.
        recipe: What all rows share.
        rows: Names of the rows to compare, all if not given; a wrong name lists them.
        seeds: One training of each row for each of them.
        tasks: Environments, as world/task, or groups of them: metaworld/mt10, metaworld/mt50.
        episodes: Closed-loop episodes of each task for each seed.
        dreams: Unseen expert episodes of each task to imagine three moments of, for each seed.
        workers: Processes that train and score at the same time, each with one thread.
        lpips: Folder of LPIPS's published weights (docs/ablation.md); without it LPIPS is not measured.
        set: Overrides of single settings of the recipe, such as --set train.steps=100; may be repeated.
    """
    import sys
    from datetime import date

    from xwam.ablation.report import ablate as compare
    from xwam.ablation.rows import AblationConfig
    from xwam.recipes import configured
    from xwam.sim.env import tasks_of
    from xwam.train.trainer import UNFINISHED

    base = configured(recipe, dataset, autoencoder, set)
    scored = {"tasks": tasks_of(tasks), "episodes": episodes, "dreams": dreams}
    config = AblationConfig(base=base, seeds=seeds, **scored, lpips=None if lpips is None else str(lpips.absolute()))
    chosen = config.only(rows) if rows else config
    written = compare(chosen, out, results, workers, date.today().isoformat(), sys.argv[1:])
    if written is None:
        raise SystemExit(UNFINISHED)
    print(f"Written: {written}")


@app.command
def convert(source: Positional[Path], out: Positional[Path], model: str | None = None) -> None:
    """Convert a published X-WAM checkpoint to safetensors, or such a folder back, without loss.

    Example: xwam convert X-WAM-RoboCasa checkpoints/robocasa --model wan22-5b-robocasa

    Args:
        source: Folder of a released checkpoint, its mp_rank_00_model_states.pt, or a folder that convert wrote.
        out: Folder to write.
        model: Name of the released model: writes one folder that imagine and score take, once UMT5's tokenizer lies in
            its `tokenizer`, rather than loose parts.
    """
    from xwam.convert import convert as convert_checkpoint

    convert_checkpoint(source, out, model)
