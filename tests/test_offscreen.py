"""Colour and depth from one drawing equal those from two, and MuJoCo's own."""

import numpy as np
import pytest

from xwam.sim.env import make_environment
from xwam.sim.offscreen import OffscreenRenderer

OPAQUE, GLASS = "metaworld/push-v3", "metaworld/window-open-v3"


@pytest.fixture(scope="module", params=[OPAQUE, GLASS])
def world(request):
    environment = make_environment(request.param, 64, 96)
    environment.reset(0)
    yield environment
    environment.close()


def test_one_drawing_gives_what_two_give_and_what_mujoco_gives(world):
    import mujoco

    model, data = world._env.model, world._env.data
    theirs, ours = mujoco.Renderer(model, 64, 96), OffscreenRenderer(model, 64, 96)
    try:
        for camera in range(3):
            rgb, depth_m = ours.rgb_and_depth_m(data, camera)
            np.testing.assert_array_equal(rgb, ours.rgb(data, camera))
            near = ours.depth_m(data, camera) < 5  # what is beyond is the sky, at the far end of the depth buffer
            np.testing.assert_allclose(depth_m[near], ours.depth_m(data, camera)[near], atol=2e-5)
            theirs.update_scene(data, camera=camera)
            np.testing.assert_array_equal(rgb, theirs.render())
            theirs.enable_depth_rendering()
            np.testing.assert_allclose(depth_m[near], theirs.render()[near], atol=2e-5)
            theirs.disable_depth_rendering()
            assert 0.05 < depth_m.min() and near.any()
    finally:
        theirs.close()
        ours.close()


def test_larger_images_than_the_model_draws_are_refused(world):
    with pytest.raises(ValueError, match="images of 4096 x 96: this model draws at most"):
        OffscreenRenderer(world._env.model, 4096, 96)
