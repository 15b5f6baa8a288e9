"""The log of a job as CloudWatch keeps it: several streams, read on from where they were left."""

import json
from typing import Any

from stockpicker_dagster.storage.aws.errors import asking
from stockpicker_dagster.training.platforms.jobs import JobKind

_MOST_LINES = 10_000


def new_lines(logs: Any, kind: JobKind, job: str, position: str | None = None) -> tuple[list[str], str]:
    """The lines that a job wrote after `position` (None: from its start), and the new one, a token for each stream.

    `logs` is boto3's client. A job without a log has no lines. Raises `AwsRefusal`.
    """
    lines: list[str] = []
    tokens: dict[str, str] = json.loads(position) if position else {}
    group = kind.log_group
    with asking(f"the log of {job} was to be read"):
        try:
            found = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{job}/")["logStreams"]
        except logs.exceptions.ResourceNotFoundException:
            found = []
        for name in sorted(each["logStreamName"] for each in found):
            while len(lines) < _MOST_LINES:
                token = {"nextToken": tokens[name]} if name in tokens else {}
                page = logs.get_log_events(logGroupName=group, logStreamName=name, startFromHead=True, **token)
                lines += [event["message"] for event in page["events"]]
                if page["nextForwardToken"] == tokens.get(name):
                    break
                tokens[name] = page["nextForwardToken"]
    return lines, json.dumps(tokens, sort_keys=True)
