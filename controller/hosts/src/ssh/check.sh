# shellcheck shell=sh
# Looks at what Windlass needs on a host, and changes nothing there; nothing of ours has to be there before.
#   $1 this text  $2 nonce, or - the second time  $3 privilege: auto, root, sudo or user
#   $4 folder, or - for the default  $5 the shell
# Says lines `key value...`, and `end`; then it waits until it is let go, so that its session stays in use.
exec 2>/dev/null
LC_ALL=C PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
uid=$(id -u) user=$(id -un) dir=$4 scope=system
if [ "$2" != - ]; then
    printf 'windlass %s\n' "$2"
    date +'clock %s'
    printf 'login %s\n' "$user"
fi
if [ "$3" = user ]; then scope=user
elif [ "$uid" = 0 ]; then
    [ "$2" = - ] || echo 'privilege root'
elif [ "$3" = root ]; then scope=''
elif command -v sudo >/dev/null && sudo -n true; then
    echo 'privilege sudo'
    # shellcheck disable=SC2016,SC2086
    exec sudo -n $5 -c 'eval "$1"' windlass "$1" - root "$4" "$5"
elif [ "$3" = sudo ]; then scope=''
else scope=user
fi
if [ -z "$scope" ]; then echo 'privilege none'; fi
for tool in systemctl=systemd systemd-run=systemd journalctl=systemd flock=util-linux tar=tar find=findutils \
    xargs=findutils cmp=diffutils grep=grep sed=sed awk=gawk timeout=coreutils sha256sum=coreutils dd=coreutils stat=coreutils \
    sort=coreutils uniq=coreutils cut=coreutils tr=coreutils head=coreutils sync=coreutils ln=coreutils mv=coreutils \
    date=coreutils readlink=coreutils; do
    command -v "${tool%%=*}" >/dev/null || printf 'missing %s %s\n' "${tool%%=*}" "${tool#*=}"
done
# busybox's dd may know neither flag, and a payload would not arrive whole.
if [ "$(printf xy | dd bs=65536 iflag=count_bytes,fullblock count=1)" != x ]; then
    echo 'missing dd:iflag=count_bytes,fullblock coreutils'
fi
if read -r machine </etc/machine-id; then printf 'machine %s\n' "$machine"; fi
if [ ! -d /run/systemd/system ]; then
    read -r first </proc/1/comm
    printf 'no-systemd %s\n' "$first"
elif version=$(systemctl --version); then
    version=${version#systemd }
    printf 'systemd %s %s\n' "${version%% *}" "$(timeout 5 systemctl is-system-running)"
    printf 'failed-units %s\n' "$(timeout 5 systemctl --failed --no-legend --plain | cut -d' ' -f1 | head -n 5 | tr '\n' ' ')"
fi

# The options of the file system that a folder is on: of all that are mounted above it, the longest and the last.
options_of() {
    longest='' found=''
    while read -r _ point _ options _; do
        case $1/ in
        "${point%/}"/*) [ ${#point} -lt ${#longest} ] || { longest=$point found=$options; } ;;
        esac
    done </proc/mounts
    printf '%s\n' "$found"
}

# The nearest folder that is there; whoever may write into it may make the rest.
nearest() {
    near=$1
    while [ ! -e "$near" ] && [ -n "$near" ]; do near=${near%/*}; done
    cd -P "${near:-/}" && pwd -P
}

if [ -n "$scope" ]; then
    if [ "$scope" = user ]; then
        echo 'privilege user'
        runtime=${XDG_RUNTIME_DIR:-/run/user/$uid}
        [ ! -e "/var/lib/systemd/linger/$user" ] || echo 'lingers'
        [ ! -S "$runtime/systemd/private" ] || echo 'user-manager'
        bus=$runtime/bus
        units=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user
        [ "$dir" != - ] || dir=$HOME/.local/share/windlass
    else
        bus=/run/dbus/system_bus_socket
        units=/etc/systemd/system
        [ "$dir" != - ] || dir=/opt/windlass
    fi
    [ -S "$bus" ] || printf 'no-bus %s\n' "$bus"
    printf 'dir %s\n' "$dir"
    if at=$(nearest "$dir"); then
        printf 'disk %s\n' "$(stat -f -c '%a %S %d %c' "$at")"
        printf 'mount %s\n' "$(options_of "$at")"
        [ ! -w "$at" ] || echo 'writable'
    fi
    printf 'units %s\n' "$units"
    if at=$(nearest "$units"); then
        printf 'units-mount %s\n' "$(options_of "$at")"
        [ ! -w "$at" ] || echo 'units-writable'
    fi
    if [ -e "$dir/cluster" ]; then
        owner=
        read -r owner <"$dir/cluster"
        printf 'owner %s\n' "$owner"
    fi
fi
echo 'end'
read -r _
