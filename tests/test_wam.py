"""The heart: what it returns, what it refuses, and that no shortcut changes a result."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tiny_model import SIZE, tiny_config, tiny_model, tiny_observation
from xwam.core.streams import Batch, Streams
from xwam.data.transforms import resize_rgb
from xwam.saved import ModelConfig, NoiseConfig, described
from xwam.wam import WorldActionModel


@pytest.fixture(scope="module")
def model() -> WorldActionModel:
    return tiny_model()


def batch(model: WorldActionModel, size: int = 3, depth: bool = True) -> Batch:
    g = torch.Generator().manual_seed(1)
    video = torch.randn(size, 8, 3, 3, 2, 2, generator=g)
    action, proprio = torch.randn(size, 16, 4, generator=g), torch.randn(size, 9, 4, generator=g)
    streams = Streams(video, action, proprio, torch.randn(video.shape, generator=g) if depth else None)
    valid = [torch.ones(x.shape, dtype=torch.bool) for x in (action, proprio)]
    return Batch(streams, *valid, torch.full((size, *video.shape[2:]), depth), ("push the puck",) * size)


def test_actions_are_physical_and_within_the_robots_limits(model):
    chunk = model.act([tiny_observation()], [0])[0]
    assert chunk.actions.shape == (16, 4) and chunk.period_s == model.embodiment.action_period_s
    assert np.abs(chunk.actions).max() <= 1


def test_policy_and_world_yield_the_same_actions(model):
    alone = model.act([tiny_observation()], [5])[0].actions
    np.testing.assert_array_equal(alone, model.imagine(tiny_observation(), seed=5).chunk.actions)


def test_actions_may_take_all_of_the_videos_steps_whatever_the_configuration_says(model):
    seen = tiny_observation()
    synchronous = tiny_model(noise=model.config.noise.with_action_steps(6))
    asked, configured = model.act([seen], [5], action_steps=6)[0], synchronous.act([seen], [5])[0]
    np.testing.assert_array_equal(asked.actions, configured.actions)
    np.testing.assert_array_equal(asked.actions, model.imagine(seen, 5, action_steps=6).chunk.actions)
    assert np.abs(asked.actions - model.act([seen], [5])[0].actions).max() > 1e-4


def test_a_coupled_model_samples_in_step_and_in_no_other_way():
    coupled = tiny_model(noise=NoiseConfig(law="coupled", video_steps=4, action_steps=4))
    assert coupled.act([tiny_observation()], [0])[0].actions.shape == (16, 4)
    with pytest.raises(ValueError, match="never meets 2 action steps beside 4 of the video"):
        coupled.act([tiny_observation()], [0], action_steps=2)
    still, states = np.zeros((16, 4), np.float32), np.tile(tiny_observation().proprio, (9, 1))
    with pytest.raises(ValueError, match="never meets clean actions: give no proprio"):
        coupled.imagine(tiny_observation(), 0, actions=still, proprio=states)


def test_a_result_depends_on_its_seed_and_not_on_its_batch(model):
    observations = [tiny_observation(k, text) for k, text in enumerate(("push the puck", "close it", "reach"))]
    together = model.act(observations, [3, 4, 5])
    for observation, seed, chunk in zip(observations, (3, 4, 5), together, strict=True):
        np.testing.assert_allclose(model.act([observation], [seed])[0].actions, chunk.actions, atol=2e-5)
    assert np.abs(model.act([observations[0]], [9])[0].actions - together[0].actions).max() > 1e-3


def test_a_camera_may_have_a_size_of_its_own(model):
    observation = tiny_observation()
    name, image = next(iter(observation.images.items()))
    larger = image.repeat(2, axis=0).repeat(3, axis=1)
    seen = [larger, resize_rgb(larger[None], (SIZE, SIZE))[0], image]
    observations = [replace(observation, images=observation.images | {name: view}) for view in seen]
    large, resized, other = (chunk.actions for chunk in model.act(observations, [0, 0, 0]))
    assert np.array_equal(large, resized) and not np.array_equal(large, other)


def test_instructions_matter_and_are_encoded_once(model, monkeypatch):
    first = model.act([tiny_observation(instruction="open the drawer")], [1])[0].actions
    other = model.act([tiny_observation(instruction="press the button")], [1])[0].actions
    assert np.abs(first - other).max() > 1e-4
    monkeypatch.setattr(model.text_encoder, "encode", lambda texts: pytest.fail("encoded again"))
    np.testing.assert_array_equal(first, model.act([tiny_observation(instruction="open the drawer")], [1])[0].actions)


def test_a_full_memory_of_instructions_keeps_those_of_the_request(model, monkeypatch):
    monkeypatch.setattr("xwam.wam.KEPT_INSTRUCTIONS", 2)
    observations = [tiny_observation(instruction=text) for text in ("push it", "pull it")]
    model.train(False)
    for others in (["push it", "turn it"], ["push it", "pull it", "lift it"]):
        model.act([tiny_observation(instruction=text) for text in others], range(len(others)))
        assert len(model.act(observations, [0, 1])) == 2


def test_a_dream_is_a_metric_scene_whose_wrist_camera_follows_the_proprio(model):
    dream = model.imagine(tiny_observation(), seed=2)
    assert dream.scene.rgb.shape == (3, 9, SIZE, SIZE, 3) and dream.scene.depth_scale == "metric"
    near, far = (np.array([getattr(c, name) for c in model.embodiment.cameras]) for name in ("near_m", "far_m"))
    depth = dream.scene.depth_m
    assert ((depth == 0) | (depth >= near[:, None, None, None] * 0.999)).all()
    assert (depth < far[:, None, None, None]).all()
    wrist = dream.scene.T_base_cam[2]
    hand_eye = np.array(model.embodiment.cameras[2].T_ee_cam)
    np.testing.assert_allclose(wrist[:, :3, 3], dream.proprio[:, :3] + hand_eye[:3, 3], atol=1e-6)
    np.testing.assert_allclose(dream.proprio[0], tiny_observation().proprio, atol=1e-5)


def test_forward_dynamics_returns_the_given_actions_and_depends_on_them(model):
    still, moving = np.zeros((16, 4), np.float32), np.full((16, 4), 0.7, np.float32)
    dreams = [model.imagine(tiny_observation(), seed=2, actions=actions) for actions in (still, moving)]
    np.testing.assert_array_equal(dreams[1].chunk.actions, moving)
    assert np.abs(dreams[0].proprio - dreams[1].proprio).max() > 1e-3  # rounding alone makes 1e-5
    assert (dreams[0].scene.rgb != dreams[1].scene.rgb).mean() > 0.05
    states = np.tile(tiny_observation().proprio, (9, 1))
    known = model.imagine(tiny_observation(), seed=2, actions=moving, proprio=states)
    np.testing.assert_allclose(known.proprio, states, atol=1e-5)


def test_guidance_changes_the_dream_and_a_scale_of_one_does_not(model):
    plain, one, strong = (model.imagine(tiny_observation(), 3, guidance_scale=scale) for scale in (1.0, 1.0, 4.0))
    np.testing.assert_array_equal(plain.chunk.actions, one.chunk.actions)
    assert np.abs(plain.chunk.actions - strong.chunk.actions).max() > 1e-4


@pytest.mark.parametrize("depth", [True, False])
def test_loss_is_a_function_of_its_seed_and_reaches_the_text_encoder(model, depth):
    fresh = tiny_model().train()
    losses = [fresh.loss(batch(model, depth=depth), [seed, 7, 8]) for seed in (1, 1, 2)]
    assert losses[0]["total"] == losses[1]["total"] != losses[2]["total"]
    assert (losses[0]["depth"] > 0) == depth
    losses[0]["total"].backward()
    assert fresh.text_encoder.words.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in fresh.autoencoder.parameters())


def test_parts_of_a_batch_add_up_to_its_losses():
    model = tiny_model(text_dropout=0.5).train()
    whole, seeds = batch(model), [3, 4, 5]
    counts = model.counts(whole, seeds)
    shares = [model.loss(whole[part], seeds[part], counts) for part in (slice(0, 1), slice(1, 3))]
    for name, loss in model.loss(whole, seeds).items():
        torch.testing.assert_close(shares[0][name] + shares[1][name], loss)


def test_saved_models_act_as_before(model, tmp_path):
    model.save(tmp_path, {"recipe": "tiny"}, torch.float32)
    loaded = WorldActionModel.load(tmp_path)
    np.testing.assert_array_equal(
        loaded.act([tiny_observation()], [0])[0].actions, model.act([tiny_observation()], [0])[0].actions
    )
    assert described(tmp_path)["provenance"] == {"recipe": "tiny"}
    assert loaded.config == model.config


def test_weights_of_other_sizes_are_named(model, tmp_path):
    model.save(tmp_path, {})
    wider = tiny_config(text=model.config.text.model_copy(update={"buckets": 65}))
    WorldActionModel(wider).save(tmp_path / "wider", {})
    (tmp_path / "wider" / "model.safetensors").replace(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"does not fit config.json at 1 weights, such as 'text_encoder.words.weight'"):
        WorldActionModel.load(tmp_path)


def test_damaged_or_missing_files_are_named(model, tmp_path):
    with pytest.raises(ValueError, match="holds no config.json: name a folder that `xwam train` exported"):
        WorldActionModel.load(tmp_path)
    model.save(tmp_path, {})
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="model.safetensors cannot be read"):
        WorldActionModel.load(tmp_path)


def test_a_misspelt_setting_is_put_right():
    settings = tiny_config().model_dump(mode="json")
    settings["noise"]["shfit"] = 3.0
    with pytest.raises(ValueError, match="no setting 'shfit'; did you mean 'shift'"):
        ModelConfig.parse(settings)


def test_a_model_in_bfloat16_acts_and_imagines_as_in_float32(model, tmp_path):
    """Within what bfloat16 can tell, and not bit for bit, so that it does compute in it."""
    model.save(tmp_path / "model", {}, torch.float32)
    half = WorldActionModel.load(tmp_path / "model", dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    ours, theirs = (m.act([tiny_observation()], [0])[0].actions for m in (half, model))
    assert 0 < np.abs(ours - theirs).max() < 0.05 * np.abs(theirs).max()
    ours, theirs = (m.imagine(tiny_observation(), 0).scene for m in (half, model))
    assert np.abs(ours.rgb.astype(float) - theirs.rgb).mean() < 2
    assert np.median(np.abs(ours.depth_m - theirs.depth_m)) < 0.02


def test_an_observation_that_does_not_fit_is_refused(model):
    good = tiny_observation()
    bad = {
        "no image of camera 'wrist'": {"images": {k: v for k, v in good.images.items() if k != "wrist"}},
        "must be 4 finite numbers": {"proprio": np.array([0.1, np.nan, 0, 0], np.float32)},
    }
    for message, change in bad.items():
        with pytest.raises(ValueError, match=message):
            model.act([replace(good, **change)], [0])
    with pytest.raises(ValueError, match="no camera calibration"):
        model.imagine(replace(good, intrinsics={}), 0)
    with pytest.raises(ValueError, match=r"given action has shape \(3, 4\): need \(16, 4\)"):
        model.imagine(good, 0, actions=np.zeros((3, 4), np.float32))


def test_shipped_noise_settings_lie_in_the_law():
    for law in ("asynchronous", "independent"):
        model = tiny_model(noise=NoiseConfig(law=law, video_steps=4, action_steps=2))
        assert model.law.supports(0.9, 0.1)
