"""The table of jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Written out, not taken from `history.schema`, which goes on changing."""
    json = sa.JSON(none_as_null=True)
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("backend", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
        sa.Column("updated", sa.DateTime, nullable=False),
        sa.Column("deleted", sa.DateTime),
        sa.Column("request", json, nullable=False),
        sa.Column("notices", json, nullable=False),
        sa.Column("handle", json),
        sa.Column("result", json),
        sa.Column("error", json),
        sa.Column("receipt", json),
        sa.Column("images", json, nullable=False),
        sa.Column("favourite", sa.Boolean, nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("search_text", sa.Text, nullable=False),
        sa.Column("cost_usd", sa.Float, nullable=False),
    )
    op.create_index("jobs_by_owner", "jobs", ["owner", "id"])
    op.create_index("jobs_by_state", "jobs", ["state"])


def downgrade() -> None:
    op.drop_table("jobs")
