"""Where things lie in a dataset folder, and what a dataset holds: LeRobotDataset v3.0 with depth and cameras.

meta/info.json, stats.json, tasks.parquet, cameras.json   what is in it
meta/embodiment.yaml                                      the robot: what its columns mean
meta/episodes/chunk-000/file-000.parquet                  a line an episode
data/chunk-000/file-SSS.parquet                           a file a shard, a row group an episode, a row a frame
videos/<key>/chunk-000/file-SSS.mp4                       a video a camera and shard; depth has its own key
shards/shard-SSSSS.json                                   a shard exists when this file does
"""

from typing import Self

from pydantic import model_validator

from xwam.core.config import Frozen
from xwam.core.depth import DepthScale, StoredDepth
from xwam.core.embodiment import Embodiment

VERSION = "v3.0"
FILES_PER_CHUNK = 1000
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
TASKS_PATH = "meta/tasks.parquet"
INFO_PATH = "meta/info.json"
STATS_PATH = "meta/stats.json"
CAMERAS_PATH = "meta/cameras.json"
EMBODIMENT_PATH = "meta/embodiment.yaml"
SHARDS_PATH = "shards"


def rgb_key(camera: str) -> str:
    return f"observation.images.{camera}"


def depth_key(camera: str) -> str:
    return f"observation.images.{camera}_depth"


def intrinsics_key(camera: str) -> str:
    return f"observation.intrinsics.{camera}"


def extrinsics_key(camera: str) -> str:
    """Key of the pose T_base_cam."""
    return f"observation.extrinsics.{camera}"


class StoredCamera(Frozen):
    """A camera's images in a dataset; `depth` is None where none is recorded."""

    name: str
    height: int
    width: int
    depth: StoredDepth | None = None
    calibrated: bool = True

    @model_validator(mode="after")
    def _recordable(self) -> Self:
        if self.height % 2 or self.width % 2:
            raise ValueError(f"camera {self.name!r} is {self.height} x {self.width}: video needs even sides")
        if not self.name or ".." in self.name or any(mark in self.name for mark in "/\\\0"):
            raise ValueError(f"camera name {self.name!r}: give it one without '/' and '..', for folders are called so")
        return self


class DatasetSpec(Frozen):
    """What every episode of a dataset holds."""

    robot: str
    fps: int
    cameras: tuple[StoredCamera, ...]
    proprio: tuple[str, ...]
    action: tuple[str, ...]

    @classmethod
    def of(cls, embodiment: Embodiment, height: int, width: int, depth: bool = True) -> Self:
        """Recordings of this robot at this image size; depth reaches from half the camera's range to twice it."""
        fps = round(1 / embodiment.action_period_s)
        if abs(fps * embodiment.action_period_s - 1) > 1e-3:
            raise ValueError(f"action_period_s {embodiment.action_period_s} is no whole number of rows a second")
        cameras = tuple(
            StoredCamera(
                name=camera.name,
                height=height,
                width=width,
                depth=StoredDepth(min_m=camera.near_m / 2, max_m=camera.far_m * 2, scale=camera.depth_scale)
                if depth
                else None,
            )
            for camera in embodiment.cameras
        )
        names = {"proprio": embodiment.proprio.column_names, "action": embodiment.action.column_names}
        return cls(robot=embodiment.name, fps=fps, cameras=cameras, **names)

    def check_robot(self, robot: Embodiment) -> None:
        """Raises if this robot's columns, cameras or rate are not in such a dataset."""
        for name in robot.camera_names:
            self.camera(name)
        robot.proprio.columns_in(self.proprio)
        robot.action.columns_in(self.action)
        if abs(robot.action_period_s * self.fps - 1) > 1e-3:
            raise ValueError(
                f"action_period_s is {robot.action_period_s}, but there are {self.fps} rows a second: "
                f"write {1 / self.fps:.6g}"
            )

    @property
    def camera_names(self) -> tuple[str, ...]:
        return tuple(camera.name for camera in self.cameras)

    @property
    def depth_scale(self) -> DepthScale:
        """What the depth of all cameras together is worth: as little as the least of them."""
        scales = {camera.depth.scale for camera in self.cameras if camera.depth}
        return next((scale for scale in ("relative", "aligned") if scale in scales), "metric")

    def camera(self, name: str) -> StoredCamera:
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise ValueError(f"unknown camera {name!r}: this dataset has {list(self.camera_names)}")

    @property
    def video_keys(self) -> tuple[str, ...]:
        rgb = [rgb_key(camera.name) for camera in self.cameras]
        return (*rgb, *(depth_key(camera.name) for camera in self.cameras if camera.depth))


def shard_path(template: str, shard: int, **names: str) -> str:
    """Path of a shard's file below the dataset's folder."""
    return template.format(chunk_index=shard // FILES_PER_CHUNK, file_index=shard % FILES_PER_CHUNK, **names)


def sidecar_path(shard: int) -> str:
    """Path of the file that makes a shard count."""
    return f"{SHARDS_PATH}/shard-{shard:05d}.json"
