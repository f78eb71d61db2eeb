# shellcheck shell=sh
# Runs before anything of ours is on the host: finds out what the login may do, brings host.sh there and becomes it.
# It travels with each channel, so whatever can be asked later is asked in host.sh.
#   $1 this text  $2 nonce, or - the second time  $3 digest and $4 length of host.sh
#   $5 privilege: auto, root, sudo or user  $6 folder, or - for the default  $7 the shell
# shellcheck disable=SC2015
exec 2>&1
LC_ALL=C PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
[ "$2" = - ] || printf 'windlass %s\n' "$2"
bad() { printf 'unsuitable %s\n' "$*"; exit 50; }
uid=$(id -u) user=$(id -un) dir=$6
if [ "$5" = user ]; then scope=user
elif [ "$uid" = 0 ]; then scope=system
elif [ "$5" = root ]; then bad "the login $user is not root, and the Host says privilege: root"
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    # shellcheck disable=SC2016,SC2086
    exec sudo -n $7 -c 'eval "$1"' windlass "$1" - "$3" "$4" root "$6" "$7"
elif [ "$5" = sudo ]; then bad "the login $user may not sudo without a password, and the Host says privilege: sudo"
else scope=user
fi
if [ "$dir" != - ]; then :
elif [ "$scope" = user ]; then dir=$HOME/.local/share/windlass
else dir=/opt/windlass
fi
umask 022
mkdir -p "$dir/bin" || bad "cannot make $dir/bin; make room there, mount it for writing, or say another remoteDir"
script=$dir/bin/$3
if [ ! -f "$script" ] || [ "$(sha256sum <"$script")" != "$3  -" ]; then
    new=$script.$$
    printf 'need\n'
    dd bs=65536 iflag=count_bytes,fullblock count="$4" 2>/dev/null >"$new" || { rm -f "$new"; bad "cannot write to $dir/bin"; }
    if [ "$(sha256sum <"$new")" != "$3  -" ]; then
        rm -f "$new"
        bad "host.sh did not arrive whole in $dir/bin; is the disk full?"
    fi
    chmod 0555 "$new" && mv -f "$new" "$script" || bad "cannot write to $dir/bin"
fi
# shellcheck disable=SC2086
exec $7 "$script" serve "$scope" "$dir" "$7"
