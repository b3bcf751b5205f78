"""What was imagined, scored against what is true, as the lines of a page's table."""

import numpy as np

from xwam.core.types import WorldClip
from xwam.scene.baselines import repeat_last_frame
from xwam.scene.measures import MEASURES, Measure
from xwam.scene.page import Score
from xwam.scene.score import REGIONS, Region, Truth

WHERE: dict[Region, str] = {"changed": "where it changed", "all": "everywhere"}


def compare(clips: dict[str, WorldClip]) -> tuple[Score, ...]:
    """Scores of every imagined clip against the one true clip, over the frames that all have; see `scene.score`.

    Beside them stands what repeating the given frame would have scored. Raises ValueError unless one clip is true and
    has metric depth, another is imagined, and all are of the same cameras.
    """
    true = [label for label, clip in clips.items() if clip.origin != "imagined"]
    if len(true) != 1 or len(clips) < 2:
        raise ValueError(
            f"scores need one true clip and what was imagined beside it; of {', '.join(clips)}, {len(true)} are true"
        )
    frames = min(clip.scene.rgb.shape[1] for clip in clips.values())
    truth = Truth(clips[true[0]].until(frames).scene)
    found = {label: truth.score(clip.until(frames).scene).flat() for label, clip in clips.items() if label not in true}
    still = truth.score(repeat_last_frame(truth.scene)).flat()
    lines = [_line(region, measure, [found.get(label, {}) for label in clips], still) for region, measure in _rows()]
    return tuple(line for line in lines if any(value is not None for value in line.values))


def _rows() -> list[tuple[Region, Measure]]:
    return [(region, measure) for region in REGIONS for measure in MEASURES]


def _line(region: Region, measure: Measure, found: list[dict[str, float]], still: dict[str, float]) -> Score:
    key = f"{region}/{measure.key}"
    values = [_rounded(measure, own.get(key, np.nan)) for own in found]
    better = "higher" if measure.higher_is_better else "lower"
    name = f"{measure.name} {WHERE[region]}"
    return Score(name, tuple(values), measure.unit, better, baseline=_rounded(measure, still.get(key, np.nan)))


def _rounded(measure: Measure, value: float) -> float | None:
    return None if np.isnan(value) else round(value * measure.scale, measure.digits)
