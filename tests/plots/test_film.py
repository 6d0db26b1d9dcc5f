"""Tests of `recurrent_rl.plots.film`: one file an episode, as `evaluate` plays them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio_ffmpeg
import numpy as np
import pytest
from support.filmed import Remembering, RememberingPair, frame

from recurrent_rl import IPPO, PPO, film, make_vect_envs

SMALL: dict[str, Any] = {"encoder_config": {"hidden_state_size": 4}}


def agent_for(env: gym.Env[Any, Any], **options: Any) -> PPO:
    return PPO(env.observation_space, env.action_space, SMALL, seed=0, **options)


def team_for(env: RememberingPair) -> IPPO:
    observed = {agent: env.observation_space(agent) for agent in env.possible_agents}
    acted = {agent: env.action_space(agent) for agent in env.possible_agents}
    return IPPO(observed, acted, env.possible_agents, SMALL, seed=0)


def frames_of(path: Path) -> list[int]:
    """The steps that a film shows, by how bright its frames are."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo"]
    done = subprocess.run([*command, "-pix_fmt", "gray", "-"], capture_output=True, check=True)
    frames = np.frombuffer(done.stdout, np.uint8).reshape(-1, *frame(0).shape[:2])
    return [round(float(each.mean()) / 20) for each in frames]


class TestFiles:
    @pytest.mark.parametrize("several", [False, True])
    def test_one_an_episode_with_every_step(self, tmp_path: Path, several: bool) -> None:
        env: Any = (RememberingPair if several else Remembering)(5, render_mode="rgb_array")
        agent: Any = team_for(env) if several else agent_for(env)
        paths = film(agent, env, tmp_path / "films", episodes=2)
        assert paths == [tmp_path / "films" / f"episode-{i}.mp4" for i in range(2)]
        assert [frames_of(path) for path in paths] == [[0, 1, 2, 3, 4, 5]] * 2
        assert sorted((tmp_path / "films").iterdir()) == paths  # nothing else is left there

    def test_a_single_file_of_a_single_episode(self, tmp_path: Path) -> None:
        env = Remembering(9, render_mode="rgb_array")
        path = tmp_path / "film.mp4"
        path.write_text("an older one")
        assert film(agent_for(env), env, str(path), max_steps=3) == [path]
        assert frames_of(path) == [0, 1, 2, 3]
        assert list(tmp_path.iterdir()) == [path]

    def test_episodes_are_those_of_evaluate(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        env = Remembering(4, render_mode="rgb_array")
        seen: list[float] = []
        shown = Remembering._see

        def see(self: Remembering) -> Any:
            seen.append(float(shown(self)[0]))
            return self.now

        monkeypatch.setattr(Remembering, "_see", see)
        agent = agent_for(env)
        agent.evaluate(env, 2, seed=7)
        expected = seen.copy()
        seen.clear()
        film(agent, env, tmp_path, episodes=2, seed=7)
        assert seen == expected


class TestRefusals:
    def test_nothing_is_drawn(self, tmp_path: Path) -> None:
        env = Remembering()
        with pytest.raises(ValueError, match=r"built with render_mode='rgb_array', got .*None"):
            film(agent_for(env), env, tmp_path)

    def test_an_id_of_what_it_was_not_trained_in(self, tmp_path: Path) -> None:
        space = gym.spaces.Box(-1, 1, (3,))
        agent = PPO(space, gym.spaces.Box(-2, 2, (1,)), SMALL, seed=0)
        with pytest.raises(ValueError, match=r"wrap it as in training, and give that"):
            film(agent, "Pendulum-v1", tmp_path)

    def test_frames_that_are_none(self, tmp_path: Path) -> None:
        env = RememberingPair(render_mode="rgb_array_list")
        with pytest.raises(ValueError, match=r"expected render\(\) to return a frame"):
            film(team_for(env), env, tmp_path)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.filterwarnings("ignore:.*expected type of frame returned by render")
    @pytest.mark.filterwarnings("ignore:.*zero frames to save")
    def test_frames_that_are_none_of_gymnasiums(self, tmp_path: Path) -> None:
        env = Remembering(3, render_mode="rgb_array_list")
        with pytest.raises(ValueError, match="expected frames of every episode, got none for film"):
            film(agent_for(env), env, tmp_path)

    def test_an_error_leaves_nothing_behind(self, tmp_path: Path) -> None:
        env: Any = Remembering(5, render_mode="rgb_array")
        agent = agent_for(env)
        env.step = lambda action: 1 / 0
        with pytest.raises(ZeroDivisionError):
            film(agent, env, tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_places_and_things(self, tmp_path: Path) -> None:
        env = Remembering(render_mode="rgb_array")
        agent = agent_for(env)
        with pytest.raises(ValueError, match=r"got .*film\.mp4 for 2 episodes; give a folder"):
            film(agent, env, tmp_path / "film.mp4", episodes=2)
        with pytest.raises(ValueError, match=r"for the format \.avi"):
            film(agent, env, tmp_path / "film.avi")
        with pytest.raises(FileNotFoundError, match="create it first"):
            film(agent, env, tmp_path / "none" / "film.mp4")
        with pytest.raises(TypeError, match="agent: expected an agent"):
            film(agent_for, env, tmp_path)
        vector = make_vect_envs(make_env=Remembering, should_async_vector=False)
        with pytest.raises(TypeError, match="env: expected a Gymnasium environment, or the id"):
            film(agent, vector, tmp_path)

    def test_without_the_extra(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        env = Remembering(render_mode="rgb_array")
        monkeypatch.setitem(sys.modules, "moviepy", None)
        with pytest.raises(ImportError, match=r"moviepy.*pip install 'recurrent_rl\[video\]'"):
            film(agent_for(env), env, tmp_path)
