"""Objects with hyper-parameters: what is changed by ``reconfigure`` alone."""

import weakref
from typing import TYPE_CHECKING, Any, ClassVar

from recurrent_rl.algorithms.configs import AlgorithmConfig
from recurrent_rl.aliases import METHODS
from recurrent_rl.validation import meant, shown

PACKAGE = __name__.partition(".")[0] + "."


class HasSettings:
    """Refuses attributes that would do nothing, ``agent.lr = 1e-4`` for example.

    Attributes:
        config_type: the algorithm's hyper-parameters.

    """

    config_type: ClassVar[type[AlgorithmConfig]]
    _settled: ClassVar[tuple[str, ...]] = ()  # set when it is built, and never again

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute that is neither a hyper-parameter nor a part of the agent.

        Attributes that nobody has heard of are refused too, as they are slips or what other
        libraries call hyper-parameters. Subclasses, which have attributes of their own, may set
        any, and names with an underscore in front are everybody's.

        Raises:
            AttributeError: it is one; the message says how to change it.

        """
        kind = type(self)
        if name in self.config_type.names():
            raise AttributeError(
                f"{kind.__name__}.{name}: expected hyper-parameters to be changed by "
                f"reconfigure, got an attribute, which would do nothing; call "
                f"agent.reconfigure({name}={shown(value)}), or build another agent with it"
            )
        part = getattr(kind, name, None)
        if isinstance(part, property) and part.fset is None:
            raise AttributeError(
                f"{kind.__name__}.{name}: expected the agent's own, got another "
                f"({type(value).__name__}); change it in place (agent.policy.load_state_dict, "
                f"agent.reconfigure(lr=...)), or build another agent"
            )
        if name in self._settled and name in vars(self):
            raise AttributeError(
                f"{kind.__name__}.{name}: expected to stay as the agent was built, "
                f"{vars(self)[name]!r}, got {shown(value)}, which would change nothing; build "
                f"another agent with it, or load a saved one: {kind.__name__}.load(path, "
                f"device=...)"
            )
        if not name.startswith("_") and name not in _attributes(kind) and is_ours(kind):
            hint, option = self._meant(name)
            remedy = "Attributes of your own belong in a subclass."
            if option:
                remedy = f"Hyper-parameters are changed by agent.reconfigure({option}=...)."
            raise AttributeError(
                f"{kind.__name__} has no attribute {name!r}, which nothing would read"
                f"{hint or '.'} {remedy}"
            )
        super().__setattr__(name, value)

    def _resettle(self, **parts: Any) -> None:
        """Change what is settled, in an agent that is still being built from another one."""
        for name in parts:
            vars(self).pop(name)
        for name, part in parts.items():
            setattr(self, name, part)

    if not TYPE_CHECKING:  # type checkers are to find unknown names by themselves

        def __getattr__(self, name: str) -> Any:
            """Say where to look for what is no attribute.

            Raises:
                AttributeError: always.

            """
            kind = type(self)
            if name in _attributes(kind) and hasattr(kind, name):
                return object.__getattribute__(self, name)  # its own error says more
            message = f"{kind.__name__!r} object has no attribute {name!r}"
            if not name.startswith("_") and hasattr(kind, "config_type"):
                message += self._elsewhere(name)
            raise AttributeError(message, name=name, obj=self)

    @classmethod
    def _elsewhere(cls, name: str) -> str:
        """Return where there is what somebody looks for under a name; or nothing."""
        if name in cls.config_type.names():
            return f"; hyper-parameters are in config: agent.config.{name}"
        if name in METHODS:
            return f"; it is called {METHODS[name]} here"
        hint, option = cls._meant(name)
        return hint + (" Hyper-parameters are in agent.config." if option else "")

    @classmethod
    def _meant(cls, name: str) -> tuple[str, str]:
        """Return how a sentence ends that says what was meant, and the hyper-parameter in it."""
        options = cls.config_type.names()
        hint = meant(name, [*options, *_attributes(cls)])
        words = hint.replace("'", " ").replace("?", " ").split()
        return hint, next((word for word in words if word in options), "")


def _attributes(kind: type) -> frozenset[str]:
    """Return the public names that a class and those above it define or declare."""
    if kind not in _KNOWN:
        declared = [
            {**vars(each), **vars(each).get("__annotations__", {})} for each in kind.__mro__
        ]
        _KNOWN[kind] = frozenset(n for names in declared for n in names if not n.startswith("_"))
    return _KNOWN[kind]


_KNOWN: weakref.WeakKeyDictionary[type, frozenset[str]] = weakref.WeakKeyDictionary()


def is_ours(kind: type) -> bool:
    """Whether a class is one of this package's, rather than somebody's own."""
    return kind.__module__.startswith(PACKAGE)
