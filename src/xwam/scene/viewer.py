"""4D scenes to look at: one page that opens from disk, or a live viewer in the browser.

Several clips stand side by side, imagined beside true, and one clock drives them all. A clip may come from a data set,
a simulator or a dream.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import viser
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from xwam.core.types import RGBDClip
from xwam.scene.cloud import fuse
from xwam.scene.metrics import static_views

FIELD_OF_VIEW_RAD = np.deg2rad(40.0)
ELEVATION_RAD = np.deg2rad(38.0)
PITCH = 1.25
"""From one clip to the next, in widths of a clip."""


def write_page(
    path: Path, clips: dict[str, RGBDClip], bounds_m: Float[np.ndarray, "2 3"] | None = None, points: int = 15_000
) -> Path:
    """One self-contained HTML file with all clips (by label) and a timeline; it needs no network and no server.

    `bounds_m` is the box of the base frame to show (see `workspace`), `points` about how many of a frame are kept.
    """
    server = viser.ViserServer(host="127.0.0.1", port=0, verbose=False)
    try:
        frames = build(server, clips, bounds_m, points)
        recording = server.get_scene_serializer()
        for frame in range(len(frames)):
            show(frames, frame)
            recording.insert_sleep(_period_s(clips))
        path.write_text(recording.as_html())
    finally:
        server.stop()
    return path


def serve(
    clips: dict[str, RGBDClip],
    host: str = "127.0.0.1",
    port: int = 8080,
    bounds_m: Float[np.ndarray, "2 3"] | None = None,
    points: int = 15_000,
) -> None:
    """Shows the clips in the browser, with a time slider and play, until interrupted."""
    server = viser.ViserServer(host=host, port=port)
    frames = build(server, clips, bounds_m, points)
    player = Player(server, frames, _period_s(clips))
    try:
        while True:
            time.sleep(player.period_s)
            player.tick()
    except KeyboardInterrupt:
        server.stop()


class Player:
    """The controls of the live viewer: a slider over frames, and play."""

    def __init__(self, server: viser.ViserServer, frames: list[list[viser.FrameHandle]], period_s: float):
        self.frames, self.period_s = frames, period_s
        self.time = server.gui.add_slider("frame", min=0, max=len(frames) - 1, step=1, initial_value=0)
        self.playing = server.gui.add_checkbox("play", initial_value=True)
        self.time.on_update(lambda _: show(self.frames, self.time.value))
        show(frames, 0)

    def tick(self) -> None:
        """One frame on, if playing; after the last comes the first."""
        if self.playing.value:
            self.time.value = (self.time.value + 1) % len(self.frames)


def show(frames: list[list[viser.FrameHandle]], now: int) -> None:
    """Makes one moment visible and hides the others."""
    for frame, nodes in enumerate(frames):
        for node in nodes:
            node.visible = frame == now


def build(
    server: viser.ViserServer, clips: dict[str, RGBDClip], bounds_m: Float[np.ndarray, "2 3"] | None, points: int
) -> list[list[viser.FrameHandle]]:
    """Puts all frames of all clips into the scene, hidden; returns the nodes of each moment."""
    lengths = {clip.rgb.shape[1] for clip in clips.values()}
    if len(lengths) != 1:
        raise ValueError(f"clips of {sorted(lengths)} frames cannot share a clock: give one or more of equal length")
    first = next(iter(clips.values()))
    stage = Stage.around(first, workspace(first) if bounds_m is None else bounds_m, len(clips))
    stage.aim(server)
    frames: list[list[viser.FrameHandle]] = [[] for _ in range(lengths.pop())]
    for place, (label, clip) in enumerate(clips.items()):
        root = f"/{label.replace('/', '-')}"
        axis_m = 0.12 * stage.width_m
        server.scene.add_frame(root, position=stage.offset(place), axes_length=axis_m, axes_radius=axis_m / 30)
        pixels = _sample(clip, stage.bounds_m, points)
        for t, nodes in enumerate(frames):
            nodes.append(_add_moment(server, f"{root}/{t}", label, clip, t, pixels, stage))
    return frames


@dataclass(frozen=True)
class Stage:
    """Where the clips stand, side by side across the line of sight, and from where they are first looked at."""

    bounds_m: Float[np.ndarray, "2 3"]
    forward: Float[np.ndarray, "3"]
    clips: int

    @classmethod
    def around(cls, clip: RGBDClip, bounds_m: Float[np.ndarray, "2 3"], clips: int) -> "Stage":
        """Looks at the box from the side from which the still cameras do, all together."""
        forward = clip.T_base_cam[looking(clip), 0, :3, 2].mean(axis=0) * (1, 1, 0)
        length = np.linalg.norm(forward)
        # Cameras that face each other or look straight down have no side; then look along x, as the robot does.
        return cls(bounds_m, forward / length if length > 0.1 else np.array([1.0, 0.0, 0.0]), clips)

    @property
    def aside(self) -> Float[np.ndarray, "3"]:
        return np.cross(self.forward, (0.0, 0.0, 1.0))

    @property
    def width_m(self) -> float:
        """How wide the box looks."""
        return float(np.abs(self.aside) @ (self.bounds_m[1] - self.bounds_m[0]))

    def offset(self, place: int) -> Float[np.ndarray, "3"]:
        """Where the base of a clip stands."""
        return self.aside * self.width_m * PITCH * place

    def aim(self, server: viser.ViserServer) -> None:
        """Points the first view at the middle of all clips, from above, far enough to see every one."""
        middle = self.bounds_m.mean(axis=0) + self.offset(self.clips - 1) / 2
        size = self.bounds_m[1] - self.bounds_m[0]
        across, depth = self.width_m * (PITCH * (self.clips - 1) + 1), float(np.abs(self.forward) @ size)
        # Pages are wider than high, 5 to 3 or more.
        extent = max(across / 1.67, size[2] + 0.6 * depth)
        distance = 0.5 * extent / np.tan(FIELD_OF_VIEW_RAD / 2) + 0.25 * depth
        towards = self.forward * np.cos(ELEVATION_RAD) - np.array([0.0, 0.0, np.sin(ELEVATION_RAD)])
        server.initial_camera.position = middle - towards * distance
        server.initial_camera.look_at = middle
        server.initial_camera.fov = FIELD_OF_VIEW_RAD


def workspace(clip: RGBDClip) -> Float[np.ndarray, "2 3"]:
    """A box around what the still cameras look at, without the far floor and walls.

    Its centre is the median of the points in the middle of their images, it reaches half as far as from there to the
    cameras, and it is cut to the points that the first and last frame have in it, and 5% more.
    """
    views = looking(clip)
    height, width = clip.rgb.shape[2:4]
    middle = np.zeros((len(views), height, width), dtype=bool)
    middle[views, height // 3 : -(height // 3), width // 3 : -(width // 3)] = True
    seen = fuse(clip, 0, pixels=middle).points_m
    if not len(seen):
        raise ValueError(f"no depth in the middle of the views {clip.cameras}: give bounds_m, a box of the base frame")
    centre = np.median(seen, axis=0).astype(np.float64)
    reach = 0.5 * np.median(np.linalg.norm(clip.T_base_cam[views, 0, :3, 3] - centre, axis=-1))
    cube = np.stack([centre - reach, centre + reach])
    near = np.concatenate([fuse(clip, frame, bounds_m=cube).points_m for frame in (0, clip.rgb.shape[1] - 1)])
    margin = 0.05 * np.ptp(near, axis=0)
    return np.stack([near.min(axis=0) - margin, near.max(axis=0) + margin]).astype(np.float64)


def looking(clip: RGBDClip) -> Bool[np.ndarray, " V"]:
    """The still cameras, or all if none stands still: they tell what a clip is about."""
    still = static_views(clip)
    return still if still.any() else ~still


def _sample(clip: RGBDClip, bounds_m: Float[np.ndarray, "2 3"], points: int) -> Bool[np.ndarray, "V H W"]:
    """The same random pixels in every frame, so that what stands still does not flicker."""
    V, _, H, W, _ = clip.rgb.shape
    return np.random.default_rng(0).random((V, H, W)) < points / max(1, len(fuse(clip, 0, bounds_m=bounds_m)))


def _add_moment(
    server: viser.ViserServer,
    name: str,
    label: str,
    clip: RGBDClip,
    frame: int,
    pixels: Bool[np.ndarray, "V H W"],
    stage: Stage,
) -> viser.FrameHandle:
    """One frame of one clip: cloud, cameras with what they see, and a label above."""
    node = server.scene.add_frame(name, show_axes=False, visible=False)
    cloud = fuse(clip, frame, pixels=pixels, bounds_m=stage.bounds_m)
    server.scene.add_point_cloud(
        f"{name}/cloud",
        cloud.points_m,
        cloud.colors,
        point_size=0.007 * stage.width_m,
        point_shape="circle",
        point_shading="flat",
    )
    for view, camera in enumerate(clip.cameras):
        _add_camera(server, f"{name}/{camera}", clip, view, frame, 0.05 * stage.width_m)
    top = stage.bounds_m.mean(axis=0) * (1, 1, 0) + (0, 0, stage.bounds_m[1, 2] + 0.3 * stage.width_m)
    text = f"{label}  ·  {frame * clip.period_s:.1f} s"
    server.scene.add_label(f"{name}/label", text, position=top, anchor="bottom-center", font_screen_scale=1.2)
    return node


def _add_camera(server: viser.ViserServer, name: str, clip: RGBDClip, view: int, frame: int, size_m: float) -> None:
    """One camera where it stands, with what it sees."""
    height, width = clip.rgb.shape[2:4]
    T_base_cam = clip.T_base_cam[view, frame]
    server.scene.add_camera_frustum(
        name,
        fov=2 * np.arctan(0.5 * height / clip.intrinsics[view, frame, 1, 1]),
        aspect=width / height,
        scale=size_m,
        thickness=0.02 * size_m,
        color=(90, 100, 115),
        image=clip.rgb[view, frame],
        format="jpeg",
        wxyz=Rotation.from_matrix(T_base_cam[:3, :3]).as_quat(scalar_first=True),
        position=T_base_cam[:3, 3],
        cast_shadow=False,
        receive_shadow=False,
    )


def _period_s(clips: dict[str, RGBDClip]) -> float:
    return next(iter(clips.values())).period_s
