"""Tests of what users install: a wheel with everything in it; its folders import downwards only."""

import ast
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


def python(installed: Path, folder: Path, code: str, *arguments: str, safe: bool = True) -> str:
    """Run code as users do, in a folder of theirs; ``safe`` keeps that folder off ``sys.path``."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    environment["PYTHONPATH"] = str(installed)
    command = [sys.executable, *(["-P"] if safe else []), "-c", code, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


IMPORT_ALL = """
import importlib, pathlib, sys
for name in sys.argv[2:]:
    file = pathlib.Path(importlib.import_module(name).__file__)
    assert file.is_relative_to(sys.argv[1]), f"{name} came from {file}"
    print(name)
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


class TestWheel:
    def test_every_module_is_there_and_imports(self, installed: Path, tmp_path: Path) -> None:
        assert len(SOURCES) > 50  # the walk found the source
        there = python(installed, tmp_path, IMPORT_ALL, str(installed), *SOURCES)
        assert there.split() == list(SOURCES)

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

    def test_old_name_of_the_wrappers(self, installed: Path, tmp_path: Path) -> None:
        code = (
            "from wrappers import EarlyMessageWrapper, MaskVelocityWrapper\n"
            "import recurrent_rl, wrappers\n"
            "assert MaskVelocityWrapper is recurrent_rl.MaskVelocityWrapper\n"
            "assert EarlyMessageWrapper is recurrent_rl.EarlyMessageWrapper\n"
            "print(wrappers.__file__)"
        )
        found = python(installed, tmp_path, code).strip()
        assert found == str(installed / "wrappers" / "__init__.py")

    @pytest.mark.parametrize("place", ["wrappers.py", "wrappers/__init__.py"])
    def test_beside_a_users_own_wrappers(self, installed: Path, tmp_path: Path, place: str) -> None:
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text("MINE = True\n")
        code = f"import sys; assert sys.path[0] == ''\n{USE}\nimport wrappers; assert wrappers.MINE"
        found = python(installed, tmp_path, code, safe=False).strip()
        assert found == str(installed / "recurrent_rl" / "__init__.py")


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


IMPORTS = {name: imported(path) for name, path in SOURCES.items() if name != "wrappers"}


def part_of(module: str) -> str:
    """The folder or module right below the package."""
    return module.split(".")[1]


class TestImports:
    def test_every_part_has_its_height(self) -> None:
        assert {part_of(name) for name in IMPORTS if "." in name} == HEIGHTS.keys()

    @pytest.mark.parametrize("part", sorted(HEIGHTS))
    def test_downwards_only(self, part: str) -> None:
        inside = {name for name in IMPORTS if "." in name and part_of(name) == part}
        wrong = [
            f"{name} imports {other}"
            for name in sorted(inside)
            for other in sorted(IMPORTS[name])
            if other.split(".")[0] == "recurrent_rl"
            and (other == "recurrent_rl" or part_of(other) != part)
            and (other == "recurrent_rl" or HEIGHTS[part_of(other)] >= HEIGHTS[part])
        ]
        assert not wrong

    def test_acting_knows_nothing_of_learning(self) -> None:
        parts = {
            part_of(other)
            for name in IMPORTS
            if name.startswith("recurrent_rl.acting")
            for other in IMPORTS[name]
            if other.startswith("recurrent_rl.")
        }
        below = {"envs", "networks", "randomness", "recurrent", "spaces", "validation"}
        assert parts == {"acting", *below}

    def test_no_circles(self) -> None:
        ours = {name: found & IMPORTS.keys() - {name} for name, found in IMPORTS.items()}
        graphlib.TopologicalSorter(ours).prepare()  # raises if there is one
        at_the_top = {"recurrent_rl", "recurrent_rl.__main__", "recurrent_rl.compat"}
        assert not at_the_top & set().union(*ours.values())  # nothing imports these

    def test_nothing_imports_the_old_name_of_the_wrappers(self) -> None:
        bad = [
            n for n, found in IMPORTS.items() if any(o.split(".")[0] == "wrappers" for o in found)
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
            for name in IMPORTS
            if name.startswith("recurrent_rl.wrappers")
            for other in IMPORTS[name]
        }
        assert outside - set(sys.stdlib_module_names) == {
            "gymnasium",
            "numpy",
            "pettingzoo",
            "recurrent_rl",
        }
