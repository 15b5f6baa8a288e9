# The image of training and serving on SageMaker, built from the project's root:
#   docker build -f deploy/training.Dockerfile -t ACCOUNT.dkr.ecr.REGION.amazonaws.com/PREFIX:latest .
FROM python:3.11-slim
WORKDIR /opt/stockpicker
COPY pyproject.toml README.md constraints.txt ./
COPY stockpicker_dagster ./stockpicker_dagster
RUN pip install --no-cache-dir --constraint constraints.txt '.[deep]'
# In exec form, so that SIGTERM reaches the training and it can save its checkpoint.
ENTRYPOINT ["python", "-m", "stockpicker_dagster.training.container"]
