"""The rules of the house: who may import whom, what needs no torch, how large things are, what the README shows.

Every rule is a function from sources to a list of complaints, and is shown to complain about a small bad example.
"""

import ast
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"

# A line imports only from lines below it, and names on one line never import each other.
LAYERS = (
    ("__init__", "__main__"),
    ("cli",),
    ("demo", "score", "convert", "doctor", "ablation"),
    ("recipes", "evaluate", "encode", "show", "calibrate"),
    ("train", "imagine"),
    ("wam", "sim"),
    ("saved",),
    ("model", "flow", "data", "scene", "policy"),
    ("core",),
)
TORCH_FREE = (
    *("xwam", "xwam.cli", "xwam.core", "xwam.data.episodes", "xwam.data.sketch"),
    *("xwam.policy", "xwam.sim", "xwam.scene", "xwam.doctor"),
)
NEEDS_TORCH = ("xwam.core.streams",)
MAX_FILE_LINES, MAX_FUNCTION_LINES, SHORT_SHARE = 400, 40, 0.95


def modules(source: Path) -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    names = {}
    for path in sorted(source.glob("xwam/**/*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def parsed(source: Path) -> dict[str, ast.Module]:
    return {name: ast.parse(path.read_text()) for name, path in modules(source).items()}


def functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def called(node: ast.Call) -> str:
    """What is called, as written: `torch.load`."""
    return ast.unparse(node.func)


# ---- imports -----------------------------------------------------------------------------------------------------


def imports(tree: ast.Module) -> set[str]:
    """Modules of the package that a module names anywhere: by `import`, `from`, or in a string of its own."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            found |= {f"{base}.{alias.name}" if base == "xwam" else base for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value} if re.fullmatch(r"xwam(\.[a-z_0-9]+)+", node.value) else set()
    return {name for name in found if name.startswith(("xwam.", "."))}


def room(module: str) -> str:
    return (module.split(".") + ["__init__"])[1]


def import_complaints(source: Path) -> list[str]:
    line = {name: i for i, names in enumerate(LAYERS) for name in names}
    complaints = []
    for module, tree in parsed(source).items():
        if room(module) not in line:
            complaints.append(f"{module}: the import rule has no line for it")
            continue
        for name in sorted(imports(tree)):
            if name.startswith("."):
                complaints.append(f"{module} imports {name} by a relative path: write it from xwam on")
            elif room(name) not in line:
                complaints.append(f"{module} imports {name}: the import rule has no line for it")
            elif room(name) != room(module) and line[room(name)] <= line[room(module)]:
                complaints.append(f"{module} imports {name}, which is not below it")
    return complaints


def test_imports_only_go_down():
    assert import_complaints(SOURCE) == []


@pytest.mark.parametrize(
    ("path", "text", "complaint"),
    [
        ("core/types.py", "import xwam.flow.levels", "xwam.core.types imports xwam.flow.levels, which is not below it"),
        ("flow/a.py", "def f():\n    from xwam import model", "xwam.flow.a imports xwam.model, which is not below it"),
        ("sim/env.py", "WORLDS = {'x': 'xwam.wam'}", "xwam.sim.env imports xwam.wam, which is not below it"),
        ("flow/a.py", "from ..model import x", "xwam.flow.a imports ..model by a relative path: write it from xwam on"),
        ("misc/a.py", "", "xwam.misc.a: the import rule has no line for it"),
    ],
)
def test_an_import_that_goes_up_is_seen(tmp_path, path, text, complaint):
    write(tmp_path / "xwam" / path, text)
    assert import_complaints(tmp_path) == [complaint]


def undeclared(source: Path, project: dict) -> list[str]:
    """Imports of packages that pyproject.toml does not ask for."""
    wanted = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    declared = {re.split(r"[^\w-]", requirement)[0].lower() for requirement in wanted}
    distributions = importlib.metadata.packages_distributions()
    complaints = set()
    for module, tree in parsed(source).items():
        for node in ast.walk(tree):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for top in {name.split(".")[0] for name in names} - {"xwam", ""} - sys.stdlib_module_names:
                if not declared & {name.lower() for name in distributions.get(top, [top])}:
                    complaints.add(f"{module} imports {top}, which pyproject.toml does not ask for")
    return sorted(complaints)


def test_imports_are_declared():
    assert undeclared(SOURCE, tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]) == []


def test_an_undeclared_import_is_seen(tmp_path):
    write(tmp_path / "xwam/a.py", "import json, numpy, scipy.spatial\nfrom rich import print\n")
    project = {"dependencies": ["numpy>=2"], "optional-dependencies": {"view": ["rich"]}}
    assert undeclared(tmp_path, project) == ["xwam.a imports scipy, which pyproject.toml does not ask for"]


# ---- torch -------------------------------------------------------------------------------------------------------


def imported_without_torch(names: list[str], source: Path) -> str:
    """What goes wrong when `names` are imported one by one where there is no torch; empty if nothing does."""
    program = "\n".join(
        ["import sys, importlib, traceback", "sys.modules['torch'] = None"]
        + [f"try: importlib.import_module({name!r})\nexcept ImportError: traceback.print_exc()" for name in names]
    )
    return subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(source)}, capture_output=True, text=True, check=True
    ).stderr


def test_light_rooms_import_without_torch():
    light = [name for name in modules(SOURCE) if any(f"{name}.".startswith(f"{free}.") for free in TORCH_FREE[1:])]
    names = ["xwam", *(name for name in light if name not in NEEDS_TORCH)]
    assert len(names) > len(TORCH_FREE)
    assert imported_without_torch(names, SOURCE) == ""


def test_an_import_of_torch_is_seen(tmp_path):
    write(tmp_path / "xwam/__init__.py", "")
    write(tmp_path / "xwam/scene/cloud.py", "import torch")
    assert "import torch" in imported_without_torch(["xwam.scene.cloud"], tmp_path)


def test_torchvision_is_absent():
    # Its wheels fail at import beside other builds of torch; nothing may come to depend on it.
    assert importlib.util.find_spec("torchvision") is None


def test_public_names_are_there():
    import xwam

    for name in xwam.__all__:
        assert getattr(xwam, name).__name__ == name
    with pytest.raises(AttributeError, match="it has ActionChunk"):
        xwam.Nothing  # noqa: B018


# ---- README ------------------------------------------------------------------------------------------------------


def tree_of(readme: str) -> dict[str, str]:
    """The package's files in the README's tree, with what is said of each."""
    block = re.search(r"^src/xwam/\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    files, folders = {}, []
    for line in block[1].splitlines() if block else []:
        indent, name, said = re.fullmatch(r"((?:  )+)(\S+) *(.*)", line).groups()
        folders = folders[: len(indent) // 2 - 1] + [name.rstrip("/")]
        if not name.endswith("/"):
            files["/".join(folders)] = said
    return files


def readme_complaints(readme: str, source: Path) -> list[str]:
    shown, paths = tree_of(readme), (path.relative_to(source / "xwam") for path in modules(source).values())
    # The __init__ of a room only says what the room's own line says.
    there = {path.as_posix() for path in paths if path.name != "__init__.py" or path.parent == Path(".")}
    return [
        *(f"{name} is missing in the README's tree" for name in sorted(there - shown.keys())),
        *(f"{name} is in the README's tree and nowhere else" for name in sorted(shown.keys() - there)),
        *(f"the README's tree says nothing about {name}" for name, said in shown.items() if not said),
    ]


def test_the_readme_shows_the_tree():
    assert readme_complaints((ROOT / "README.md").read_text(), SOURCE) == []


def test_a_wrong_tree_is_seen(tmp_path):
    for name in ("wam.py", "core/__init__.py", "core/types.py", "core/new.py"):
        write(tmp_path / "xwam" / name, "")
    readme = "```\nsrc/xwam/\n  core/  nouns\n    types.py  observation\n    old.py  gone\n  wam.py\n```\n"
    assert readme_complaints(readme, tmp_path) == [
        "core/new.py is missing in the README's tree",
        "core/old.py is in the README's tree and nowhere else",
        "the README's tree says nothing about wam.py",
    ]


# ---- sizes -------------------------------------------------------------------------------------------------------


def size_complaints(source: Path) -> list[str]:
    complaints, lengths = [], {}
    for module, path in modules(source).items():
        lines = len(path.read_text().splitlines())
        if lines > MAX_FILE_LINES:
            complaints.append(f"{module} has {lines} lines, more than {MAX_FILE_LINES}")
        if module.endswith(("utils", "util", "helpers", "misc")):
            complaints.append(f"{module}: a drawer; put each thing into the room that it belongs to")
        for node in functions(ast.parse(path.read_text())):
            lengths[f"{module}.{node.name}"] = node.end_lineno - node.lineno + 1
    long = {name: n for name, n in lengths.items() if n >= MAX_FUNCTION_LINES}
    if len(long) > (1 - SHORT_SHARE) * len(lengths):
        complaints.append(f"{len(long)} of {len(lengths)} functions have {MAX_FUNCTION_LINES} lines or more: {long}")
    return complaints


def test_things_are_small():
    assert size_complaints(SOURCE) == []


def test_large_things_are_seen(tmp_path):
    write(tmp_path / "xwam/core/long.py", "x = 1\n" * 401)
    write(tmp_path / "xwam/core/utils.py", "def f():\n" + "    x = 1\n" * 39)
    assert size_complaints(tmp_path) == [
        "xwam.core.long has 401 lines, more than 400",
        "xwam.core.utils: a drawer; put each thing into the room that it belongs to",
        "1 of 1 functions have 40 lines or more: {'xwam.core.utils.f': 40}",
    ]


# ---- safety ------------------------------------------------------------------------------------------------------


def safety_complaints(source: Path) -> list[str]:
    """Ways by which a file from elsewhere could run code."""
    complaints = []
    for module, tree in parsed(source).items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                unsafe = names & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
                complaints += [f"{module}:{node.lineno} imports {name}" for name in sorted(unsafe)]
            elif isinstance(node, ast.Call) and not _safe(node):
                complaints.append(f"{module}:{node.lineno} calls {ast.unparse(node)}")
    return complaints


def _safe(call: ast.Call) -> bool:
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if called(call) == "torch.load":
        return given.get("weights_only") == "True"
    return called(call) not in {"eval", "exec"} and given.get("allow_pickle", "False") == "False"


def test_no_file_can_run_code():
    assert safety_complaints(SOURCE) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("import pickle", "xwam.a:1 imports pickle"),
        ("from pickle import loads", "xwam.a:1 imports pickle"),
        ("torch.load(path)", "xwam.a:1 calls torch.load(path)"),
        ("torch.load(path, weights_only=False)", "xwam.a:1 calls torch.load(path, weights_only=False)"),
        ("np.load(path, allow_pickle=True)", "xwam.a:1 calls np.load(path, allow_pickle=True)"),
        ("eval(text)", "xwam.a:1 calls eval(text)"),
    ],
)
def test_a_way_to_run_code_is_seen(tmp_path, text, complaint):
    write(tmp_path / "xwam/a.py", text)
    assert safety_complaints(tmp_path) == [complaint]


def test_what_only_looks_unsafe_is_allowed(tmp_path):
    write(tmp_path / "xwam/a.py", "model.eval()\ntorch.load(path, weights_only=True)\nnp.load(path)\n")
    assert safety_complaints(tmp_path) == []


# ---- text --------------------------------------------------------------------------------------------------------

# Written so that this file does not match itself.
PRIVATE = re.compile(
    r"(?<![\w.])/(?:work|root|home)/|pythonhosted\.org|pypi\.(?:org|python)|pytorch\.org/whl|index[-]url"
)
TEXTS = ("*.md", "*.toml", "*.txt", "Makefile", ".ci/*", "scripts/*", "docs/**/*.md", "src/**/*.*", "tests/**/*.py")
TEXT_ENDINGS = {"", ".md", ".toml", ".txt", ".sh", ".py", ".json", ".html", ".css", ".js"}


def private_complaints(root: Path) -> list[str]:
    """Paths and hosts that only mean something on one machine."""
    paths = {path for pattern in TEXTS for path in root.glob(pattern) if path.is_file() and path.suffix in TEXT_ENDINGS}
    return [
        f"{path.relative_to(root)}:{number}: {match[0]}"
        for path in sorted(paths)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (match := PRIVATE.search(line))
    ]


def test_the_text_belongs_to_no_machine():
    assert private_complaints(ROOT) == []


def test_a_private_path_is_seen(tmp_path):
    slash, option = "/", "-".join(["index", "url"])
    write(tmp_path / "src/xwam/a.py", f'data = "{slash}work/data"\nruns = "out/work/"\n')
    write(tmp_path / "constraints.txt", f"--extra-{option} https://example.org\n")
    assert private_complaints(tmp_path) == [f"constraints.txt:1: {option}", f"src/xwam/a.py:1: {slash}work/"]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
