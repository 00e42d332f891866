#!/usr/bin/env bash
# Build both images, start compose/compose.yaml with them (server, dashboard, three sites) and let them do a run.
#
#   bash deployments/try/containers.sh [BASE]      BASE: image with Python to build on, without it the Dockerfiles' own
#
# Needs docker with its compose plugin, or podman 4 with podman-compose:
#   ENGINE=podman COMPOSE=podman-compose bash deployments/try/containers.sh
# BUILD: more options for the builds, e.g. BUILD="--build-arg TORCH_INDEX=ADDRESS" for torch without CUDA. Ports 9443 and
# 8765 of this machine must be free. Containers, volumes and networks are removed at the end; the images stay.
set -euo pipefail

engine=${ENGINE:-docker}
read -ra compose <<< "${COMPOSE:-$engine compose}"
read -ra build <<< "${BUILD:-}"
[[ $# -gt 0 ]] && build+=(--build-arg "BASE=$1")
# podman writes OCI images, which have no health check, unless it is told otherwise.
[[ $engine = podman ]] && build+=(--format docker)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
place=$(mktemp -d)

say() { printf '\n# %s\n' "$*"; }
finish() {
  status=$?
  cd "$place"
  if [[ $status -ne 0 ]]; then "${compose[@]}" logs 2>&1 | tail -n 80; fi
  "${compose[@]}" down --volumes > down.log 2>&1 || cat down.log
  cd / && rm -rf "$place"
}
trap finish EXIT

say "Images"
for role in server client; do
  "$engine" build "${build[@]}" -f "$root/deployments/containers/$role.Dockerfile" -t "qfed-$role" "$root" > "$place/build.log" 2>&1 ||
    { tail -n 40 "$place/build.log"; exit 1; }
  printf 'qfed-%s: %s MB\n' "$role" "$(($("$engine" image inspect --format '{{.Size}}' "qfed-$role") / 1000000))"
done

say "A federation, made with the client image"
cp "$root/deployments/compose/compose.yaml" "$place"
chown 10001:10001 "$place"
in_image=("$engine" run --rm -i --network none --user 10001:10001 --volume "$place:/work" --workdir /work)
cd "$place"
QFED="${in_image[*]} qfed-client" PYTHON="${in_image[*]} --entrypoint python qfed-client" \
  bash "$root/deployments/try/federation.sh" server:9443

say "compose up"
"${compose[@]}" config > /dev/null
"${compose[@]}" up -d --no-build

server() { "${compose[@]}" exec -T server "$@"; }
answered() {
  for _ in $(seq 90); do
    if "${compose[@]}" exec -T "$@" > health.log 2>&1; then return 0; fi
    sleep 1
  done
  cat health.log
  return 1
}
answered server python /opt/qfed/health.py server /data
for site in site-a site-b site-c; do
  answered "$site" python /opt/qfed/health.py site /site
  "${compose[@]}" exec -T "$site" sh -c 'id; grep -E "^(CapBnd|NoNewPrivs)" /proc/self/status; ! touch /nowhere 2> /dev/null'
done

say "A run"
cp run.toml aggregator/run.toml
server qfed submit /data/run.toml --data /data --follow
name=$(server qfed list --data /data --json | sed -n 's/.*"run": *"\([^"]*\)".*/\1/p' | head -n 1)
server qfed fetch "$name" --data /data --out /data/model
"${in_image[@]}" qfed-client model verify aggregator/model
server qfed doctor --server /data

say "The dashboard, on this machine's loopback only"
answered dashboard python -c "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8765); c.request('GET', '/login'); exit(c.getresponse().status != 200)"
python3 - "$place/aggregator/metrics.token" <<'PY'
import sys, urllib.request
token = open(sys.argv[1]).read().strip()
asked = urllib.request.Request("http://127.0.0.1:8765/metrics", headers={"Authorization": f"Bearer {token}"})
print(*(line for line in urllib.request.urlopen(asked, timeout=20).read().decode().splitlines() if line.startswith("qfed_sites")), sep="\n")
PY
"${compose[@]}" exec -T site-a qfed site log verify --site /site
say "done"
