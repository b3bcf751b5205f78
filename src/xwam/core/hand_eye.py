"""Where a camera sits on the hand: T_ee_cam from poses of both, by agreement of most of them.

Poses of the camera in the base frame give it each alone, T_ee_cam = inv(T_base_ee) T_base_cam. Poses in another fixed
frame, as of a calibration board, leave that frame's place unknown too, T_base_ee T_ee_cam = T_base_fixed T_fixed_cam
("AX = ZB"); then the hand must have turned about two axes.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from xwam.core.cameras import check_poses, invert, pose, pose_errors

LEAST_POSES = 10
# How many standard deviations a pose may lie off, and what counts as one in m and rad if nearly all agree exactly.
TRIM, SMALLEST_M, SMALLEST_RAD = 2.5, 1e-6, 1e-6
# A camera that leaves its place on the hand by more, in the median, does not ride on it.
LOOSE_M, LOOSE_RAD = 0.02, np.radians(5)
# The turn, root mean square, about the second of the axes that the hand turned about.
LEAST_TURN_RAD = np.radians(3)
SAMPLES, SAMPLE = 200, 4
# A radian counts as so many metres, where both are weighed together: about the reach from hand to object.
LEVER_M = 0.3


@dataclass(frozen=True)
class HandEye:
    """A camera's place on the hand, how far every pose lies from it, and which poses it was fitted to.

    `T_base_fixed` is the place of the frame of the camera's poses; None if that is the base frame.
    """

    T_ee_cam: Float[np.ndarray, "4 4"]
    residual_m: Float[np.ndarray, " N"]
    residual_rad: Float[np.ndarray, " N"]
    kept: Bool[np.ndarray, " N"]
    T_base_fixed: Float[np.ndarray, "4 4"] | None = None


def hand_eye_in_base(T_base_ee: Float[np.ndarray, "N 4 4"], T_base_cam: Float[np.ndarray, "N 4 4"]) -> HandEye:
    """The robust mean of what each pose tells. Raises ValueError if they do not tell the same, or nothing."""
    _check(T_base_ee, T_base_cam)
    told = invert(T_base_ee) @ T_base_cam
    kept = np.ones(len(told), bool)
    mean = pose(_middle_rotation(told[:, :3, :3]), np.median(told[:, :3, 3], axis=0))
    for _ in range(20):
        distance_m, angle_rad = pose_errors(told, mean)
        before, kept = kept, _within(distance_m, angle_rad)
        mean = pose(Rotation.from_matrix(told[kept, :3, :3]).mean().as_matrix(), told[kept, :3, 3].mean(axis=0))
        if np.array_equal(before, kept):
            break
    return _checked(HandEye(mean, *pose_errors(told, mean), kept))


def hand_eye_in_fixed(T_base_ee: Float[np.ndarray, "N 4 4"], T_fixed_cam: Float[np.ndarray, "N 4 4"]) -> HandEye:
    """Solves T_base_ee T_ee_cam = T_base_fixed T_fixed_cam for both places.

    Of closed solutions over a few poses each (Shah, Solving the robot-world/hand-eye calibration problem using the
    Kronecker product, 2013) the one with the least median error, then least squares over the poses that agree.
    Raises ValueError if the hand did not turn about two axes, which would leave the solution open.
    """
    _check(T_base_ee, T_fixed_cam)
    _check_turns(T_base_ee)
    random, best = np.random.default_rng(0), (np.inf, None)
    for _ in range(SAMPLES):
        some = random.choice(len(T_base_ee), SAMPLE, replace=False)
        places = _closed_form(T_base_ee[some], T_fixed_cam[some])
        distance_m, angle_rad = _errors(T_base_ee, T_fixed_cam, *places)
        if (middle := np.median(distance_m + LEVER_M * angle_rad)) < best[0]:
            best = middle, places
    places, kept = best[1], np.zeros(len(T_base_ee), bool)
    for _ in range(10):
        before, kept = kept, _within(*_errors(T_base_ee, T_fixed_cam, *places))
        if np.array_equal(before, kept):
            break
        places = _refined(T_base_ee[kept], T_fixed_cam[kept], *places)
    return _checked(HandEye(places[0], *_errors(T_base_ee, T_fixed_cam, *places), kept, places[1]))


def _check(T_base_ee: Float[np.ndarray, "N 4 4"], T_cam: Float[np.ndarray, "N 4 4"]) -> None:
    check_poses("poses of the hand", T_base_ee)
    check_poses("poses of the camera", T_cam)
    if len(T_base_ee) != len(T_cam) or len(T_cam) < LEAST_POSES:
        raise ValueError(
            f"{len(T_base_ee)} poses of the hand and {len(T_cam)} of the camera: give {LEAST_POSES} or more of both"
        )
    distance_m, angle_rad = pose_errors(T_cam, T_cam[:1])
    if distance_m.max() < 1e-4 and angle_rad.max() < 1e-4:
        raise ValueError(f"the camera stands still in all {len(T_cam)} poses: it does not ride on a hand that moves")


def _check_turns(T_base_ee: Float[np.ndarray, "N 4 4"]) -> None:
    """Raises unless the hand turned about two axes or more, by enough."""
    rotations = Rotation.from_matrix(T_base_ee[:, :3, :3])
    turns = (rotations.mean().inv() * rotations).as_rotvec()
    along = np.linalg.svd(turns, compute_uv=False) / np.sqrt(len(turns))
    if along[1] < LEAST_TURN_RAD:
        told = ", ".join(f"{angle:.1f}" for angle in np.degrees(along))
        raise ValueError(
            f"the hand turned by {told} degrees about its three axes, root mean square: poses in a fixed frame other "
            f"than the base need {np.degrees(LEAST_TURN_RAD):.0f} about two of them; record poses that tilt the hand"
        )


def _middle_rotation(rotations: Float[np.ndarray, "N 3 3"]) -> Float[np.ndarray, "3 3"]:
    """Of some of the rotations the one that all others are nearest to, which a fifth of outliers cannot move."""
    candidates = rotations[:: max(1, len(rotations) // 100)]
    cosines = np.einsum("nij,mij->nm", candidates, rotations)
    return candidates[np.argmax(np.median(cosines, axis=1))]


def _within(distance_m: Float[np.ndarray, " N"], angle_rad: Float[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    """Which poses lie no further off than most."""
    far_m, far_rad = (TRIM * 1.4826 * np.median(error) for error in (distance_m, angle_rad))
    return (distance_m <= max(far_m, SMALLEST_M)) & (angle_rad <= max(far_rad, SMALLEST_RAD))


def _errors(
    T_base_ee: Float[np.ndarray, "N 4 4"],
    T_fixed_cam: Float[np.ndarray, "N 4 4"],
    T_ee_cam: Float[np.ndarray, "4 4"],
    T_base_fixed: Float[np.ndarray, "4 4"],
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    return pose_errors(T_base_ee @ T_ee_cam, T_base_fixed @ T_fixed_cam)


def _closed_form(
    T_base_ee: Float[np.ndarray, "N 4 4"], T_fixed_cam: Float[np.ndarray, "N 4 4"]
) -> tuple[Float[np.ndarray, "4 4"], Float[np.ndarray, "4 4"]]:
    """Rotations by the largest singular vectors of the sum of B x A, then positions by least squares."""
    A, B = T_base_ee[:, :3, :3], T_fixed_cam[:, :3, :3]
    both = np.einsum("nij,nkl->ikjl", B, A).reshape(9, 9)
    left, _, right = np.linalg.svd(both)
    X, Z = (_nearest_rotation(vector.reshape(3, 3).T) for vector in (right[0], left[:, 0]))
    n = len(A)
    design = np.concatenate([A, np.broadcast_to(-np.eye(3), (n, 3, 3))], axis=2).reshape(-1, 6)
    wanted = T_fixed_cam[:, :3, 3] @ Z.T - T_base_ee[:, :3, 3]
    x, z = np.split(np.linalg.lstsq(design, wanted.ravel(), rcond=None)[0], 2)
    return pose(X, x), pose(Z, z)


def _nearest_rotation(matrix: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    """The rotation next to a multiple of it, of either sign."""
    left, _, right = np.linalg.svd(matrix * np.sign(np.linalg.det(matrix)))
    return left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right


def _refined(
    T_base_ee: Float[np.ndarray, "N 4 4"],
    T_fixed_cam: Float[np.ndarray, "N 4 4"],
    T_ee_cam: Float[np.ndarray, "4 4"],
    T_base_fixed: Float[np.ndarray, "4 4"],
) -> tuple[Float[np.ndarray, "4 4"], Float[np.ndarray, "4 4"]]:
    """Least squares over both places, started at these."""

    def moved(change: Float[np.ndarray, " 12"]) -> tuple[np.ndarray, np.ndarray]:
        steps = (pose(Rotation.from_rotvec(change[k : k + 3]).as_matrix(), change[k + 3 : k + 6]) for k in (0, 6))
        return tuple(place @ step for place, step in zip((T_ee_cam, T_base_fixed), steps, strict=True))

    def residuals(change: Float[np.ndarray, " 12"]) -> np.ndarray:
        X, Z = moved(change)
        hand, fixed = T_base_ee @ X, Z @ T_fixed_cam
        turns = Rotation.from_matrix(np.swapaxes(fixed[:, :3, :3], 1, 2) @ hand[:, :3, :3]).as_rotvec()
        return np.concatenate([(hand - fixed)[:, :3, 3], LEVER_M * turns], axis=None)

    return moved(least_squares(residuals, np.zeros(12), method="lm").x)


def _checked(solved: HandEye) -> HandEye:
    """Raises if the camera has no place on the hand."""
    distance_m, angle_rad = np.median(solved.residual_m), np.median(solved.residual_rad)
    if distance_m > LOOSE_M or angle_rad > LOOSE_RAD:
        raise ValueError(
            f"half of the camera's poses lie {1000 * distance_m:.0f} mm or {np.degrees(angle_rad):.1f} degrees from "
            "any one place on the hand: it does not ride on it, the state lacks the hand's orientation, or the poses "
            "are in another frame or unit"
        )
    return solved
