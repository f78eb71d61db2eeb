# shellcheck shell=sh
# Boots one host inside cgroups of its own, and again when it reboots itself.
#
#   sh -c host.sh boot UNIFIED_CGROUP NAMED_CGROUP_OR_EMPTY COMMAND...
#
# Without a cgroup of its own each host would share one with every other, and one host's systemd
# would count the processes of another's unit of the same name as its own.
set -eu
unified=$1 named=$2
shift 2

# 0 means the process that writes it.
enter() {
    echo 0 >"$unified/$1/cgroup.procs"
    [ -z "$named" ] || echo 0 >"$named/$1/cgroup.procs"
}

enter wrapper
while :; do
    status=0
    (enter machine && exec "$@") || status=$?
    # systemd-nspawn --keep-unit ends with 133 when the host asked to be rebooted.
    [ "$status" -eq 133 ] || exit "$status"
done
