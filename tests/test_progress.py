"""What training shows while it runs, in a terminal and in a file."""

from xwam.train.progress import Pace, progress


def test_progress_outside_a_terminal(capsys):
    with progress(10, 13, every_s=1e9) as show:
        for step in (11, 12, 13):
            show({"step": step, "losses": {"total": 0.5, "video": 0.25}, "learning_rate": 1e-3}, 6, 600)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2  # the first step and the last
    assert lines[0].startswith("11/13  0 s left")
    assert lines[0].endswith("tokens/s  total 0.5000  video 0.2500  learning rate 0.001")


def test_the_pace_of_a_resumed_run_is_that_of_its_own_steps(monkeypatch):
    now = 50.0
    monkeypatch.setattr("xwam.train.progress.time.monotonic", lambda: now)
    pace = Pace(start=900, steps=1000)
    for _ in range(4):
        now += 2.0
        pace.add(samples=6, tokens=4800)
    assert str(pace) == "2 s/step  3 samples/s  2.4k tokens/s"
    assert pace.left(904) == "0:03 h left"
    now += 12.0  # validation: no step, but time that the rest will take as well
    assert str(pace) == "2 s/step  3 samples/s  2.4k tokens/s"
    assert pace.left(904) == "0:08 h left"
    for _ in range(96):
        pace.add(samples=6, tokens=4800)
    assert pace.left(1000) == "0 s left"


def test_progress_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with progress(10, 13) as show:
        for step in (11, 12, 13):
            show({"step": step, "losses": {"total": 0.5}, "gradient_norm": 2.0}, 6, 600)
    out = capsys.readouterr().out
    assert "13/13" in out and "total 0.5000" in out and "gradient norm 2" in out and "samples/s" in out
    with progress(10, 13) as show:
        show({"step": 11, "skipped": ["total"]}, 6, 600)
    assert "skipped" in capsys.readouterr().out
