"""Run by Alembic: applies the steps within the transaction of `service.ledger.migrate.upgrade`."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
