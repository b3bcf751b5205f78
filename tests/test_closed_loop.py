"""Evaluation beside training: results come back whatever is killed, none twice, and training never waits for them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from test_tracking import logged, shown
from test_trainer import Toy, ToyBatches, settings
from toy_runs import build_home, run_of
from xwam.train import closed_loop
from xwam.train.closed_loop import ClosedLoop, ClosedLoopConfig, evaluation_command
from xwam.train.tracking import records_of
from xwam.train.trainer import Trainer
from xwam.train.validation import ValidationConfig

# What stands in for an evaluation: refuses to run beside another, and succeeds as often as the weights say.
EVALUATION = """
import json, os, sys, time
from pathlib import Path
model, out = map(Path, sys.argv[1:])
alone = out.parent / "running"
alone.touch(exist_ok=False)
BODY
alone.unlink()
step = int((model / "step").read_text())
rows = [{"task": "toy/a", "successes": step, "episodes": 10}, {"task": "toy/b", "successes": 0, "episodes": 10}]
(out / "part").write_text(json.dumps({"success": rows}))
(out / "part").rename(out / "results.json")
"""
WAIT = "while not (out.parent / 'go').exists(): time.sleep(0.01)"


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(closed_loop, "POLL_S", 0.1)


def export(weights: Path, to: Path) -> None:
    """The step of the checkpoint stands in for a model."""
    assert (weights / "ema.safetensors").exists()
    to.mkdir()
    (to / "step").write_text(str(int(weights.name.removeprefix("step_"))))


def beside(run: Path, body: str = "", **changes) -> ClosedLoop:
    def command(model, out, config):
        return [sys.executable, "-S", "-c", EVALUATION.replace("BODY", body), str(model), str(out)]

    return ClosedLoop(run, ClosedLoopConfig(**{"every": 2, "niceness": 0, **changes}), export, command)


def trainer_of(run: Path, background: ClosedLoop, before=lambda step: None, **changes) -> Trainer:
    return Trainer(Toy(), ToyBatches(before), settings(**changes), run, background=background)


def results(run: Path) -> list[tuple[int, float]]:
    """Step and success, in the order of the log."""
    return [(r["step"], r["closed_loop"]["success"]) for r in records_of(run) if "closed_loop" in r]


def wait_until(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def test_results_come_back_with_their_steps_and_are_told_once(tmp_path):
    def before(step):
        if step == 5:  # prepared while step 4 is trained, whose checkpoint comes after it
            wait_until((tmp_path / "closed_loop/step_00000002/results.json").exists)

    assert trainer_of(tmp_path, beside(tmp_path), before, steps=6).fit()
    assert dict(results(tmp_path))[2] == 2 / 20 and dict(results(tmp_path))[6] == 6 / 20
    assert shown(tmp_path) == logged(tmp_path)
    assert "closed_loop/success/toy/a" in shown(tmp_path)
    assert not list((tmp_path / "closed_loop").glob("*/model")) and not list((tmp_path / "closed_loop").glob("*/ema*"))
    once = results(tmp_path)
    assert trainer_of(tmp_path, beside(tmp_path), steps=6).fit() and results(tmp_path) == once


def test_what_the_log_lost_is_found_again(tmp_path):
    trainer_of(tmp_path, beside(tmp_path), steps=2).fit()
    log = tmp_path / "log.jsonl"
    log.write_text("".join(line for line in log.read_text().splitlines(True) if "closed_loop" not in line))
    trainer_of(tmp_path, beside(tmp_path), steps=2).fit()
    assert (
        results(tmp_path) == [(2, 0.1)]
        and shown(tmp_path)["closed_loop/success"] == logged(tmp_path)["closed_loop/success"]
    )


def test_training_does_not_wait_and_the_newest_comes_next(tmp_path):
    def before(step):
        if step == 9:
            (tmp_path / "closed_loop" / "go").touch()

    assert trainer_of(tmp_path, beside(tmp_path, WAIT), before, steps=10).fit()
    assert [step for step, _ in results(tmp_path)][-1] == 10
    assert len(results(tmp_path)) < 5, "some were left out while the first one ran"


def test_a_killed_trainer_leaves_its_evaluation_and_takes_it_up_again(tmp_path):
    program = (
        "import os, signal\nfrom pathlib import Path\n"
        "from test_closed_loop import beside, trainer_of, wait_until, WAIT\n"
        f"run = Path({str(tmp_path)!r})\n"
        "def before(step):\n"
        "    if step != 4: return\n"
        "    wait_until((run / 'closed_loop/running').exists)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "trainer_of(run, beside(run, WAIT), before, steps=6).fit()\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == -signal.SIGKILL and results(tmp_path) == []

    def before(step):
        if step == 5:  # until now both would have run at once
            time.sleep(0.3)
            (tmp_path / "closed_loop" / "go").touch()

    assert trainer_of(tmp_path, beside(tmp_path, WAIT), before, steps=6).fit()
    assert [step for step, _ in results(tmp_path)] in ([2, 6], [2, 4, 6])
    assert (tmp_path / "closed_loop/step_00000002/attempts").read_text() == "1"


def test_a_killed_evaluation_is_begun_again_but_not_without_end(tmp_path, capsys):
    die = "alone.unlink(); os.kill(os.getpid(), 9)"
    once = f"if (out / 'attempts').read_text() == '1': {die}"
    assert trainer_of(tmp_path / "once", beside(tmp_path / "once", once), steps=2).fit()
    assert results(tmp_path / "once") == [(2, 0.1)]
    assert trainer_of(tmp_path / "ever", beside(tmp_path / "ever", die), steps=2).fit()
    assert results(tmp_path / "ever") == []
    assert "evaluation of step 2 was killed 3 times: left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("print('no such world'); sys.exit(3)", "exit code 3 and without results.json"),
        ("(out / 'results.json').write_text('{}'); sys.exit(0)", "of step 2 failed, KeyError: 'success': left out"),
    ],
)
def test_a_failed_evaluation_is_told_and_left_out(tmp_path, capsys, body, told):
    for _ in range(2):
        assert trainer_of(tmp_path, beside(tmp_path, body), steps=2).fit()
    assert results(tmp_path) == [] and capsys.readouterr().err.count(told) == 1


def test_a_failed_export_stops_nothing(tmp_path, capsys):
    background = beside(tmp_path)
    background._export = lambda weights, to: (_ for _ in ()).throw(RuntimeError("no memory"))
    assert trainer_of(tmp_path, background, steps=2).fit()
    assert "evaluation of step 2 failed, RuntimeError: no memory: left out" in capsys.readouterr().err


def test_a_stopped_run_ends_its_evaluation_and_a_resumed_one_begins_it_again(tmp_path):
    def before(step):
        if step == 4:
            wait_until((tmp_path / "closed_loop/running").exists)
            os.kill(os.getpid(), signal.SIGTERM)

    stopped = beside(tmp_path, WAIT)
    assert not trainer_of(tmp_path, stopped, before, steps=10).fit()
    assert stopped._process.poll() is not None
    (tmp_path / "closed_loop" / "running").unlink()
    (tmp_path / "closed_loop" / "go").touch()
    assert trainer_of(tmp_path, beside(tmp_path, WAIT), steps=10).fit()
    assert results(tmp_path)[-1][0] == 10


def test_the_last_one_can_be_left_running(tmp_path):
    left = beside(tmp_path, WAIT, at_end="leave")
    assert trainer_of(tmp_path, left, steps=2).fit() and results(tmp_path) == []
    assert left._process.poll() is None
    (tmp_path / "closed_loop" / "go").touch()
    wait_until((tmp_path / "closed_loop/step_00000002/results.json").exists)
    assert trainer_of(tmp_path, beside(tmp_path, at_end="leave"), steps=2).fit()
    assert results(tmp_path) == [(2, 0.1)]


def test_steps_without_checkpoints_are_refused():
    with pytest.raises(ValueError, match="closed_loop.every 3 is no multiple of train.save_every 2"):
        ClosedLoopConfig(every=3).check(save_every=2)
    ClosedLoopConfig().check(save_every=500)


def test_the_command_is_the_verb(tmp_path):
    config = ClosedLoopConfig(every=2, tasks=("toy/a", "toy/b"), device="cuda:1")
    command = evaluation_command(tmp_path / "model", tmp_path, config)
    assert command[:4] == [sys.executable, "-m", "xwam", "eval"] and command[-3:] == ["--tasks", "toy/a", "toy/b"]
    assert command[command.index("--device") + 1] == "cuda:1"


WORLD = """
import sys
from pathlib import Path
from toy_world import ToyWorld
from xwam.core.files import write_json
from xwam.policy.policy import ChunkQueue, ModelPolicy
from xwam.sim.rollout import rollout
from xwam.wam import WorldActionModel
model = WorldActionModel.load(Path(sys.argv[1]))
done = rollout(ToyWorld(max_steps=8), ChunkQueue(ModelPolicy(model.act, 0), 4), seed=0)
row = {"task": done.environment, "successes": int(done.success), "episodes": 1}
write_json(Path(sys.argv[2]) / "results.json", {"success": [row]})
"""


def test_a_model_is_exported_and_acts_beside_its_training(tmp_path, monkeypatch):
    asked = []

    def command(model, out, config):
        asked.append(config.tasks)
        return [sys.executable, "-c", WORLD, str(model), str(out)]

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    watched = {"closed_loop": ClosedLoopConfig(every=2, niceness=0), "validation": ValidationConfig(clips=0, dreams=0)}
    run = run_of(build_home(tmp_path, wan=False), tmp_path / "latents").model_copy(update=watched)
    assert run.train_in(tmp_path / "run", command)
    said = (tmp_path / "run/closed_loop/step_00000002/output.txt").read_text()
    assert [step for step, _ in results(tmp_path / "run")] == [2], said
    assert asked == [("toy/reach",)]
    with pytest.raises(ValueError, match="is no multiple of train.save_every"):
        run.override(["closed_loop.every=3"])
