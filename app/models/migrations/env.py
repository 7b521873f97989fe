"""Alembic's entry. The connection comes from app.models.migrate; there is no alembic.ini."""

from alembic import context

from app.models import migrate

migrate.run(context, context.config.attributes["connection"])
