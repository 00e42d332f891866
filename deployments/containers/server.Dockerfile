# syntax=docker/dockerfile:1
# The aggregation server and its dashboard: no torch, no PennyLane, no compiler, no root. Build from the repository's root:
#   docker build -f deployments/containers/server.Dockerfile -t qfed-server .
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
COPY pyproject.toml README.md LICENSE /src/
COPY qfed /src/qfed
COPY server /src/server
COPY client /src/client
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/qfed && /opt/qfed/bin/pip install "/src[server]"

FROM ${BASE}
LABEL org.opencontainers.image.title="qfed-server" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin qfed \
    && install -d -o qfed -g qfed -m 0700 /data
COPY --from=build /opt/qfed /opt/qfed
COPY deployments/containers/health.py /opt/qfed/health.py
# The root file system may be read-only: what is written goes to /data (a volume) and /tmp (in memory).
ENV PATH=/opt/qfed/bin:$PATH HOME=/tmp MPLCONFIGDIR=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
USER 10001:10001
VOLUME /data
EXPOSE 9443
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "/opt/qfed/health.py", "server", "/data"]
ENTRYPOINT ["qfed"]
CMD ["server", "--data", "/data"]
