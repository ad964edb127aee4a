"""What visitors took of the owner's, and the switch that ends it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "spending",
        sa.Column("job_id", sa.String(64), primary_key=True),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
        sa.Column("images", sa.Integer, nullable=False),
        sa.Column("micro_usd", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
    )
    op.create_index("spending_by_owner", "spending", ["owner", "created"])
    op.create_index("spending_by_time", "spending", ["created"])
    switch = op.create_table(
        "spending_switch",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("stopped", sa.Boolean, nullable=False),
    )
    op.bulk_insert(switch, [{"id": 1, "stopped": False}])


def downgrade() -> None:
    op.drop_table("spending_switch")
    op.drop_table("spending")
