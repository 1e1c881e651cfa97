"""Which file of a bundle answers which clause of which text, and which clauses nothing answers.

Clauses are told in our own words, shortened to what a bundle could answer; `docs/evidence.md` names
the sources. A file that answers a clause is evidence for it, never a statement of conformity.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

AI_ACT = "Regulation (EU) 2024/1689 (AI Act)"
ISO = "ISO/IEC 24029-2:2023"
RMF = "NIST AI RMF 1.0 (AI 100-1)"
GMLP = "FDA, Health Canada, MHRA: Good Machine Learning Practice (2021)"

STATEMENT = "statement.dsse.json"
VERDICTS, COUNTEREXAMPLES = "tables/verification.csv", "counterexamples/*"
GRID, RADII = "tables/epsilon_grid.csv", "tables/critical_radius.csv"
CERTIFICATES, DATA = "certificates/*", "data.json"


class Clause(BaseModel):
    """One clause, and the files that answer it.

    Attributes:
        asks: what of it a bundle could answer, in our words.
        files: names or patterns of files in a bundle; none where nothing answers it.
        how: what the files show, and what they leave open.
    """

    model_config = ConfigDict(frozen=True)

    source: str
    clause: str
    asks: str
    files: tuple[str, ...]
    how: str


def _nothing(source: str, clause: str, asks: str, why: str) -> Clause:
    return Clause(source=source, clause=clause, asks=asks, files=(), how=why)


def _shown(source: str, clause: str, asks: str, files: tuple[str, ...], how: str) -> Clause:
    return Clause(source=source, clause=clause, asks=asks, files=files, how=how)


CLAUSES = (
    _shown(
        AI_ACT,
        "Annex IV 2(g): procedures and data",
        "how it was validated and tested, on which data with which characteristics",
        ("config.yaml", "data_card.md", DATA, "run.json"),
        "settings repeat the run; data are named by content, with licence, split and the sampled "
        "indices. The data themselves are not in the bundle.",
    ),
    _shown(
        AI_ACT,
        "Annex IV 2(g): metrics",
        "metrics of accuracy and robustness",
        (STATEMENT, "model_card.md", GRID, VERDICTS, RADII),
        "each claim has its number of points, radius, norm and threat model.",
    ),
    _nothing(
        AI_ACT,
        "Annex IV 2(g): other requirements",
        "metrics of the other requirements of Chapter III, Section 2",
        "accuracy and robustness alone are measured.",
    ),
    _shown(
        AI_ACT,
        "Annex IV 2(g): discriminatory impacts",
        "metrics of potentially discriminatory impacts",
        ("tables/properties_summary.csv",),
        "only where `properties.fair` was asked: whether changing a feature alone changes a "
        "decision. Nothing is said of groups of people.",
    ),
    _shown(
        AI_ACT,
        "Annex IV 2(g): logs and reports",
        "test logs and reports, dated and signed by the responsible persons",
        (STATEMENT, VERDICTS, COUNTEREXAMPLES, CERTIFICATES, "report.html"),
        "every verdict, dated and signed by the holder of a key. Whose key it is, and whether that "
        "person is responsible, must be known from elsewhere.",
    ),
    _nothing(
        AI_ACT,
        "Annex IV 2(g): pre-determined changes",
        "tests with regard to changes determined beforehand",
        "a bundle is of one version; `certiflow retrain` judges each new one.",
    ),
    _shown(
        AI_ACT,
        "Article 15(1)",
        "an appropriate level of accuracy and robustness, throughout the life cycle",
        (STATEMENT, "gate.json"),
        "the level reached by this version, and what decided that it serves. Which level is "
        "appropriate, and the time after the bundle was made, are not in it.",
    ),
    _shown(
        AI_ACT,
        "Article 15(3)",
        "levels and metrics of accuracy declared in the instructions of use",
        ("model_card.md", STATEMENT),
        "numbers that can be declared; instructions of use are not in the bundle.",
    ),
    _shown(
        AI_ACT,
        "Article 15(4): errors and faults",
        "resilience against errors, faults and inconsistencies of the environment",
        (VERDICTS, RADII),
        "all changes of an input within the radius, whatever their cause. Faults of hardware, "
        "software or interaction, and other changes of inputs, are not looked at.",
    ),
    _nothing(
        AI_ACT,
        "Article 15(4): feedback loops",
        "biased outputs as inputs of a system that goes on learning",
        "no version learns after it was registered; what retraining is fed is not examined.",
    ),
    _shown(
        AI_ACT,
        "Article 15(5): adversarial examples",
        "measures against inputs made to cause mistakes (adversarial examples, model evasion)",
        (VERDICTS, CERTIFICATES, COUNTEREXAMPLES, GRID, "guard/*"),
        "proofs and counterexamples within the radius named; what a guard refuses, where one was "
        "evaluated. Beyond the radius nothing is proved.",
    ),
    _nothing(
        AI_ACT,
        "Article 15(5): poisoning and confidentiality",
        "measures against data poisoning, model poisoning and attacks on confidentiality",
        "the data's digest shows that they are those named, not that they are clean; privacy is "
        "not examined.",
    ),
    _shown(
        ISO,
        "5.2 domain",
        "the domain in which a property is to hold, bounded and described by its attributes",
        (DATA, "data_card.md", "config.yaml"),
        "balls around sampled test points, within the valid inputs. The space between them is not "
        "covered.",
    ),
    _shown(
        ISO,
        "5.3 stability",
        "that the output stays the same over a domain",
        (VERDICTS, CERTIFICATES, COUNTEREXAMPLES),
        "the label over each ball: proved, broken by a stored input, or open with a reason.",
    ),
    _shown(
        ISO,
        "5.4 sensitivity",
        "how much outputs vary as inputs vary",
        (RADII, VERDICTS),
        "the radius at which each sampled label breaks, and proved margins. Of outputs as numbers "
        "only `certiflow global-robustness` tells, which is not in the bundle.",
    ),
    _nothing(
        ISO,
        "5.5 relevance",
        "how much each input matters to the output, as somebody can judge it",
        "nothing attributes outputs to inputs.",
    ),
    _shown(
        ISO,
        "5.6 reachability",
        "which outputs can be reached from a domain",
        (VERDICTS, CERTIFICATES),
        "that no other label can be reached from a ball. Sequences of steps of a system around the "
        "network are not looked at.",
    ),
    _shown(
        ISO,
        "6.2 kind of tool",
        "complete or not, deterministic or not, aware of the model or not, real or computer "
        "arithmetic; solver, abstract interpretation or another",
        (VERDICTS, "config.yaml", "README.md"),
        "column decided_by: attacks falsify; interval and linear bounds (abstract interpretation), "
        "branch and bound prove. Aware of the model, sound, complete given time but for rounding; "
        "over the reals, rounded outwards; column deployed: for any float32 evaluation as well.",
    ),
    _nothing(
        ISO,
        "7 life cycle",
        "robustness in design, deployment, operation and retirement",
        "a bundle is of one version at one time.",
    ),
    _shown(
        RMF,
        "MEASURE 2.6 (safety)",
        "evaluated for safety risks; robustness and reliability measured; fails safely beyond the "
        "limits of its knowledge",
        (STATEMENT, VERDICTS, "guard/*"),
        "robustness to small changes of inputs; where a guard was evaluated, that unproved answers "
        "are flagged. Risks and tolerances are identified elsewhere (MAP).",
    ),
    _shown(
        RMF,
        "MEASURE 2.7 (security and resilience)",
        "security and resilience evaluated and documented",
        (STATEMENT, VERDICTS, GRID, CERTIFICATES, "sbom.cdx.json"),
        "evasion by a white-box attacker (NIST AI 100-2), and the software that was used. "
        "Poisoning, privacy, supply chain and availability are not evaluated.",
    ),
    _nothing(GMLP, "1 expertise", "many disciplines throughout the life cycle", "about people."),
    _shown(
        GMLP,
        "2 software engineering and security",
        "good software engineering, data quality and security practices",
        ("sbom.cdx.json", "requirements.lock", "run.json", STATEMENT),
        "software by version and, in the lock file, by hash; commit; digests. Practices as such "
        "are not shown.",
    ),
    _nothing(
        GMLP,
        "3 representative data",
        "participants and data that represent the intended patients",
        "the data card says what the data are; whom they represent is not examined.",
    ),
    _nothing(
        GMLP,
        "4 independent test data",
        "training data independent of test data",
        "the split is named; that no patient or near copy is in both is not examined.",
    ),
    _nothing(
        GMLP,
        "5 reference data",
        "reference data by the best available methods",
        "labels are taken as they are.",
    ),
    _nothing(
        GMLP,
        "6 design and intended use",
        "a model suited to the data and the intended use",
        "no intended use is stated.",
    ),
    _nothing(GMLP, "7 human and model", "performance of people with the model", "not measured."),
    _shown(
        GMLP,
        "8 clinically relevant conditions",
        "performance in testing during clinically relevant conditions",
        (GRID, VERDICTS),
        "performance under the worst small changes of test inputs. Whether they are clinically "
        "relevant is not examined.",
    ),
    _shown(
        GMLP,
        "9 clear information",
        "clear, essential information for users",
        ("model_card.md", "report.html", "data_card.md"),
        "performance, data and limits; no intended use, no instructions.",
    ),
    _nothing(
        GMLP,
        "10 monitoring",
        "deployed models monitored, risks of retraining managed",
        "a bundle ends when it is made; `certiflow guard` counts what it sees in service.",
    ),
)
