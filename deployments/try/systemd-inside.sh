#!/usr/bin/env bash
# Runs as root in the machine that systemd.sh boots (never on your own: it installs units and kills services).
# In /root: deployments/, and fed/ with what federation.sh made. qfed is in /opt/qfed.
set -euo pipefail

export PATH=/opt/qfed/bin:$PATH
cd /root
sites=(site-a site-b site-c)
units=(qfed-server qfed-dashboard qfed-client@site-a qfed-client@site-b qfed-client@site-c)
data=/var/lib/qfed-server
PATIENCE=${PATIENCE:-1800} # seconds for each thing that is waited for

say() { printf '\n# %s\n' "$*"; }
failed() {
  printf '\n# FAILED: %s\n' "$*"
  systemctl --no-pager --failed || true
  journalctl --no-pager -n 60 -u 'qfed-*' || true
  exit 1
}
until_true() { # what, command...
  local what=$1 end=$((SECONDS + PATIENCE))
  shift
  until "$@" > /dev/null 2>&1; do
    [[ $SECONDS -lt $end ]] || failed "waited in vain for: $what"
    sleep 1
  done
}
# What the server says, without an import of everything: its private socket speaks HTTP.
asked() { # path; prints the answer
  /opt/qfed/bin/python - "$1" <<'PY'
import socket, sys
with socket.socket(socket.AF_UNIX) as s:
    s.connect("/var/lib/qfed-server/control.sock")
    s.sendall(f"GET {sys.argv[1]} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    print(b"".join(iter(lambda: s.recv(65536), b"")).decode())
PY
}
online() { [[ $(asked /qfed/sites | grep -o '"status": *"online"' | wc -l) -eq ${#sites[@]} ]]; }
ended() { [[ $(sed -n 's/.*"finished": *\([^,}]*\).*/\1/p' "$data/runs/$1/state.json") != null ]]; }
rounds() { [[ $(grep -c '"event": *"aggregated"' "$data/runs/$1/events.jsonl") -ge $2 ]]; }
submit() { qfed submit fed/run.toml --set "federation.deadline=$PATIENCE" --data "$data" --json | sed -n 's/.*"run": *"\([^"]*\)".*/\1/p'; }
completed() { # run
  until_true "the end of run $1" ended "$1"
  grep -q '"status": *"completed"' "$data/runs/$1/state.json" || failed "run $1: $(cat "$data/runs/$1/state.json")"
}

say "Units, as install.md installs them"
install -m 644 deployments/systemd/*.service /etc/systemd/system/
install -D -m 644 deployments/systemd/qfed.sysusers.conf /etc/sysusers.d/qfed.conf
systemd-sysusers
install -D -m 644 deployments/install.md /opt/qfed/share/doc/install.md
systemctl daemon-reload
systemd-analyze verify /etc/systemd/system/qfed-*.service

say "Folders, as install.md moves them"
mkdir -p /var/lib/qfed
cp -a fed/aggregator/. "$data"
chown -R qfed-server: "$data"
# An emulated processor imports torch in minutes; a site that does so is silent meanwhile.
sed -i "s/^patience = .*/patience = $PATIENCE.0/" "$data/server.toml"
for site in "${sites[@]}"; do
  cp -a "fed/$site" /var/lib/qfed/
  chown -R qfed: "/var/lib/qfed/$site"
done

say "Start"
systemctl enable --now qfed-server qfed-dashboard
for site in "${sites[@]}"; do systemctl enable --now "qfed-client@$site"; done
until_true "the server" asked /health
until_true "three sites online" online
systemctl --no-pager --no-legend list-units 'qfed-*'

say "A run"
run=$(submit)
completed "$run"
grep -o '"final".*' "$data/runs/$run/result.json" || tail -c 400 "$data/runs/$run/result.json"

say "Another: the server is killed in its first round, a site after it, the server is restarted after the next"
run=$(submit)
until_true "a round" rounds "$run" 1
systemctl kill --signal=KILL qfed-server
until_true "the server again" asked /health
until_true "three sites online" online
systemctl kill --signal=KILL qfed-client@site-b
until_true "two rounds" rounds "$run" 2
systemctl restart qfed-server
completed "$run"
systemctl show --property=NRestarts,Result qfed-server qfed-client@site-b

say "Stop: everybody goes in good order and in time"
for unit in "${units[@]}"; do
  begun=$SECONDS
  systemctl stop "$unit"
  printf '%s stopped in %s s, %s\n' "$unit" $((SECONDS - begun)) "$(systemctl show --property=Result --value "$unit")"
  [[ $(systemctl show --property=Result --value "$unit") = success ]] || failed "$unit did not end well"
done

say "The books of the sites"
for site in "${sites[@]}"; do
  setpriv --reuid=qfed --regid=qfed --clear-groups env HOME=/tmp qfed site log verify --site "/var/lib/qfed/$site"
done

say "Journal: warnings and worse, and what the sandbox refused"
journalctl --no-pager -o cat -p warning -u 'qfed-*' | sort | uniq -c | head -n 20
if journalctl --no-pager -o cat -u 'qfed-*' | grep -E 'Operation not permitted|Read-only file system|Traceback|SIGSYS'; then
  failed "the sandbox is in the way"
fi

say "Exposure, of the loaded units (0 best, 10 worst)"
systemctl start "${units[@]}"
systemd-analyze --no-pager security | grep -E 'UNIT|qfed-'
systemctl stop "${units[@]}"
printf '\n# PASSED\n'
