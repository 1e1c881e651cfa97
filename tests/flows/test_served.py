"""What a run that was started through Prefect's API may choose."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows import served
from tasks.core.errors import CertiflowError
from tasks.settings import Settings
from tests.flow_project import smoke

OUTSIDE = [
    ("verification.cluster", "tcp://elsewhere:8786"),
    ("radius.cluster", "tcp://elsewhere:8786"),
    ("tracking.output", "/tmp/elsewhere"),
    ("tracking.output", "../elsewhere"),
    ("tracking.output", "link"),
    ("data.cache", "/tmp/elsewhere"),
    ("data.dataset", "/tmp/elsewhere.npz"),
    ("data.dataset", "../elsewhere.npz"),
    ("data.fallback", "/tmp/elsewhere.npz"),
]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that a link leads out of."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    monkeypatch.chdir(folder)
    monkeypatch.delenv(served.SERVED, raising=False)
    monkeypatch.delenv(served.ENGINE, raising=False)
    return folder


@pytest.fixture
def serving(project: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings served: this process is one that `certiflow serve` has started for a run."""
    settings = smoke(f"tracking.output={project.parent}/allowed")
    monkeypatch.setenv(served.SERVED, "")  # so that it is gone after the test
    served.announce(settings)
    of_run(served.deployment_name(settings), monkeypatch)
    return settings


def of_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__NAME", name)


@pytest.mark.parametrize(("key", "value"), OUTSIDE)
def test_nothing_outside_that_is_not_served(serving: Settings, key: str, value: str) -> None:
    with pytest.raises(CertiflowError, match=f"^{key} is '{value}', but this deployment is served"):
        served.check_run(smoke(f"{key}={value}"))


@pytest.mark.parametrize(("key", "value"), OUTSIDE)
def test_operators_own_command_may_choose_anything(key: str, value: str) -> None:
    served.check_run(smoke(f"{key}={value}"))


def test_what_is_served_and_what_lies_in_the_folder_may_be_chosen(serving: Settings) -> None:
    served.check_run(serving)
    served.check_run(smoke("data.dataset=meters.npz", "data.cache=new", "verification.samples=9"))
    served.check_run(smoke("data.dataset=mnist", "tracking.output=deep/er"))


def test_folders_have_deployments_of_their_own(
    serving: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = served.deployment_name(serving)
    assert name.startswith("digits-dense-16-")
    monkeypatch.chdir(tmp_path)
    assert served.deployment_name(serving) != name
    with pytest.raises(
        CertiflowError, match=f"this run is of the deployment {name}, but {tmp_path}"
    ):
        served.check_run(serving)


@pytest.mark.parametrize(("key", "value"), OUTSIDE)
def test_a_workers_runs_keep_to_prefect_yaml(key: str, value: str, project: Path) -> None:
    section, name = key.split(".")
    project.joinpath("prefect.yaml").write_text(
        "deployments:\n- {name: nightly}\n"
        f"- {{name: allowed, parameters: {{settings: {{{section}: {{{name}: '{value}'}}}}}}}}\n"
    )
    asked = smoke(f"{key}={value}")
    served.check_places(asked, served.settings_in_file("allowed"))
    for other in ("nightly", "unknown", None):
        served.check_places(smoke(), served.settings_in_file(other))
        with pytest.raises(CertiflowError, match=f"^{key} is "):
            served.check_places(asked, served.settings_in_file(other))


def test_without_prefect_yaml_there_are_the_defaults() -> None:
    assert served.settings_in_file("nightly") == Settings()


@pytest.mark.parametrize("text", ["deployments: 3", "{", "deployments: [nightly]", "seed: 0"])
def test_a_prefect_yaml_that_cannot_be_read_is_one_line(text: str, project: Path) -> None:
    (project / "prefect.yaml").write_text(text)
    with pytest.raises(CertiflowError, match=r"^prefect\.yaml: expected deployments") as caught:
        served.settings_in_file("nightly")
    assert "\n" not in str(caught.value)
