"""MuJoCo's cameras without a window: colour and depth of one view from a single rendering.

`mujoco.Renderer` draws the scene once for colour and once more for depth. Most of the time of a small picture goes
into the scene's triangles, so that recording is a third faster when both are read from one drawing.
"""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int, UInt8

if TYPE_CHECKING:
    import mujoco

MOST_GEOMS = 10_000


class OffscreenRenderer:
    """Draws `model` as its cameras see it; needs a GL library, chosen before MuJoCo is imported."""

    def __init__(self, model: "mujoco.MjModel", height: int, width: int):
        import mujoco

        if height > model.vis.global_.offheight or width > model.vis.global_.offwidth:
            most = f"{model.vis.global_.offheight} x {model.vis.global_.offwidth}"
            raise ValueError(f"images of {height} x {width}: this model draws at most {most}; choose a smaller size")
        self._mujoco, self._model, self._size = mujoco, model, (height, width)
        self._gl = mujoco.GLContext(width, height)
        self._gl.make_current()
        self._scene, self._option = mujoco.MjvScene(model, MOST_GEOMS), mujoco.MjvOption()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR  # precise far away, too
        self._rectangle = mujoco.MjrRect(0, 0, width, height)

    def rgb(self, data: "mujoco.MjData", camera: int) -> UInt8[np.ndarray, "H W 3"]:
        self._look(data, camera)
        return self._draw(colour=True)[0]

    def depth_m(self, data: "mujoco.MjData", camera: int) -> Float[np.ndarray, "H W"]:
        """Distance along the optical axis to the first surface, glass too."""
        self._look(data, camera)
        return self._draw_surfaces()

    def rgb_and_depth_m(
        self, data: "mujoco.MjData", camera: int
    ) -> tuple[UInt8[np.ndarray, "H W 3"], Float[np.ndarray, "H W"]]:
        """`rgb` and `depth_m` at once; drawn twice only where something is transparent, which colour looks through."""
        self._look(data, camera)
        glass = any(geom.rgba[3] < 1 for geom in self._scene.geoms[: self._scene.ngeom])
        rgb, depth_m = self._draw(colour=True, depth=not glass)
        return rgb, self._draw_surfaces() if glass else depth_m

    def geoms(self, data: "mujoco.MjData", camera: int) -> Int[np.ndarray, "H W"]:
        """The number of the geom that each pixel shows, as `depth_m` sees it; -1 for markers and for nothing."""
        self._look(data, camera)
        red, green, blue = np.moveaxis(self._draw_surfaces(colour=True).astype(np.int64), -1, 0)
        drawn, geom = self._scene.geoms[: self._scene.ngeom], self._mujoco.mjtObj.mjOBJ_GEOM.value
        numbers = np.full(len(drawn) + 1, -1)
        for shape in drawn:
            if shape.segid >= 0 and shape.objtype == geom:
                numbers[shape.segid + 1] = shape.objid
        return numbers[red + 256 * green + 65536 * blue]  # 0 is nothing, else a number of the scene, from 1 on

    def close(self) -> None:
        """Frees the GL context."""
        self._context.free()
        self._gl.free()

    def _look(self, data: "mujoco.MjData", camera: int) -> None:
        eye = self._mujoco.MjvCamera()
        eye.type, eye.fixedcamid = self._mujoco.mjtCamera.mjCAMERA_FIXED, camera
        everything = self._mujoco.mjtCatBit.mjCAT_ALL.value
        self._mujoco.mjv_updateScene(self._model, data, self._option, None, eye, everything, self._scene)

    def _draw_surfaces(self, colour: bool = False) -> np.ndarray:
        """Depth, or with `colour` the numbers, of a drawing in which all is opaque: MuJoCo's segmentation."""
        flags, kinds = self._scene.flags, self._mujoco.mjtRndFlag
        before = flags.copy()
        flags[kinds.mjRND_SEGMENT] = flags[kinds.mjRND_IDCOLOR] = True
        rgb, depth_m = self._draw(colour=colour, depth=not colour)
        flags[:] = before
        return rgb if colour else depth_m

    def _draw(self, colour: bool = False, depth: bool = False) -> tuple[np.ndarray | None, np.ndarray | None]:
        self._gl.make_current()
        rgb = np.empty((*self._size, 3), np.uint8) if colour else None
        z = np.empty(self._size, np.float32) if depth else None
        self._mujoco.mjr_render(self._rectangle, self._scene, self._context)
        self._mujoco.mjr_readPixels(rgb, z, self._rectangle, self._context)
        # GL counts rows from below
        return rgb if rgb is None else rgb[::-1].copy(), z if z is None else self._metres(z[::-1])

    def _metres(self, z: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
        """Metres from a depth buffer that is 1 at the near plane and 0 at the far one: 1 / d is affine in z."""
        extent, planes = self._model.stat.extent, self._model.vis.map
        near_m, far_m = np.float64(planes.znear * extent), np.float64(planes.zfar * extent)
        return (1 / (1 / far_m + z.astype(np.float64) * (1 / near_m - 1 / far_m))).astype(np.float32)
