"""Metres to codes and back, and the robust fit of relative depth to measured depth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xwam.core.depth import DepthCoding, InverseDepthAlignment, align

codings = st.tuples(st.floats(0.02, 1), st.floats(1.5, 30)).map(lambda r: DepthCoding(r[0], r[0] * r[1]))
shares = st.floats(0, 1)


@settings(deadline=None)
@given(codings, shares)
def test_depth_in_range_survives_its_code(coding, share):
    depth_m = np.array(coding.near_m + share * (coding.far_m - coding.near_m))
    # A float32 code errs by 1e-7, which far away stands for more metres than near by.
    span = 1 / coding.near_m - 1 / coding.far_m
    np.testing.assert_allclose(coding.decode(coding.encode(depth_m)), depth_m, rtol=1e-6 + 3e-7 * span * depth_m)


@settings(deadline=None)
@given(codings, shares, shares)
def test_nearer_is_brighter(coding, one, other):
    depths = coding.near_m + np.sort([one, other]) * (coding.far_m - coding.near_m)
    near, far = coding.encode(depths)
    assert -1 - 1e-6 <= far <= near <= 1 + 1e-6


def test_the_code_is_affine_in_inverse_depth():
    coding = DepthCoding(0.5, 2.0)
    inverse = np.array([0.5, 0.875, 1.25, 1.625, 2.0])
    np.testing.assert_allclose(coding.encode(1 / inverse), [-1, -0.5, 0, 0.5, 1], atol=1e-6)


def test_what_lies_outside_is_clipped_and_unknown_is_far():
    coding = DepthCoding(0.5, 2.0)
    depth_m = np.array([0.1, 0.5, 2.0, 50.0, np.inf, 0.0, -1.0, np.nan])
    np.testing.assert_allclose(coding.encode(depth_m), [1, 1, -1, -1, -1, -1, -1, -1], atol=1e-6)
    np.testing.assert_allclose(coding.decode(np.array([3.0, -3.0])), [0.5, 2.0], rtol=1e-6)


@pytest.mark.parametrize("near_m, far_m", [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (1.0, 1.0), (np.nan, 1.0)])
def test_a_range_that_is_none_is_refused(near_m, far_m):
    with pytest.raises(ValueError, match="0 < near < far"):
        DepthCoding(near_m, far_m)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 3), st.floats(0.3, 3))
def test_alignment_ignores_one_outlier_in_five(seed, scale, base):
    rng = np.random.default_rng(seed)
    truth = InverseDepthAlignment(scale, base + scale)
    code = rng.uniform(-1, 1, (32, 32))
    depth_m = truth.apply(code)
    wrong = rng.random(code.shape) < 0.2
    depth_m[wrong] = rng.uniform(0.05, 20, wrong.sum())
    fit = align(code, depth_m, np.ones(code.shape, bool))
    assert abs(fit.scale / scale - 1) < 0.005
    assert abs(fit.shift / truth.shift - 1) < 0.005
    assert 0.7 < fit.kept <= 0.85 and fit.pixels == code.size


def test_alignment_under_noise_and_one_sided_outliers():
    """As of a reflecting table: a fifth of the pixels all too far, the rest with a noise of 1%."""
    rng = np.random.default_rng(0)
    truth, code = InverseDepthAlignment(0.8, 1.5), rng.uniform(-1, 1, (96, 128))
    depth_m = truth.apply(code) * (1 + 0.01 * rng.standard_normal(code.shape))
    depth_m[:20] *= 2
    fit = align(code, depth_m, np.ones(code.shape, bool))
    np.testing.assert_allclose([fit.scale, fit.shift], [0.8, 1.5], rtol=0.005)
    assert fit.residual == pytest.approx(0.015, rel=0.3)  # 1% of 1.5 / m


def test_alignment_that_turns_near_to_far_is_refused():
    code = np.linspace(-1, 1, 100)
    with pytest.raises(ValueError, match="nearer would be farther"):
        align(-code, 1 / (2 + code), np.ones(100, bool))
    with pytest.raises(ValueError, match="scale 0, .*differ between pixels"):
        align(np.ones(100), 1 / (2 + code), np.ones(100, bool))


def test_alignment_reads_only_pixels_with_measured_depth():
    rng = np.random.default_rng(0)
    truth = InverseDepthAlignment(0.8, 1.5)
    code = rng.uniform(-1, 1, 400)
    depth_m, valid = truth.apply(code), rng.random(400) < 0.5
    depth_m[~valid] = 9.0
    depth_m[:40] = 0.0
    code[40:50] = np.nan
    fit = align(code, depth_m, valid)
    np.testing.assert_allclose([fit.scale, fit.shift], [0.8, 1.5], rtol=1e-5)


def test_alignment_needs_sixteen_pixels():
    code, valid = np.linspace(-1, 1, 16), np.ones(16, bool)
    depth_m = 1 / (2 + code)
    align(code, depth_m, valid)
    with pytest.raises(ValueError, match="only 15 pixels.*16 or more"):
        align(code, depth_m, valid & (code > -1))


def test_an_aligned_code_beyond_infinity_has_unknown_depth():
    np.testing.assert_allclose(InverseDepthAlignment(1.0, 0.5).apply(np.array([-1.0, -0.5, 0.5])), [0, 0, 1.0])
