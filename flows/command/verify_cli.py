"""The command verify: a property, local robustness, or whether two models are equivalent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.actions.head import begin
from flows.command.options import (
    CategoryChanges,
    Cluster,
    EngineName,
    Fresh,
    Json,
    Samples,
    ScaleName,
    Seconds,
    Verbose,
    Workers,
)


def verify(
    model: Annotated[
        str | None,
        typer.Option(help="ONNX, Keras or .nnet file, or models:/name@alias in MLflow."),
    ] = None,
    prop: Annotated[
        Path | None, typer.Option("--property", help="VNN-LIB file.", metavar="FILE")
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(
            help="With --property: the model of a network of VNN-LIB 2.0; for each of several.",
            metavar="NAME=FILE",
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(help="Lines network,property,timeout, relative to it.", metavar="FILE"),
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="With --csv: where the verdicts go.", metavar="FILE")
    ] = None,
    timeout: Seconds = 60.0,
    engine: EngineName = "ladder",
    seed: Annotated[int, typer.Option(help="Of the attack's starts.", min=0)] = 0,
    workers: Workers = None,
    cluster: Cluster = None,
    data: Annotated[
        str | None, typer.Option(help="Local robustness on this dataset's test points.")
    ] = None,
    epsilon: Annotated[
        list[float] | None, typer.Option(help="With --data: radius; may be given several times.")
    ] = None,
    equivalent: Annotated[
        tuple[str, str] | None,
        typer.Option(
            help="Two models: the outputs differ by at most --delta, before a softmax at the end, "
            "on --box, on all inputs like --data, or within --epsilon of its test points.",
            metavar="OLD NEW",
        ),
    ] = None,
    delta: Annotated[
        float | None, typer.Option(help="With --equivalent: how far an output may move.")
    ] = None,
    box: Annotated[
        tuple[float, float] | None,
        typer.Option(help="With --equivalent: bounds of every input.", metavar="LOWER UPPER"),
    ] = None,
    flagged: Annotated[
        str | None, typer.Option(help="What a guard stored, by its digest.", metavar="DIGEST")
    ] = None,
    store: Annotated[
        str, typer.Option(help="With --flagged: the guard's store.", metavar="FILE")
    ] = "guard.db",
    samples: Samples = 20,
    witness_share: Annotated[
        float, typer.Option(help="With --data: of the proofs, shown to Marabou.", min=0, max=1)
    ] = 0.1,
    scale: ScaleName = "range",
    category_changes: CategoryChanges = 0,
    fresh: Fresh = False,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Decide properties of a model, or its local robustness at the test points of a dataset.

    With --property or --csv the verdict is VNN-COMP's: sat, unsat, unknown or timeout.
    With --data the verdicts are logged to MLflow, like the main flow's.
    With --equivalent, whether a retrained or quantised model answers like the old one.
    With --flagged, what a guard did not accept is asked again, with more time.
    """
    is_local = data is not None and equivalent is None
    about = prop, csv, flagged, data if equivalent is None else equivalent
    named = (model is not None) + bool(network)
    for is_wrong, expected in (
        (
            sum(option is not None for option in about) != 1,
            "give --model with --property, or --model with --data, or --csv with --results, or "
            "--equivalent with --delta, or --flagged",
        ),
        (
            named != (prop is not None or is_local) or (bool(network) and is_local),
            "--data needs --model, and --property too, or --network for each of its networks; "
            "--csv, --equivalent and --flagged name models themselves",
        ),
        ((results is None) != (csv is None), "--csv and --results go together"),
        (
            (epsilon is None) != (data is None) and (is_local or data is None),
            "--data and --epsilon go together",
        ),
        (
            data is None and (scale, category_changes) != ("range", 0),
            "--scale and --category-changes go with --data",
        ),
        ((delta is None) != (equivalent is None), "--equivalent and --delta go together"),
        (
            equivalent is not None and (data is None) == (box is None),
            "--equivalent needs --box or --data, to know which inputs",
        ),
        (box is not None and equivalent is None, "--box goes with --equivalent"),
    ):
        if is_wrong:
            raise typer.BadParameter(expected)
    begin(verbose=verbose, json=json, results=results)
    if flagged is not None:
        from flows.actions.guard_command import verify_flagged

        verify_flagged(flagged, store, timeout, json)
        return

    from flows.actions import verify_command

    effort = verify_command.Effort.of(engine, seed, fresh, workers, cluster)
    moves = {"scale": scale, "category_changes": category_changes}
    if equivalent is not None and delta is not None:
        from flows.actions import equivalence_command as command

        where = (
            command.within_box(delta, box)
            if box is not None
            else command.of_data(delta, data or "", moves, epsilon or [], samples, seed)
        )
        command.verify_equivalence(equivalent, where, timeout, effort, json)
    elif data is not None and model is not None:
        from flows.actions.model_command import ask

        section = {
            "engine": engine,
            "samples": samples,
            "epsilons": tuple(epsilon or ()),
            "witness_share": witness_share,
            "timeout_seconds": timeout,
            "workers": workers,
            "cluster": cluster,
        }
        settings = {"dataset": data} | moves
        ask(model, settings, seed, {"verification": section}, fresh=fresh, json=json)
    elif prop is not None:
        models = model if model is not None else verify_command.networks_named(network or [])
        verify_command.verify_property(models, prop, timeout, effort, json)
    elif csv is not None and results is not None:
        verify_command.verify_csv(csv, results, effort, json)
