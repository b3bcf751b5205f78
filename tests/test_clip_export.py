"""What is written for other programs is read back by readers that are not ours, and says what it is."""

import json
import runpy
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import trimesh

from world_clips import world_clip
from xwam.core.types import WorldClip
from xwam.scene.cloud import fuse
from xwam.scene.export.clouds import linear
from xwam.scene.export.formats import export_clip


@pytest.fixture(scope="module")
def clip() -> WorldClip:
    return world_clip(frames=3)


def test_ply_comes_back(clip, tmp_path):
    out = export_clip(clip, "ply", tmp_path / "ply")
    about = json.loads((out / "sequence.json").read_text())
    assert about["period_s"] == 0.05 and about["facts"]["origin"] == "imagined" and len(about["files"]) == 3
    assert np.allclose(about["cameras"][1]["T_base_cam"], clip.scene.T_base_cam[1])
    for frame, name in enumerate(about["files"]):
        cloud, read = fuse(clip.scene, frame, with_normals=True), trimesh.load(out / name)
        assert np.array_equal(np.asarray(read.vertices, np.float32), cloud.points_m)
        assert np.array_equal(read.colors[:, :3], cloud.colors)
        columns = read.metadata["_ply_raw"]["vertex"]["data"]
        assert np.array_equal(np.stack([columns[f"n{k}"] for k in "xyz"], axis=-1), cloud.normals)
        assert np.array_equal(columns["view"], cloud.views)
    header = (out / "frame_0002.ply").read_bytes().split(b"end_header")[0].decode("ascii")
    assert "comment origin: imagined" in header and "comment depth: metric, in metres" in header
    assert "comment time: 0.1000 s" in header and "\\xf6ffne die Schublade" in header


def test_a_sequence_replaces_a_sequence_and_nothing_else(clip, tmp_path):
    out = export_clip(clip, "ply", tmp_path / "ply")
    export_clip(world_clip(frames=2), "ply", out)
    assert len(list(out.glob("*.ply"))) == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("important")
    with pytest.raises(ValueError, match="holds other things"):
        export_clip(clip, "ply", tmp_path / "mine")


def test_glb_comes_back_with_its_animation(clip, tmp_path):
    out = export_clip(clip, "glb", tmp_path / "clip.glb")
    read = trimesh.load(out)
    for frame in range(3):
        cloud, points = fuse(clip.scene, frame), read.geometry[f"frame {frame}"]
        assert np.array_equal(np.asarray(points.vertices, np.float32), cloud.points_m)
        assert np.abs(points.colors[:, :3] / 255 - linear(cloud.colors)).max() < 0.005
    # y is up in glTF
    assert np.allclose(read.graph.get("frame 0")[0][:3, :3], [[1, 0, 0], [0, 0, 1], [0, -1, 0]], atol=1e-6)
    document, data = glb(out)
    assert document["asset"]["extras"]["origin"] == "imagined"
    visible = [shown(document, data, time_s) for time_s in (0.0, 0.049, 0.051, 0.101, 0.149, 0.2)]
    assert visible == [[0], [0], [1], [2], [2], [2]]


def glb(path: Path) -> tuple[dict, bytes]:
    content = path.read_bytes()
    size = int.from_bytes(content[12:16], "little")
    assert int.from_bytes(content[8:12], "little") == len(content) and size % 4 == 0
    return json.loads(content[20 : 20 + size]), content[28 + size :]


def shown(document: dict, data: bytes, time_s: float) -> list[int]:
    """Which frames have scale 1 at a time, as glTF defines steps."""

    def values(number: int) -> np.ndarray:
        accessor = document["accessors"][number]
        view = document["bufferViews"][accessor["bufferView"]]
        return np.frombuffer(data[view["byteOffset"] :][: view["byteLength"]], "<f4").reshape(accessor["count"], -1)

    animation, frames = document["animations"][0], []
    for channel in animation["channels"]:
        sampler = animation["samplers"][channel["sampler"]]
        times = values(sampler["input"])[:, 0]
        assert (np.diff(times) > 0).all()
        key = max(0, np.searchsorted(times, time_s, side="right") - 1)
        frames += [channel["target"]["node"]] if values(sampler["output"])[key, 0] == 1 else []
    return frames


def test_usd_comes_back(clip, tmp_path):
    usd = pytest.importorskip("pxr.Usd", reason="usd-core is not installed")
    from pxr import UsdGeom

    stage = usd.Stage.Open(str(export_clip(clip, "usd", tmp_path / "clip.usda")))
    assert (stage.GetStartTimeCode(), stage.GetEndTimeCode(), stage.GetTimeCodesPerSecond()) == (0, 2, 20)
    assert UsdGeom.GetStageUpAxis(stage) == "Z" and UsdGeom.GetStageMetersPerUnit(stage) == 1
    points = UsdGeom.Points(stage.GetPrimAtPath("/World/cloud"))
    colours = UsdGeom.PrimvarsAPI(points).GetPrimvar("displayColor")
    for frame in range(3):
        cloud = fuse(clip.scene, frame)
        assert np.allclose(np.array(points.GetPointsAttr().Get(frame)), cloud.points_m, atol=1.1e-5)
        assert np.allclose(np.array(colours.Get(frame)), linear(cloud.colors), atol=1e-4)
    assert colours.GetInterpolation() == "vertex" and points.GetWidthsAttr().Get()[0] > 0
    camera = UsdGeom.Camera(stage.GetPrimAtPath("/World/camera_1_wrist_cam"))
    seen = camera.GetCamera(2)
    # USD multiplies rows; the camera looks along its -z
    pose = np.array(seen.transform).T
    assert np.allclose(pose @ np.diag([1, -1, -1, 1]), clip.scene.T_base_cam[1, 2], atol=1e-5)
    half = np.arctan(0.5 * 48 / clip.scene.intrinsics[1, 0, 0, 0])
    assert np.deg2rad(seen.GetFieldOfView(seen.FOVHorizontal)) == pytest.approx(2 * half, rel=1e-4)


def test_what_other_programs_are_told_of_relative_depth(tmp_path):
    out = export_clip(world_clip(frames=2, depth_scale="relative"), "usd", tmp_path / "clip.usda").read_text()
    assert "metersPerUnit" not in out and "relative, in units of its own, not metres" in out


def test_the_script_for_blender_uses_what_blender_has(clip, tmp_path, monkeypatch):
    """Blender itself is not here; a stand-in takes note of what is asked of it."""
    script = export_clip(clip, "blender", tmp_path / "blender")
    asked = Note()
    maths = types.SimpleNamespace(Matrix=Matrix)
    monkeypatch.setitem(sys.modules, "bpy", asked)
    monkeypatch.setitem(sys.modules, "mathutils", maths)
    runpy.run_path(str(script))
    read = [arguments["filepath"] for name, arguments in asked.calls if name.endswith("ply_import")]
    assert read == [str(script.parent / f"frame_{frame:04d}.ply") for frame in range(3)]
    keyed = [name for name, _ in asked.calls if name.endswith("keyframe_insert")]
    assert len(keyed) == 3 * 3 * 2 + 2 * 3 * 2


class Matrix(np.ndarray):
    def __new__(cls, rows):
        return np.asarray(rows, float).view(cls)

    @staticmethod
    def Diagonal(entries):
        return np.diag(np.asarray(entries, float))


class Note:
    """Takes every attribute, index and call, and writes down the calls by their dotted names."""

    def __init__(self, name: str = "bpy", calls: list | None = None):
        self.__dict__.update(name=name, calls=[] if calls is None else calls)

    def __getattr__(self, name):
        return Note(f"{self.name}.{name}", self.calls)

    def __getitem__(self, key):
        return Note(f"{self.name}[{key}]", self.calls)

    def __setattr__(self, name, value):
        pass

    def __iter__(self):
        return iter(())

    def __contains__(self, key):
        return False

    def __mul__(self, factor):
        return factor

    def __call__(self, *arguments, **named):
        self.calls.append((self.name, named))
        return Note(f"{self.name}()", self.calls)


def test_rerun_comes_back(clip, tmp_path):
    pytest.importorskip("rerun", reason="rerun is not installed: pip install 'xwam[rerun]'")
    out = export_clip(clip, "rrd", tmp_path / "clip.rrd")
    read = [sys.executable, "-m", "rerun", "rrd", "print", str(out)]
    told = subprocess.run(read, capture_output=True, text=True, check=True).stdout
    for name in ("base/cloud", "base/left/depth", r"base/wrist\ cam/depth", "actions/gripper", "states/a", "about"):
        assert f"/{name}" in told, name


def test_without_rerun_the_mend_is_told(clip, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(ImportError, match=r"pip install 'xwam\[rerun\]'"):
        export_clip(clip, "rrd", tmp_path / "clip.rrd")
    assert not (tmp_path / "clip.rrd").exists()


def test_mistakes_are_told(clip, tmp_path):
    with pytest.raises(ValueError, match="no format 'obj' to export to; there are ply, glb"):
        export_clip(clip, "obj", tmp_path / "a")
    with pytest.raises(ValueError, match=r"ends in \.usda"):
        export_clip(clip, "usd", tmp_path / "a.usdc")
    with pytest.raises(ValueError, match="no frame of this clip has a point"):
        export_clip(world_clip(depth_m=np.zeros((2, 5, 32, 48), np.float32)), "glb", tmp_path / "a.glb")
