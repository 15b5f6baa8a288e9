#!/bin/sh
# Run once by the database's container, on an empty volume: a database and a role for Dagster's own storage, and the roles
# between which `stockpicker account grants` divides the ledger. The ledger's database is owned by POSTGRES_USER.
set -eu

# Passwords are read from the environment by psql itself, so that they are on no command line.
psql --set ON_ERROR_STOP=1 --quiet --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
\getenv dagster DAGSTER_PASSWORD
\getenv desk DESK_PASSWORD
\getenv trader TRADER_PASSWORD
CREATE ROLE dagster LOGIN PASSWORD :'dagster';
CREATE ROLE desk LOGIN PASSWORD :'desk';
CREATE ROLE trader LOGIN PASSWORD :'trader';
CREATE DATABASE dagster OWNER dagster;
REVOKE ALL ON DATABASE dagster FROM PUBLIC;
SQL
