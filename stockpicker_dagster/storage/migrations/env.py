"""What Alembic runs to apply revisions: on the connection, and inside the transaction, that `migrate` hands over."""

from alembic import context


def apply_revisions() -> None:
    """Applies the revisions asked for; schema changes are part of the caller's transaction, on SQLite as well."""
    context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


if __name__ == "env_py":  # the name under which Alembic loads this file; importing it otherwise does nothing
    apply_revisions()
