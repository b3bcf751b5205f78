"""How results are told: by task, by difficulty, and as a mean of each."""

import io

from rich.console import Console

from xwam.core.success import SuccessRate
from xwam.evaluate import by_difficulty, success_table
from xwam.sim.env import tasks_of
from xwam.sim.metaworld_tasks import EASY, HARD


def told(rows, levels) -> dict[str, list[str]]:
    console = Console(file=io.StringIO(), width=120)
    console.print(success_table(rows, levels))
    lines = [line.strip("│ ").split("│") for line in console.file.getvalue().splitlines() if line.startswith("│")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def test_a_whole_benchmark_is_told_by_difficulty_and_their_mean():
    """Easy tasks always solved, hard ones half the time, others never: 310 of 500, and a mean of (1 + 0.5) / 4."""
    won = {f"metaworld/{task}": 10 for task in EASY} | {f"metaworld/{task}": 5 for task in HARD}
    rows = [SuccessRate(task, won.get(task, 0), 10) for task in tasks_of(["metaworld/mt50"])]
    levels = by_difficulty(rows)
    assert [(level.task, level.successes, level.episodes) for level in levels] == [
        ("easy", 280, 280), ("medium", 0, 110), ("hard", 30, 60), ("very hard", 0, 50)
    ]  # fmt: skip
    cells = told(rows, levels)
    assert cells["mean"][:2] == ["62.0%", "310/500"]
    assert cells["mean of difficulties"][0] == "37.5%"


def test_a_part_of_a_benchmark_has_no_difficulties():
    rows = [SuccessRate("metaworld/reach-v3", 1, 2)]
    assert by_difficulty(rows) == []
    assert "mean of difficulties" not in told(rows, [])
