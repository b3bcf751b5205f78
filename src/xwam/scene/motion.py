"""What a robot did in a clip, by the names of its entries: errors of actions, and where its grippers were.

Names are those of an embodiment's columns: a part's name, with `.0`, `.1` and so on where it has several entries.
"""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from xwam.core.cameras import pose, quaternion_to_matrix

LENGTH = re.compile(r"(?:share of )?(?P<metres>[\d.]+ )?m")
ENTRY = re.compile(r"(?P<part>.+?)[. ](?:\d+|[xyz])")


def action_errors(
    predicted: Float[np.ndarray, "A D"],
    true: Float[np.ndarray, "A D"],
    names: Sequence[str],
    units: Sequence[str],
    frames: int,
) -> dict[str, Float[np.ndarray, " T"]]:
    """The error of each part of the actions that lead to each of `frames` frames, by `part, unit`.

    Lengths and angles are told in mm and degrees, as the length of the difference vector of the part; other parts as
    the mean over entries of the absolute difference, in their own unit. Raises ValueError if shapes do not fit.
    """
    if predicted.shape != true.shape or predicted.shape[1] != len(names) or len(names) != len(units):
        raise ValueError(
            f"predicted actions of shape {predicted.shape}, true ones {true.shape}, {len(names)} names and "
            f"{len(units)} units: give the same actions of the same robot"
        )
    if len(true) % frames:
        raise ValueError(f"{len(true)} actions lead through {frames} frames: give as many for each")
    difference = np.abs(predicted.astype(np.float64) - true).reshape(frames, -1, len(names))
    errors = {}
    for part, entries in parts_of(names).items():
        scale, unit = _told(units[entries[0]])
        own = difference[..., entries]
        error = own.mean(axis=-1) if scale is None else scale * np.linalg.norm(own, axis=-1)
        errors[f"{part}, {unit}"] = error.mean(axis=1)
    return errors


def gripper_poses(proprio: Float[np.ndarray, "T D"], names: Sequence[str]) -> Float[np.ndarray, "G T 4 4"]:
    """T_base_ee of every end-effector: of each part `<ee>_position`, with `<ee>_orientation` (wxyz) if it is there.

    No end-effector if no part is called so.
    """
    parts, poses = parts_of(names), []
    for part, entries in parts.items():
        if not part.endswith("_position") or len(entries) != 3:
            continue
        turned = parts.get(part.replace("_position", "_orientation"))
        rotation = np.eye(3) if turned is None else quaternion_to_matrix(proprio[:, turned].astype(np.float64))
        poses.append(pose(rotation, proprio[:, entries]))
    return np.array(poses).reshape(-1, len(proprio), 4, 4)


def parts_of(names: Sequence[str]) -> dict[str, list[int]]:
    """Which entries make up each part."""
    parts: dict[str, list[int]] = {}
    for k, name in enumerate(names):
        entry = ENTRY.fullmatch(name)
        parts.setdefault(entry["part"] if entry else name, []).append(k)
    return parts


def _told(unit: str) -> tuple[float | None, str]:
    """By what to multiply, and the unit afterwards; None if it is neither a length nor an angle."""
    if unit == "rad":
        return 180 / np.pi, "deg"
    if length := LENGTH.fullmatch(unit):
        return 1000 * float(length["metres"] or 1), "mm"
    return None, unit
