# Image with the locked packages, for a Docker or Kubernetes work pool; see docs/operations.md.
FROM python:3.11-slim-bookworm
# bubblewrap: sandbox for generated code; git: sources of kind git; gcc: Triton compiles its launchers
RUN apt-get update && apt-get install -y --no-install-recommends bubblewrap git gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/finetune
COPY requirements.lock requirements-demo.lock ./
RUN pip install --no-cache-dir -r requirements.lock \
    && pip install --no-cache-dir --no-deps -r requirements-demo.lock
COPY pyproject.toml README.md LICENSE prefect.yaml ./
COPY flows flows
COPY tasks tasks
COPY data/sample data/sample
RUN pip install --no-cache-dir --no-deps -e .
# artifacts/ and data/ are on a volume that all containers share
ENV FINETUNE_HOME=/finetune PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1 PYTHONUNBUFFERED=1
VOLUME /finetune
CMD ["finetune", "plan"]
