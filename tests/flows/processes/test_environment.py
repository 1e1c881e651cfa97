"""What a command does to its whole process, and what imports and served flows must not."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import urllib.request
import warnings

import pytest

from flows.actions import head
from flows.processes import environment
from tests.command import ROOT


def in_a_new_process(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("verbose", [False, True])
def test_a_command_hushes_its_process_unless_verbose(
    verbose: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", True)
    with warnings.catch_warnings():
        warnings.resetwarnings()
        head.begin(verbose=verbose)
        assert (warnings.filters == []) == verbose
        assert logging.raiseExceptions == verbose


def test_libraries_are_prepared_without_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", True)
    with warnings.catch_warnings():
        warnings.resetwarnings()
        environment.prepare(verbose=False)
        assert warnings.filters == []
        assert logging.raiseExceptions


def test_no_proxy_stands_between_a_command_and_its_own_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the user keeps from it stays so, in whichever of the two variables it is."""
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    assert not urllib.request.proxy_bypass("127.0.0.1")
    environment.prepare(verbose=False)
    environment.prepare(verbose=False)
    for host in ("127.0.0.1", "localhost", "intranet.example"):
        assert urllib.request.proxy_bypass(host)
    assert not urllib.request.proxy_bypass("example.org")
    assert (
        os.environ["NO_PROXY"] == os.environ["no_proxy"] == "intranet.example,127.0.0.1,localhost"
    )


def test_what_a_worker_imports_switches_nothing() -> None:
    code = (
        "import flows.retraining, flows.study, flows.promotion, flows.model_robustness; "
        "import logging, warnings; "
        "print(('ignore', None, Warning, None, 0) in warnings.filters, logging.raiseExceptions)"
    )
    assert in_a_new_process(code).stdout == "False True\n"


def test_operations_of_keras_models_follow_each_other() -> None:
    """Several at once would round a training's sums as they happen to be scheduled."""
    code = (
        "from flows.processes import environment; environment.load_keras(); "
        "import tensorflow as tf; print(tf.config.threading.get_inter_op_parallelism_threads())"
    )
    assert in_a_new_process(code).stdout == "1\n"


@pytest.mark.parametrize("mark", [(), ("--multiprocessing-fork",)], ids=["command", "spawned"])
def test_an_early_ctrl_c_is_no_traceback(mark: tuple[str, ...]) -> None:
    """Before the command has begun, and in what it has spawned: it is the command's to tell."""
    code = "import flows.command.cli; raise {}"
    assert in_a_new_process(code.format("KeyboardInterrupt"), *mark).stderr == ""
    assert "ValueError" in in_a_new_process(code.format("ValueError"), *mark).stderr
