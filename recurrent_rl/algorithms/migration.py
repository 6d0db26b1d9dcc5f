"""Checkpoints of older formats, brought into today's.

Format 1 (version 0.1.0 before its second architecture) had no collection and no individual of its
own, PPO's only group at the top, and other names for a policy's parts.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from recurrent_rl.spaces.leaves import leaves_of
from recurrent_rl.spaces.scaling import scale_of
from recurrent_rl.spaces.serialization import space_from_dict

# Keys that format 1 had beside a group's, in a PPO agent's data.
_OF_AGENT = ("steps", "fitness", "scores", "lineage", "elite", "hp_config", "algorithm")


def upgraded(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return an agent's data in today's format; what is in it already comes back as it is."""
    if "individual" in data:
        return dict(data)
    groups = data["groups"] if "groups" in data else {"": _without(data, _OF_AGENT)}
    carries = [group["carry"] for group in groups.values()]
    rest = {k: v for k, v in data.items() if k not in ("groups", "lineage", "elite", "hp_config")}
    if "groups" not in data:
        rest = {k: v for k, v in rest.items() if k in (*_OF_AGENT, "seed")}
    return {
        **rest,
        "groups": {name: _group(group) for name, group in groups.items()},
        "collection": None
        if any(carry is None for carry in carries)
        else [_without(carry, ("discounted",)) for carry in carries],
        "individual": {
            **{name: data[name] for name in ("lineage", "elite", "hp_config")},
            "inherited": _inherited(data, env_steps=next(iter(groups.values()))["env_steps"]),
        },
    }


def _inherited(data: Mapping[str, Any], env_steps: int) -> int:
    """Return how many results are not its own: nobody wrote it down, so as many as there may be."""
    birth, results = data["lineage"][-1], len(data["fitness"])
    if len(data["lineage"]) == 1:
        return 0
    # Who has trained since its birth was tested then.
    return max(results - int(env_steps > birth["steps"]), 0)


def _without(data: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key not in names}


def _group(data: Mapping[str, Any]) -> dict[str, Any]:
    _check_seen_alike(data["observation_space"], data["config"]["normalize_images"])
    _check_acts_alike(data["action_space"])
    carry, net_config = data["carry"], data["net_config"]
    encoder = net_config["encoder_config"]
    # The critic has an encoder of its own; one without weights does not show in the policy's state.
    separate = data["networks"][1] or not data["config"]["share_encoders"]
    return {
        **_without(data, ("carry",)),
        "discounted": None if carry is None else carry["discounted"],
        "config": {**data["config"], "max_seq_len": encoder["max_seq_len"]},
        "net_config": {**net_config, "encoder_config": _without(encoder, ("max_seq_len",))},
        "policy": _policy(data["policy"], 1 + separate),
    }


def _check_seen_alike(space: dict[str, Any], normalize_images: bool) -> None:
    """Refuse a policy that was trained on inputs which today's would see otherwise.

    Format 1 divided images of uint8 (two or three axes) by 255, whatever their bounds, scaled
    nothing else, and took no stacks of images for such.
    """
    for leaf in leaves_of(space_from_dict(space)):
        in_bytes = leaf.dtype == np.uint8
        was_image = len(leaf.shape) == 3 or (in_bytes and len(leaf.shape) == 2)
        was = 1 / 255 if in_bytes and was_image and normalize_images else 1.0
        offset, factor = scale_of(leaf) if normalize_images else (np.zeros(1), np.ones(1))
        if was_image != leaf.kind.is_image or offset.any() or (factor != was).any():
            raise ValueError(
                f"{leaf.name}: expected what is still seen as agents of checkpoint format 1 saw "
                f"it, got {leaf.space}, whose values are scaled by their bounds now, or seen as a "
                f"stack of images; the agent would act otherwise than it was trained: train anew"
            )


def _check_acts_alike(space: dict[str, Any]) -> None:
    """Refuse a policy whose outputs now mean other actions; format 1 cut fractions off."""
    if space["kind"] == "Box" and np.dtype(space["dtype"]).kind != "f":
        raise ValueError(
            f"action_space: expected one whose actions are still played as agents of checkpoint "
            f"format 1 played them, got {space_from_dict(space)}, of whose whole numbers each has "
            f"an equal share now; the agent would act otherwise than it was trained: train anew"
        )


def _policy(state: Mapping[str, Any], trunks: int) -> dict[str, Any]:
    """Rename a policy's parts; what is in front of all trunks stands in each."""
    renamed: dict[str, Any] = {}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        if part == "encoders":
            number, _, inner = rest.partition(".")
            renamed[f"trunks.{number}.encoder.{inner}"] = value
        elif part in ("norm", "image_norms"):
            for trunk in range(trunks):
                renamed[f"trunks.{trunk}.preprocessor.{key}"] = value
        elif part in ("actor", "critic"):
            head = {"actor": "action_head", "critic": "value_head"}[part]
            renamed[f"{head}.layers.{rest}"] = value
        elif not re.fullmatch(r"head\.(low|high)", key):  # these follow from the space
            renamed[f"action_head.distribution.{rest}"] = value
    return renamed
