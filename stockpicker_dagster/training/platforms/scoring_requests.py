"""What a platform is asked for when a model is to score rows: a model, an endpoint or a batch transform.

One name stands for all that one scoring makes. It is made from everything that decides what is answered, so that a step
which starts again finds what it began.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from stockpicker_dagster.training.container.serve import REASONS
from stockpicker_dagster.training.inference import answer_columns
from stockpicker_dagster.training.models import StoredModel
from stockpicker_dagster.training.platforms import Platform
from stockpicker_dagster.training.platforms.custom_models import ModelFolder

How = Literal["transform", "serverless", "endpoint"]
PURPOSE = {"stockpicker:purpose": "scoring"}
"""The tag of everything that is made for one scoring and deleted after it."""
VARIANT = "all"
SERVERLESS = {"MemorySizeInMB": 3072, "MaxConcurrency": 1}
PAYLOAD_MB, AT_ONCE = 6, 4
"""So much is sent to a model at a time in a batch transform, and to so many of its workers at once."""
_NAME = 63


@dataclass(frozen=True)
class Scoring:
    """One model that is to score one set of rows; `rows` is a digest of them, `artifact` the URI of its archive."""

    platform: Platform
    model: StoredModel
    folder: ModelFolder
    artifact: str
    how: How
    rows: str

    @property
    def identity(self) -> str:
        """Sixteen digits over everything that decides what is answered, and by what."""
        resources = {
            "transform": self.platform.transform_resources,
            "serverless": SERVERLESS,
            "endpoint": self.platform.hosting_resources,
        }[self.how]
        whole = [self.model.model_id, self.artifact, self.platform.image, self.how, resources, self.rows]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]

    def name(self, attempt: int = 1) -> str:
        """The name of the model, configuration, endpoint and first transform job; later attempts have numbers."""
        ending = f"-{self.identity}" + (f"-{attempt}" if attempt > 1 else "")
        words = re.sub(r"[^a-zA-Z0-9]+", "-", f"{self.model.strategy}-{self.model.period}").strip("-")
        return (words[: _NAME - len(ending)].rstrip("-") + ending).lstrip("-")

    @property
    def tags(self) -> list[dict[str, str]]:
        own = {**self.platform.marks, **PURPOSE, "stockpicker:strategy": self.model.strategy}
        return [{"Key": key, "Value": value} for key, value in own.items()]

    def model_request(self) -> dict[str, Any]:
        """The arguments of `create_model`. Serverless inference knows no network isolation, and is not asked for it."""
        open_network = {"EnableNetworkIsolation": False} if self.how == "serverless" else {}
        return {
            "ModelName": self.name(),
            "PrimaryContainer": {
                "Image": self.platform.image,
                "ModelDataUrl": self.artifact,
                "Environment": {"STOCKPICKER_STRATEGY": self.model.strategy, REASONS: "1"},
            },
            "ExecutionRoleArn": self.platform.role,
            "Tags": self.tags,
            **open_network,
        }

    def endpoint_config_request(self) -> dict[str, Any]:
        """The arguments of `create_endpoint_config`."""
        resources = {"ServerlessConfig": SERVERLESS} if self.how == "serverless" else self.platform.hosting_resources
        variant = {"VariantName": VARIANT, "ModelName": self.name(), **resources}
        return {"EndpointConfigName": self.name(), "ProductionVariants": [variant], "Tags": self.tags}

    def endpoint_request(self) -> dict[str, Any]:
        """The arguments of `create_endpoint`."""
        return {"EndpointName": self.name(), "EndpointConfigName": self.name(), "Tags": self.tags}

    def transform_request(self, attempt: int, source: str) -> dict[str, Any]:
        """The arguments of `create_transform_job` on a file of `symbol`, `date` and the features, without a header.

        The model sees the features alone; each answer is joined with its line, and symbol, date and answer are kept.
        """
        features = len(self.model.features)
        kept = [0, 1, *range(2 + features, 2 + features + len(answer_columns(self.model.features)))]
        return {
            "TransformJobName": self.name(attempt),
            "ModelName": self.name(),
            "BatchStrategy": "MultiRecord",
            "MaxPayloadInMB": PAYLOAD_MB,
            "MaxConcurrentTransforms": AT_ONCE,
            "TransformInput": {
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}},
                "ContentType": "text/csv",
                "SplitType": "Line",
            },
            "TransformOutput": {
                "S3OutputPath": self.folder.output(self.name(attempt)),
                "Accept": "text/csv",
                "AssembleWith": "Line",
            },
            "TransformResources": self.platform.transform_resources,
            "DataProcessing": {
                "InputFilter": "$[2:]",
                "JoinSource": "Input",
                "OutputFilter": f"$[{','.join(map(str, kept))}]",
            },
            "Tags": self.tags,
        }
