"""Passwords in URIs, and in texts that quote them."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from tasks.core.errors import CertiflowError
from tasks.core.sources.download import DatasetUnavailableError
from tasks.core.uris import Credentials, parted, without_passwords


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://alice:s3cretpw@host:5000/x", "http://host:5000/x"),
        ("https://token@host", "https://host"),
        ("http://alice:p%40w@[::1]:80/", "http://[::1]:80/"),
        ("http://alice:p@w@host/", "http://host/"),
        ("postgresql+psycopg2://alice:s3/cr#et?pw@host/db", "postgresql+psycopg2://host/db"),
        ("mysql://alice:1234@host/db", "mysql://host/db"),
        ("tcp://:pw@host:8786", "tcp://host:8786"),
        (
            "Max retries: http://alice:pw@a/x?y=1 and 'http://bob:pw@b'",
            "Max retries: http://a/x?y=1 and 'http://b'",
        ),
        ('{"a":"tcp://alice:pw@host:1","b":"x@y"}', '{"a":"tcp://host:1","b":"x@y"}'),
        (
            "postgresql:///db?user=alice&password=s3cretpw&host=/run",
            "postgresql:///db?user=alice&password=...&host=/run",
        ),
        ("http://host/x?X-Amz-Security-Token=abc", "http://host/x?X-Amz-Security-Token=..."),
        (str(Path("http://alice:pw@host/x")), "http:/host/x"),
        ("http://a:80,http://alice:pw@b", "http://a:80,http://b"),
    ],
)
def test_passwords_are_left_out(text: str, shown: str) -> None:
    assert without_passwords(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "models:/certiflow-mnist@champion",
        "http://host:5000/#/models/certiflow-mnist@champion",
        "http://[::1]:5000/a@b",
        "http://host/a@b",
        "sqlite:////home/a@b/mlflow.db",
        "file:///a:b@c",
        '{"a": "tcp://host:8786", "b": "x@y"}',
        '{"a":"tcp://host:8786","b":"x@y"}',
        "tcp://host:8786 or x@y",
        "git@host:x.git",
    ],
)
def test_the_rest_stays(text: str) -> None:
    assert without_passwords(text) == text


def test_uri_and_its_credentials_part() -> None:
    assert parted("http://al%20ice:p%40w@host/api") == (
        "http://host/api",
        Credentials("al ice", "p@w"),
    )
    assert parted("http://host/api") == ("http://host/api", None)
    assert parted("http://[") == ("http://[", None)


@pytest.mark.parametrize(
    "error",
    [
        CertiflowError("no http://alice:s3cretpw@host"),
        DatasetUnavailableError("no http://alice:s3cretpw@host", transient=True),
    ],
)
def test_errors_never_hold_a_password(error: CertiflowError) -> None:
    assert str(error) == "no http://host"
    assert "s3cretpw" not in repr(error)
    assert b"s3cretpw" not in pickle.dumps(error)
