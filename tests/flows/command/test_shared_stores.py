"""The same commands on shared servers and stores: over HTTP, through an outage, and two at once."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

from tests import shared_stores
from tests.command import ROOT, Command, clean_environment, started, with_settings
from tests.shared_stores import COMPOSE, SharedStores

RUN = ["run", "--conf", "conf/smoke.yaml"]
RETRAIN = ["retrain", "--conf", "conf/smoke.yaml", "--set"]
TRAINED = "runs/*/model.keras"  # written before the model is uploaded, and all that follows it
Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Makes empty project folders, each like another machine."""

    def make(name: str) -> Path:
        return with_settings(tmp_path_factory.mktemp(name))

    return make


@pytest.fixture(scope="module")
def environment(folder: Folder, prefect_api: str) -> dict[str, str]:
    return clean_environment(folder("prefect"), PREFECT_API_URL=prefect_api)


@pytest.fixture(scope="module")
def stores() -> Iterator[SharedStores]:
    reason = shared_stores.missing()
    if reason is not None:
        pytest.skip(reason)
    with shared_stores.running() as stores:
        yield stores


@pytest.fixture(scope="module")
def shared(stores: SharedStores, environment: dict[str, str]) -> dict[str, str]:
    return {**environment, **stores.environment}


@pytest.fixture(scope="module")
def client(stores: SharedStores) -> MlflowClient:
    uri = stores.environment["MLFLOW_TRACKING_URI"]
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def wait_until_trained(process: Command, project: Path) -> None:
    while not list(project.glob(TRAINED)):
        assert process.poll() is None, process.communicate(0)
        time.sleep(0.02)


@contextmanager
def halted(process: Command) -> Iterator[None]:
    """The process stands still inside, so that it cannot finish before what is done to it."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def runs(client: MlflowClient) -> list[Run]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, order_by=["attributes.start_time ASC"]))


@pytest.fixture(scope="module")
def project(folder: Folder, shared: dict[str, str], stores: SharedStores) -> Path:
    """A project's folder after a run in whose middle the MLflow server was restarted."""
    project = folder("project")
    with started(project, shared, *RUN) as process:
        wait_until_trained(process, project)
        with halted(process):
            stores.mlflow.stop()
        stores.mlflow.start()
        _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    return project


def test_run_is_finished_with_its_files_over_http(
    project: Path, client: MlflowClient, tmp_path: Path
) -> None:
    run = runs(client)[0]
    assert run.info.status == "FINISHED"
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    copies = Path(client.download_artifacts(run.info.run_id, "", str(tmp_path)))
    names = {str(path.relative_to(copies)) for path in copies.rglob("*") if path.is_file()}
    assert {
        "config.yaml",
        "tables/epsilon_grid.csv",
        "tables/verification.csv",
        "figures/robustness_curve.png",
        "figures/adversarial_examples.png",
    } <= names
    local = project / "runs" / run.info.run_name
    assert {name: (copies / name).read_bytes() for name in names} == {
        name: (local / name).read_bytes() for name in names
    }
    version = client.get_model_version("certiflow-digits", "1")
    assert version.run_id == run.info.run_id


def test_nothing_is_left_in_a_local_store(project: Path) -> None:
    names = {path.name for path in project.iterdir()}
    assert "runs" in names
    assert not {name for name in names if name.startswith(("mlflow", ".mlflow", "mlartifacts"))}


def test_prefect_server_has_the_flow_run(
    project: Path, client: MlflowClient, stores: SharedStores
) -> None:
    flow_run = runs(client)[0].data.tags["prefect.flow_run_id"]
    answer = httpx.get(f"{stores.environment['PREFECT_API_URL']}/flow_runs/{flow_run}")
    assert answer.json()["state_type"] == "COMPLETED"


def test_registered_model_is_verified_on_another_machine(
    project: Path, shared: dict[str, str], client: MlflowClient, tmp_path: Path
) -> None:
    arguments = ["--model", "models:/certiflow-digits/1", "--data", "digits", "--epsilon", "0.02"]
    effort = ["--samples", "4", "--timeout", "5", "--workers", "1"]
    with started(tmp_path, shared, "verify", *arguments, *effort) as process:
        _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    run = runs(client)[-1]
    assert run.info.status == "FINISHED"
    counts = [
        run.data.metrics[f"verification/{verdict}/eps_0.02"]
        for verdict in ("robust", "falsified", "unknown", "timeout", "error")
    ]
    assert sum(counts) == 4


def forget_the_champion(client: MlflowClient) -> None:
    """As if nothing had been decided on the run's version, the model's first."""
    client.delete_registered_model_alias("certiflow-digits", "champion")
    client.delete_registered_model_tag("certiflow-digits", "champions")
    client.delete_model_version_tag("certiflow-digits", "1", "promotion.decision")


def test_two_retrainings_at_once_leave_one_champion(
    project: Path, shared: dict[str, str], client: MlflowClient, folder: Folder
) -> None:
    forget_the_champion(client)
    one, other = (
        started(folder(f"epochs{n}"), shared, *RETRAIN, f"training.epochs={n}") for n in (6, 8)
    )
    with one as first, other as second:
        outputs = [process.communicate(timeout=300) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    model = client.get_registered_model("certiflow-digits")
    judged = {
        int(version.version): version.tags["promotion.decision"]
        for version in client.search_model_versions("name = 'certiflow-digits'")
        if "promotion.decision" in version.tags
    }
    promoted = [number for number, decision in judged.items() if decision == "promoted"]
    assert len(judged) == 2
    champions = [int(number) for number in model.tags["champions"].split()]
    assert sorted(champions) == sorted(promoted)
    assert int(model.aliases["champion"]) == champions[-1]
    # whoever decided second compared with the first one's champion
    second_judged = next(n for n in judged if n != champions[0])
    tags = client.get_model_version("certiflow-digits", str(second_judged)).tags
    assert tags["promotion.against"] == str(champions[0])


def test_mlflow_that_stays_away_is_one_line(
    shared: dict[str, str], stores: SharedStores, folder: Folder
) -> None:
    """The last test of these servers: MLflow's is not started again."""
    project, impatient = folder("outage"), {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    with started(project, shared | impatient, *RUN) as process:
        wait_until_trained(process, project)
        with halted(process):
            stores.mlflow.stop()
        _, said = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "Traceback" not in said
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    (local,) = project.glob("runs/*")
    assert f"MLflow at {stores.environment['MLFLOW_TRACKING_URI']} does not answer" in error
    assert str(local) in error
    assert (local / "config.yaml").is_file()


def test_two_flows_at_once_on_one_sqlite_store(environment: dict[str, str], folder: Folder) -> None:
    project = folder("sqlite")
    with started(project, environment, *RUN) as one, started(project, environment, *RUN) as other:
        outputs = [process.communicate(timeout=300) for process in (one, other)]
    assert [one.returncode, other.returncode] == [0, 0], outputs
    uri = f"sqlite:///{project}/mlflow.db"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    first, second = runs(client)
    assert [first.info.status, second.info.status] == ["FINISHED", "FINISHED"]
    versions = client.search_model_versions("name = 'certiflow-digits'")
    assert sorted(int(version.version) for version in versions) == [1, 2]
    assert {version.run_id for version in versions} == {first.info.run_id, second.info.run_id}
    results = [
        {name: value for name, value in run.data.metrics.items() if "seconds" not in name}
        for run in (first, second)
    ]
    assert results[0] == results[1]  # the same seed
    assert {"clean_accuracy", "verification/certified_accuracy/eps_0.05"} <= results[0].keys()


def test_compose_is_closed_and_has_the_clients_versions() -> None:
    text = COMPOSE.read_text()
    services = yaml.safe_load(text)["services"]
    published = {name: service.get("ports", []) for name, service in services.items()}
    assert published == {
        "postgres": [],
        "mlflow": ["127.0.0.1:5000:5000"],
        "prefect": ["127.0.0.1:4200:4200"],
        "guard": ["127.0.0.1:8080:8080"],
    }
    store = urlsplit(services["guard"]["environment"]["MLFLOW_TRACKING_URI"]).netloc
    (allowed,) = [each for each in services["mlflow"]["command"] if "--allowed-hosts=" in each]
    assert store in allowed.partition("=")[2].split(",")  # others are refused with 403
    passwords = re.findall(r"PASSWORD: (.+)", text)
    assert set(passwords) == {"${POSTGRES_PASSWORD:?set POSTGRES_PASSWORD}"}
    for name in ("mlflow", "prefect"):
        dockerfile = services[name]["build"]["dockerfile_inline"]
        assert "--require-hashes --no-deps --requirement requirements.lock" in dockerfile
    lock = (ROOT / "requirements.lock").read_text()
    for package in ("mlflow", "prefect", "psycopg2-binary", "asyncpg"):
        assert re.search(rf"^{package}==", lock, re.MULTILINE)
