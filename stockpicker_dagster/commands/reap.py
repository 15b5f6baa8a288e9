"""`stockpicker reap`: deletes what scorings left running on a platform whose process was killed."""

from datetime import UTC, datetime, timedelta

import click

from stockpicker_dagster.commands import plainly
from stockpicker_dagster.home import prepare_home


@click.command()
@click.option("--older-than", "hours", type=click.FloatRange(0), default=2.0, help="Only what is older (hours; 2).")
@click.option("--plan", is_flag=True, help="Say what is left, and delete nothing.")
@plainly
def reap(hours: float, plan: bool) -> None:
    """Delete endpoints, configurations and models that scorings left behind, and stop their jobs.

    Dagster does it every half hour by itself. What is younger than two hours may belong to a scoring that runs.
    """
    from stockpicker_dagster.training.platforms import platforms_of_deployment, reaper

    prepare_home()
    now, old, failed = datetime.now(UTC), timedelta(hours=hours), 0
    for place in platforms_of_deployment():
        if plan:
            for left in reaper.left_over(place, now, old):
                click.echo(f"would delete {left}")
            continue
        for left, gone in reaper.reap(place, now, old):
            click.echo(f"{'deleted' if gone else 'not yet deleted'}: {left}")
            failed += not gone
    if failed:
        raise click.ClickException(f"{failed} could not be deleted yet; run it again in a while")
