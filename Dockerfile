# The code location and what stands around it: Dagster's code server and daemon, the console, the commands.
# `compose.yaml` builds and starts it. It holds the project's strategies, no data and no credentials.
# Training on SageMaker has an image of its own, deploy/training.Dockerfile.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    STOCKPICKER_HOME=/var/lib/stockpicker DAGSTER_HOME=/var/lib/stockpicker/dagster

# What is installed beside the base set, and who runs it: whose files the strategies and the state are.
ARG EXTRAS=postgres,deep,search
ARG UID=1000
ARG GID=1000

# Packages come first, in a layer that outlives a change of the code. Editable, since Dagster reads the project's files.
WORKDIR /opt/stockpicker
COPY pyproject.toml constraints.txt README.md ./
COPY stockpicker_dagster/__init__.py stockpicker_dagster/
RUN pip install --constraint constraints.txt --editable ".[$EXTRAS]"

COPY dagster.yaml dagster.postgres.yaml workspace.yaml ./
COPY deploy/workspace.yaml deploy/
COPY stockpicker_dagster stockpicker_dagster

# New volumes take on the owner of the folders that they cover.
RUN groupadd --gid "$GID" stockpicker && useradd --uid "$UID" --gid "$GID" --no-create-home stockpicker \
    && install -d -m 0700 -o "$UID" -g "$GID" /var/lib/stockpicker /var/lib/stockpicker/keys \
    && chown -R "$UID:$GID" stockpicker_dagster/defs/strategies
USER stockpicker

# In exec form, so that SIGTERM reaches the server and not a shell.
CMD ["dagster", "code-server", "start", "--host", "0.0.0.0", "--port", "4000", "--location-name", "stockpicker", \
     "--module-name", "stockpicker_dagster.definitions", "--attribute", "defs"]
