#!/usr/bin/env bash
# From nothing to a model, as its four parties do it, on one machine over loopback TLS: a coordinator, an aggregation
# server, and three sites (secure aggregation takes three: a sum of two hides neither part from the other).
#
#   bash deployments/walk.sh [FOLDER]      FOLDER: where to work, empty or new; a temporary one without
#
# Every line after "$" is what a person would type. Processes that it starts end with it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
place=${1:-$(mktemp -d)}
mkdir -p "$place"
cd "$place"
QFED=${QFED:-qfed}
PYTHON=${PYTHON:-python3}
sites=(north south east)
started=()

finish() {
  for pid in "${started[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${started[@]}"; do wait "$pid" 2>/dev/null || true; done
}
trap finish EXIT

say() { printf '\n# %s\n' "$*"; }
run() {
  printf '$ qfed'
  printf ' %q' "$@"
  printf '\n'
  "$QFED" "$@"
}
port=$("$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
server=localhost:$port

say "At each site: keys. The private half never leaves the folder."
for site in "${sites[@]}"; do run site keygen "$site" --out "$site"; done

say "At the coordinator: the federation, a certificate authority, the server's certificate, one invitation for all."
cat > run.toml <<'TOML'
name = "walk"

[data]
source = "breast_cancer"

[model]
wires = 3
layers = 1

[training]
rounds = 3

[privacy]
epsilon = 2.0
TOML
run federation init study ./*/*.public.json --server "$server" --config run.toml

say "At each site: join. The fingerprint is read out over the telephone; here it is taken from the coordinator's file."
fingerprint=$("$QFED" federation show study --json | "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["coordinator"]["fingerprint"])')
"$PYTHON" "$here/try/records.py" "${sites[@]}"
for site in "${sites[@]}"; do
  run site init "$site" --data "$site/records.csv"
  run site join study/invitation.json --site "$site" --coordinator "$fingerprint"
done
run site check --site north --config run.toml

say "At the aggregator: the folder that the coordinator handed over is its data directory."
mv study/aggregator qfed-server
printf '$ qfed server --data qfed-server &\n'
"$QFED" server --data qfed-server > server.log 2>&1 &
started+=($!)
for _ in $(seq 240); do
  grep -q "serving sites" server.log && break
  kill -0 "${started[0]}" 2>/dev/null || { cat server.log; exit 1; }
  sleep 0.25
done
grep "serving sites" server.log

say "At each site: is everything alright? Then the agent."
run doctor --site north
for site in "${sites[@]}"; do
  printf '$ qfed client --site %s &\n' "$site"
  "$QFED" client --site "$site" > "$site.log" 2>&1 &
  started+=($!)
done

say "Whoever trains: a run is a configuration, no code."
run submit run.toml --data qfed-server --follow
name=$("$QFED" list --data qfed-server --json | "$PYTHON" -c 'import json, sys; found = json.load(sys.stdin); print((found["runs"] if isinstance(found, dict) else found)[0]["run"])')
run status "$name" --data qfed-server
run fetch "$name" --data qfed-server --out model

say "The model, handed over."
run model verify model
run predict model north/records.csv --out predictions.csv --probabilities
head -4 predictions.csv

say "Afterwards, on both sides."
run doctor --server qfed-server
for site in "${sites[@]}"; do
  run site log verify --site "$site"
done
run doctor --site north
say "done: $place"
