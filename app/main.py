"""`app.main:app` for ASGI servers: `uvicorn app.main:app`. Settings come from the environment and `.env`."""

from app.api.app import create_app
from app.core.garbage import collect_seldom, keep_what_is_loaded
from app.core.logs import configure_logging
from app.core.secrets import redactor_of
from app.core.settings import load_settings

_settings = load_settings()
configure_logging(_settings.log_level, _settings.log_format, redact=redactor_of(_settings))
app = create_app(_settings)
keep_what_is_loaded()
collect_seldom()
