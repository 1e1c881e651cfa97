"""Numerics of training, attacks, bounds and proofs: plain functions, no Prefect, no MLflow.

The modules that lie here (errors, files, arrays, verdicts) import no package; all may import them.
Guarantees: importing any of it loads no framework; whatever a user can cause is a `CertiflowError`.
"""
