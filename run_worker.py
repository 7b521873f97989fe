"""Start a worker: claims tasks, runs their executors in child processes, writes back what came of them."""

from app.workers.main import main

if __name__ == "__main__":
    main()
