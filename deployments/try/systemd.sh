#!/usr/bin/env bash
# Install qfed on a bare Debian as install.md says, without internet from a wheelhouse, boot it in a virtual machine, and
# let systemd run server, dashboard and three sites; what happens there is systemd-inside.sh. The machine's network is off.
#
#   sudo bash deployments/try/systemd.sh WHEELHOUSE      made with: pip wheel --no-deps -w WHEELHOUSE . &&
#       pip download --dest WHEELHOUSE --find-links WHEELHOUSE --only-binary=:all: 'qfed[client,server]'   (Python 3.11)
#
# Needs root, debootstrap, mke2fs, qemu-system-x86_64, 8 GB of disk and 7 GB of memory. MIRROR: a Debian mirror that
# debootstrap takes. ACCEL: kvm where /dev/kvm works; without it tcg, which emulates and takes an hour on two old cores.
set -euo pipefail

wheelhouse=$(cd "${1:?usage: systemd.sh WHEELHOUSE}" && pwd)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
place=$(mktemp -d)
root=$place/root

finish() {
  mountpoint -q "$root/proc" && umount "$root/proc"
  mountpoint -q "$root/dev" && umount "$root/dev"
  rm -rf --one-file-system "$place"
}
trap finish EXIT
say() { printf '\n# %s\n' "$*"; }

say "A bare Debian 12 (with a kernel, systemd and Python)"
debootstrap --variant=minbase \
  --include=systemd,systemd-sysv,dbus,udev,python3,python3-venv,ca-certificates,iproute2,linux-image-cloud-amd64 \
  bookworm "$root" ${MIRROR:+"$MIRROR"} > "$place/debootstrap.log" || { tail -n 20 "$place/debootstrap.log"; exit 1; }

say "install.md, without internet"
cp -r "$(dirname "$here")" "$root/root/deployments"
mkdir "$root/root/wheelhouse" "$root/root/fed"
mount --bind "$wheelhouse" "$root/root/wheelhouse"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
inside() { unshare --net chroot "$root" env PATH=/opt/qfed/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"; }
inside bash -c 'cd /root && python3 -m venv /opt/qfed &&
  /opt/qfed/bin/pip install --quiet --no-index --find-links wheelhouse "qfed[client,server]"'
umount "$root/root/wheelhouse"
inside bash -c 'cd /root/fed && PYTHON=/opt/qfed/bin/python bash /root/deployments/try/federation.sh localhost:9443'
umount "$root/proc" "$root/dev"

say "Boot"
cat > "$root/etc/systemd/system/try.service" <<'UNIT'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
Environment=HOME=/root
ExecStart=/bin/bash /root/deployments/try/systemd-inside.sh
ExecStopPost=/bin/systemctl --no-block poweroff
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS1
[Install]
WantedBy=graphical.target
UNIT
ln -sf /lib/systemd/system/graphical.target "$root/etc/systemd/system/default.target"
mkdir -p "$root/etc/systemd/system/graphical.target.wants"
ln -s ../try.service "$root/etc/systemd/system/graphical.target.wants/try.service"
printf '/dev/vda / ext4 defaults 0 1\n' > "$root/etc/fstab"
: > "$root/etc/machine-id"
mke2fs -q -F -t ext4 -d "$root" "$place/disk.img" 7G
qemu-system-x86_64 -accel "${ACCEL:-kvm}" -cpu max -smp 2 -m 6144 -display none -monitor none -nic none -no-reboot \
  -serial "file:$place/console.log" -serial "file:$place/try.log" -drive "file=$place/disk.img,if=virtio,format=raw" \
  -kernel "$(echo "$root"/boot/vmlinuz-*)" -initrd "$(echo "$root"/boot/initrd.img-*)" \
  -append "root=/dev/vda rw console=ttyS0" &
machine=$!
tail -f --pid=$machine -n +1 --retry "$place/try.log" 2> "$place/tail.log" || true
wait $machine
grep -q '^# PASSED' "$place/try.log" || { tail -n 30 "$place/console.log"; exit 1; }
