# The image for everything that needs no tensors: shards of chips, the Dask cluster, the Prefect worker, drivers, the
# sweeper. Build context: the root of the repository. Every instruction stands in gpu.Dockerfile too, in the same order,
# so that both images share their layers and the wheel of eo-batch.
ARG BASE=docker.io/library/debian:bookworm-slim

# What runs: Python, an init that forwards signals and reaps, certificates, and expat, which rasterio's wheel expects of
# the system. A base that brings a Python of its own keeps it. Nothing runs with more rights than who starts it.
FROM ${BASE} AS runtime
# Debian's mirrors keep one version of a package: a pinned one is gone with the next security fix.
# hadolint ignore=DL3008
RUN if command -v python3 >/dev/null; then python=; else python=python3; fi \
    && apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        ca-certificates libexpat1 tini ${python} \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/* \
    && python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "BASE has no Python 3.11 or newer: take another")' \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    && groupadd --gid 10001 eo-batch \
    && useradd --uid 10001 --gid 10001 --no-log-init --home-dir /tmp --no-create-home --shell /usr/sbin/nologin eo-batch

# pip and the build backend, in an environment of their own. The stages below borrow it; no image holds it.
FROM runtime AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY constraints.txt containers/pins.txt containers/trim.py ./
# hadolint ignore=DL3008
RUN --mount=type=cache,target=/root/.cache/pip \
    if ! python3 -c 'import ensurepip' 2>/dev/null; then \
        apt-get update \
        && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3-venv; \
    fi \
    && rm -rf /var/lib/apt/lists/* \
    && cat pins.txt >> constraints.txt \
    && python3 -m venv /opt/build \
    && /opt/build/bin/pip install --constraint constraints.txt setuptools

# What is to be installed, without the rest of pyproject.toml: other changes in that file then rebuild nothing.
FROM runtime AS wanted
WORKDIR /src
COPY pyproject.toml containers/requirements.py ./
RUN python3 requirements.py > core.txt \
    && python3 requirements.py kubernetes flows serve > cluster.txt \
    && python3 requirements.py train > train.txt

FROM runtime AS packages
COPY --from=wanted /src/core.txt /src/cluster.txt /opt/venv/wanted/
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,from=build,source=/opt/build,target=/opt/build \
    --mount=type=bind,from=build,source=/src,target=/src \
    python3 -m venv --without-pip /opt/venv \
    && /opt/build/bin/pip --python /opt/venv/bin/python install --no-compile --constraint /src/constraints.txt \
        --requirement /opt/venv/wanted/core.txt --requirement /opt/venv/wanted/cluster.txt \
    && python3 /src/trim.py /opt/venv

# eo-batch itself, laid out as it goes into /opt. Its wheel has the same bytes whenever it is built.
FROM build AS application
ENV SOURCE_DATE_EPOCH=1577836800
COPY pyproject.toml README.md prefect.yaml ./
COPY eo_batch ./eo_batch
COPY flows ./flows
COPY profiles ./profiles
COPY recipes ./recipes
RUN python3 -m venv --without-pip /opt/venv \
    && /opt/build/bin/pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /tmp/wheel . \
    && /opt/build/bin/pip --python /opt/venv/bin/python install --no-compile --no-deps --no-index \
        --prefix /opt/application/venv /tmp/wheel/*.whl \
    && mkdir /opt/application/eo-batch \
    && cp -r flows prefect.yaml profiles recipes /opt/application/eo-batch \
    && python3 trim.py /opt/application \
    && chmod -R u=rwX,go=rX /opt/application

FROM packages
# The root file system may be read-only: what is written (caches, files of Prefect and Dask) goes to /tmp. No use of the
# image is reported to anybody.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    USER=eo-batch \
    DASK_TEMPORARY_DIRECTORY=/tmp/dask \
    DO_NOT_TRACK=1 \
    PREFECT_HOME=/tmp/prefect \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    PREFECT_SERVER_UI_STATIC_DIRECTORY=/tmp/prefect/ui
# Flows, profiles and recipes are named relative to here.
WORKDIR /opt/eo-batch
USER 10001:10001
# As process 1, a program without a handler of its own would not end on SIGTERM.
ENTRYPOINT ["/usr/bin/tini", "--"]
CMD ["eo-batch", "--help"]
# A change of the code alone moves this one small layer.
COPY --from=application /opt/application /opt
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="eo-batch" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
