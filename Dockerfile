# API and worker in one image; the command says which. It runs without root, without a shell, on a read-only root.
#   docker build -t tasks .
#   docker run --rm --read-only --tmpfs /tmp -p 127.0.0.1:8000:8000 -v tasks:/srv/data tasks
#   docker run --rm --read-only --tmpfs /tmp -v tasks:/srv/data --no-healthcheck tasks python run_worker.py

# By release; docs/deploy.md has the two lines that pin it by digest.
FROM python:3.13-slim-trixie AS build
WORKDIR /srv
COPY requirements.txt ./
RUN python -m venv /opt/venv
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/pip install --no-input --disable-pip-version-check --require-hashes -r requirements.txt
COPY . ./
# The root is read-only later on, so what is not compiled now is compiled at every start.
RUN /opt/venv/bin/pip uninstall --yes pip && \
    /opt/venv/bin/python -m compileall -q app taskclient taskctl examples && \
    mkdir data

FROM python:3.13-slim-trixie
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Task service" \
      org.opencontainers.image.description="Submit a task over plain HTTP, get its id at once, fetch the result." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    API_HOST=0.0.0.0
WORKDIR /srv
COPY --from=build /opt/venv /opt/venv
COPY --from=build /srv /srv
COPY --from=build --chown=10001:10001 /srv/data /srv/data
USER 10001:10001
VOLUME /srv/data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-m", "app.probe"]
CMD ["python", "run_api.py"]
