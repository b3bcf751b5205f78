"""What all verbs share: the application that they join, and what they take if nothing else is said."""

from pathlib import Path

from tyro.extras import SubcommandApp

TASKS = ("metaworld/mt10",)  # what nano is trained on
DATASET = Path("datasets/metaworld")
SHIPPED = Path(__file__).parents[1] / "assets" / "nano"

app = SubcommandApp()
