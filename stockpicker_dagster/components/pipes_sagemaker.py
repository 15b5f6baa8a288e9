"""Dagster Pipes for SageMaker: training, transform and processing jobs run as external processes of a step.

It needs nothing of a strategy: any account's jobs, by any image. A job's log is in Dagster's; what the job reports by
`dagster_pipes` on its standard output becomes results of the step; a cancelled run stops the job; a step that starts
again follows the job of that name instead of paying for a second one; and one thread waits for any number of jobs.
"""

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import dagster as dg
from dagster._core.pipes.client import PipesContextInjector, PipesMessageReader
from dagster._core.pipes.context import PipesMessageHandler, PipesSession
from dagster._core.pipes.utils import PipesEnvContextInjector
from dagster_pipes import PIPES_PROTOCOL_VERSION_FIELD, PipesDefaultMessageWriter

from stockpicker_dagster.components.job_log import JobLog
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.training.platforms import Answer, Jobs
from stockpicker_dagster.training.platforms.attempts import Work, outcome
from stockpicker_dagster.training.platforms.cloudwatch import new_lines
from stockpicker_dagster.training.platforms.costs import billed_seconds, estimate
from stockpicker_dagster.training.platforms.jobs import JobKind
from stockpicker_dagster.training.platforms.polling import Waiting, awaited, wait_for_all

_VALUE = {"training": 512, "transform": 10_240, "processing": 256}
"""Characters that a variable of each kind of job holds."""
_RESOURCES = {"training": "ResourceConfig", "transform": "TransformResources"}

Context = dg.OpExecutionContext | dg.AssetExecutionContext


class SageMakerJobs:
    """Any account's jobs, by clients of boto3: `SageMakerJobs(boto3.client("sagemaker"), boto3.client("logs"))`."""

    name = "sagemaker"

    def __init__(self, client: Any, logs: Any, poll_seconds: float = 10.0, longest_poll_seconds: float = 60.0) -> None:
        self.client = client
        self.poll_seconds, self.longest_poll_seconds = poll_seconds, longest_poll_seconds
        self._logs = logs

    def read_log(self, job: str, position: str | None = None, kind: str = "training") -> tuple[list[str], str]:
        """New lines of the job's CloudWatch streams."""
        return new_lines(self._logs, JobKind(kind), job, position)


class PipesSageMakerLogReader(PipesMessageReader):
    """Finds messages of Pipes among the lines of a job's log; the client hands them over."""

    def __init__(self) -> None:
        self.handler: PipesMessageHandler | None = None

    @contextmanager
    def read_messages(self, handler: PipesMessageHandler) -> Iterator[dict[str, Any]]:
        self.handler = handler
        yield {PipesDefaultMessageWriter.STDIO_KEY: PipesDefaultMessageWriter.STDOUT}

    def take(self, line: str) -> bool:
        """Handles a line that is a message; whether it was one."""
        if PIPES_PROTOCOL_VERSION_FIELD not in line or self.handler is None:
            return False
        try:
            message = json.loads(line)
        except ValueError:
            return False
        if not isinstance(message, dict) or PIPES_PROTOCOL_VERSION_FIELD not in message:
            return False
        self.handler.handle_message(message)  # type: ignore[arg-type]
        return True

    def no_messages_debug_text(self) -> str:
        return "Looked for messages in the log of the SageMaker job, where a job writes them to its standard output."


class PipesSageMakerClient(dg.PipesClient):
    """Runs jobs of SageMaker in a step; `jobs` says where.

    The context goes to the job in a variable of its own, or as `context_injector` has it.
    """

    def __init__(self, jobs: Jobs, context_injector: PipesContextInjector | None = None) -> None:
        self._jobs = jobs
        self._injector = context_injector or PipesEnvContextInjector()

    def run(  # type: ignore[override]
        self,
        *,
        context: Context,
        request: Mapping[str, Any],
        kind: str = "training",
        extras: dict[str, Any] | None = None,
        max_seconds: float | None = None,
    ) -> dg.PipesClientCompletedInvocation:
        """Runs one job to its end. `request` are the arguments of `create_<kind>_job`, whose name it is found by again.

        A job of that name that failed or was stopped is tried again under the name with `-2` at its end, and so on.
        Raises `PlatformFailure`, in the container's words, if it fails; `max_seconds` stops it after that.
        """
        return self.run_all(context=context, requests={"": request}, kind=kind, extras=extras, max_seconds=max_seconds)[
            ""
        ]

    def run_all(
        self,
        *,
        context: Context,
        requests: Mapping[str, Mapping[str, Any]],
        kind: str = "training",
        extras: dict[str, Any] | None = None,
        max_seconds: float | None = None,
        at_once: int = 10,
    ) -> dict[str, dg.PipesClientCompletedInvocation]:
        """Runs many jobs, `at_once` of them at a time, waited for by this thread alone; see `run`."""
        with ExitStack() as stack:
            begun = {
                name: stack.enter_context(self._session(context, request, JobKind(kind), extras, max_seconds))
                for name, request in requests.items()
            }
            ended = wait_for_all({name: work for name, (_, work) in begun.items()}, at_once)
        return {name: self._completed(session, kind, ended[name]) for name, (session, _) in begun.items()}

    async def run_async(
        self,
        *,
        context: Context,
        request: Mapping[str, Any],
        kind: str = "training",
        extras: dict[str, Any] | None = None,
        max_seconds: float | None = None,
    ) -> dg.PipesClientCompletedInvocation:
        """As `run`, for coroutines: no thread waits, and a cancelled task stops the job."""
        with self._session(context, request, JobKind(kind), extras, max_seconds) as (session, work):
            job = await awaited(work)
        return self._completed(session, kind, job)

    @contextmanager
    def _session(
        self,
        context: Context,
        request: Mapping[str, Any],
        kind: JobKind,
        extras: dict[str, Any] | None,
        max_seconds: float | None,
    ) -> Iterator[tuple[PipesSession, Waiting[Answer]]]:
        reader, first = PipesSageMakerLogReader(), str(request[kind.name_key])
        log = JobLog(context, first)

        def named(attempt: int) -> str:
            return first if attempt == 1 else f"{first[: 63 - len(ending := f'-{attempt}')]}{ending}"

        def heard(line: str) -> None:
            if not reader.take(line):
                log(line)

        def asked(attempt: int) -> dict[str, Any]:
            return {**request, kind.name_key: named(attempt), "Environment": variables}

        with dg.open_pipes_session(context, self._injector, reader, extras) as session:
            variables = {**(request.get("Environment") or {}), **session.get_bootstrap_env_vars()}
            _check_lengths(variables, kind)
            work = Work(kind, named, asked, lambda job: job, max_seconds)
            yield session, self._job_of(outcome(self._jobs, work, heard, context.log.info))

    @staticmethod
    def _job_of(work: Generator[float, None, tuple[Answer, Answer]]) -> Waiting[Answer]:
        _, job = yield from work
        return job

    def _completed(self, session: PipesSession, kind: str, job: Answer) -> dg.PipesClientCompletedInvocation:
        seconds = billed_seconds(job)
        cluster = (job.get("ProcessingResources") or {}).get("ClusterConfig")
        resources = cluster or job.get(_RESOURCES.get(kind, "")) or {}
        cost = estimate(self._jobs, resources, seconds) if resources.get("InstanceType") else {}
        named = {f"{kind}_job": job[JobKind(kind).name_key], "billed_seconds": seconds, **cost}
        return dg.PipesClientCompletedInvocation(session, metadata=named)


def _check_lengths(variables: Mapping[str, str], kind: JobKind) -> None:
    """Raises `InvalidInput` for a variable that is longer than the service takes."""
    most = _VALUE.get(kind.name, 256)
    for name, value in variables.items():
        if len(value) > most:
            raise InvalidInput(
                f"the variable {name} of the {kind.name} job has {len(value)} characters; allowed: at most {most}; "
                "give less in extras, or a context_injector such as PipesS3ContextInjector"
            )
