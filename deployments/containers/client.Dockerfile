# syntax=docker/dockerfile:1
# The agent of one site: torch for the CPU, PennyLane, no compiler, no root. Build from the repository's root:
#   docker build -f deployments/containers/client.Dockerfile -t qfed-client .
# The default index has torch with CUDA, gigabytes that a CPU never uses. Name an index of CPU builds to leave them out
# (PyTorch's own installation page has the address):
#   docker build --build-arg TORCH_INDEX=ADDRESS -f deployments/containers/client.Dockerfile -t qfed-client .
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
ARG TORCH_INDEX=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
COPY pyproject.toml README.md LICENSE /src/
COPY qfed /src/qfed
COPY server /src/server
COPY client /src/client
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/qfed \
    && /opt/qfed/bin/pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch>=2.9,<2.14" \
    && /opt/qfed/bin/pip install "/src[client]"

FROM ${BASE}
LABEL org.opencontainers.image.title="qfed-client" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin qfed \
    && install -d -o qfed -g qfed -m 0700 /site /cache
COPY --from=build /opt/qfed /opt/qfed
COPY deployments/containers/health.py /opt/qfed/health.py
# The root file system may be read-only: what is written goes to /site and /cache (volumes) and /tmp (in memory).
ENV PATH=/opt/qfed/bin:$PATH HOME=/tmp NUMBA_CACHE_DIR=/cache PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
USER 10001:10001
VOLUME ["/site", "/cache"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "/opt/qfed/health.py", "site", "/site"]
ENTRYPOINT ["qfed"]
CMD ["client", "--site", "/site"]
