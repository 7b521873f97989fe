"""An executor that says a secret in every way it has."""

import os
from typing import Any

from pydantic import BaseModel

from app.services.executors import Context, executor


class Nothing(BaseModel):
    pass


@executor("tell", payload=Nothing)
def tell(payload: Nothing, context: Context) -> dict[str, Any]:
    secret = os.environ["SECRET_CRM"]
    print(f"printed {secret}")
    print("x" * 490, secret)  # cut where the secret is
    context.log(f"said {secret}", field=secret, data={"deep": [secret]})
    context.progress(50, f"at {secret}", {"deep": [secret]})
    try:
        raise ValueError(f"inner {secret}")
    except ValueError as error:
        raise RuntimeError("y" * 1990 + secret) from error
