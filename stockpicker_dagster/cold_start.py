"""From an empty account, or an empty disk, to a place where strategies run: what is made, in which order.

Everything is looked at first, and made only where it is lacking; nothing is ever taken away. Training the first models
is a run of each strategy, which the command starts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.home import home
from stockpicker_dagster.market.universes.listed import LISTED, ListedName
from stockpicker_dagster.market.universes.snapshots import keep_first_list, table_of
from stockpicker_dagster.storage.aws.buckets import bucket_steps
from stockpicker_dagster.storage.aws.keys import key_alias, key_steps
from stockpicker_dagster.storage.aws.policies import (
    caller_policy,
    execution_policy,
    execution_role_name,
    trust_policy,
)
from stockpicker_dagster.storage.aws.settings import AwsSettings, aws_settings, on_aws
from stockpicker_dagster.storage.aws.steps import Outcome, Step, taken
from stockpicker_dagster.storage.database import create_database, database_exists, is_migrated, migrate
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.opening import database_url


def cold_start(deployment: Deployment, *, plan: bool = False, own_key: bool = False) -> Iterator[Outcome]:
    """Makes what this deployment lacks, or with `plan` says what it would make, one outcome a step.

    `own_key` asks for a KMS key of the deployment's own. Raises `StockPickerError` where a step is refused; the steps
    before it stay done, and the next start goes on with it.
    """
    if own_key and not on_aws():
        raise InvalidInput(
            "a KMS key belongs to an AWS account; set STOCKPICKER_DEPLOYMENT=aws, or leave --own-key out"
        )
    if on_aws():
        yield from taken(_account(aws_settings(), own_key), plan=plan)
    yield from taken(_stored(deployment), plan=plan)


def settings_with_key(settings: AwsSettings, own_key: bool) -> AwsSettings:
    """The settings, with the deployment's own key where one is asked for."""
    return replace(settings, kms_key=key_alias(settings)) if own_key and settings.kms_key is None else settings


def iam_policies(own_key: bool = False) -> dict[str, Any]:
    """The policies of the caller and of SageMaker's execution role, and who may take that role on."""
    if not on_aws():
        raise InvalidInput("policies belong to an AWS account; set STOCKPICKER_DEPLOYMENT=aws")
    settings = settings_with_key(aws_settings(), own_key)
    return {
        "caller": caller_policy(settings),
        f"role {execution_role_name(settings)}": execution_policy(settings),
        "who may take the role on": trust_policy(),
    }


def _account(settings: AwsSettings, own_key: bool) -> Sequence[Step]:
    chosen = settings_with_key(settings, own_key)
    keys = key_steps(settings) if chosen.kms_key == key_alias(settings) else ()
    return [*keys, *bucket_steps(chosen)]


def _stored(deployment: Deployment) -> Iterator[Step]:
    url = database_url()
    yield Step("the database exists", lambda: database_exists(url), partial(_create_database, url))
    yield Step(
        "the database has the newest schema",
        lambda: database_exists(url) and is_migrated(deployment.unmigrated_database),
        lambda: migrate(deployment.unmigrated_database),
    )
    # The other lists are brought from the network, by a run that asks for them.
    for name in (name for name, listed in LISTED.items() if listed.packaged_as):
        yield Step(
            f"the list of {name} is in the lake",
            partial(_has_list, deployment, name),
            partial(_keep_list, deployment, name),
        )


def _has_list(deployment: Deployment, name: ListedName) -> bool:
    return bool(deployment.lake.bundles(table_of(name)))


def _keep_list(deployment: Deployment, name: ListedName) -> None:
    keep_first_list(deployment.lake, name, deployment.now())


def _create_database(url: str) -> None:
    home().root.mkdir(mode=0o700, parents=True, exist_ok=True)
    create_database(url)
