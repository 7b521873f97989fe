"""Start the HTTP API."""

from app.api.main import main

if __name__ == "__main__":
    main()
