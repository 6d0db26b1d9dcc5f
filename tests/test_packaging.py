"""Tests of what users install: a wheel with everything in it; its folders import downwards only."""

import ast
import functools
import graphlib
import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("recurrent_rl", "wrappers")


def module_name(path: Path) -> str:
    """The dotted name of a file below the root."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_name(path): path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))
}


# Each folder's code.py runs in a process of its own, with that folder in front, as users run code;
# all have imported what is not ours, which takes seconds.
SEVERAL = """
import os, sys, traceback
import gymnasium, mpe2, torch._dynamo
assert sys.path[0] == ""
assert not {"recurrent_rl", "wrappers"} & sys.modules.keys()
for folder in sys.argv[1:]:
    if os.fork() == 0:
        os.chdir(folder)
        for stream, name in ((1, "out"), (2, "error")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), stream)
        code = 1
        try:
            exec(open("code.py").read(), {"__name__": "__main__"})
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    assert os.wait()[1] == 0, open(f"{folder}/error").read()
"""

IMPORT_ALL = f"""
import importlib, pathlib
for name in {list(SOURCES)}:
    print(name, pathlib.Path(importlib.import_module(name).__file__))
"""

OLD_NAME = """
from wrappers import EarlyMessageWrapper, MaskVelocityWrapper
import recurrent_rl, wrappers
assert MaskVelocityWrapper is recurrent_rl.MaskVelocityWrapper
assert EarlyMessageWrapper is recurrent_rl.EarlyMessageWrapper
print(wrappers.__file__)
"""

# One step of both wrappers, each hiding something.
USE = """
import gymnasium as gym
import recurrent_rl
from mpe2 import simple_speaker_listener_v4
from recurrent_rl import PPO, EarlyMessageWrapper, MaskVelocityWrapper

env = MaskVelocityWrapper(gym.make("Pendulum-v1"))
env.reset(seed=0)
agent = PPO(env.observation_space, env.action_space, seed=0)
observation = env.step(env.action_space.sample())[0]
assert observation[2] == 0 != observation[1]
team = EarlyMessageWrapper(simple_speaker_listener_v4.parallel_env(), steps=1)
team.reset(seed=0)
for heard in (True, False):
    observations = team.step({"speaker_0": 1, "listener_0": 0})[0]
    assert observations["listener_0"][8:].any() == heard
print(recurrent_rl.__file__)
"""


BESIDE = ("wrappers.py", "wrappers/__init__.py")  # modules of users, in folders of theirs


@pytest.fixture(scope="module")
def outputs(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What code prints in folders of users, by the name of the case, word by word."""
    codes = {"modules": IMPORT_ALL, "old name": OLD_NAME}
    codes |= dict.fromkeys(BESIDE, f"{USE}\nimport wrappers; assert wrappers.MINE")
    folders = {name: tmp_path_factory.mktemp("user") for name in codes}
    for name, code in codes.items():
        (folders[name] / "code.py").write_text(code)
    for place in BESIDE:
        (folders[place] / place).parent.mkdir(exist_ok=True)
        (folders[place] / place).write_text("MINE = True\n")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    environment["PYTHONPATH"] = str(installed)
    command = [sys.executable, "-c", SEVERAL, *map(str, folders.values())]
    done = subprocess.run(
        command, cwd=folders["modules"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return {name: (folder / "out").read_text().split() for name, folder in folders.items()}


class TestWheel:
    def test_every_module_is_there_and_imports(
        self, installed: Path, outputs: dict[str, list[str]]
    ) -> None:
        assert len(SOURCES) > 50  # the walk found the source
        assert outputs["modules"][::2] == list(SOURCES)
        assert all(Path(file).is_relative_to(installed) for file in outputs["modules"][1::2])

    def test_nothing_else_is_there(self, installed: Path) -> None:
        info, *packages = sorted(installed.iterdir(), key=lambda path: path.suffix != ".dist-info")
        assert info.suffix == ".dist-info"
        assert {path.name for path in packages} == {"bin", *PACKAGES}
        assert [path.name for path in (installed / "bin").iterdir()] == ["recurrent_rl"]
        for name in PACKAGES:
            theirs, ours = (
                {p.relative_to(place) for p in (place / name).rglob("*.*") if p.suffix != ".pyc"}
                for place in (installed, ROOT)
            )
            assert theirs == ours

    @pytest.mark.parametrize("package", PACKAGES)
    def test_says_that_it_has_types(self, installed: Path, package: str) -> None:
        assert (installed / package / "py.typed").is_file()

    def test_version(self, installed: Path) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        stated = f'__version__ = "{project["version"]}"'
        assert stated in (installed / "recurrent_rl" / "__init__.py").read_text()

    def test_old_name_of_the_wrappers(self, installed: Path, outputs: dict[str, list[str]]) -> None:
        assert outputs["old name"] == [str(installed / "wrappers" / "__init__.py")]

    @pytest.mark.parametrize("place", BESIDE)
    def test_beside_a_users_own_wrappers(
        self, installed: Path, outputs: dict[str, list[str]], place: str
    ) -> None:
        assert outputs[place] == [str(installed / "recurrent_rl" / "__init__.py")]


# Folders and modules by height. Each imports only what stands below it, in this package; what
# stands beside it is none of its business either.
LAYERS = (
    {"__main__"},
    {"cli", "compat"},
    {"evolution", "imitation", "plots", "training"},
    {"algorithms"},
    {"export"},
    {"acting"},
    {"buffers", "descriptions", "envs", "metrics", "networks"},
    {
        "checkpoint",
        "functional",
        "randomness",
        "recurrent",
        "spaces",
        "tuned",
        "validation",
        "wrappers",
    },
    {"aliases", "archive", "compiled", "distributed", "extras", "files", "plain", "versions"},
    {"shared_sum"},
)
HEIGHTS = {part: -i for i, layer in enumerate(LAYERS) for part in layer}


def imported(path: Path) -> set[str]:
    """The modules of these packages, and others' names, that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: expected absolute imports, as all others are"
            assert node.module is not None
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            # "from package import x" may import a module, or take a name out of the package.
            found |= {name if name in SOURCES else node.module for name in names}
    return found


@functools.cache
def imports() -> dict[str, set[str]]:
    """What each module imports; read once, and only where a test asks."""
    return {name: imported(path) for name, path in SOURCES.items() if name != "wrappers"}


def part_of(module: str) -> str:
    """The folder or module right below the package."""
    return module.split(".")[1]


class TestImports:
    def test_every_part_has_its_height(self) -> None:
        assert {part_of(name) for name in imports() if "." in name} == HEIGHTS.keys()

    @pytest.mark.parametrize("part", sorted(HEIGHTS))
    def test_downwards_only(self, part: str) -> None:
        inside = {name for name in imports() if "." in name and part_of(name) == part}
        wrong = [
            f"{name} imports {other}"
            for name in sorted(inside)
            for other in sorted(imports()[name])
            if other.split(".")[0] == "recurrent_rl"
            and (other == "recurrent_rl" or part_of(other) != part)
            and (other == "recurrent_rl" or HEIGHTS[part_of(other)] >= HEIGHTS[part])
        ]
        assert not wrong

    def test_acting_knows_nothing_of_learning(self) -> None:
        parts = {
            part_of(other)
            for name in imports()
            if name.startswith("recurrent_rl.acting")
            for other in imports()[name]
            if other.startswith("recurrent_rl.")
        }
        below = {"envs", "networks", "randomness", "recurrent", "spaces", "validation"}
        assert parts == {"acting", *below}

    def test_no_circles(self) -> None:
        ours = {name: found & imports().keys() - {name} for name, found in imports().items()}
        graphlib.TopologicalSorter(ours).prepare()  # raises if there is one
        at_the_top = {"recurrent_rl", "recurrent_rl.__main__", "recurrent_rl.compat"}
        assert not at_the_top & set().union(*ours.values())  # nothing imports these

    def test_nothing_imports_the_old_name_of_the_wrappers(self) -> None:
        bad = [
            n for n, found in imports().items() if any(o.split(".")[0] == "wrappers" for o in found)
        ]
        assert not bad

    @pytest.mark.parametrize("folder", ["benchmarks", "tutorials", "docs"])
    def test_scripts_take_what_there_is(self, folder: str) -> None:
        """Nobody runs all of them often, so a name that was moved would be missed."""
        scripts = sorted((ROOT / folder).rglob("*.py"))
        taken = [
            (script.name, node.module, alias.name)
            for script in scripts
            for node in ast.walk(ast.parse(script.read_text()))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("recurrent_rl")
            for alias in node.names
        ]
        assert taken or folder == "docs"
        missing = [
            (script, module, name)
            for script, module, name in taken
            if f"{module}.{name}" not in SOURCES
            and not hasattr(importlib.import_module(module or ""), name)
        ]
        assert not missing

    def test_wrappers_import_environments_and_numbers_only(self) -> None:
        outside = {
            other.split(".")[0]
            for name in imports()
            if name.startswith("recurrent_rl.wrappers")
            for other in imports()[name]
        }
        assert outside - set(sys.stdlib_module_names) == {
            "gymnasium",
            "numpy",
            "pettingzoo",
            "recurrent_rl",
        }
