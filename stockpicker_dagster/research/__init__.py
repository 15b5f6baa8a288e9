"""Pure functions: data in, data out; no clock, no network, no Dagster."""
