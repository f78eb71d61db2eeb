#!/bin/sh
# Builds the tree that every throwaway host is an overlay on.
#
#   base.sh DIR MIRROR AUTHORISED_KEY_FILE
#
# A change to this file, or another key, makes another tree.
set -eu
dir=$1 mirror=$2 key=$3

include=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,openssh-server,rsync,iproute2
include=$include,python3,python3-venv,curl,ca-certificates,sudo,zstd,procps,busybox,dash
debootstrap --variant=minbase --include="$include" bookworm "$dir" "$mirror"

# Each host has its own identity, and its name comes from outside.
rm -f "$dir"/etc/hostname "$dir"/etc/machine-id "$dir"/var/lib/dbus/machine-id "$dir"/etc/ssh/ssh_host_*
rm -rf "$dir"/var/cache/apt/archives/*.deb "$dir"/var/lib/apt/lists/* "$dir"/etc/update-motd.d/*

# What a throwaway host does not need costs time at every boot, and surprises in the middle of a test.
systemctl --quiet --root="$dir" mask \
    apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer dpkg-db-backup.timer \
    console-getty.service getty.target dev-hugepages.mount sys-fs-fuse-connections.mount
systemctl --quiet --root="$dir" set-default multi-user.target
mkdir -p "$dir"/etc/systemd/journald.conf.d
printf '[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\n' >"$dir"/etc/systemd/journald.conf.d/testbed.conf

# VERBOSE tells every connection, even one that never logs in.
cat >"$dir"/etc/ssh/sshd_config.d/50-testbed.conf <<'END'
LogLevel VERBOSE
HostKey /etc/ssh/ssh_host_ed25519_key
PasswordAuthentication no
END

# deploy may sudo; app may not, but lingers; nolinger may neither.
authorise() {
    chroot "$dir" install -d -m 0700 -o "$1" -g "$1" "$2"/.ssh
    cp "$key" "$dir$2"/.ssh/authorized_keys
    chroot "$dir" chown "$1:$1" "$2"/.ssh/authorized_keys
    chroot "$dir" chmod 0600 "$2"/.ssh/authorized_keys
}
authorise root /root
for user in deploy app nolinger; do
    chroot "$dir" useradd --create-home --shell /bin/bash --password '*' "$user"
    authorise "$user" /home/$user
done
printf 'deploy ALL=(ALL) NOPASSWD: ALL\n' >"$dir"/etc/sudoers.d/deploy
chmod 0440 "$dir"/etc/sudoers.d/deploy
mkdir -p "$dir"/var/lib/systemd/linger
touch "$dir"/var/lib/systemd/linger/app
