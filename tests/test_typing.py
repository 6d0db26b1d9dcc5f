"""Tests of what type checkers say about users' code, against the packages as users install them.

Everything here is slow: mypy reads torch, too, unless it has just done so for this package.
"""

import ast
import builtins
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
UNTYPED = ("mpe2", "pettingzoo", "tqdm")  # nothing that we could do about
REFUSED = "# must be refused"

# Marked lines must be errors, and no others.
OPTIONS = f"""
from typing import Any

import gymnasium as gym
import torch
from recurrent_rl import DDPG, DQN, IPPO, MADDPG, MATD3, PPO, SAC, TD3
from recurrent_rl import EncoderConfig, NetConfig, load_tuned


def good(seen: gym.Space[Any], done: gym.Space[Any]) -> PPO:
    PPO(seen, done, NetConfig(EncoderConfig(num_layers=2)), seed=1, gamma=0.9, max_seq_len=16)
    IPPO({{"a_0": seen}}, {{"a_0": done}}, ["a_0"], lr=1e-3, lr_schedule="constant")
    return PPO(seen, done, **load_tuned("Pendulum-v1").agent_options())


def good_off_policy(seen: gym.Space[Any], done: gym.Space[Any], own: torch.nn.Module) -> DQN:
    SAC(seen, done, NetConfig(), seed=1, device="cpu", ent_coef=None, max_seq_len=16)
    DDPG(seen, done, theta=0.1).learn()
    TD3(seen, done, actor_network=own, critic_network=None, policy_freq=3)
    MADDPG([seen], [done], ["a_0"], groups=None, team_reward="sum", expl_noise=0.2)
    MATD3({{"a_0": seen}}, {{"a_0": done}}, action_pairs=True, recurrent=False, n_step=3)
    return DQN(seen, done, {{"encoder_config": {{}}}}, dueling=True, huber=None)


def bad(seen: gym.Space[Any], done: gym.Space[Any]) -> None:
    PPO(seen, done, gama=0.9)  {REFUSED}
    PPO(seen, done, lr="fast")  {REFUSED}
    PPO(seen, done, lr_schedule="cosin")  {REFUSED}
    IPPO({{"a_0": seen}}, {{"a_0": done}}, ["a_0"], gama=0.9)  {REFUSED}
    DQN(seen, done, lr_actor=1e-3)  {REFUSED}
    DQN(seen, done, sampling="often")  {REFUSED}
    DDPG(seen, done, theta="slow")  {REFUSED}
    TD3(seen, done, ent_coef=0.1)  {REFUSED}
    SAC(seen, done, expl_noise=0.1)  {REFUSED}
    SAC(seen, done, team_reward="sum")  {REFUSED}
    MADDPG([seen], [done], ["a_0"], team_reward="most")  {REFUSED}
    MATD3([seen], [done], ["a_0"], dueling=True)  {REFUSED}
"""


def self_contained(code: str) -> bool:
    """Whether a snippet has all the names that it uses, and uses the package."""
    nodes = list(ast.walk(ast.parse(code)))
    here = set(vars(builtins))
    for node in nodes:
        if isinstance(node, ast.alias):
            here.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            here.add(node.id)
        elif isinstance(node, ast.arg):
            here.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            here.add(node.name)
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    return used <= here and "recurrent_rl" in code


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A user's folder: the README's snippets, the tutorials, right and wrong options."""
    snippets = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    whole = [snippet for snippet in snippets if self_contained(snippet)]
    assert whole[0] == snippets[0], "the README's first snippet runs as it stands"
    for i, snippet in enumerate(whole):
        (tmp_path / f"readme_{i}.py").write_text(snippet)
    (tmp_path / "options.py").write_text(OPTIONS)
    for path in (ROOT / "tutorials").glob("*.py"):
        (tmp_path / path.name).write_text(path.read_text())
    return tmp_path


def expected(folder: Path) -> set[tuple[str, int]]:
    """File and line of all errors there must be."""
    return {
        (path.name, number)
        for path in folder.glob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if line.endswith(REFUSED)
    }


def check(installed: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a checker where it finds the installed packages, not this tree."""
    environment = {k: v for k, v in os.environ.items() if k != "MYPYPATH"}
    environment["PYTHONPATH"] = str(installed)
    return subprocess.run(
        [sys.executable, "-P", "-m", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_mypy(installed: Path, code: Path) -> None:
    ignored = "mypy-" + ",".join(f"{name}.*" for name in UNTYPED)
    # As for this package (see pyproject.toml): parts of torch have no annotations.
    settings = "strict = true\nuntyped_calls_exclude = torch"
    (code / "mypy.ini").write_text(f"[mypy]\n{settings}\n[{ignored}]\nignore_missing_imports=1\n")
    files = sorted(path.name for path in code.glob("*.py"))
    # With the same settings, what `make test` has just found out about torch is known.
    if (ROOT / ".mypy_cache").exists():
        shutil.copytree(ROOT / ".mypy_cache", code / ".mypy_cache")
    done = check(installed, code, "mypy", "--verbose", "--no-pretty", *files)
    assert f"{installed / 'recurrent_rl' / '__init__.py'}" in done.stderr  # it read this one
    found = {
        (match[1], int(match[2])): match[3]
        for match in re.finditer(r"^(\S+?):(\d+): error: (.*)$", done.stdout, re.M)
    }
    assert found.keys() == expected(code), done.stdout
    assert "gama" in done.stdout
    assert 'did you mean "gamma"' in done.stdout


def test_pyright(installed: Path, code: Path) -> None:
    settings = {
        "pythonVersion": "3.11",
        "strict": ["readme_*.py", "options.py"],
        "typeCheckingMode": "standard",  # pictures: matplotlib's types have gaps
    }
    (code / "pyrightconfig.json").write_text(json.dumps(settings))
    done = check(
        installed, code, "pyright", "--outputjson", "--pythonpath", sys.executable, "--project", "."
    )
    report = json.loads(done.stdout)
    files = list(code.glob("*.py"))
    assert report["summary"]["filesAnalyzed"] == len(files) > 4
    found = {
        (Path(error["file"]).name, error["range"]["start"]["line"] + 1): error["message"]
        for error in report["generalDiagnostics"]
        if error.get("rule") != "reportMissingTypeStubs"
    }
    assert found.keys() == expected(code), found
