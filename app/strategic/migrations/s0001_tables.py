"""Tables of the strategic service."""

from app.service.migrations import run_sql

revision = "s0001"
down_revision = None


def upgrade() -> None:
    """Create partitions' machinery, what both services share, and the service's tables."""
    run_sql("app.service.migrations", "partitions.sql", "shared.sql")
    run_sql("app.strategic.migrations", "s0001_tables.up.sql")


def downgrade() -> None:
    """Drop everything: every sample is lost."""
    run_sql("app.strategic.migrations", "s0001_tables.down.sql")
