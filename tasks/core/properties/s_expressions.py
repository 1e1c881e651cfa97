"""Parenthesised text, as VNN-LIB and SMT-LIB are written in."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tasks.core.errors import CertiflowError

MAX_DEPTH = 100  # of nested parentheses; far below Python's recursion limit

LINE_END = re.compile(r"\r\n|\r|\n")
_TOKEN = re.compile(r"[()]|[^\s()]+")
INDEXED = re.compile(r"[()]|\[[^][()]*\]|[^\s()[]+|\[")  # with [0, 1] in one piece


@dataclass(frozen=True, eq=False, slots=True)
class Form:
    """A parenthesis and the line on which it opens."""

    line: int
    items: list[str | Form]


def parsed(text: str, token: re.Pattern[str] = _TOKEN) -> list[Form]:
    """The top-level parentheses. Raises `CertiflowError` naming the line.

    `;` starts a comment, which a line feed or a carriage return ends (SMT-LIB 2.6, section 3.1).
    """
    stack = [Form(0, [])]
    for number, line in enumerate(LINE_END.split(text), start=1):
        for piece in token.findall(line.partition(";")[0]):
            if piece == "(":
                form = Form(number, [])
                stack[-1].items.append(form)
                stack.append(form)
                if len(stack) > MAX_DEPTH:
                    raise line_error(number, f"nested more than {MAX_DEPTH} deep")
            elif piece == ")":
                if len(stack) == 1:
                    raise line_error(number, "')' closes nothing; remove it or open it before")
                stack.pop()
            elif len(stack) == 1:
                raise line_error(number, f"'{piece}' stands outside of parentheses; expected '('")
            else:
                stack[-1].items.append(piece)
    if len(stack) > 1:
        raise line_error(stack[1].line, "'(' is never closed; add the missing ')'")
    return [form for form in stack[0].items if isinstance(form, Form)]


def line_error(line: int, message: str) -> CertiflowError:
    """An error at a line."""
    return CertiflowError(f"line {line}: {message}")
