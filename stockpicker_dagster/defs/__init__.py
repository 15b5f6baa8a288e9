"""What Dagster loads: thin assets, checks, jobs, schedules and sensors."""
