#!/usr/bin/env bash
# The files of a small federation, made in the current folder as install.md says: aggregator/ (the server's data folder),
# site-a/, site-b/, site-c/ (a site each, with records), study/ (the coordinator's), run.toml.
#
#   bash federation.sh HOST:PORT      what sites will connect to
#
# QFED and PYTHON: how qfed and its Python are called, words split at blanks (qfed, python3); both see this folder.
set -euo pipefail

server=${1:?usage: federation.sh HOST:PORT}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
read -ra qfed <<< "${QFED:-qfed}"
read -ra python <<< "${PYTHON:-python3}"
sites=(site-a site-b site-c)

cat > run.toml <<'TOML'
name = "try"

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
for site in "${sites[@]}"; do "${qfed[@]}" site keygen "$site" --out "$site"; done
"${qfed[@]}" federation init study ./site-?/*.public.json --server "$server" --config run.toml
fingerprint=$("${qfed[@]}" federation show study --json | sed -n '/"coordinator"/,/}/ s/.*"fingerprint": *"\([^"]*\)".*/\1/p' | head -n 1)
"${python[@]}" - "${sites[@]}" < "$here/records.py"
for site in "${sites[@]}"; do
  "${qfed[@]}" site init "$site" --data "$site/records.csv"
  "${qfed[@]}" site join study/invitation.json --site "$site" --coordinator "$fingerprint"
done
mv study/aggregator aggregator
