"""The queue of trainings, what is told of their progress, and which model acts."""

from app.service.migrations import run_sql

revision = "t0002"
down_revision = "t0001"


def upgrade() -> None:
    """Create the tables."""
    run_sql("app.tactical.migrations", "t0002_jobs.up.sql")


def downgrade() -> None:
    """Drop them: queued trainings and the history of activations are lost, models are not."""
    run_sql("app.tactical.migrations", "t0002_jobs.down.sql")
