# The image that trains and serves on SageMaker: `docker run IMAGE train` and `docker run IMAGE serve`. Built from the
# project's folder: docker build --file deploy/training.Dockerfile .
# `docker run IMAGE compute` is what processing jobs start. It holds no data, no credentials and no strategies.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 NUMBA_CACHE_DIR=/tmp/numba

WORKDIR /opt/stockpicker
COPY pyproject.toml constraints.txt README.md ./
COPY stockpicker_dagster stockpicker_dagster
ARG EXTRAS=deep,search
RUN pip install --constraint constraints.txt ".[$EXTRAS]"
# Jobs that compute on Spark (EXTRAS=deep,search,spark) need Java, too.
RUN case ",$EXTRAS," in *,spark,*) apt-get update \
    && apt-get install --yes --no-install-recommends default-jre-headless && rm -rf /var/lib/apt/lists/* ;; esac

# In exec form, so that SIGTERM reaches Python and not a shell; the platform appends `train` or `serve`.
ENTRYPOINT ["python", "-m", "stockpicker_dagster.training.container"]
