"""Alembic's entry point. `history.database.migrate` calls it with an open transaction."""

from __future__ import annotations

from alembic import context

from history.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,  # SQLite can, and Alembic assumes that it can't
    render_as_batch=True,  # SQLite alters a table by copying it
)
context.run_migrations()
