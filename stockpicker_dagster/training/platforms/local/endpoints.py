"""Supervising one endpoint: a server that is started again when it ends, until the endpoint is deleted."""

import time
from typing import Any

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.training.platforms import PlatformFailure
from stockpicker_dagster.training.platforms.local.records import INTERNAL, Record, now
from stockpicker_dagster.training.platforms.local.serving import Server

ENDED = ("Failed", "Deleted")
END_SECONDS = 30
_RESTARTS = 3
_LOOK_SECONDS = 0.1


def initial_state(
    request: dict[str, Any], arn: str, variant: dict[str, Any], container: dict[str, Any]
) -> dict[str, Any]:
    """The state of an endpoint that nobody has begun to supervise."""
    moment = now()
    return {
        "EndpointArn": arn,
        "EndpointStatus": "Creating",
        "ProductionVariants": [
            {"VariantName": variant["VariantName"], "CurrentWeight": 1.0, "CurrentInstanceCount": 1}
        ],
        "CreationTime": moment,
        "LastModifiedTime": moment,
        INTERNAL: {"variant": variant, "container": container},
    }


def supervise(record: Record, lock: int, warm: bool) -> None:
    """Serves until the endpoint is deleted, then removes the record; Failed if the server does not stay up."""
    state = record.state
    own = state[INTERNAL]
    patience = float(own["variant"].get("ContainerStartupHealthCheckTimeoutInSeconds", 600))
    failure = ""
    for attempt in range(_RESTARTS + 1):
        server = None
        try:
            state = {**state, "LastModifiedTime": now()}
            record.write(state)
            server = Server(own["container"], {}, record.folder / f"attempt-{attempt}", record.log, lock, warm)
            _await_health(record, server, patience)
            own["port"] = server.port
            state = {**state, "EndpointStatus": "InService", "LastModifiedTime": now()}
            record.write(state)
            while not record.asked_to_stop:
                if server.process.poll() is not None:
                    raise PlatformFailure(f"the container ended with {server.process.ended_with()}")
                time.sleep(_LOOK_SECONDS)
        except (StockPickerError, OSError) as error:
            failure = str(error)
        finally:
            if server is not None:
                server.process.end(END_SECONDS)
        if record.asked_to_stop or not record.folder.exists():
            record.remove()
            return
        if state["EndpointStatus"] == "Creating":
            # What does not start once does not start: its model or its settings are wrong.
            break
    own.pop("port", None)
    record.write({**state, "EndpointStatus": "Failed", "FailureReason": failure, "LastModifiedTime": now()})


def _await_health(record: Record, server: Server, patience: float) -> None:
    until = time.monotonic() + patience
    while not server.healthy() and not record.asked_to_stop:
        if time.monotonic() > until:
            raise PlatformFailure(f"the container did not pass the ping health check within {patience:g} s")
        time.sleep(0.02)
