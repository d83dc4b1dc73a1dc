"""Tables of the tactical service."""

from app.service.migrations import run_sql

revision = "t0001"
down_revision = None


def upgrade() -> None:
    """Create partitions' machinery, what both services share, and the service's tables."""
    run_sql("app.service.migrations", "partitions.sql", "shared.sql")
    run_sql("app.tactical.migrations", "t0001_tables.up.sql")


def downgrade() -> None:
    """Drop everything: every model version and action is lost."""
    run_sql("app.tactical.migrations", "t0001_tables.down.sql")
