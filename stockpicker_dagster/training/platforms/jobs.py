"""The kinds of jobs that a platform runs, and what SageMaker calls their operations and members.

Every kind is created, described and stopped alike; only the names differ.
"""

from dataclasses import dataclass
from typing import Any

from stockpicker_dagster.training.platforms import Answer, Jobs

ENDED = ("Completed", "Failed", "Stopped")


@dataclass(frozen=True)
class JobKind:
    """One kind of job, `name` as in `create_<name>_job`."""

    name: str

    @property
    def name_key(self) -> str:
        """The member that holds a job's name, such as `TrainingJobName`."""
        return f"{self.name.capitalize()}JobName"

    @property
    def status_key(self) -> str:
        """The member that holds a job's status, such as `TrainingJobStatus`."""
        return f"{self.name.capitalize()}JobStatus"

    @property
    def log_group(self) -> str:
        """Where CloudWatch keeps the logs of these jobs; the streams of one begin with its name and a slash."""
        return f"/aws/sagemaker/{self.name.capitalize()}Jobs"

    def create(self, platform: Jobs, request: dict[str, Any]) -> None:
        """Starts a job; boto3's errors as they are."""
        getattr(platform.client, f"create_{self.name}_job")(**request)

    def describe(self, platform: Jobs, job: str) -> Answer:
        """The job as it is now."""
        answer: Answer = getattr(platform.client, f"describe_{self.name}_job")(**{self.name_key: job})
        return answer

    def stop(self, platform: Jobs, job: str) -> None:
        """Asks a job to stop, which takes up to two minutes."""
        getattr(platform.client, f"stop_{self.name}_job")(**{self.name_key: job})


TRAINING = JobKind("training")
TRANSFORM = JobKind("transform")
PROCESSING = JobKind("processing")
