"""What all verbs share: the application that they join, and what they take if nothing else is said."""

from pathlib import Path

from tyro.extras import SubcommandApp

NANO_TASKS = (
    "metaworld/reach-v3",
    "metaworld/push-v3",
    "metaworld/button-press-topdown-v3",
    "metaworld/drawer-open-v3",
    "metaworld/drawer-close-v3",
    "metaworld/window-open-v3",
    "metaworld/window-close-v3",
)
DATASET = Path("datasets/metaworld")
SHIPPED = Path(__file__).parents[1] / "assets" / "nano"

app = SubcommandApp()
