"""An embodiment as a YAML file that people read and edit: `meta/embodiment.yaml` of a dataset."""

from pathlib import Path

import yaml

from xwam.core.embodiment import Embodiment
from xwam.core.files import write_atomically

HEADER = """\
# The robot of this dataset: what each column means, which cameras there are, and its rates. Edit it at will.
# proprio, action   parts of the state and the action vector, in the network's order; leave a part out and it is not
#   used. kind is one of position, quaternion (wxyz), rotation_vector, joint, gripper, delta_position, delta_rotation,
#   delta_joint, velocity, other; deltas and velocities keep 0 in the middle. columns are the dataset's names.
#   width is the network's: the entries beyond the robot's own are 0 and not valid.
# cameras           in the order of the network's views; a camera that is not listed is not used. near_m and far_m
#   bound the depth that the network sees. A camera that rides on an end-effector names it (mount) and its hand-eye
#   calibration (T_ee_cam); then proprio needs the parts <mount>_position and, where it turns, <mount>_orientation.
# action_period_s   seconds between two rows; actions_per_frame: rows from one video frame to the next.
"""


class _Dumper(yaml.SafeDumper):
    """Vectors on one line, everything else on lines of its own."""


def _sequence(dumper: _Dumper, items: list) -> yaml.Node:
    plain = all(not isinstance(item, dict | list) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=plain)


_Dumper.add_representer(list, _sequence)


class _Loader(yaml.SafeLoader):
    """Refuses a key that comes twice, of which YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.constructor.ConstructorError(None, None, f"{twice!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load_yaml(text: str) -> object:
    """Plain data of a YAML or JSON text. Raises yaml.YAMLError, also if a key comes twice."""
    return yaml.load(text, _Loader)


def embodiment_text(embodiment: Embodiment, remarks: tuple[str, ...] = ()) -> str:
    """The file's content; `remarks` come first, as comments."""
    said = "".join(f"# {line}\n" for remark in remarks for line in remark.splitlines())
    content = embodiment.model_dump(mode="json", exclude_defaults=True)
    return said + HEADER + yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def read_embodiment(path: Path) -> Embodiment:
    """The robot that a file describes, or a ValueError that names the file and what is wrong in it."""
    try:
        content = load_yaml(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as an embodiment ({error}): mend it, or draft it anew") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no embodiment: it needs name, cameras, proprio, action and rates")
    try:
        return Embodiment.parse(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def rewrite_embodiment(path: Path, robot: Embodiment) -> None:
    """Puts another robot into a file; remarks at its head stay, comments further down do not."""
    head = path.read_text().partition(HEADER)[0] if path.exists() else ""
    remarks = tuple(line[2:] for line in head.splitlines() if line.startswith("# "))
    write_atomically(path, lambda file: file.write_text(embodiment_text(robot, remarks)))
