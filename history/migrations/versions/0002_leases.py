"""Who works on a job, where several processes share the table."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """What an earlier version left unfinished on a server is there to be taken over."""
    op.add_column("jobs", sa.Column("worker", sa.String(32)))
    op.add_column("jobs", sa.Column("lease_until", sa.DateTime))
    leased = sa.text("worker IS NOT NULL")
    op.create_index(
        "jobs_by_worker", "jobs", ["worker"], postgresql_where=leased, sqlite_where=leased
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "UPDATE jobs SET worker = 'before', lease_until = created "
            "WHERE state IN ('INTENT', 'SUBMITTING', 'SUBMITTED', 'COMPLETED')"
        )


def downgrade() -> None:
    op.drop_index("jobs_by_worker", "jobs")
    with op.batch_alter_table("jobs") as table:
        table.drop_column("lease_until")
        table.drop_column("worker")
