"""The end of a study: its runs compared in one table, and laid over each other in one figure."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks import console
from tasks.core.evidence import figures, version_figures
from tasks.core.files import written_atomically
from tasks.presentation import comparison
from tasks.presentation.records import Comparison
from tasks.tracking import Run, RunRef


@task(name="conclude", cache_policy=NO_CACHE)
def conclude(runs: Mapping[str, str], epsilon: float, run: RunRef) -> Comparison:
    """Compares the runs, ids by the configurations' names, at the reference radius.

    Writes `tables/comparison.csv`, `figures/curves.png` and, where they are known,
    `figures/radii.png`.
    """
    log, tables, drawn = Run(run), run.folder / "tables", run.folder / "figures"
    with console.stage("conclude", 3) as progress:
        contenders = {name: comparison.collect([run_id], "")[0] for name, run_id in runs.items()}
        (compared,) = comparison.compare(list(contenders.values()), epsilon)
        with written_atomically(tables / "comparison.csv") as temporary:
            pd.DataFrame(comparison.as_records(compared)).to_csv(temporary, index=False)
        log.files("tables", tables / "comparison.csv")
        progress.advance()
        evidence = {name: contender.evidence for name, contender in contenders.items()}
        figures.save(version_figures.curves(evidence, epsilon), drawn / "curves.png")
        log.files("figures", drawn / "curves.png")
        progress.advance()
        radii = version_figures.radii(evidence)
        if radii is not None:
            figures.save(radii, drawn / "radii.png")
            log.files("figures", drawn / "radii.png")
        progress.advance(note=f"{len(runs)} runs compared")
    return compared
