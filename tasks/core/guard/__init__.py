"""What a service needs whose answers carry a proof: certificates in float32, who asks, attacks.

May import every other package of the core but `evidence`; `tasks` and `flows` import it.
Guarantees: what the certificate accepts holds for every float32 evaluation of the model; nothing
here knows HTTP, MLflow or Prefect.
"""
