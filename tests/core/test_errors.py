"""What a user sees of a failure is one line, whatever names it quotes."""

from __future__ import annotations

from tasks.core.errors import CertiflowError


def test_names_in_files_break_no_line_and_turn_no_writing() -> None:
    error = CertiflowError("model.onnx: node 'a\nb\x1b[2J\u202ec\u2028d': größer")
    assert str(error) == "model.onnx: node 'a b [2J c d': größer"
