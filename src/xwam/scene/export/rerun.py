"""A recording for rerun's viewer (.rrd): points, cameras with colour and depth, actions and states over time."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
from jaxtyping import Float

from xwam.core.files import write_atomically
from xwam.core.types import WorldClip
from xwam.scene.export.clouds import clouds, facts


def write_rerun(clip: WorldClip, out: Path) -> Path:
    """Writes one .rrd file; raises ImportError with the mend if rerun is not installed."""
    try:
        rr = import_module("rerun")
    except ImportError as error:
        raise ImportError("rerun is not installed: pip install 'xwam[rerun]'; it takes 500 MB") from error
    write_atomically(out, lambda path: _write(rr, clip, path))
    return out


def _write(rr: ModuleType, clip: WorldClip, path: Path) -> None:
    recording = rr.RecordingStream("xwam")
    recording.save(path)
    told = "\n".join(f"- {name}: {text}" for name, text in facts(clip).items())
    recording.log("about", rr.TextDocument(told, media_type="text/markdown"), static=True)
    recording.log("base", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
    for frame, cloud in enumerate(clouds(clip)):
        recording.set_time("time", duration=frame * clip.scene.period_s)
        recording.log("base/cloud", rr.Points3D(cloud.points_m, colors=cloud.colors, radii=0.002))
        for view in range(len(clip.scene.cameras)):
            _camera(rr, recording, clip, view, frame)
    _curves(rr, recording, "states", clip.proprio, clip.scene.period_s, clip.proprio_names)
    if clip.action_period_s is not None:
        _curves(rr, recording, "actions", clip.actions, clip.action_period_s, clip.action_names)
    recording.disconnect()


def _camera(rr: ModuleType, recording: object, clip: WorldClip, view: int, frame: int) -> None:
    """A camera where it stands, with its picture and its depth."""
    scene, place = clip.scene, ["base", clip.scene.cameras[view]]
    T_base_cam, (height, width) = scene.T_base_cam[view, frame], scene.rgb.shape[2:4]
    recording.log(place, rr.Transform3D(translation=T_base_cam[:3, 3], mat3x3=T_base_cam[:3, :3]))
    lens = rr.Pinhole(image_from_camera=scene.intrinsics[view, frame], width=width, height=height)
    recording.log(place, lens, rr.Image(scene.rgb[view, frame]).compress(jpeg_quality=90))
    recording.log([*place, "depth"], lens, rr.DepthImage(scene.depth_m[view, frame].astype(np.float32), meter=1.0))


def _curves(
    rr: ModuleType,
    recording: object,
    kind: str,
    values: Float[np.ndarray, "N D"] | None,
    period_s: float,
    names: tuple[str, ...],
) -> None:
    if values is None:
        return
    for row, entries in enumerate(values):
        recording.set_time("time", duration=row * period_s)
        for entry, value in enumerate(entries):
            recording.log([kind, names[entry] if names else str(entry)], rr.Scalars(float(value)))
