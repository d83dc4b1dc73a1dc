"""Read by alembic for each run; the connection and the service come from `app.service.migrations.apply`."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    service=context.config.attributes["service"],
)
with context.begin_transaction():
    context.run_migrations()
