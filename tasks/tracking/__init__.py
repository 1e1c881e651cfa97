"""Everything that is written to MLflow and read from it; the only package that imports it."""

from tasks.tracking.records import (
    VERSION_TAG,
    RunRecord,
    find_run,
    find_version,
    read_run,
    registered_runs,
)
from tasks.tracking.registry import (
    CHALLENGER,
    CHAMPION,
    DECISION,
    PREFIX,
    RegisteredModel,
    Version,
    downloaded_model,
    local_store_locked,
    model_name,
    registered_models,
)
from tasks.tracking.runs import (
    FLOW_RUN_TAG,
    INVOCATION_TAG,
    Run,
    RunRef,
    git_commit,
    log_file,
    mark_killed,
    tracked_run,
)
from tasks.tracking.store import LOCAL_STORE, LOCAL_UI, open_store, serve_ui

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "DECISION",
    "FLOW_RUN_TAG",
    "INVOCATION_TAG",
    "LOCAL_STORE",
    "LOCAL_UI",
    "PREFIX",
    "VERSION_TAG",
    "RegisteredModel",
    "Run",
    "RunRecord",
    "RunRef",
    "Version",
    "downloaded_model",
    "find_run",
    "find_version",
    "git_commit",
    "local_store_locked",
    "log_file",
    "mark_killed",
    "model_name",
    "open_store",
    "read_run",
    "registered_models",
    "registered_runs",
    "serve_ui",
    "tracked_run",
]
