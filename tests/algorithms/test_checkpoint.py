"""Tests of saving and loading: `recurrent_rl.checkpoint` and the agents' checkpoints."""

import copy
import errno
import multiprocessing
import os
import pickle
import signal
import stat
import time
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from support.agents import assert_same_weights, make_agent, weights
from support.envs import scripted

from recurrent_rl import PPO, CheckpointError, checkpoint, collect_rollouts_recurrent
from recurrent_rl.networks.flat_parameters import split_adam_state

SAME, NEXT, DISABLED = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED

EVERYTHING: dict[str, Any] = {
    "previous_action": True,
    "previous_reward": True,
    "normalize_obs": True,
    "normalize_reward": True,
    "lr_schedule": "linear",
    "total_steps": 300,
    "num_layers": 2,
    "share_encoders": False,
}


def train(agent: PPO, env: Any, rollouts: int, reset: bool | None = None) -> None:
    """Collect and learn."""
    for _ in range(rollouts):
        collect_rollouts_recurrent(agent, env, reset=reset)
        agent.learn()
        reset = None


def trained(env: Any, **options: Any) -> PPO:
    """An agent after some rollouts."""
    agent = make_agent(env, **options)
    train(agent, env, 2)
    return agent


@pytest.fixture
def agent() -> PPO:
    return trained(scripted(["3t 5l", "7b"]), **EVERYTHING)


@pytest.fixture
def path(tmp_path: Path, agent: PPO) -> Path:
    """A checkpoint of ``agent``, alone in its directory."""
    agent.save_checkpoint(tmp_path / "agent.pt")
    return tmp_path / "agent.pt"


# --- going on -----------------------------------------------------------------------------------


def pendulum() -> Any:
    """Pendulum with episodes of 7 steps, so that they end within rollouts of 10."""
    return gym.make("Pendulum-v1", max_episode_steps=7)


def vector(mode: AutoresetMode) -> Any:
    """A vector of them; picklable, as its functions have names."""
    return SyncVectorEnv([pendulum] * 3, autoreset_mode=mode)


@pytest.mark.parametrize("mode", [SAME, NEXT, DISABLED])
def test_resumed_on_environments_that_draw(mode: AutoresetMode, tmp_path: Path) -> None:
    env = vector(mode)
    agent = make_agent(env, **EVERYTHING)
    train(agent, env, 2)
    agent.save_checkpoint(tmp_path / "agent.pt")
    kept = pickle.dumps(env)
    train(agent, env, 3)

    other = PPO.load(tmp_path / "agent.pt")
    train(other, pickle.loads(kept), 3, reset=False)
    assert_same_weights(weights(agent), weights(other))
    assert other.env_steps == agent.env_steps == 150
    assert torch.equal(other.group.generator.get_state(), agent.group.generator.get_state())


@pytest.mark.parametrize("scripts", [["4l", "9t 5b"], ["5t", "10l"], ["300t", "1l"]])
@pytest.mark.parametrize("mode", [SAME, NEXT])
@pytest.mark.parametrize(
    "options",
    [EVERYTHING, {"recurrent": False}, {"cell": "gru"}],
    ids=["everything", "feed-forward", "gru"],
)
def test_resumed_between_any_steps(
    scripts: list[str], mode: AutoresetMode, options: dict[str, Any], tmp_path: Path
) -> None:
    # 20 steps: one of the rows has just ended, is about to reset, or is in the midst of an episode.
    env = scripted(scripts, mode, masked=True)
    agent = make_agent(env, **options)
    train(agent, env, 2)
    agent.save_checkpoint(tmp_path / "agent.pt")
    kept = copy.deepcopy(env)
    train(agent, env, 2)
    other = PPO.load(tmp_path / "agent.pt")
    train(other, kept, 2, reset=False)
    assert_same_weights(weights(agent), weights(other))


# --- what is saved ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("observation", "action"),
    [
        (Box(-np.inf, np.inf, (3,)), Discrete(3, start=4)),
        (Box(np.array([-1, 0]), np.array([1, np.inf]), dtype=np.float64), Box(-1, 2, (2, 2))),
        (Discrete(4, start=-2), Box(0, 1, (1,), np.float64)),
    ],
    ids=str,
)
def test_spaces_come_back(observation: Any, action: Any, tmp_path: Path) -> None:
    PPO(observation, action).save_checkpoint(tmp_path / "agent.pt")
    other = PPO.load(tmp_path / "agent.pt")
    assert (other.observation_space, other.action_space) == (observation, action)
    assert other.action_space.dtype == action.dtype


def test_normalisation_is_saved_and_frozen(path: Path, agent: PPO) -> None:
    other = PPO.load(path)
    assert other.policy.preprocessor.norm is not None
    assert agent.policy.preprocessor.norm is not None
    assert agent.policy.preprocessor.norm.count == 40
    # The derived numbers too, not only those in the file.
    x = torch.randn(5, 3)
    assert torch.equal(other.policy.preprocessor.norm(x), agent.policy.preprocessor.norm(x))
    assert not torch.equal(other.policy.preprocessor.norm(x), x)
    before = weights(other)
    other.test(scripted(["3t", "9l"]))
    assert_same_weights(before, weights(other))


def test_size_is_that_of_weights_and_moments(path: Path, agent: PPO) -> None:
    # Parameters are views of one vector, which must not be written once for each of them.
    size = sum(p.numel() * p.element_size() for p in agent.policy.parameters())
    assert path.stat().st_size < 3 * size + 40_000


def test_optimiser_states_of_both_devices_fit_each_other(agent: PPO, path: Path) -> None:
    # On a GPU the optimiser has the parameters one by one, on the CPU one vector of them all.
    parameters = list(agent.policy.parameters())
    single = torch.optim.Adam(parameters)
    saved = agent.optimizer.state_dict()
    (group,), split = saved["param_groups"], split_adam_state(saved, parameters)
    groups = [{**group, "params": list(range(len(parameters)))}]
    single.load_state_dict({"state": dict(enumerate(split)), "param_groups": groups})
    for p in parameters:
        assert single.state[p]["exp_avg"].shape == p.shape
        assert single.state[p]["step"] == saved["state"][0]["step"] > 0
    where = [name for name, _ in agent.policy.named_parameters()].index(
        "value_head.layers.2.weight"
    )
    data = checkpoint.load(path)
    offset = sum(p.numel() for p in parameters[:where])
    written = data["groups"][""]["optimizer"]["state"][0]["exp_avg"]
    assert written.shape == (sum(p.numel() for p in parameters),)  # without padding
    expected = written[offset : offset + parameters[where].numel()]
    assert torch.equal(single.state[parameters[where]]["exp_avg"].flatten(), expected)

    data["groups"][""]["optimizer"] = single.state_dict()
    checkpoint.save(data, path)
    assert_same_weights(weights(agent), weights(PPO.load(path)))
    untrained = PPO(Box(-1, 1, (3,)), Discrete(3)).optimizer
    assert split_adam_state(untrained.state_dict(), parameters) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_from_one_device_to_the_other_and_back(path: Path, agent: PPO, tmp_path: Path) -> None:
    PPO.load(path, "cuda").save_checkpoint(tmp_path / "cuda.pt")
    assert_same_weights(weights(agent), weights(PPO.load(tmp_path / "cuda.pt", "cpu")))


# --- writing ------------------------------------------------------------------------------------


def test_saving_again_replaces_the_file(agent: PPO, path: Path) -> None:
    agent.fitness.append(9.0)
    agent.save_checkpoint(path)
    assert PPO.load(path).fitness == [9.0]
    assert os.listdir(path.parent) == ["agent.pt"]


def test_file_has_the_usual_mode(agent: PPO, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        agent.save_checkpoint(tmp_path / "agent.pt")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "agent.pt").stat().st_mode) == 0o640


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def half_written(data: Any, file: Any) -> None:
    file.write(b"half a checkpoint")
    no_space()


@pytest.mark.parametrize(
    ("name", "replacement"),
    [
        ("torch.save", half_written),
        ("os.fsync", no_space),
        ("os.replace", no_space),
    ],
)
@pytest.mark.parametrize("exists", [True, False])
def test_failure_keeps_the_old_file_and_leaves_nothing(
    name: str, replacement: Any, exists: bool, agent: PPO, path: Path, monkeypatch: Any
) -> None:
    content = path.read_bytes()
    target = path if exists else path.with_name("other.pt")
    monkeypatch.setattr(name, replacement)
    with pytest.raises(OSError, match="No space left"):
        agent.save_checkpoint(target)
    assert os.listdir(path.parent) == ["agent.pt"]
    assert path.read_bytes() == content


def test_interruption_keeps_the_old_file_and_leaves_nothing(
    agent: PPO, path: Path, monkeypatch: Any
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    content = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        agent.save_checkpoint(path)
    assert os.listdir(path.parent) == ["agent.pt"]
    assert path.read_bytes() == content


@pytest.mark.parametrize("where", ["torch.save", "os.fsync", "os.replace"])
def test_kill_while_saving_leaves_the_old_file_whole(where: str, agent: PPO, path: Path) -> None:
    content = path.read_bytes()
    context = multiprocessing.get_context("fork")
    reached = context.Event()

    def save() -> None:
        def stop(*arguments: Any) -> None:
            if where == "torch.save":
                arguments[1].write(b"half a checkpoint")
                arguments[1].flush()
            reached.set()
            time.sleep(60)

        module = {"torch": torch, "os": os}[where.split(".")[0]]
        setattr(module, where.split(".")[1], stop)
        agent.fitness.append(9.0)
        agent.save_checkpoint(path)

    child = context.Process(target=save)
    child.start()
    assert reached.wait(30)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert path.read_bytes() == content
    # Whatever it left behind is hidden, and in nobody's way.
    assert [name for name in os.listdir(path.parent) if not name.startswith(".")] == ["agent.pt"]
    agent.save_checkpoint(path)
    assert_same_weights(weights(PPO.load(path)), weights(agent))


def test_no_directory(agent: PPO, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^save: expected the directory .*nowhere to ex"):
        agent.save_checkpoint(tmp_path / "nowhere" / "agent.pt")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match=r"^save: expected the directory .*file to exist"):
        agent.save_checkpoint(tmp_path / "file" / "agent.pt")


def test_directory_that_cannot_be_written(agent: PPO, path: Path, monkeypatch: Any) -> None:
    # Permissions do not stop the superuser, as whom these tests may run.
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    message = r"^save: Permission denied, while writing a checkpoint of .* to .*; what was there"
    with pytest.raises(PermissionError, match=message):
        agent.save_checkpoint(path)


def test_relative_path(agent: PPO, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    agent.save_checkpoint("agent.pt")
    assert PPO.load("agent.pt").env_steps == agent.env_steps


# --- files that cannot be loaded ----------------------------------------------------------------


def assert_refused(agent: PPO, path: Path, message: str) -> None:
    """Loading fails, and nothing has changed."""
    before, config, carries = weights(agent), agent.config, agent.collection.carries
    generator, policy = agent.group.generator.get_state(), agent.policy
    with pytest.raises(CheckpointError, match=message) as error:
        agent.load_checkpoint(path)
    assert str(path) in str(error.value)
    assert_same_weights(before, weights(agent))
    assert torch.equal(agent.group.generator.get_state(), generator)
    assert (agent.config, agent.collection.carries, agent.policy) == (config, carries, policy)


@pytest.fixture
def other() -> PPO:
    """Another agent of the same kind, for a file to be loaded into."""
    return trained(scripted(["4t", "6l"]), seed=5, **EVERYTHING)


WHOLE = r"expected a whole recurrent_rl checkpoint, got a truncated or foreign file"


def test_truncated(path: Path, other: PPO) -> None:
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for size in [0, 1, 4, len(content) - 1, *rng.integers(len(content), size=30)]:
        path.write_bytes(content[:size])
        assert_refused(other, path, WHOLE)


def test_damaged_anywhere(path: Path, agent: PPO) -> None:
    content = path.read_bytes()
    rng, refused = np.random.default_rng(0), 0
    for place in rng.integers(len(content), size=150):
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            loaded = PPO.load(path)
        except CheckpointError:
            refused += 1
        else:  # the archive's own padding
            assert_same_weights(weights(agent), weights(loaded))
    assert refused > 75


@pytest.mark.parametrize(
    "content",
    [b"hello world\n", b"\x80\x02", pickle.dumps({"a": 1}), b"PK\x03\x04", bytes(range(256)) * 20],
    ids=["text", "pickle header", "pickle", "zip header", "bytes"],
)
def test_foreign(content: bytes, path: Path, other: PPO) -> None:
    path.write_bytes(content)
    assert_refused(other, path, WHOLE)


class Evil:
    """Runs code when unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("evil",)


def test_code_is_not_run(path: Path, other: PPO, monkeypatch: Any) -> None:
    monkeypatch.chdir(path.parent)
    torch.save(
        {"format": checkpoint.FORMAT, "version": checkpoint.VERSION, "algorithm": Evil()}, path
    )
    assert_refused(other, path, WHOLE)
    path.write_bytes(pickle.dumps(Evil()))
    assert_refused(other, path, WHOLE)
    assert not Path("evil").exists()


def test_other_files_of_torch(path: Path, other: PPO) -> None:
    for data in (other.policy.state_dict(), torch.zeros(3), [1, 2]):
        torch.save(data, path)
        assert_refused(other, path, r"expected a recurrent_rl checkpoint, got another torch file")
    np.savez(path.with_suffix(".npz"), x=np.zeros(3))
    assert_refused(other, path.with_suffix(".npz"), WHOLE)


@pytest.mark.parametrize("version", [checkpoint.VERSION + 1, None, "one"])
def test_newer_version(version: Any, path: Path, other: PPO) -> None:
    torch.save({**torch.load(path), "version": version}, path)
    assert_refused(
        other, path, rf"expected version {checkpoint.VERSION} or less, got {version}; update"
    )


PARTS = (
    "observation_space",
    "action_space",
    "net_config",
    "config",
    "policy",
    "optimizer",
    "reward_norm",
    "generator",
)
WRONG = (3, True, {"a": 1}, "x", 1.5)


@pytest.mark.parametrize("part", PARTS)
def test_part_is_something_else(part: str, path: Path, other: PPO) -> None:
    data = checkpoint.load(path)
    group = data["groups"][""]
    assert set(PARTS) <= group.keys()
    for wrong in WRONG:
        checkpoint.save({**data, "groups": {"": {**group, part: wrong}}}, path)
        assert_refused(other, path, r"the parts do not fit together")


@pytest.mark.parametrize("part", ["groups", "collection", "individual", "steps"])
def test_part_at_the_top_is_something_else(part: str, path: Path, other: PPO) -> None:
    data = checkpoint.load(path)
    for wrong in WRONG:
        if part != "steps" or not isinstance(wrong, str | dict):  # which make a list
            checkpoint.save({**data, part: wrong}, path)
            assert_refused(other, path, r"the parts do not fit together")


def test_parts_of_different_agents(path: Path, other: PPO, tmp_path: Path) -> None:
    wide = make_agent(scripted(["3t"]), **{**EVERYTHING, "hidden_state_size": 6})
    wide.save_checkpoint(tmp_path / "wide.pt")
    data, wider = checkpoint.load(path), checkpoint.load(tmp_path / "wide.pt")
    group, wide_group = data["groups"][""], wider["groups"][""]
    for part in ("policy", "net_config"):
        changed = {**group, part: wide_group[part]}
        checkpoint.save({**data, "groups": {"": changed}}, path)
        message = r"the parts do not fit together: (Error\(s\) in loading|net_config: expected net)"
        assert_refused(other, path, message)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"observation": "narrow"}, "observation_space"),
        ({"observation": "discrete"}, "observation_space"),
        ({"action": "box"}, "action_space"),
        ({"hidden_state_size": 6}, "net_config"),
        ({"cell": "gru"}, "net_config"),
    ],
    ids=str,
)
def test_mismatched_agent(options: dict[str, Any], name: str, path: Path) -> None:
    single = {k: options[k] for k in ("observation", "action") if k in options}
    network = {k: x for k, x in options.items() if k not in single}
    mismatched = trained(scripted(["3t 5l", "7b"], **single), **{**EVERYTHING, **network})
    assert_refused(mismatched, path, rf"expected this agent's {name} .*, got .*PPO\.load\(path\)")


def test_no_file(tmp_path: Path, other: PPO) -> None:
    for load in (PPO.load, other.load_checkpoint):
        with pytest.raises(FileNotFoundError, match=r"nothing\.pt"):
            load(tmp_path / "nothing.pt")
    with pytest.raises(IsADirectoryError):
        PPO.load(tmp_path)


# --- what was written can be read ---------------------------------------------------------------


def test_what_no_file_can_hold_is_refused_before_anything_is_written(
    agent: PPO, path: Path
) -> None:
    content = path.read_bytes()
    agent.scores = [1.0, object()]  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"a history: expected a number, text, .*object"):
        agent.save_checkpoint(path)
    assert os.listdir(path.parent) == ["agent.pt"]
    assert path.read_bytes() == content


def test_is_read_back_before_it_replaces_anything(agent: PPO, path: Path, monkeypatch: Any) -> None:
    content, write = path.read_bytes(), torch.save

    def damaged(data: Any, file: Any) -> None:
        write({**data, "seed": 99}, file)  # a value that is not what the checksum was made of

    monkeypatch.setattr(torch, "save", damaged)
    with pytest.raises(CheckpointError, match=r"expected to read what was just written, got .*"):
        agent.save_checkpoint(path)
    assert os.listdir(path.parent) == ["agent.pt"]
    assert path.read_bytes() == content


def test_files_without_a_checksum_load(path: Path, agent: PPO) -> None:
    data = torch.load(path, weights_only=True)
    assert len(data.pop("checksum")) == 64
    torch.save(data, path)
    assert_same_weights(weights(agent), weights(PPO.load(path)))


def test_numbers_that_are_not_those_of_the_checksum(path: Path, other: PPO) -> None:
    data = torch.load(path, weights_only=True)
    next(iter(data["groups"][""]["policy"].values())).view(-1)[0] += 1
    torch.save(data, path)  # a whole archive
    assert_refused(other, path, r"expected the checksum .*, got .*; damaged")


def test_every_bit_of_the_directory(tmp_path: Path) -> None:
    """Flips in the archive's directory and headers: refused, or nothing has changed."""
    data, path = {"x": torch.arange(40.0), "y": [1, 2.5, "text"]}, tmp_path / "data.pt"
    checkpoint.save(data, path)
    content, refused, harmless = path.read_bytes(), 0, 0
    directory = content.index(b"PK\x01\x02")
    for bit in range(8 * directory, 8 * len(content), 5):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            loaded = checkpoint.load(path)
        except CheckpointError:
            refused += 1
        else:
            harmless += 1
            assert torch.equal(loaded["x"], data["x"])  # type: ignore[arg-type]
            assert loaded["y"] == data["y"]
    assert refused > 200
    assert harmless > 200  # dates, rights and the like


# --- files that somebody has made up ------------------------------------------------------------


def parts_of(path: Path) -> dict[str, bytes]:
    """The parts of an archive."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_torchscript_is_refused_by_ourselves(path: Path, other: PPO, monkeypatch: Any) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("torch was to load it")

    with zipfile.ZipFile(path, "a") as archive:  # as torch tells them from others
        archive.writestr("archive/constants.pkl", pickle.dumps(()))
    monkeypatch.setattr(torch, "load", never)
    assert_refused(other, path, r"it is a TorchScript archive, which has code in it")


def test_compressed_parts_are_refused(path: Path, other: PPO) -> None:
    parts = parts_of(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content + b"\0" * 1_000_000)
    assert_refused(other, path, r"is compressed, which torch.save never does")


def test_tensor_that_claims_more_numbers_than_there_are(path: Path, other: PPO) -> None:
    for shape, strides in (((10**9,), (0,)), ((2**31, 2**31), (0, 0)), ((2,), (10**9,))):
        data = {"format": checkpoint.FORMAT, "version": 2, "x": torch.zeros(113)}
        torch.save(data, path)
        parts = parts_of(path)
        (name,) = (name for name in parts if name.endswith("data.pkl"))
        before, after, code = b"Kq\x85q", pickle.dumps(shape, 2)[2:-3], parts[name]
        assert code.count(before) == 1  # the shape (113,), to be memoised
        code = code.replace(before, after + b"q")
        at = code.index(b"K\x01\x85q", code.index(after))  # its strides, (1,)
        parts[name] = code[:at] + pickle.dumps(strides, 2)[2:-3] + code[at + 3 :]
        with zipfile.ZipFile(path, "w") as archive:
            for part, content in parts.items():
                archive.writestr(part, content)
        assert_refused(other, path, r"a tensor of shape .* claims more numbers than there are")


def test_lists_of_the_same_list(path: Path, other: PPO) -> None:
    bomb: Any = [1]
    for _ in range(60):
        bomb = [bomb, bomb]
    torch.save({"format": checkpoint.FORMAT, "version": 2, "x": bomb}, path)
    assert_refused(other, path, r"expected at most \d+ values, got more")


@pytest.mark.parametrize(
    "shapes",
    [
        {"encoder_config": {"hidden_size": [40_000, 40_000]}},  # 6.4 GB
        {"encoder_config": {"hidden_state_size": 20_000}},
        {"encoder_config": {"num_layers": 1000}},
        {"encoder_config": {"residual_layers": 1000, "hidden_state_size": 1000}},
        {"head_config": {"hidden_size": [40_000] * 5}},
    ],
    ids=str,
)
def test_networks_that_are_larger_than_their_weights(
    shapes: Any, path: Path, other: PPO, monkeypatch: Any
) -> None:
    data = checkpoint.load(path)
    net_config = data["groups"][""]["net_config"]
    for part, options in shapes.items():
        net_config[part].update(options)
    checkpoint.save(data, path)
    drawn, orthogonal = [], torch.nn.init.orthogonal_

    def draw(weight: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
        drawn.append(weight.numel())
        return orthogonal(weight, gain)

    monkeypatch.setattr(torch.nn.init, "orthogonal_", draw)
    assert_refused(other, path, r"net_config: expected networks of 1,\d+ numbers, as many as there")
    assert sum(drawn) < 10_000
