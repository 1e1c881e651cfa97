"""Numerics of training, attacks, bounds and proofs: plain functions, no Prefect, no MLflow."""
