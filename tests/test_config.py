"""Settings that are frozen, complete, and picky about their keys."""

import pytest
from pydantic import ValidationError

from xwam.core.config import Frozen


class Optimiser(Frozen):
    rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)


class Run(Frozen):
    name: str
    steps: int = 100
    ema: bool = True
    clip: float | None = None
    optimiser: Optimiser = Optimiser()


RUN = Run(name="nano")


def test_settings_never_change():
    with pytest.raises(ValidationError, match="frozen"):
        RUN.steps = 5


def test_plain_data_rebuilds_the_same_settings():
    run = RUN.override(["steps=7", "clip=0.5", "optimiser.betas=[0.8,0.9]"])
    assert Run.parse(run.model_dump(mode="json")) == run
    assert run != RUN


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"name": "x", "stepz": 3}, "no setting 'stepz'; did you mean 'steps'?"),
        ({"name": "x", "optimiser": {"rat": 1}}, "optimiser: no setting 'rat'; did you mean 'rate'?"),
        ({"name": "x", "zzz": 3}, "no setting 'zzz'; there are name, steps, ema, clip, optimiser"),
        ({"name": "x", "steps": "many"}, "setting 'steps': .*integer.*got 'many'"),
        ({"name": "x", "steps": 1.5}, "setting 'steps': .*got 1.5"),
        ({"name": "x", "optimiser": {"betas": [1, 2, 3]}}, "setting 'optimiser.betas'"),
        ({}, "setting 'name': .*required"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")) as error:
        Run.parse(settings)
    assert not isinstance(error.value, ValidationError)


def test_a_misspelt_keyword_is_named_when_built_directly():
    with pytest.raises(ValidationError, match="did you mean 'steps'"):
        Run(name="x", step=3)


def test_all_wrong_settings_are_told_at_once():
    with pytest.raises(ValueError, match="'steps'.*; .*'ema'"):
        Run.parse({"name": "x", "steps": "many", "ema": "perhaps"})


@pytest.mark.parametrize(
    "assignment, path, value",
    [
        ("steps=12", ("steps",), 12),
        ("name=big=one", ("name",), "big=one"),
        ("ema=false", ("ema",), False),
        ("clip=null", ("clip",), None),
        ("clip=2", ("clip",), 2.0),
        ("optimiser.rate=3e-4", ("optimiser", "rate"), 3e-4),
        ("optimiser.betas=[0.5, 0.6]", ("optimiser", "betas"), (0.5, 0.6)),
    ],
)
def test_assignments_override_single_settings(assignment, path, value):
    changed = RUN.override([assignment])
    for key in path:
        changed = getattr(changed, key)
    assert changed == value and type(changed) is type(value)


def test_later_assignments_win_and_the_original_stays():
    assert RUN.override(["steps=1", "optimiser.rate=1", "steps=2"]).steps == 2
    assert RUN == Run(name="nano")


@pytest.mark.parametrize(
    "assignment, message",
    [
        ("stesp=3", "no setting 'stesp'; did you mean 'steps'"),
        ("optimiser.rat=3", "no setting 'optimiser.rat'; did you mean 'rate'"),
        ("optimizer.rate=3", "no setting 'optimizer'; did you mean 'optimiser'"),
        ("steps.more=3", "no setting 'steps.more'"),
        ("steps", "'steps' assigns nothing: write KEY=VALUE"),
        ("steps=soon", "setting 'steps': .*got 'soon'"),
    ],
)
def test_a_bad_assignment_is_named(assignment, message):
    with pytest.raises(ValueError, match=message):
        RUN.override([assignment])
