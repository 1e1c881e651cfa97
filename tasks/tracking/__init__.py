"""Everything that is written to MLflow and read from it; the only package that imports it.

May import `tasks.settings`, `tasks.console`, `tasks.interrupts` and `tasks.core`; the stages import
it, never it them.
Guarantees: a run that ends is marked so wherever MLflow can be told; no password is stored.
"""

from tasks.tracking.guarded import GUARD_FOLDER, GUARD_REFUSED, download_guard_files, version_meant
from tasks.tracking.origin import git_commit
from tasks.tracking.records import (
    VERSION_TAG,
    RunDeletedError,
    RunRecord,
    deleted_versions,
    find_run,
    find_version,
    in_full,
    read_run,
    registered_runs,
    run_of,
)
from tasks.tracking.registry import (
    CHALLENGER,
    CHAMPION,
    DECISION,
    NEVER_PREDICTED,
    PREFIX,
    RegisteredModel,
    Version,
    downloaded_model,
    local_store_locked,
    model_meant,
    model_name,
    registered_models,
    run_of_model,
)
from tasks.tracking.runs import (
    COMMAND_TAG,
    FLOW_RUN_TAG,
    INVOCATION_TAG,
    LIBRARIES_TAG,
    PARENT_TAG,
    Run,
    RunRef,
    log_file,
    log_text,
    mark_killed,
)
from tasks.tracking.store import LOCAL_STORE, answered, is_local, open_store, serve_ui, way_to
from tasks.tracking.tracked import tracked_run

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "COMMAND_TAG",
    "DECISION",
    "FLOW_RUN_TAG",
    "GUARD_FOLDER",
    "GUARD_REFUSED",
    "INVOCATION_TAG",
    "LIBRARIES_TAG",
    "LOCAL_STORE",
    "NEVER_PREDICTED",
    "PARENT_TAG",
    "PREFIX",
    "VERSION_TAG",
    "RegisteredModel",
    "Run",
    "RunDeletedError",
    "RunRecord",
    "RunRef",
    "Version",
    "answered",
    "deleted_versions",
    "download_guard_files",
    "downloaded_model",
    "find_run",
    "find_version",
    "git_commit",
    "in_full",
    "is_local",
    "local_store_locked",
    "log_file",
    "log_text",
    "mark_killed",
    "model_meant",
    "model_name",
    "open_store",
    "read_run",
    "registered_models",
    "registered_runs",
    "run_of",
    "run_of_model",
    "serve_ui",
    "tracked_run",
    "version_meant",
    "way_to",
]
