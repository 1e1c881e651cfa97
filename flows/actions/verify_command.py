"""`certiflow verify`: one property of one model or of several, or a VNN-COMP instances file."""

from __future__ import annotations

import ast
import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from flows.actions.head import write_json
from tasks import console
from tasks.core.errors import CertiflowError
from tasks.core.execution.asking import Resources
from tasks.core.execution.verdict_store import PROJECT_STORE, VerdictStore
from tasks.core.files import output_file
from tasks.core.properties.numerals import float_of
from tasks.core.properties.vnnlib import format_counterexample
from tasks.core.queries.properties import Instance, verify_instances
from tasks.core.queries.property_solver import VERDICTS, InstanceResult
from tasks.core.verdict_columns import DEPLOYED_WORDS
from tasks.core.verdicts import Engine

MEMORY_LIMIT_BYTES = 4 * 2**30  # of each process
COLUMNS = ("network", "property", "verdict", "decided_by", "seconds", "deployed")
MAX_TIMEOUT_SECONDS = 1e6
DEPLOYED = {
    True: ", also of the float32 model as it is served",
    False: ", but the margin is within the float32 model's rounding",
    None: "",
}
MLFLOW_URIS = ("models:/", "runs:/")
REGISTERED = re.compile(r"certiflow-[^/@]+[/@][^/@.]+")  # as compare and promote name versions


@dataclass(frozen=True)
class Effort:
    """How instances are verified."""

    engine: Engine
    seed: int
    fresh: bool
    num_workers: int
    cluster: str | None

    @classmethod
    def of(
        cls, engine: Engine, seed: int, fresh: bool, workers: int | None, cluster: str | None
    ) -> Effort:
        """With as many processes as asked, or one for every core this process may use."""
        return cls(engine, seed, fresh, workers or len(os.sched_getaffinity(0)), cluster)


def verify_property(
    model: str | dict[str, str],
    prop: Path,
    timeout: float,
    effort: Effort,
    json_file: Path | None,
) -> None:
    """Prints the verdict and, for `sat`, the counterexample; raises what an `error` says.

    Models of several networks come by their names in the property.
    """
    if isinstance(model, dict):
        instance = Instance({name: model_path(m) for name, m in model.items()}, prop, timeout)
    else:
        instance = Instance(model_path(model), prop, timeout)
    (result,) = stored_or_verified([instance], effort)
    write_json(json_file, asdict(result))
    if result.verdict == "error":
        raise CertiflowError(result.reason)
    print(result.verdict)
    if result.counterexample is not None:
        found = result.counterexample
        print(format_counterexample(found["X"], found["Y"], result.assigned))
    if result.decided_by is None:
        console.warn(result.reason)
        return
    reason = f", {result.reason}" if result.reason else ""
    reason += DEPLOYED[result.deployed]
    stored = f", known from {PROJECT_STORE} (--fresh computes it again)" if result.stored else ""
    console.console.print(
        f"{result.decided_by}, {result.seconds:.2f} s{reason}{stored}",
        markup=False,
        soft_wrap=True,
    )


def verify_csv(instances: Path, results: Path, effort: Effort, json_file: Path | None) -> None:
    """Writes a row per instance, and prints how many there are of each verdict."""
    rows = read_instances(instances)
    texts = [(row[0], row[1]) for row in rows]
    found = verified([_instance(instances.parent, row) for row in rows], effort)
    for (network, prop), result in zip(texts, found, strict=True):
        if result.decided_by is None:
            console.warn(f"{network}, {prop}: {result.reason}")
    _write_results(results, texts, found)
    named = [
        {"network": network, "property": prop} | asdict(result)
        for (network, prop), result in zip(texts, found, strict=True)
    ]
    write_json(json_file, named)
    Console(highlight=False).print(_summary(found))


def verified(instances: Sequence[Instance], effort: Effort) -> list[InstanceResult]:
    """`stored_or_verified`, shown as a stage."""
    with console.stage("verify", len(instances)) as progress:
        counts: Counter[str] = Counter()

        def on_result(index: int, result: InstanceResult) -> None:
            counts[result.verdict] += 1
            progress.advance(note=", ".join(f"{counts[v]} {v}" for v in VERDICTS if counts[v]))

        return stored_or_verified(instances, effort, on_result)


def stored_or_verified(
    instances: Sequence[Instance],
    effort: Effort,
    on_result: Callable[[int, InstanceResult], None] = lambda index, result: None,
) -> list[InstanceResult]:
    """The results, those that `verdicts.db` holds from there, the others stored as they come."""
    with VerdictStore(PROJECT_STORE) as store:
        return verify_instances(
            instances,
            Resources(effort.num_workers, MEMORY_LIMIT_BYTES, effort.cluster),
            engine=effort.engine,
            seed=effort.seed,
            store=store,
            fresh=effort.fresh,
            on_result=on_result,
        )


def model_path(model: str) -> Path:
    """The model's file, downloaded when MLflow holds it.

    Raises `CertiflowError` for a version that is not named as MLflow names it.
    """
    if not model.startswith(MLFLOW_URIS):
        if REGISTERED.fullmatch(model) and not Path(model).exists():
            raise CertiflowError(f"{model}: no such file; a version in MLflow is models:/{model}")
        return Path(model)
    from tasks.tracking import downloaded_model

    return downloaded_model(model)


def networks_named(options: Sequence[str]) -> dict[str, str]:
    """Models by the names of a property's networks, of options NAME=FILE.

    Raises `CertiflowError` for what is none, or names one twice.
    """
    found = dict[str, str]()
    for option in options:
        name, _, file = option.partition("=")
        if not (name and file) or name in found:
            raise CertiflowError(
                f"--network {option}: expected NAME=FILE, with each of the property's networks once"
            )
        found[name] = file
    return found


def read_instances(path: Path) -> list[tuple[str, str, float]]:
    """Network, property and time limit of each row; raises `CertiflowError` naming a bad line.

    Several networks are one field, `[('f', 'a.onnx'), ('g', 'b.onnx')]`.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            numbered = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except OSError as error:
        raise CertiflowError(
            f"{path}: {error.strerror}; give the path of an instances file"
        ) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise CertiflowError(f"{path}: not a CSV file ({error})") from error
    if numbered and [field.strip().lower() for field in numbered[0][1]][:2] == list(COLUMNS[:2]):
        del numbered[0]
    if not numbered:
        raise CertiflowError(f"{path}: no instances; expected lines network,property,timeout")
    return [_row(path, number, row) for number, row in numbered]


def _row(path: Path, number: int, row: list[str]) -> tuple[str, str, float]:
    fields = [field.strip() for field in row]
    try:
        network, prop, text = fields
        timeout = float_of(text)
        if not (network and prop and 0 < timeout <= MAX_TIMEOUT_SECONDS):
            raise ValueError
        if network.startswith("["):
            _listed(network)
    except ValueError as error:
        shown = " ".join(",".join(fields).split())[:200]
        raise CertiflowError(
            f"{path}, line {number}: '{shown}': expected network,property,timeout with the timeout "
            f"in seconds, at most {MAX_TIMEOUT_SECONDS:,.0f}, and several networks as "
            "\"[('f', 'a.onnx'), ('g', 'b.onnx')]\""
        ) from error
    return network, prop, timeout


def _listed(networks: str) -> dict[str, str]:
    """Files by names, of a list of pairs in Python's own words; raises `ValueError`."""
    try:
        pairs = ast.literal_eval(networks)
    except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError from error
    found = dict[str, str]()
    for pair in pairs if isinstance(pairs, list) else []:
        match pair:
            case (str() as name, str() as file) if name and file and name not in found:
                found[name] = file
            case _:
                raise ValueError
    if not found:
        raise ValueError
    return found


def _instance(folder: Path, row: tuple[str, str, float]) -> Instance:
    network, prop, timeout = row
    if network.startswith("["):
        files = {name: _packed(folder / file) for name, file in _listed(network).items()}
        return Instance(files, _packed(folder / prop), timeout)
    return Instance(_packed(folder / network), _packed(folder / prop), timeout)


def _packed(path: Path) -> Path:
    """The file, or the gzipped one that stands for it, as VNN-COMP keeps them."""
    packed = path.with_name(f"{path.name}.gz")
    return packed if packed.exists() and not path.exists() else path


def _write_results(
    path: Path, texts: Sequence[tuple[str, str]], results: Sequence[InstanceResult]
) -> None:
    with output_file(path) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for names, result in zip(texts, results, strict=True):
            decided_by = result.decided_by or ""
            row = [*names, result.verdict, decided_by, f"{result.seconds:.3f}"]
            writer.writerow([*row, DEPLOYED_WORDS[result.deployed]])


def _summary(results: Sequence[InstanceResult]) -> Table:
    table = Table(title=f"{len(results)} instances", title_justify="left")
    for column in ("verdict", "instances", "median seconds"):
        table.add_column(column, justify="left" if column == "verdict" else "right")
    for word in VERDICTS:
        seconds = [result.seconds for result in results if result.verdict == word]
        if seconds:
            table.add_row(word, str(len(seconds)), f"{median(seconds):.2f}")
    table.add_section()
    middle = median(result.seconds for result in results)
    table.add_row("all", str(len(results)), f"{middle:.2f}")
    return table
