"""Objects with hyper-parameters: what is changed by ``reconfigure`` alone."""

from typing import Any, ClassVar

from recurrent_rl.algorithms.configs import AlgorithmConfig


class HasSettings:
    """Refuses attributes that would do nothing, ``agent.lr = 1e-4`` for example.

    Attributes:
        config_type: the algorithm's hyper-parameters.

    """

    config_type: ClassVar[type[AlgorithmConfig]]

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute that is neither a hyper-parameter nor a part of the agent.

        Raises:
            AttributeError: it is one; the message says how to change it.

        """
        if name in self.config_type.names():
            raise AttributeError(
                f"{type(self).__name__}.{name}: expected hyper-parameters to be changed by "
                f"reconfigure, got an attribute, which would do nothing; call "
                f"agent.reconfigure({name}={value!r}), or build another agent with it"
            )
        part = getattr(type(self), name, None)
        if isinstance(part, property) and part.fset is None:
            raise AttributeError(
                f"{type(self).__name__}.{name}: expected the agent's own, got another "
                f"({type(value).__name__}); change it in place (agent.policy.load_state_dict, "
                f"agent.reconfigure(lr=...)), or build another agent"
            )
        super().__setattr__(name, value)
