"""The command line: a short function a verb. Heavy imports wait until a verb runs, so that help is instant."""

import sys

from xwam.cli import datasets, machine, models, scenes
from xwam.cli.app import app

VERBS = (datasets, models, scenes, machine)  # importing them has joined their verbs to the application


def main() -> None:
    """Runs a verb; a user's mistake is told in one line, with exit code 2."""
    try:
        app.cli(prog="xwam", description="Unified 4D world action models: record, train, act, imagine.")
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        print(f"xwam: {error}", file=sys.stderr)
        raise SystemExit(2) from error
