"""YAML as people write it: no key twice, no nesting without end, values told in a line."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from reprlib import Repr
from typing import Any

import yaml

from tasks.core.errors import CertiflowError

_SHOWN = Repr()
_SHOWN.maxlevel, _SHOWN.maxlist, _SHOWN.maxdict = 2, 10, 10
_SHOWN.maxstring = _SHOWN.maxother = 200


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML libraries keep the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        known = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in known:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key '{key.value}' stands twice", key.start_mark
                    )
                known.add(key.value)
        return super().construct_mapping(node, deep)


def parsed_yaml(text: str) -> Any:
    """The value; raises `CertiflowError` saying what is wrong with the text, in one line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise CertiflowError(_told(error)) from error
    except yaml.YAMLError as error:
        raise CertiflowError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise CertiflowError("it is nested too deep") from error
    except ValueError as error:  # such as a date with a month 13
        raise CertiflowError(" ".join(str(error).split())) from error


def _told(error: yaml.MarkedYAMLError) -> str:
    """What is wrong, where, and where what it ends began."""
    mark, begin = error.problem_mark, error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    started = f" in what begins in line {begin.line + 1}" if begin else ""
    problem = " ".join(str(error.problem).split())
    return f"{where}{problem}{started}; correct it there"


def read_yaml(path: Path) -> Any:
    """The value in a file.

    Raises:
        CertiflowError: one line naming the file.
        FileNotFoundError: there is none.
    """
    try:
        return parsed_yaml(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError, CertiflowError) as error:
        reason = " ".join(str(error).split())
        raise CertiflowError(f"{path}: cannot be read as YAML: {reason}") from error


def shown(value: Any) -> str:
    """A value as Python writes it, cut where it is long: aliases can stand for a billion words."""
    return _SHOWN.repr(value)
