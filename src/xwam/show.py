"""Datasets to look at as a table; clips and episodes to look into in 4D."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from xwam.core.types import RGBDClip, WorldClip
from xwam.data.episodes import EpisodeStore
from xwam.data.layout import INFO_PATH
from xwam.data.statistics import sketch_episodes
from xwam.scene.comparison import compare
from xwam.scene.export.formats import export_clip
from xwam.scene.folder import is_clip, read_clip
from xwam.scene.live import serve
from xwam.scene.page import PageContent, write_page
from xwam.scene.robot_shape import RobotShape, mark_robot


def show_dataset(dataset: Path) -> None:
    """Prints the episodes by environment, and the range of every entry of proprio and actions."""
    store, console = EpisodeStore(dataset), Console()
    console.print(_environments(store))
    console.print(_entries(store))


def view(
    paths: Sequence[Path],
    episode: int,
    stride: int,
    scores: bool,
    html: Path | None,
    export: tuple[str, Path] | None,
    port: int,
    urdf: Path | None = None,
    joints: Sequence[str] = (),
) -> None:
    """Shows clips and episodes side by side: as a page on disk, or in the browser; or writes one for other programs."""
    clips = clips_at(paths, episode, stride)
    if urdf is not None:
        shape = RobotShape(urdf)
        clips = {label: mark_robot(clip, shape, joints) for label, clip in clips.items()}
    if export is not None:
        if len(clips) > 1:
            raise ValueError(f"--export takes one clip, and here are {', '.join(clips)}: give the folder of one")
        format, out = export
        print(f"Wrote {export_clip(next(iter(clips.values())), format, out)}.")
    content = PageContent(clips, title=_title(clips), scores=compare(clips) if scores else ())
    if html is not None:
        print(f"Open {write_page(html, content)} in a browser.")
    elif export is None:
        serve(content, port)


def clips_at(paths: Sequence[Path], episode: int, stride: int) -> dict[str, WorldClip]:
    """Clips by short labels: of folders of a clip, of folders that hold several, of an episode of each dataset.

    Raises ValueError if a path is none of these.
    """
    found: dict[Path, WorldClip] = {}
    for path in paths:
        if (path / INFO_PATH).exists():
            found[path] = clip_of_episode(path, episode, stride)
            continue
        folders = [path] if is_clip(path) else sorted(folder for folder in path.glob("*") if is_clip(folder))
        if not folders:
            raise ValueError(
                f"{path} is no clip, holds none and is no dataset: give what `xwam imagine` or record wrote"
            )
        found |= {folder: read_clip(folder) for folder in folders}
    labels = _labels(list(found))
    return dict(zip(labels, found.values(), strict=True))


def clip_of_episode(dataset: Path, episode: int, stride: int) -> WorldClip:
    """Every so many rows of a recorded episode, as far as its cameras have depth and calibration.

    Raises ValueError if none has both.
    """
    if stride < 1:
        raise ValueError(f"stride is {stride}: give 1 for every row, 2 for every second")
    store = EpisodeStore(dataset)
    info, robot = store.info(episode), store.embodiment()
    rows = range(0, info.length, stride)
    views = store.read(episode, rows)
    names = tuple(name for name in views.depth_m if name in views.intrinsics)
    if not names:
        raise ValueError(f"{dataset} has no camera with both depth and calibration: there is nothing to show in 3D")
    stacked = (
        np.stack([field[name] for name in names])
        for field in (views.rgb, views.depth_m, views.intrinsics, views.T_base_cam)
    )
    proprio, actions = store.vectors(episode, robot)
    return WorldClip(
        RGBDClip(names, *stacked, period_s=stride / store.spec.fps, depth_scale=store.spec.depth_scale),
        origin="recorded",
        instruction=info.instructions[0],
        actions=actions[: rows[-1]],
        action_period_s=1 / store.spec.fps,
        action_names=robot.action.column_names if robot else tuple(store.spec.action),
        action_units=robot.action.units if robot else (),
        proprio=proprio[::stride],
        proprio_names=robot.proprio.column_names if robot else tuple(store.spec.proprio),
        proprio_units=robot.proprio.units if robot else (),
        about={"dataset": dataset.name, "episode": episode, "environment": info.environment},
    )


def _labels(folders: list[Path]) -> list[str]:
    """The last names of folders; with their parents' as far as they are needed to tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    count = next(n for n in range(1, max(map(len, parts)) + 1) if len({part[-n:] for part in parts}) == len(parts))
    return ["/".join(part[-count:]) for part in parts]


def _title(clips: dict[str, WorldClip]) -> str:
    tasks = dict.fromkeys(str(clip.about.get("task") or clip.about.get("environment") or "") for clip in clips.values())
    return next(iter(tasks)) if len(tasks) == 1 else ", ".join(clips)


def _environments(store: EpisodeStore) -> Table:
    infos = [store.info(episode) for episode in range(len(store))]
    table = Table(
        "environment",
        "episodes",
        "rows",
        "instructions",
        title=f"{store.root}: {store.spec.robot}, {store.spec.fps} rows/s",
    )
    for name in dict.fromkeys(info.environment for info in infos):
        of_it = [info for info in infos if info.environment == name]
        table.add_row(name, str(len(of_it)), str(sum(info.length for info in of_it)), "; ".join(of_it[0].instructions))
    return table


def _entries(store: EpisodeStore) -> Table:
    sketches = sketch_episodes(store, range(len(store)))
    table = Table("entry", "min", "q01", "median", "q99", "max", title="Normalisation uses q01 and q99")
    for sketch in sketches:
        summary = sketch.summary()
        for k, name in enumerate(sketch.names):
            table.add_row(name, *(f"{summary[key][k]:.4f}" for key in ("min", "q01", "q50", "q99", "max")))
    return table
