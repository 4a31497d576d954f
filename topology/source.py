"""A YAML file whose values remember their lines, so that an error can say where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import yaml

from meshnet.errors import ConfigError

Step = str | int


@attrs.frozen
class Source:
    path: Path
    data: Any
    _root: yaml.Node | None

    @classmethod
    def read(cls, path: Path) -> Source:
        """Raises ConfigError: no such file, or not YAML."""
        try:
            text = path.read_text()
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not text: {error.reason}") from error
        try:
            return cls(path, yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader))
        except yaml.MarkedYAMLError as error:
            line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
            raise ConfigError(f"{path}{line}: not YAML: {error.problem}") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{path}: not YAML: {error}") from error

    def error(self, where: Sequence[Step], message: str) -> ConfigError:
        """An error about the value that the steps lead to."""
        return ConfigError(f"{self.path}:{self.line(where)}: {message}")

    def line(self, where: Sequence[Step]) -> int:
        """Of the value, or of the innermost one on the way that exists. From 1."""
        node, line = self._root, 1
        for step in where:
            found = _child(node, step)
            if found is None:
                break
            line, node = found
        return line


def _child(node: yaml.Node | None, step: Step) -> tuple[int, yaml.Node] | None:
    """The value under a key or index, and the line where it starts."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        value = node.value[step]
        return value.start_mark.line + 1, value
    return None
