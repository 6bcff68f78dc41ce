# syntax=docker/dockerfile:1
# d365sync in a container: python:3.11-slim, the locked packages, no build tools, a user without rights.
#   docker build -t d365sync .
# Run it with a read-only root file system; only /data is written to. See docs/install.md.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
WORKDIR /build
RUN python -m venv /opt/d365sync
COPY requirements/base.txt requirements/postgresql.txt requirements/
RUN /opt/d365sync/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes \
    -r requirements/base.txt -r requirements/postgresql.txt
COPY pyproject.toml README.md LICENSE ./
COPY d365sync d365sync
RUN /opt/d365sync/bin/pip install --no-cache-dir --disable-pip-version-check --no-build-isolation --no-deps . \
    && /opt/d365sync/bin/python -m compileall -q /opt/d365sync/lib

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="d365sync" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --system --gid 10365 d365sync \
    && useradd --system --uid 10365 --gid 10365 --home-dir /data --no-create-home --shell /usr/sbin/nologin d365sync \
    && install --directory --owner=10365 --group=10365 --mode=0700 /data
COPY --from=build /opt/d365sync /opt/d365sync
ENV PATH=/opt/d365sync/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    D365SYNC_CONFIG=/config/d365sync.toml
USER 10365:10365
WORKDIR /data
VOLUME ["/data"]
EXPOSE 8365
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["d365sync", "health"]
ENTRYPOINT ["d365sync"]
CMD ["run"]
