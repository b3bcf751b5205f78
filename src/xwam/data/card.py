"""A dataset's card: README.md with the header that hubs read, and a picture of what its cameras see."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import UInt8

from xwam.core.embodiment import VectorSpec
from xwam.core.files import read_json, write_atomically
from xwam.core.pictures import contact_sheet, png
from xwam.data.episodes import EpisodeStore
from xwam.data.importers.report import REPORT_PATH
from xwam.data.layout import INFO_PATH, StoredCamera

CARD_PATH, PICTURE_PATH = "README.md", "cameras.png"
SHOWN_INSTRUCTIONS = 20
SHOWN_MOMENTS = 4
# Of each image in the picture, in pixels.
PICTURE_HEIGHT = 160

LOADING = {
    "v2.1": """\
```sh
xwam import FOLDER DATASET    # for xwam: its verbs take DATASET
```
```python
from lerobot.datasets.lerobot_dataset import LeRobotDataset  # LeRobot up to 0.3; newer ones convert it to v3.0

dataset = LeRobotDataset("NAME", root="FOLDER")
```
""",
    "v3.0": """\
```sh
xwam stats FOLDER             # for xwam: its verbs take FOLDER
```
```python
from lerobot.datasets.lerobot_dataset import LeRobotDataset  # LeRobot 0.4 and newer

dataset = LeRobotDataset("NAME", root="FOLDER")
```
""",
}
DEPTH = """\
Depth is z in the camera's frame, in the video `<camera>_depth`: lossless HEVC with 12 bits, which readers that know \
no depth see as a grey picture. Code 0 is unknown; `(min + shift) * ((max + shift) / (min + shift)) ** (code / 4095) - \
shift` is the depth, with min, max and shift of the video's entry in `meta/info.json`.
"""
CALIBRATION = """\
`observation.intrinsics.<camera>` is the 3 x 3 matrix, for pixel centres at (u + 0.5, v + 0.5); \
`observation.extrinsics.<camera>` is T_base_cam, which maps camera coordinates (x right, y down, z forward, metres) to \
the robot's base frame.
"""


def write_card(store: EpisodeStore, folder: Path) -> None:
    """Writes README.md and its picture into `folder`, which holds the dataset of `store` in whatever version."""
    version = read_json(folder / INFO_PATH)["codebase_version"]
    picture = png(sheet(store))
    write_atomically(folder / PICTURE_PATH, lambda file: file.write_bytes(picture))
    text = card_text(store, version)
    write_atomically(folder / CARD_PATH, lambda file: file.write_text(text, encoding="utf-8"))


def card_text(store: EpisodeStore, version: str) -> str:
    """The card; whatever comes from the dataset is escaped."""
    header = {"license": "unknown", "task_categories": ["robotics"], "tags": ["LeRobot", "robotics", "xwam"]}
    header["configs"] = [{"config_name": "default", "data_files": "data/*/*.parquet"}]
    spec = store.spec
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n",
        f"# {_cell(spec.robot)}: {len(store)} episodes\n",
        f"![Moments of the first episode, as each camera saw them]({PICTURE_PATH})\n",
        _overview(store, version),
        f"## Cameras\n\n{_table(('camera', 'pixels', 'depth', 'calibration'), [_camera(c) for c in spec.cameras])}",
        DEPTH if any(camera.depth for camera in spec.cameras) else "",
        CALIBRATION if any(camera.calibrated for camera in spec.cameras) else "",
        _columns(store),
        _instructions(store),
        _report(store.root / REPORT_PATH),
        f"## Loading\n\n{LOADING[version]}",
    ]
    return "\n".join(part for part in parts if part)


def sheet(store: EpisodeStore) -> UInt8[np.ndarray, "H W 3"]:
    """Some moments of the first episode."""
    last = store.info(0).length - 1
    views = store.read(0, [round(k * last / (SHOWN_MOMENTS - 1)) for k in range(SHOWN_MOMENTS)])
    return contact_sheet(views.rgb, views.depth_m, PICTURE_HEIGHT)


def _overview(store: EpisodeStore, version: str) -> str:
    infos = [store.info(episode) for episode in range(len(store))]
    rows = sum(info.length for info in infos)
    told = [info.success for info in infos if info.success is not None]
    facts = [
        ("robot", _cell(store.spec.robot)),
        ("episodes", str(len(infos))),
        ("rows", f"{rows}, {store.spec.fps} a second"),
        ("hours", f"{rows / store.spec.fps / 3600:.3g}"),
        ("episodes that succeed", f"{sum(told)} of {len(told)}" if told else "not recorded"),
        ("format", f"LeRobotDataset {version}, written by xwam"),
    ]
    return _table(("", ""), facts)


def _camera(camera: StoredCamera) -> tuple[str, ...]:
    depth, told = camera.depth, "none"
    if depth is not None:
        unit = "without unit" if depth.scale == "relative" else "m"
        told = f"{depth.scale}, {depth.min_m:g} to {depth.max_m:g} {unit}"
    calibration = "in every row" if camera.calibrated else "none"
    return _cell(camera.name), f"{camera.width} x {camera.height}", told, calibration


def _columns(store: EpisodeStore) -> str:
    """Columns of state and action, with what the robot's description says of them."""
    robot, spec = store.embodiment(), store.spec
    rows = []
    for vector, names, described in (
        ("state", spec.proprio, robot.proprio if robot else None),
        ("action", spec.action, robot.action if robot else None),
    ):
        meant = _meanings(described) if described else {}
        rows += [(vector, _cell(name), *meant.get(name, ("", "", ""))) for name in names]
    return f"## Columns\n\n{_table(('vector', 'column', 'part', 'kind', 'unit'), rows)}"


def _meanings(vector: VectorSpec) -> dict[str, tuple[str, ...]]:
    """Part, kind and unit of each column."""
    return {
        name: (_cell(part.name), part.kind, _cell(part.unit)) for part in vector.parts for name in part.column_names
    }


def _instructions(store: EpisodeStore) -> str:
    texts = list(dict.fromkeys(text for k in range(len(store)) for text in store.info(k).instructions))
    shown = "".join(f"- {_cell(text)}\n" for text in texts[:SHOWN_INSTRUCTIONS])
    more = f"- and {len(texts) - SHOWN_INSTRUCTIONS} more\n" if len(texts) > SHOWN_INSTRUCTIONS else ""
    return f"## Instructions\n\n{shown}{more}"


def _report(path: Path) -> str:
    """What the import of the dataset assumed, and what the data said of it."""
    if not path.exists():
        return ""
    report = read_json(path)
    assumed = [(_cell(subject), _cell(text)) for subject, text in report["assumptions"].items()]
    text = f"## Assumptions\n\nImported from {_cell(report['format'])}. No file says the following:\n\n"
    text += _table(("subject", "assumed"), assumed)
    if report["proofs"]:
        rows = [_proof(proof) for proof in report["proofs"]]
        text += f"\nThe data say of it:\n\n{_table(('claim', 'holds', 'found'), rows)}"
    if report["damaged"]:
        text += f"\n{len(report['damaged'])} episodes were damaged and are left out.\n"
    return text


def _proof(proof: dict[str, Any]) -> tuple[str, ...]:
    claim, held = proof["claim"], {True: "yes", False: "no", None: "cannot tell"}[proof["held"]]
    verb = "moves" if claim["meaning"] == "delta" else "sets"
    return _cell(f"{claim['action']} {verb} {claim['proprio']}"), held, _cell(proof["found"])


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: object) -> str:
    """A text from elsewhere, on one line and without a meaning in Markdown."""
    line = " ".join(str(text).split())
    for mark in "\\`*_[]|#":
        line = line.replace(mark, f"\\{mark}")
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
