"""What a service needs whose answers carry a proof: certificates in float32, and who asks.

May import all other packages of the core. Nothing here knows HTTP, MLflow or Prefect.
"""
