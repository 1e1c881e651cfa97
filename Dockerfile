# certiflow with everything it needs; `docker compose up guard` serves with it.
FROM python:3.11-slim
WORKDIR /certiflow
COPY requirements.lock .
RUN pip install --no-cache-dir --require-hashes --no-deps --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY flows flows
COPY tasks tasks
RUN pip install --no-cache-dir --no-deps --no-build-isolation . \
 && useradd --create-home certiflow && install --directory --owner certiflow /project
COPY conf /project/conf
USER certiflow
WORKDIR /project
ENV DO_NOT_TRACK=true MLFLOW_DISABLE_TELEMETRY=true
ENTRYPOINT ["certiflow"]
