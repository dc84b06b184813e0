"""Which modules are in training mode, and which parameters are frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

AT_ONCE = 128  # modules whose parameters are looked at in one go


class Modes:
    """Says when modules go into or out of evaluation mode, and when parameters are frozen or released.

    Of a model with more than `AT_ONCE` modules, each look goes through the parameters of the next so many: that one is
    frozen may be noticed some looks later.

    Args:
        model: the model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._said: dict[str, Any] = {}
        self.look()

    def look(self) -> None:
        """Take note of the model's modules; to be called again when it has got new ones."""
        self._modules = list(self._model.modules())
        self._training: list[bool] = []
        self._released: list[list[bool]] = []
        self._next = 0

    def changes(self, step: int) -> dict[str, Any] | None:
        """How the modes stand, if that has changed since the last answer; the first time in any case.

        Args:
            step: at which they are looked at.

        Returns:
            `step`; `training`, the model's own flag; `toggled`, the paths of modules whose flag is not that of the
            module around them, so that an encoder in evaluation mode is one path; `frozen`, the paths of modules all
            of whose parameters are frozen, and of further frozen parameters. None if nothing has changed.
        """
        training = [module.training for module in self._modules]
        part = slice(self._next, self._next + AT_ONCE)
        self._next = part.stop if part.stop < len(self._modules) else 0
        if training == self._training and _released(self._modules[part]) == self._released[part]:
            return None
        self._training, self._released = training, _released(self._modules)
        answer = {"training": bool(self._model.training), "toggled": self._toggled(), "frozen": self._frozen()}
        if answer == self._said:
            return None
        self._said = answer
        return {"step": step, **answer}

    def _toggled(self) -> list[str]:
        modules = dict(self._model.named_modules())
        return [
            path
            for path, module in modules.items()
            if path and module.training != modules.get(path.rpartition(".")[0], self._model).training
        ]

    def _frozen(self) -> list[str]:
        released: set[str] = set()  # modules below which a parameter takes part
        frozen = []
        for name, parameter in self._model.named_parameters():
            if parameter.requires_grad:
                released.update(_around(name))
            else:
                frozen.append(name)
        # The outermost module that is frozen as a whole stands for all in it.
        whole = (next((path for path in _around(name) if path not in released), name) for name in frozen)
        return list(dict.fromkeys(whole))


def _released(modules: list[nn.Module]) -> list[list[bool]]:
    """Of each module the parameters that take part in training."""
    return [[p.requires_grad for p in module._parameters.values() if p is not None] for module in modules]


def _around(name: str) -> list[str]:
    """The modules around a parameter, the model itself first."""
    parts = name.split(".")
    return [".".join(parts[:depth]) for depth in range(len(parts))]
