"""The model card: Markdown whose front matter has the numbers in Hugging Face's `model-index`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import yaml

from tasks.core.bundle.described import DataDescription
from tasks.core.bundle.recount import Name
from tasks.core.bundle.statement import Claim
from tasks.core.errors import CertiflowError
from tasks.core.evidence.sampling import CONFIDENCE, METHOD, interval_text, share_interval
from tasks.core.properties.domain import told
from tasks.presentation.markdown import inline, table

FRONT = re.compile(r"---\n(.*?)\n---\n", re.DOTALL)
LIMITS = (
    "Proofs are of the points and radii named, not of inputs in general.",
    "Attacks give upper estimates: what they leave unbroken is not proved.",
    "The numbers say nothing of fairness, privacy, poisoned data or other changes of inputs.",
)


def model_card(
    title: str, architecture: str, data: DataDescription, claims: Sequence[Claim]
) -> str:
    """The card of a version, with every claim in its front matter and in its tables."""
    kind = "tabular" if data.features else "image"
    front = {
        "tags": ["certiflow", "adversarial-robustness", "neural-network-verification"],
        "datasets": [data.name],
        "model-index": [
            {
                "name": title,
                "results": [
                    {
                        "task": {"type": f"{kind}-classification"},
                        "dataset": {
                            "name": data.name,
                            "type": data.name,
                            "split": "test",
                            "revision": data.sha256,
                        },
                        "metrics": [_metric(claim) for claim in claims],
                    }
                ],
            }
        ],
    }
    words = [
        "---",
        yaml.safe_dump(front, sort_keys=False).strip(),
        "---",
        "",
        f"# {inline(title)}",
        "",
        f"{inline(architecture)}, evaluated on the test set of {inline(data.name)} (licence: "
        f"{inline(data.licence or 'not stated')}).",
        "",
        f"Distances: {data.norm}, in {inline(data.unit)}. Radius 0 or none: inputs undisturbed.",
        "",
        *table(
            ("number", "epsilon", "value", f"{CONFIDENCE:.0%} ({METHOD})", "points"),
            [
                (
                    claim.metric,
                    "-" if claim.epsilon is None else told(claim.epsilon),
                    told(claim.value),
                    _interval(claim),
                    f"{claim.n:,}, {claim.domain.points}",
                )
                for claim in claims
            ],
        ),
        "",
        "## Limits",
        "",
        *(f"- {limit}" for limit in LIMITS),
        "",
    ]
    return "\n".join(words)


def numbers_of(card: str) -> list[tuple[Name, float]]:
    """The numbers in a card's front matter, as `recount` names them.

    Raises:
        CertiflowError: it has no such front matter.
    """
    front = FRONT.match(card)
    try:
        if front is None:
            raise ValueError("it does not begin with ---")
        (model,) = yaml.safe_load(front[1])["model-index"]
        (result,) = model["results"]
        found = []
        for metric in result["metrics"]:
            epsilon = metric["args"].get("epsilon")
            name = str(metric["type"]), None if epsilon is None else float(epsilon)
            found.append((name, float(metric["value"])))
    except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise CertiflowError(
            f"model_card.md: expected a front matter with model-index ({error})"
        ) from error
    return found


def _interval(claim: Claim) -> str:
    """Of the whole test set's numbers there is none, nor of radii."""
    if claim.domain.points == "all" or not claim.metric.startswith("verification/"):
        return "-"
    return interval_text(*share_interval(round(claim.value * claim.n), claim.n))


def _metric(claim: Claim) -> dict[str, object]:
    args: dict[str, object] = {
        "n": claim.n,
        "points": claim.domain.points,
        "norm": claim.norm,
        "unit": claim.unit,
    }
    if claim.epsilon is not None:
        args["epsilon"] = claim.epsilon
    return {"type": claim.metric, "value": claim.value, "args": args}
