#!/bin/sh
# The host's side of Windlass: every verb that the controller asks for. It is kept in <remoteDir>/bin by its SHA-256.
#
#   sh FILE serve SCOPE DIR SHELL  looks whether the host will do, and goes on as
#   sh FILE loop SCOPE DIR SHELL   in a unit of its own: reads requests from standard input until it ends
#   sh FILE once SCOPE DIR SHELL   the same, in the session of a login: for a confirmation, which shows that one can log in
#   sh FILE deadman SCOPE DIR SHELL SERVICE DUE SECONDS
#                                  what a timer starts where an activation was not confirmed in time
#
# A request is a line `<id> <verb> <count>` and <count> lines, an argument each; a payload follows the arguments of
# `stage`. An answer is lines `key value...`, `Key=Value` as systemctl writes them, or `path:text` as grep writes
# them, and a last line `end <id> <exit code>`.
#
# One verb at a time runs in a subshell, so whatever fails there cannot end the loop. `read` takes byte by byte,
# so that nothing of a payload is read ahead. Every process counts: each costs two milliseconds or more, and a look
# is to cost tens of them.
#
# `-ef` is not POSIX, but dash and busybox have it; `a && b || c` is meant where c is for the failure of either.
# shellcheck disable=SC3013,SC2015
set -uf
# Without a TZ, glibc asks the disk for the zone at every time that it writes: find took 10 ms instead of 3.
LC_ALL=C QUOTING_STYLE=literal TZ=UTC0
export LC_ALL QUOTING_STYLE TZ
umask 022
nothing=00000000000000000000
# The timer that was armed, and the same until it is started.
timer='' waiting=''
# For so many hundredths of a second what was staged counts as checked, and what was started as started by us.
STILL_NEW=1000
# And for so many the time of day is taken to go on as it did.
STILL_RIGHT=60000
# A payload of so many bytes is taken off the line before the lock is taken.
SMALL=65536

# Exit codes, each of which the controller knows by number.
OWNED=40 SUPERSEDED=41 LOCKED=42 TIMED_OUT=43 DAMAGED=45 BASE=46 NOT_STAGED=47 NOT_ACTIVATED=48 START_FAILED=49
VOIDED=51 NEEDS_LOGIN=52

give_up() {
    code=$1
    shift
    printf 'err %s\n' "$*"
    exit "$code"
}

# --- Names ------------------------------------------------------------------------------------------------------

begin() {
    scope=$1 dir=$2 shell=$3
    if [ "$scope" = user ]; then
        XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}
        export XDG_RUNTIME_DIR
        manager=--user
        unit_dir=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user
        wants=$unit_dir/default.target.wants
        stamps=${XDG_DATA_HOME:-$HOME/.local/share}/systemd/timers
    else
        manager=--system
        unit_dir=/etc/systemd/system
        wants=$unit_dir/multi-user.target.wants
        stamps=/var/lib/systemd/timers
    fi
    # GNU's find prints what stat would; busybox's does not.
    [ -n "${find_prints-}" ] || { find / -maxdepth 0 -printf '' 2>/dev/null && find_prints=yes || find_prints=no; }
    [ -n "${ln_renames-}" ] || ask_ln
}

# Whether `ln -sfT` puts a link in the place of another as a rename does. GNU's does since 8.27; others, and those
# before it, take the old one away first.
ask_ln() {
    ln_renames=no
    said=$(ln --version 2>/dev/null)
    case $said in
    'ln (GNU coreutils) '*) ;;
    *) return ;;
    esac
    version=${said#*) }
    major=${version%%.*}
    version=${version#*.}
    minor=${version%%[!0-9]*}
    case $major.$minor in
    .* | *. | *[!0-9.]*) return ;;
    esac
    if [ "$major" -gt 8 ] || { [ "$major" = 8 ] && [ "$minor" -ge 27 ]; }; then ln_renames=yes; fi
}

# Leads the link $2 to $1 instead. There is never a moment without one.
lead() {
    if [ "$ln_renames" = yes ]; then
        ln -sfT "$1" "$2"
    else
        ln -sfn "$1" "$2.new" && mv -fT "$2.new" "$2"
    fi
}

# Everything that follows from the name of a service's folder.
name() {
    service=$1
    home=$dir/$service
    fence=$dir/fence/$service
    unit=windlass-$service.service
    unit_file=$unit_dir/$unit
    deadman=windlass-revert-$service
}

# --- The fence --------------------------------------------------------------------------------------------------

# Makes the records where there are none. Each comes whole or not at all; afterwards they are overwritten in place.
make_fence() {
    [ -e "$fence/last" ] && return
    # All of it beside, and one rename: each of them would be a process.
    if [ ! -e "$fence" ] && new_fence=$dir/fence/.$service.$$ && mkdir -p "$new_fence/steps"; then
        fill_fence "$new_fence" || {
            rm -rf "$new_fence"
            exit 1
        }
        # Before it has its name: a record without a text would be there for ever.
        (set +f && sync "$new_fence"/steps/* "$new_fence/seq" "$new_fence/last" "$new_fence/steps" "$new_fence") \
            2>/dev/null || sync
        # Whoever was there first keeps what is there.
        mv -T "$new_fence" "$fence" 2>/dev/null || rm -rf "$new_fence"
    fi
    # Where a part of it was lost.
    [ -e "$fence/last" ] || mend_fence
    sync "$fence" "$dir/fence" "$dir" 2>/dev/null || sync
}

fill_fence() {
    for record in stage stop activate confirm revert remove; do
        printf '%s\n' "$nothing none  000 $nothing" >"$1/steps/$record" || return 1
    done
    printf '%s\n' "$nothing" >"$1/seq" && printf '%s\n' 'none    ' >"$1/last"
}

mend_fence() {
    mkdir -p "$fence/steps" || exit 1
    for record in stage stop activate confirm revert remove; do
        [ -e "$fence/steps/$record" ] || put_new "$fence/steps/$record" "$nothing none  000 $nothing"
    done
    [ -e "$fence/seq" ] || put_new "$fence/seq" "$nothing"
    put_new "$fence/last" 'none    '
    (set +f && sync "$fence"/steps/* "$fence/seq" "$fence/last" "$fence/steps") 2>/dev/null || sync
}

put_new() {
    printf '%s\n' "$2" >"$1.new" && mv -f "$1.new" "$1" || exit 1
}

# Waits for the lock at most $1 seconds. It is held by descriptor 9, which no program that we start may inherit.
take_lock() {
    [ -e "$fence/lock" ] || : >"$fence/lock" || exit 1
    exec 9<>"$fence/lock"
    flock -w "$1" 9 || give_up $LOCKED 'another step holds the lock'
}

drop_lock() {
    exec 9>&-
}

check_owner() {
    owner=
    if [ -e "$dir/cluster" ]; then
        read -r owner <"$dir/cluster" || :
    fi
    if [ -z "$owner" ]; then
        [ "$1" = claim ] || return 0
        # Two first stamps may race: the link says who was first.
        printf '%s\n' "$cluster" >"$dir/cluster.$$" || exit 1
        # One that a power cut has emptied; never one that somebody else links there just now.
        [ ! -e "$dir/cluster" ] || [ -s "$dir/cluster" ] || rm -f "$dir/cluster"
        ln "$dir/cluster.$$" "$dir/cluster" 2>/dev/null
        rm -f "$dir/cluster.$$"
        read -r owner <"$dir/cluster" || exit 1
    fi
    if [ "$owner" != "$cluster" ]; then
        printf 'owner %s\n' "$owner"
        exit $OWNED
    fi
}

# Refuses what is older than what the host has seen; raises what it has seen. Under the lock.
raise_sequence() {
    read -r seen <"$fence/seq" || give_up 1 "$fence/seq is not readable"
    if [ "$sequence" -lt "$seen" ]; then
        printf 'superseded %s\n' "$seen"
        exit $SUPERSEDED
    fi
    [ "$sequence" = "$seen" ] || printf '%s\n' "$sequence" 1<>"$fence/seq"
}

# record VERB STATE CODE
record() {
    printf '%s %-5s %03d %s\n' "$sequence" "$2" "$3" "$revision" 1<>"$fence/steps/$1"
}

# Takes the lock and begins a step, or answers it from its record and ends.
begin_step() {
    step=$1
    check_owner look
    make_fence
    take_lock "$2"
    check_owner claim
    raise_sequence
    read -r at state code about <"$fence/steps/$step" || give_up 1 "$fence/steps/$step is not readable"
    if [ "$at" = "$sequence" ] && [ "$about" = "$revision" ]; then
        case $state in
        ok)
            if [ "$step" != stage ] || is_staged; then
                echo replayed
                replayed
                exit 0
            fi
            ;;
        fail)
            echo replayed
            # Three digits with leading zeros would be octal in arithmetic, not for exit.
            exit "${code#0}"
            ;;
        void)
            echo replayed
            exit $VOIDED
            ;;
        esac
    fi
    record "$step" begun 0
    case $step in
    stop | remove) sync "$fence/seq" "$fence/steps/$step" 2>/dev/null || sync ;;
    # One of these that a power cut takes back is done again, recorded as begun or not; its end is synced.
    *) [ "$sequence" = "$seen" ] || sync "$fence/seq" 2>/dev/null || sync ;;
    esac
}

# What a replayed step has to do before it may answer; stage takes its payload off the line.
replayed() { :; }

# Sets `state` and `about` to what the record of the last switch says, whichever way it was.
last_switch() {
    read -r at state _ about <"$fence/steps/activate" || at=$nothing state=none about=''
    read -r later other _ beside <"$fence/steps/revert" || return 0
    [ "$later" -lt "$at" ] || state=$other about=$beside
}

# Records which step decided last whether the unit runs.
decides() {
    printf '%-8s\n' "$1" 1<>"$fence/last"
}

# end_step CODE [PATH]: records the outcome and ends. What is not final (timed out, not staged, damaged) stays begun.
# What was done at the path is on the disk before the outcome is. That a stage or a switch is recorded as done may be
# taken back by a power cut, which leaves them as begun: they are done again.
end_step() {
    [ $# -lt 2 ] || sync "$2" 2>/dev/null || sync
    case $1 in
    0) record "$step" ok 0 ;;
    "$TIMED_OUT" | "$DAMAGED" | "$BASE" | "$NOT_STAGED" | "$NOT_ACTIVATED" | "$NEEDS_LOGIN") ;;
    *) [ "$step" = stage ] || record "$step" fail "$1" ;;
    esac
    case $1,$step in
    0,stage | 0,activate | 0,revert) ;;
    *) sync "$fence/steps/$step" 2>/dev/null || sync ;;
    esac
    exit "$1"
}

# --- systemd ----------------------------------------------------------------------------------------------------

# control SECONDS ARGUMENT...: systemctl with a deadline. Running out of it leaves the job running, so it is unknown.
control() {
    limit=$1
    shift
    timeout -k 5 "$limit" systemctl "$manager" --no-ask-password "$@" </dev/null 9>&-
    in_time $? "$limit" "$1"
}

# in_time OUTCOME SECONDS VERB: the outcome of a systemctl, where it came to its end.
in_time() {
    case $1 in
    124 | 137 | 143)
        printf 'job %s\n' "$(timeout 5 systemctl "$manager" show -p Job --value "$unit" </dev/null 9>&-)"
        printf 'err systemctl %s did not end within %s s\n' "$3" "$2"
        return $TIMED_OUT
        ;;
    esac
    return "$1"
}

# restart SECONDS: sets `code`, and `said` to what systemctl had to say. Before the unit, starts the timer that is armed
# for it, where that has not been done. Not by way of `control`, since a function would be a process more.
restart() {
    # shellcheck disable=SC2086
    said=$(timeout -k 5 "$1" systemctl "$manager" --no-ask-password restart $waiting "$unit" \
        </dev/null 2>&1 9>&-)
    in_time $? "$1" restart
    code=$?
}

# systemctl gives up by itself where systemd does not answer, so that a look needs no process for that.
show() {
    SYSTEMD_BUS_TIMEOUT=20s systemctl "$manager" show "$unit" --no-pager "$@" </dev/null 9>&-
}

# Which revision the installed unit runs: empty where there is no unit, - where it is not ours or runs nothing.
read_installed() {
    installed=
    [ -e "$unit_file" ] || return 0
    installed=-
    read_slot "$unit_file"
    [ -n "$slot" ] || return 0
    # No process but where the revision is gone.
    set +f
    for at in "$home"/revisions/*; do
        if [ "$at" -ef "$home/live/$slot" ]; then installed=${at##*/}; fi
    done
    set -f
    [ "$installed" = - ] || return 0
    installed=$(readlink "$home/live/$slot")
    installed=${installed##*/}
    case $installed in
    '' | *[!0-9]*) installed=- ;;
    esac
}

# Through which link of live/ a unit runs its revision; empty where it is not one of ours.
read_slot() {
    slot=
    # Our first lines are fixed, so that this needs no process.
    {
        read -r line && [ "$line" = '[X-Windlass]' ] || return 0
        read -r line && [ "$line" = "Service=$service" ] || return 0
        read -r line || return 0
    } <"$1"
    case $line in
    Slot=*[!0-9a-f]* | Slot=) ;;
    Slot=*) slot=${line#Slot=} ;;
    esac
}

# --- Files ------------------------------------------------------------------------------------------------------

# Deletes trees, those with read-only folders too.
wipe() {
    if [ "$scope" != system ]; then
        for tree in "$@"; do
            [ ! -d "$tree" ] || find "$tree" -type d ! -perm -700 -exec chmod u+rwx {} + 2>/dev/null
        done
    fi
    rm -rf "$@"
}

# Everything in the current folder: mode, size, time and path of files and links, mode and path of folders. In the
# order of the folders themselves, which stays as it is while they do. For a subshell, which it ends.
listing() {
    if [ "$find_prints" = yes ]; then
        exec find . -mindepth 1 -type d -printf '%m - - %p\n' -o -type l -printf '%m %s %Ts %p -> %l\n' \
            -o -printf '%m %s %Ts %p\n'
    else
        exec find . -mindepth 1 -type d -exec stat -c '%a - - %n' {} + -o -exec stat -c '%a %s %Y %N' {} +
    fi
}

# Whether a release is as in the listing that was made when it was unpacked and checked.
is_as_listed() {
    [ -f "$home/releases/$1.list" ] && [ -d "$home/releases/$1" ] || return 1
    (cd "$home/releases/$1" && listing) | cmp -s - "$home/releases/$1.list"
}

# How a release differs from its listing; nothing where it does not.
listing_differs() {
    if [ ! -f "$home/releases/$1.list" ] || [ ! -d "$home/releases/$1" ]; then
        echo 'missing'
        return
    fi
    is_as_listed "$1" || (cd "$home/releases/$1" && listing) | sort - "$home/releases/$1.list" | uniq -u
}

# Paths of lines that a listing wrote.
paths() {
    sed -e "s/^[^ ]* [^ ]* [^ ]* '\{0,1\}\.\{0,1\}\/\{0,1\}//" -e 's/ -> .*//' -e "s/'\$//" | sort -u
}

# Prints the paths of files of a release whose contents are not those of its manifest.
hashes_differ() {
    polite=$2
    if command -v ionice >/dev/null; then polite="$polite ionice -c3"; fi
    (
        cd "$home/releases/$1" || exit
        if hashes_quickly; then
            wanted=$(sums_of "$1" | sha256sum)
            [ "$(sums_of "$1" | sums_now "$polite" | sha256sum)" != "$wanted" ] || exit
        fi
        # shellcheck disable=SC2086
        sums_of "$1" | $polite sha256sum -c 2>/dev/null
    ) | sed -n 's/: FAILED.*$//p'
}

# What a manifest says, as sha256sum writes it.
sums_of() {
    grep -v '^lnk ' "$home/releases/$1.manifest" | cut -d' ' -f4-
}

# OpenSSL hashes four times as fast as coreutils where the processor helps, and takes longer to begin. It is only ever
# believed where it finds what it should: whatever else it says, sha256sum has the last word.
hashes_quickly() {
    command -v openssl >/dev/null && [ "$(openssl dgst -sha256 -r </dev/null 2>/dev/null)" = \
        'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 *stdin' ]
}

# Reads lines as sha256sum writes them, and writes what they should be for the same paths. $1 goes before the command.
sums_now() {
    # shellcheck disable=SC2086
    cut -c67- | tr '\n' '\0' | $1 xargs -0 openssl dgst -sha256 -r 2>/dev/null | sed 's/ \*/  /'
}

# Whether revision $1 is there as it was staged; sets `release`, and `same` where its unit is the one that is installed.
check_revision() {
    at=$home/revisions/$1
    release='' same=''
    [ -f "$at/seal" ] && read -r release unit_sum env_sum <"$at/seal" || return 1
    # There may be no unit yet.
    sums=$(cd "$at" && sha256sum unit env "$unit_file" 2>/dev/null)
    case $sums in
    "$unit_sum  unit
$env_sum  env"*) ;;
    *) return 1 ;;
    esac
    case $sums in
    *"
$unit_sum  $unit_file") same=1 ;;
    esac
    read_slot "$at/unit"
    [ -n "$slot" ] || return 1
    [ "$at/release" -ef "$home/releases/$release" ]
}

# --- observe ----------------------------------------------------------------------------------------------------

# Refuses everything older from now on.
stamp() {
    check_owner look
    make_fence
    take_lock 5
    check_owner claim
    raise_sequence
    [ "$sequence" = "$seen" ] || sync "$fence/seq" 2>/dev/null || sync
    drop_lock
}

# stamp SERVICE CLUSTER SEQUENCE: for whoever has just looked. The records say whether anything was done since; they are
# read when nobody older can change them any more.
verb_stamp() {
    name "$1"
    cluster=$2 sequence=$3 revision=$nothing
    stamp
    for step in stage stop activate confirm revert remove; do
        read -r record <"$fence/steps/$step" || give_up 1 "$fence/steps/$step is not readable"
        printf 'step %s %s\n' "$step" "$record"
    done
}

# observe SERVICE CLUSTER SEQUENCE|- quick|full
verb_observe() {
    name "$1"
    cluster=$2 sequence=$3 revision=$nothing
    [ "$sequence" = - ] || stamp
    cd "$dir" || exit 1
    # One read of each file, so that none is seen half written.
    set +f
    grep -H '' cluster "fence/$service/seq" "fence/$service/last" "fence/$service/steps"/* \
        "$service/revisions"/*/seal /dev/null 2>/dev/null
    set -f
    find_running || state=$(show -p ActiveState -p SubState -p MainPID -p ActiveEnterTimestampMonotonic -p NRestarts \
        -p Result -p ExecMainStatus -p NeedDaemonReload -p UnitFileState -p DropInPaths) ||
        give_up 1 'systemctl show failed'
    printf '%s\n' "$state"
    observe_files
    read_installed
    printf 'installed %s\n' "$installed"
    case $installed in
    '' | -) ;;
    *) observe_drift "$installed" "$4" ;;
    esac
    return 0
}

observe_files() {
    [ -d "$home" ] || return 0
    echo present
    set +f
    for manifest in "$home"/releases/*.manifest; do
        digest=${manifest##*/}
        digest=${digest%.manifest}
        [ -d "$home/releases/$digest" ] && printf 'release %s\n' "$digest"
    done
    for at in "$home"/revisions/*; do
        [ "$at" -ef "$home/good" ] && printf 'good %s\n' "${at##*/}"
    done
    for part in "$home"/incoming/*.part*; do
        [ -f "$part" ] && stat -c 'incoming %s %n' "$part"
    done
    set -f
}

observe_drift() {
    at=$home/revisions/$1
    # An unit of ours without its revision: everything about it is changed.
    if ! [ -f "$at/seal" ] || ! read -r release unit_sum env_sum <"$at/seal"; then
        echo 'drift revision'
        return
    fi
    # Everything in one go: the listing of what is there, and the one that was made when it came.
    sums=$({ cd "$home/releases/$release" && listing; } 2>/dev/null |
        sha256sum - "$home/releases/$release.list" "$unit_file" "$at/unit" "$at/env" 2>/dev/null)
    found=${sums%% *}
    case $sums in
    "$found  -
$found  $home/releases/$release.list
"*) same=1 ;;
    *) same='' ;;
    esac
    case $sums in
    *"
$unit_sum  $unit_file
"*) ;;
    *) echo 'drift unit' ;;
    esac
    case $sums in
    *"
$unit_sum  $at/unit
$env_sum  $at/env") ;;
    *) echo 'drift revision' ;;
    esac
    [ "$at/release" -ef "$home/releases/$release" ] || echo 'drift revision'
    [ -n "$same" ] || listing_differs "$release" | head -n 40 | paths | head -n 10 | sed 's/^/changed /'
    [ "$2" = quick ] || hashes_differ "$release" 'nice -n 19' | head -n 10 | sed 's/^/changed /'
}

# --- stage ------------------------------------------------------------------------------------------------------

# have SERVICE CLUSTER SEQUENCE REVISION RELEASE PROGRAM|-: what a stage can build on. Changes nothing but the names
# of uploads that nobody is at any more.
verb_have() {
    name "$1"
    cluster=$2 sequence=$3 revision=$4 release=$5
    number=${revision#"${revision%%[!0]*}"}
    check_owner look
    if [ -e "$fence/last" ]; then
        read -r seen <"$fence/seq" || seen=$nothing
        if [ "$sequence" -lt "$seen" ]; then
            printf 'superseded %s\n' "$seen"
            exit $SUPERSEDED
        fi
        read -r at state _ about <"$fence/steps/stage" || state=none
        [ "$at $about $state" != "$sequence $revision ok" ] || ! is_staged || echo staged
    fi
    [ "$6" = - ] || printf 'program %s\n' "$(command -v "$6")"
    [ -d "$home" ] || return 0
    adopt_parts
    observe_files
    if [ -f "$home/releases/$5.manifest" ] && [ -d "$home/releases/$5" ]; then
        echo verified
        listing_differs "$5" | paths | sed 's/^/damaged /'
        hashes_differ "$5" '' | sed 's/^/damaged /'
    fi
}

# Whether there is a process of the number and boot $1. Of another boot, the number is somebody else's, who may be one
# of us.
lives() {
    [ "${1#*-}" = "${me#*-}" ] && [ -d "/proc/${1%%-*}" ]
}

# Whether $1 may be at an upload: another of our shells.
may_receive() {
    [ "$1" != "$me" ] && lives "$1" && grep -qs '/bin/[0-9a-f]\{64\}' "/proc/${1%%-*}/cmdline"
}

# An upload is named by the process that receives it. Once that is gone, the next one may go on with it.
adopt_parts() {
    set +f
    for part in "$home"/incoming/*.part.*; do
        [ -f "$part" ] && ! may_receive "${part##*.}" && mv -f "$part" "${part%.*}"
    done
    set -f
}

# stage SERVICE CLUSTER SEQUENCE REVISION(padded) NUMBER RELEASE BASE PAYLOAD LENGTH OFFSET WAIT FILES UNIT ENV
#   PROGRAM PATH USER, then the payload.
# BASE: `keep` where the release is there, `-` where there is nothing to build on, else a release that is there.
# FILES: what there is of the release in the payload: `none`, `more` where nothing of the base has to go, or `other`.
# UNIT, ENV: SHA-256 of the two. Those that a revision here has need not travel.
# PROGRAM, PATH: where the unit expects what runs it, or `-`.
# USER: as whom the unit runs it, or `-` where nobody is named.
verb_stage() {
    exec 7<&0 </dev/null
    name "$1"
    cluster=$2 sequence=$3 revision=$4 number=$5 release=$6 base=$7
    payload=$8 length=$9
    shift 9
    offset=$1 wait=$2 files=$3 unit_sum=$4 env_sum=$5
    small='' same='' describes=meta
    # Nothing is left of a service that was removed, so nothing is put there before the sequence is looked at.
    [ "$length" -gt $SMALL ] || [ ! -d "$home/incoming" ] || small=1
    if [ -n "$small" ]; then
        # All of it under one lock, since nobody waits for the network any more.
        check_owner look
        receive
        trap '[ ! -e "$part" ] || rm -f "$part"' EXIT
        begin_step stage "$wait"
    else
        replayed() {
            dd bs=65536 iflag=count_bytes,fullblock count=$((length - offset)) <&7 >/dev/null 2>&1
        }
        begin_step stage "$wait"
        drop_lock
    fi
    [ "$6" = - ] || [ "$(command -v "$6")" = "$7" ] || give_up $BASE "$6 is not $7"
    # systemd would say so too late: when the unit is switched.
    [ "$8" = - ] || id -u "$8" >/dev/null 2>&1 ||
        give_up $NOT_STAGED "runtime.user is $8, and there is no such user here; create it, or leave runtime.user out"
    if [ -n "$small" ] && take_room; then
        build=$home/incoming/ready
    else
        build=$home/incoming/build.$me
        [ ! -e "$build" ] || wipe "$build"
        mkdir -p "$build/revision" "$home/releases" "$home/revisions" "$home/live" "$unit_dir" || exit 1
    fi
    [ -n "$small" ] || receive
    if [ -n "$small" ]; then
        (unpack && flush_build && install) 7<&- 9>&-
    else
        (unpack) 7<&-
    fi
    code=$?
    if [ $code -ne 0 ]; then
        wipe "$build"
        keep_upload
        exit $code
    fi
    if [ -n "$small" ]; then
        # A process each for what nobody waits for: the confirmation clears the folder away, and has on the disk what was
        # moved. Until then a record that says too much is not believed, for what it speaks of is not there: so what has
        # taken the place of something is on the disk before the record.
        trap - EXIT
        : >"$part"
        if [ -e "$build/old" ] || [ -e "$build/oldrevision" ]; then
            wipe "$build"
            sync -f "$home" 2>/dev/null || sync
        elif [ "$build" != "$home/incoming/ready" ] || [ -e "$build/revision" ]; then
            wipe "$build"
        fi
        end_step 0
    fi
    install_anew
    wipe "$build" "$part"
    # First what was done, then that it was.
    sync -f "$home" 2>/dev/null || sync
    end_step "$code"
}

# Room to build in: an empty folder that the last confirmation has left, and who takes it marks it as taken. It is only
# used under the lock, and not after a boot: what a power cut has left of the mark, nobody knows.
take_room() {
    has_room "$home/incoming/ready/room" || return 1
    : >"$home/incoming/ready/room"
}

has_room() {
    read -r now </proc/sys/kernel/random/boot_id
    [ -s "$1" ] && read -r made <"$1" && [ "$made" = "$now" ]
}

# For the next one; where the disk is full, it makes its own.
leave_room() {
    [ ! -e incoming/ready ] && mkdir incoming/ready incoming/ready/revision 2>/dev/null && read -r now </proc/sys/kernel/random/boot_id &&
        printf '%s\n' "$now" 2>/dev/null >incoming/ready/room
}

# Whether what a record calls staged is there. A power cut may have taken it back.
is_staged() {
    [ -d "$home/revisions/$number" ] && [ "$home/revisions/$number/release" -ef "$home/releases/$release" ]
}

# On the disk before it has a name: what a power cut tears would have one otherwise.
flush_build() {
    sync -f "$build" 2>/dev/null || sync
}

# Installs what took its time to come. Sets `code`.
install_anew() {
    # A large one goes before the sync, so that the disk never has to take it.
    [ "$length" -lt 1000000 ] || rm -f "$part"
    flush_build
    take_lock "$wait"
    # Owner and sequence may have changed while the payload was on its way.
    (
        check_owner claim
        raise_sequence
        install
    )
    code=$?
}

# Takes the payload off the line. The part belongs to us by its name as long as we run. Whether it is what was sent
# shows when it is unpacked: every file of it, the manifest, the unit and the environment have their SHA-256.
receive() {
    # A small one is not gone on with where it ended early, so its file stays for the next one.
    if [ -n "$small" ]; then part=$home/incoming/small.$me; else part=$home/incoming/$payload.part.$me; fi
    # Only the service is to see what may be in its environment.
    umask 077
    if [ "$offset" -gt 0 ]; then
        mv -f "$home/incoming/$payload.part" "$part" || give_up $BASE 'the begun upload is gone'
        [ "$(stat -c %s "$part")" = "$offset" ] || give_up $BASE 'the begun upload has another length'
    else
        : >"$part" || exit 1
    fi
    umask 022
    if ! dd bs=65536 iflag=count_bytes,fullblock count=$((length - offset)) <&7 >>"$part"; then
        rm -f "$part"
        exit 1
    fi
}

# What ended early is gone on with the next time; the rest is of no use.
keep_upload() {
    if [ "$(stat -c %s "$part")" -lt "$length" ]; then
        mv -f "$part" "$home/incoming/$payload.part"
        give_up $DAMAGED 'the payload ended early'
    fi
    rm -f "$part"
}

# Builds the release and the revision beside the others and checks all of them. Nothing is visible yet.
unpack() {
    cd "$build" || exit 1
    # Under the lock, what describes a release that is not there yet is written where it belongs: without the release it
    # says nothing to anybody.
    if [ -n "$small" ] && [ "$base" != - ] && [ ! -e "$home/releases/$release" ]; then describes=$home/releases; fi
    manifest=$describes/$release.manifest
    trouble=$BASE torn=1
    # What had arrived before the host went down may not be what was sent.
    [ "$offset" -eq 0 ] || torn=$DAMAGED
    case $base,$files in
    keep,*) tar -xf "$part" || exit $torn ;;
    -,*)
        trouble=$DAMAGED
        tar -xf "$part" || exit $torn
        [ -d files ] || mkdir files || exit 1
        ;;
    *,other)
        tar -xf "$part" meta || exit $torn
        link_base
        thin_out
        tar -xf "$part" || exit $torn
        ;;
    *)
        link_base
        # tar takes a file away before it writes one of that name, so nothing is written through a link to the base.
        tar -xf "$part" || exit $torn
        ;;
    esac
    take_texts
    : >sums
    [ "$base" = keep ] || check_unpacked
    printf '%s  %s\n' "$unit_sum" revision/unit "$env_sum" revision/env >>sums
    [ "$base" = keep ] || printf '%s  %s\n' "$release" "$manifest" >>sums
    # Below some megabytes there is nothing to win.
    if [ "$length" -ge 4000000 ] && hashes_quickly; then
        # shellcheck disable=SC2094
        ! sums_now '' <sums | cmp -s - sums || return 0
    fi
    # Under the lock, the unit that is installed is compared in the same go.
    if [ -n "$small" ]; then
        find_good
        if [ "$good_sum" = "$unit_sum" ]; then
            printf '%s  %s\n' "$unit_sum" "$unit_file" >installed
            ! sha256sum -c sums installed >checked 2>&1 || { same=1 && return 0; }
        fi
    fi
    if ! sha256sum -c sums >checked 2>&1; then
        grep -v ': OK$' checked | sed 's/^/err /' | head -n 5
        exit "$trouble"
    fi
}

# Hard links to the base's files.
link_base() {
    cp -al "$home/releases/$base" files || give_up $BASE "cannot link to the release $base"
    [ "$scope" = system ] || find files -type d -exec chmod 0755 {} + || exit 1
}

# Takes off what is not the same any more: links, files that are gone or damaged, folders that are empty then.
thin_out() {
    find files -type l -exec rm -f {} + || exit 1
    [ ! -s meta/removed ] || (cd files && xargs -0 rm -f -- <../meta/removed) ||
        give_up $BASE 'cannot take files off the base'
    find files -mindepth 1 -depth -type d -exec rmdir {} + 2>/dev/null || :
}

# The unit and the environment, and the seal over them. Where they did not travel they are a revision's that is here.
take_texts() {
    texts=
    if [ ! -f revision/unit ]; then
        trouble=$BASE
        find_texts || give_up $BASE 'no revision here has that unit'
        # What compares the manifest copies them too. Only the service is to see what may be in its environment.
        if [ "$base" = keep ]; then
            cp -p "$texts/unit" "$texts/env" revision || exit 1
        else
            umask 077
            : >revision/env || exit 1
            umask 022
        fi
    fi
    printf '%s\n' "$release $unit_sum $env_sum" >revision/seal || exit 1
}

# Sets `texts` to a revision that has both.
find_texts() {
    set +f
    for at in "$home"/revisions/*; do
        read -r _ sums 2>/dev/null <"$at/seal" || continue
        if [ "$sums" = "$unit_sum $env_sum" ] && [ -f "$at/unit" ] && [ -f "$at/env" ]; then texts=$at; fi
    done
    set -f
    [ -n "$texts" ]
}

# Every path, size, mode and time of what was unpacked, against the manifest. What a base does not vouch for is to be
# hashed. What is found is kept, for the looks that come after.
check_unpacked() {
    if [ "$scope" = user ]; then
        find files -mindepth 1 -type d -exec chmod 0555 {} + || exit 1
    fi
    (cd files && listing) >"$describes/$release.list" || exit 1
    [ "$base" = - ] || : >"$manifest" || exit 1
    # Of a base only what is new is hashed; all of it where the base is the damaged release itself.
    case $base in
    -) set -- part=wanted "$manifest" ;;
    "$release") set -- part=edit meta/edit part=base vouches= "$home/releases/$base.manifest" ;;
    *) set -- part=edit meta/edit part=base vouches=1 "$home/releases/$base.manifest" ;;
    esac
    [ -z "$texts" ] || set -- "$@" part=unit "$texts/unit" part=env "$texts/env"
    awk "$compare" new="$manifest" "$@" part=found "$describes/$release.list" >sums 2>bad ||
        { head -n 5 bad | sed 's/^/err differs: /' && exit "$trouble"; }
}

# For awk: a manifest against a listing. What is to be hashed goes to standard output, what differs to standard error.
# A link may be listed with quotes (busybox) or without. A manifest that did not travel is made of the base's and of the
# edit, and written down: lines `<number> d`, `<number> i <line>` before that line of the base, and `0 a <line>` at the
# end of it.
# shellcheck disable=SC2016
compare='
    function want(line, known,    tab, path, target, head, sum, file) {
        if (line ~ /^lnk /) {
            tab = index(line, "\t")
            path = "./" substr(line, tab + 1)
            target = substr(line, 5, tab - 5)
            links[path " -> " target] = path
            links["\047" path "\047 -> \047" target "\047"] = path
            missing[path]
            return
        }
        split(line, words, " ")
        head = words[1] " " words[2] " " words[3]
        sum = substr(line, length(head) + 2)
        file = head " ./" substr(sum, 67)
        files[file]
        missing[file]
        if (!known) print substr(sum, 1, 66) "files/" substr(sum, 67)
    }
    function make(line, known) {
        print line > new
        want(line, known)
    }
    function add(text,    count, lines, at) {
        count = split(text, lines, "\n")
        for (at = 1; at < count; at++) make(lines[at], 0)
    }
    part == "edit" {
        if ($2 == "d") gone[$1]
        else added[$1] = added[$1] substr($0, length($1) + 4) "\n"
        next
    }
    part == "base" {
        if (FNR in added) add(added[FNR])
        if (!(FNR in gone)) make($0, vouches)
        next
    }
    part == "wanted" { want($0, 0); next }
    part == "unit" { print > "revision/unit"; next }
    part == "env" { print > "revision/env"; next }
    part == "found" && FNR == 1 { if (0 in added) add(added[0]); delete added[0] }
    $0 in files { delete missing[$0]; next }
    $2 == "-" { next }
    {
        link = $0
        sub(/^[^ ]* [^ ]* [^ ]* /, "", link)
        if (link in links) { delete missing[links[link]]; next }
        print | "cat >&2"
        bad = 1
    }
    END {
        if (0 in added) add(added[0])
        for (path in missing) { print path | "cat >&2"; bad = 1 }
        exit bad
    }'

# Makes what was built a release and a revision. Under the lock.
install() {
    cd "$home" || exit 1
    if [ "$base" != keep ]; then
        if [ -e "releases/$release" ]; then
            [ "$scope" = system ] || chmod 0755 "releases/$release"
            mv "releases/$release" "$build/old" || exit 1
        fi
        if [ "$describes" = meta ]; then
            mv -f "$build/meta/$release.manifest" "$build/meta/$release.list" releases || exit 1
        fi
        mv "$build/files" "releases/$release" || exit 1
        [ "$scope" = system ] || chmod 0555 "releases/$release"
    fi
    [ -d "releases/$release" ] || give_up $BASE "the release $release is not there"
    keep=
    if [ -e "revisions/$number" ]; then
        wanted="$release $unit_sum $env_sum"
        if (check_revision "$number") && read -r seal <"revisions/$number/seal" && [ "$seal" = "$wanted" ]; then
            keep=1
        else
            mv "revisions/$number" "$build/oldrevision" || exit 1
        fi
    fi
    [ -n "$keep" ] || mv "$build/revision" "revisions/$number" || exit 1
    [ "revisions/$number/release" -ef "releases/$release" ] || give_up $BASE "revision $number does not lead to its release"
    prepare_switches || exit 1
}

# What is gone back to must need no room then: the disk may be full. Nor does the unit of what is switched to. Where both
# have the unit that is installed, as it was installed, there is none to be put there.
prepare_switches() {
    [ -n "$small" ] || find_good
    [ -z "$good_number" ] || keep_link "$good_number"
    if [ "$good_sum" = "$unit_sum" ] && { [ -n "$same" ] || cmp -s "revisions/$number/unit" "$unit_file"; }; then
        # For the switch that comes next.
        echo same
        return 0
    fi
    keep_unit "$number" || return 1
    [ -z "$good_number" ] || keep_unit "$good_number"
    return 0
}

# Sets `good_number` and `good_sum` to the revision that was confirmed last and the SHA-256 of its unit.
find_good() {
    good_number='' good_sum=''
    set +f
    for at in "$home"/revisions/*; do
        if [ "$at" -ef "$home/good" ]; then good_number=${at##*/}; fi
    done
    set -f
    [ -z "$good_number" ] || read -r _ good_sum _ 2>/dev/null <"$home/good/seal" || :
}

# The link to a revision, ready to be renamed.
keep_link() {
    [ -L "$home/live/.$1" ] || ln -s "../revisions/$1" "$home/live/.$1"
}

# The unit of a revision, ready to be renamed. systemd ignores it by its name.
keep_unit() {
    ready=$unit_dir/.$unit.$1
    if [ -f "$ready" ] && cmp -s "$home/revisions/$1/unit" "$ready"; then return 0; fi
    cat "$home/revisions/$1/unit" >"$ready.new" && mv -f "$ready.new" "$ready"
}

# --- The switch -------------------------------------------------------------------------------------------------

# activate and revert SERVICE CLUSTER SEQUENCE REVISION(padded) NUMBER WAIT SECONDS UNCONFIRMED
# UNCONFIRMED: after so many seconds without a confirmation the host goes back by itself.
verb_activate() {
    switch activate "$@"
}

verb_revert() {
    switch revert "$@"
}

switch() {
    # Nobody may be there any more to hear the answer.
    trap '' HUP PIPE
    verb=$1
    name "$2"
    cluster=$3 sequence=$4 revision=$5 number=$6
    begin_step "$verb" "$7"
    before=$state$code
    if is_just_staged; then fresh=1; else fresh=''; fi
    # What was staged under the unit that is installed was compared with it then.
    same=$fresh$staged_under
    if [ "$same" != 1same ]; then
        # Nor is there anything to compare it with where nothing is installed.
        if [ -n "$fresh" ] && [ ! -e "$unit_file" ]; then same=''; else check_staged; fi
    fi
    # Without room for a timer one may go back all the same.
    arm "$9" "$8" || {
        [ "$verb" = revert ] || end_step 1
        timer='' waiting=''
    }
    # Where systemd has to read the unit again there is more between the switch and the start; and where the last try
    # has failed, a timer may have been what did.
    if [ -n "$timer" ] && { [ -z "$same" ] && [ -e "$unit_file" ] || [ "$before" = fail001 ]; }; then
        start_timer || {
            [ "$verb" = revert ] || end_step 1
            timer=''
        }
    fi
    decides "$verb"
    put_unit "$number" || end_step 1
    # Going back to what was confirmed last is all that a timer would do.
    if [ -n "$timer" ]; then echo armed; else disarm; fi
    start "$8"
}

# Whether this shell has staged and checked the same a moment ago. Whatever changes a file between that and this could
# as well do so a moment later, and is found by the next look.
is_just_staged() {
    [ "$verb $staged" = "activate $service $sequence $revision" ] || return 1
    tell_uptime
    [ $((uptime - staged_at)) -le $STILL_NEW ]
}

# Ends the step where what is switched to is not as it was staged. Sets `same`.
check_staged() {
    check_revision "$number" || {
        printf 'err revision %s is not staged, or its unit or env was changed\n' "$number"
        end_step $NOT_STAGED
    }
    differs=
    [ -n "$fresh" ] || is_as_listed "$release" || differs=$(listing_differs "$release" | paths | head -n 5)
    [ -n "$differs" ] || [ "$verb" = activate ] || differs=$(hashes_differ "$release" '' | head -n 5)
    if [ -n "$differs" ]; then
        printf '%s\n' "$differs" | sed 's/^/err changed: /'
        end_step $NOT_STAGED
    fi
}

# How long the machine has been up, suspended or not, in hundredths of a second.
tell_uptime() {
    read -r up _ </proc/uptime
    uptime=${up%.*}${up#*.}
}

# The switch itself. A unit runs live/<slot>, a link to its revision; the slot is the digest of the unit's text. So
# where the unit stays, the rename of that link is the switch, and systemd has nothing to read again, which would cost
# a tenth of a second. Where the unit changes, its link is one that nobody uses yet, and the rename of the unit is it.
put_unit() {
    known=''
    [ ! -e "$unit_file" ] || known=1
    [ -d "$wants" ] || mkdir -p "$wants" || return 1
    read_slot "$home/revisions/$1/unit"
    [ -n "$slot" ] || return 1
    ready=$unit_dir/.$unit.$1
    [ -n "$same" ] || { [ -n "$fresh" ] && [ -f "$ready" ]; } || keep_unit "$1" || return 1
    # The one that was kept ready is for a disk that is full.
    taken=''
    { [ "$ln_renames" = yes ] && ln -sfT "../revisions/$1" "$home/live/$slot" 2>/dev/null; } || {
        taken=1
        keep_link "$1" && mv -fT "$home/live/.$1" "$home/live/$slot" || return 1
    }
    if [ -z "$same" ]; then
        # As young as its rename: systemd says that it has to read a unit again only where that is younger than what it
        # has read, and so tells whoever comes after a switch that was cut off before the reload.
        touch "$ready" || return 1
        sync "$home/live" "$ready" 2>/dev/null || sync
        mv -f "$ready" "$unit_file" || return 1
    fi
    if ! [ "$wants/$unit" -ef "$unit_file" ]; then
        ln -sf "$unit_file" "$wants/$unit" || return 1
        # systemd remembers what it found there.
        same=
    fi
    [ -n "$same" ] || sync "$unit_dir" 2>/dev/null || sync
    return 0
}

# Starts what the unit file says now. systemd reads it again only where it has another one. Sets `code` and `said`, and
# fails where systemd could not read it: that says nothing of the program.
start_unit() {
    if [ -n "$known" ] && [ -z "$same" ]; then reload || return; fi
    restart "$1"
    # It may have read another one than is there, or none: it says so, or fails.
    case $code,$said in
    "$TIMED_OUT",*) return 0 ;;
    0,*daemon-reload*) ;;
    0,*) return 0 ;;
    *) [ -z "$known" ] || [ -n "$same" ] || return 0 ;;
    esac
    reload && restart "$1"
}

# Lets systemd read its units again. Sets `code`.
reload() {
    control 60 daemon-reload
    code=$?
    return $code
}

# For the next switch, and for people, while the program starts. Neither may fail it: the disk may be full.
after_switch() {
    [ -z "$taken" ] || keep_link "$number" 2>/dev/null
    [ -n "$same" ] || keep_unit "$number" 2>/dev/null
    [ "$home/current" -ef "$home/revisions/$number" ] || ln -sfn "live/$slot" "$home/current" 2>/dev/null
}

# Starts what the unit file says now, and ends the step.
start() {
    start_unit "$1" || {
        # It may be read, and started, by somebody else.
        [ -z "$waiting" ] || start_timer
        end_step $code
    }
    after_switch
    # What a power cut takes back of a switch that is to be confirmed the confirmation finds: it looks at what is
    # installed, and puts that on the disk.
    [ $code -ne 0 ] || { [ -n "$timer" ] && end_step 0 || end_step 0 "$home/live"; }
    tell_said
    [ -z "$timer" ] || must_be_timed "$1"
    [ $code -ne $TIMED_OUT ] || end_step $TIMED_OUT
    show -p Result -p ExecMainStatus -p SubState
    end_step $START_FAILED
}

# Where systemd has said of the timer that it does not start, nobody would take back what was switched: so it is taken
# back now, and the step has failed.
must_be_timed() {
    case $said in
    *"$timer"*) ;;
    *) return 0 ;;
    esac
    waiting='' back=$nothing
    printf 'err taken back at once: its timer does not start\n'
    # It stays armed where that fails: the timer is tried again at a boot.
    ! is_unconfirmed || back_to "$1" || end_step $TIMED_OUT
    disarm
    end_step 1
}

# Starts the timer alone.
start_timer() {
    waiting=''
    # systemd may have looked for it just before it was there.
    said=$(control 20 start "$timer" 2>&1) || { reload && said=$(control 20 start "$timer" 2>&1); } || {
        tell_said
        return 1
    }
}

# Tells what systemctl had to say.
tell_said() {
    printf '%s\n' "$said" | head -c 1500 | sed -e 's/^err //' -e 's/^/err /'
}

# --- The dead man's switch --------------------------------------------------------------------------------------
#
# A change that breaks SSH or the network cannot be taken back by whoever made it. So before an activation a timer is
# armed, and unless it is confirmed in time, by a login that was made after it, the host goes back to what was confirmed
# last by itself. What decides between the two is the record `armed`, under the lock, and not whether a timer was
# stopped: one that finds another record, or none, only clears itself away.
#
# The timer outlives a boot: it is enabled, and goes off at once where its time went by meanwhile (Persistent). Its other
# time counts from the boot, for clocks that are wrong then. Each is an instance of the service's template, named by when
# it is due: so systemd never has to read one again, and starts what is there without a reload. And since no unit file is
# new, it does not read all of its folders to find it either.

# What `armed` says where nothing is: a sequence and a time. Then come the revision, what is gone back to, and in which
# boot, how long after its beginning and for how many seconds it was armed.
unarmed=$nothing-000000000000
unarmed_record="$unarmed $nothing $nothing 00000000-0000-0000-0000-000000000000 000000000000 000000"

# arm SECONDS LIMIT: sets `timer`, empty where what is switched to is what would be gone back to. Fails where there is no
# room. From here on it goes off at a boot. In this one it is started by the call that starts what it guards, and before
# that, so that nothing of a new version runs without it.
arm() {
    timer='' waiting=''
    find_good
    [ "$good_number" != "$number" ] || return 0
    # In a shell of its own: where there is no room, that is for the caller to say.
    [ -e "$fence/armed" ] || (put_new "$fence/armed" "$unarmed_record") || return 1
    # A second more, since the calendar may go off up to one early, and one for what was rounded.
    tell_uptime
    [ $((uptime - booted_at)) -le $STILL_RIGHT ] || booted=$(($(date +%s) - uptime / 100))
    due=$((booted + uptime / 100 + $1 + 2))
    timers=$unit_dir/timers.target.wants
    [ -d "$timers" ] || mkdir -p "$timers" || return 1
    # One that is due in the same second has the name; both are told apart by it.
    while [ -L "$timers/$deadman@$due.timer" ]; do due=$((due + 1)); done
    timer=$deadman@$due.timer
    keep_template "$1" "$2" && ln -s "../$deadman@.timer" "$timers/$timer" || return 1
    read -r boot </proc/sys/kernel/random/boot_id
    printf '%s-%012d %s %020d %s %012d %06d\n' "$sequence" "$due" "$revision" "${good_number:-0}" "$boot" "$uptime" "$1" \
        1<>"$fence/armed" || return 1
    # Those that were there already may have been left by one who did not come this far.
    # And what it is switched to, which was perhaps moved there a moment ago.
    sync "$fence/armed" "$unit_dir/$deadman@.service" "$unit_dir/$deadman@.timer" "$timers" "$unit_dir" \
        "$home/revisions" "$home/releases" 2>/dev/null || sync
    waiting=$timer
}

# Writes the units of which every timer of the service is an instance, where they are not there as they should be. They
# are compared without a process, a byte at a time, so they hold nothing that is not needed.
keep_template() {
    program=${shell%% *}
    [ "$program" = sh ] && program=/bin/sh || program=$(command -v "$program")
    program=$program${shell#"${shell%% *}"}
    quote "$script"
    start="$program \"$quoted\" deadman $scope"
    quote "$dir"
    start="$start \"$quoted\" \"$shell\" $service %i $2"
    environment=
    if [ -n "${XDG_CONFIG_HOME-}" ]; then
        quote "$XDG_CONFIG_HOME" '\$'
        environment="
Environment=\"XDG_CONFIG_HOME=$quoted\""
    fi
    # The system's timers with a time of day wait by default for clocks to be set by the network, which may be what is
    # broken. An instance has a slice of its own unless told otherwise, which stays, and whose name may be too long.
    if [ "$scope" = system ]; then
        slice=system.slice waits='
[Unit]
DefaultDependencies=no
Requires=sysinit.target
After=sysinit.target
Conflicts=shutdown.target
Before=timers.target shutdown.target'
    else
        slice=-.slice waits=''
    fi
    # It fails where it could not have the lock, or not go back.
    goes_back="[Service]
Type=exec
ExecStart=$start$environment
Slice=$slice
Restart=on-failure
RestartSec=10
"
    times="[Timer]
OnCalendar=@%i
OnActiveSec=$(($1 + 1))
AccuracySec=100ms
Persistent=yes$waits
"
    { is_text "$unit_dir/$deadman@.service" "$goes_back" && is_text "$unit_dir/$deadman@.timer" "$times"; } || put_template
}

# Where there are any, somebody may be about to read them.
put_template() {
    at=$unit_dir/$deadman@ beside=$unit_dir/.$deadman@
    [ -e "$at.service" ] || [ -e "$at.timer" ] || beside=$at
    printf '%s' "$goes_back" >"$beside.service" && printf '%s' "$times" >"$beside.timer" || return 1
    [ "$beside" != "$at" ] || return 0
    sync "$beside.service" "$beside.timer" 2>/dev/null || sync
    mv -fT "$beside.service" "$at.service" && mv -fT "$beside.timer" "$at.timer"
}

# is_text PATH TEXT: whether a file holds just this.
is_text() {
    [ -f "$1" ] || return 1
    text=
    while IFS= read -r line; do
        text=$text$line'
'
    done <"$1"
    [ "$text" = "$2" ]
}

# A path as it is written in a unit between double quotes: a dollar is doubled in a command, and $2 elsewhere. Sets
# `quoted`.
quote() {
    quoted=$1
    case $1 in
    *[\\\"\$%]*)
        quoted=$(printf '%s\n' "$1" | sed -e 's/[\\"]/\\&/g' -e 's/%/%%/g' -e "s/\\\$/${2:-\$\$}/g")
        ;;
    esac
}

# Nothing is waited for any more. Under the lock.
disarm() {
    [ -e "$fence/armed" ] || return 0
    printf '%s\n' "$unarmed_record" 1<>"$fence/armed"
}

# Stops this service's timers, and takes them away with all that belongs to them. What they are made of stays, for the
# next one.
clear_timers() {
    set --
    set +f
    # The second are those that older versions made, with units of their own; one that a full disk has cut short may have
    # no timer.
    for at in "$unit_dir/timers.target.wants/$deadman"@*.timer "$unit_dir/$deadman."*.service; do
        [ ! -L "$at" ] && [ ! -e "$at" ] || {
            at=${at##*/}
            set -- "$@" "${at%.*}"
        }
    done
    set -f
    [ $# -eq 0 ] || put_away "$@"
}

# Takes away what they are made of as well: no service is left to guard.
clear_template() {
    clear_timers
    # One that could not go back just now would be tried again without its unit.
    control 20 stop "$deadman@*.service" 2>/dev/null
    rm -f "$unit_dir/$deadman@.timer" "$unit_dir/$deadman@.service" "$unit_dir/.$deadman@.timer" \
        "$unit_dir/.$deadman@.service"
}

# put_away NAME...: timers of these names.
put_away() {
    files='' names=''
    for at in "$@"; do
        names="$names $at.timer"
        files="$files
$unit_dir/timers.target.wants/$at.timer
$stamps/stamp-$at.timer"
        case $at in
        *@*) ;;
        *) files="$files
$unit_dir/$at.timer
$unit_dir/$at.service" ;;
        esac
    done
    # Before the files go: one that goes off without them would be a failed unit for ever.
    # shellcheck disable=SC2086
    control 20 stop $names 2>/dev/null
    # Paths may hold spaces.
    old=$IFS
    IFS='
'
    # shellcheck disable=SC2086
    rm -f $files
    IFS=$old
}

# deadman SERVICE DUE SECONDS: goes back, unless somebody was faster.
go_back_unconfirmed() {
    trap '' HUP PIPE
    fresh=''
    name "$1"
    make_fence
    # A step that holds it has an end of its own, and is tried for again.
    take_lock 60
    # Where somebody has lost the records, what is not what was confirmed last is not confirmed.
    at=-$2 back=$nothing boot='' since=0 seconds=0
    [ ! -e "$fence/armed" ] || read -r at _ back boot since seconds <"$fence/armed" || exit 1
    if [ "$(plain "${at#*-}")" = "$2" ]; then
        is_due || exit 1
        if is_unconfirmed; then
            void
            # Tried again until it is done.
            back_to "$3" || exit 1
        fi
        disarm
        sync "$fence/armed" "$fence/last" "$wants" 2>/dev/null || sync
    fi
    put_away "$deadman@$2"
    # Since the last boot, or reload, systemd may hold on to what it was told to start.
    reload
}

# A number without its leading zeros.
plain() {
    digits=${1#"${1%%[!0]*}"}
    printf '%s\n' "${digits:-0}"
}

# Whether its time is up by the clock that nobody sets, in the boot in which it was armed. The other one may have jumped.
is_due() {
    read -r now </proc/sys/kernel/random/boot_id
    [ "$now" = "$boot" ] || return 0
    tell_uptime
    [ $((uptime - $(plain "$since"))) -ge $(($(plain "$seconds") * 100)) ]
}

# Whether the unit is at what nobody has confirmed, by this activation or by one before that was overtaken. Sets `number`
# to that, and `good_number` to what is gone back to.
is_unconfirmed() {
    read_installed
    number=$installed
    find_good
    [ -n "$good_number" ] || [ "$back" = "$nothing" ] || good_number=$(plain "$back")
    case $number in
    '' | - | "$good_number") return 1 ;;
    esac
}

# From now on no confirmation is taken. What is known to have failed stays so.
void() {
    for step in activate revert; do
        read -r at state _ about <"$fence/steps/$step" || continue
        [ "$(plain "$about")" = "$number" ] || continue
        case $state in
        ok | begun) printf '%s %-5s %03d %s\n' "$at" void 0 "$about" 1<>"$fence/steps/$step" ;;
        esac
    done
    sync "$fence/steps/activate" "$fence/steps/revert" 2>/dev/null || sync
}

# Whether there is anything of revision $1 that systemd could start, edited or not.
is_there() {
    [ -f "$home/revisions/$1/unit" ] && [ -f "$home/revisions/$1/env" ] && [ -d "$home/revisions/$1/release" ] || return 1
    read_slot "$home/revisions/$1/unit"
    [ -n "$slot" ]
}

# back_to SECONDS: the switch to what was confirmed last, though somebody may have edited it: that can be put right once
# the host can be reached. A stop where there is nothing that systemd could start.
back_to() {
    if [ -z "$good_number" ] || ! is_there "$good_number"; then
        echo "nobody has confirmed revision $number in time, and there is nothing to go back to: stopping it"
        decides stop
        control "$1" stop "$unit" || return
        # It would cut the host off again at the next boot. systemd remembers what it found there.
        rm -f "$wants/$unit" || return
        reload
        return
    fi
    echo "nobody has confirmed revision $number in time: going back to $good_number"
    decides revert
    number=$good_number
    # Where it was edited, so is what is compared with it.
    check_revision "$number" || same=''
    put_unit "$number" || return
    # Whatever comes of its start, it is what was well before, and systemd goes on trying.
    start_unit "$1"
    after_switch
    sync "$home/live" 2>/dev/null || sync
}

# --- confirm, stop, remove --------------------------------------------------------------------------------------

# confirm SERVICE CLUSTER SEQUENCE REVISION(padded) NUMBER WAIT KEEP...
verb_confirm() {
    name "$1"
    cluster=$2 sequence=$3 revision=$4 number=$5
    # All that was staged and switched since the last one; that may take long, and nobody waits for the lock meanwhile.
    [ ! -d "$home" ] || sync -f "$home" 2>/dev/null || sync
    begin_step confirm "$6"
    shift 6
    last_switch
    read_installed
    if [ "$state $about" != "ok $revision" ] || [ "$installed" != "$number" ]; then
        printf 'err no activation of %s is recorded as done, or the unit is at %s\n' "$number" "${installed:-nothing}"
        end_step $NOT_ACTIVATED
    fi
    # What broke SSH leaves connections as they are, so that only a new one shows that a next one is possible.
    if [ -e "$fence/armed" ] && read -r at _ <"$fence/armed" && [ "$at" != "$unarmed" ] && [ "$mode" != once ]; then
        printf 'err %s is to be confirmed by a login that was made after its activation\n' "$number"
        end_step $NEEDS_LOGIN
    fi
    disarm || end_step 1
    cd "$home" || end_step 1
    if ! [ good -ef "revisions/$number" ]; then
        lead "revisions/$number" good || end_step 1
    fi
    # What may be gone back to on a full disk. Where there is no room now, there may be later.
    keep_link "$number" 2>/dev/null
    clear_away "$number" "$@"
    clear_timers
    [ ! -e "$fence/armed" ] || sync "$fence/armed" "$home" 2>/dev/null || sync
    end_step 0
}

# Deletes revisions that are neither good nor to be kept, releases that none of the rest names, and old uploads.
clear_away() {
    kept=' '
    for keep in "$@"; do kept="$kept$keep "; done
    used=' '
    # What is to go, so that it takes one process: of each first what nobody would look for without the rest.
    set --
    set +f
    for at in revisions/*; do
        case $kept in
        *" ${at##*/} "*)
            release=
            [ -f "$at/seal" ] && read -r release _ <"$at/seal"
            used="$used$release "
            ;;
        *) set -- "$@" "$unit_dir/.$unit.${at##*/}" "live/.${at##*/}" "$at" ;;
        esac
    done
    for at in releases/*.manifest; do
        digest=${at##*/}
        digest=${digest%.manifest}
        case $used in
        *" $digest "*) ;;
        *) set -- "$@" "releases/$digest" "releases/$digest.list" "$at" ;;
        esac
    done
    for at in incoming/*; do
        [ -e "$at" ] || continue
        if [ "$at" = incoming/ready ] && has_room "$at/room"; then continue; fi
        who=${at##*.}
        # An empty one of a shell that is there costs nothing, and whose it is would be a process to find out.
        if [ ! -s "$at" ] && [ "$who" != "$me" ] && lives "$who"; then continue; fi
        may_receive "$who" || set -- "$@" "$at"
    done
    [ $# -eq 0 ] || wipe "$@"
    has_room incoming/ready/room || leave_room
    for at in live/*; do
        [ -e "$at" ] || rm -f "$at"
    done
    set -f
}

# stop SERVICE CLUSTER SEQUENCE WAIT SECONDS
verb_stop() {
    name "$1"
    cluster=$2 sequence=$3 revision=$nothing
    begin_step stop "$4"
    decides stop
    stop_unit "$5" || end_step $?
    disarm
    clear_timers
    end_step 0
}

stop_unit() {
    [ -e "$unit_file" ] || [ "$(show -p ActiveState --value)" != inactive ] || return 0
    control "$1" stop "$unit"
}

# remove SERVICE CLUSTER SEQUENCE WAIT SECONDS keep|purge
verb_remove() {
    name "$1"
    cluster=$2 sequence=$3 revision=$nothing
    begin_step remove "$4"
    decides remove
    stop_unit "$5" || end_step $?
    disarm
    clear_template
    rm -f "$wants/$unit" "$unit_file"
    (
        set +f
        rm -f "$unit_dir/.$unit".*
    )
    control 60 daemon-reload || end_step $?
    # Forgets a failure; a unit that systemd does not know any more has none.
    control 20 reset-failed "$unit" 2>/dev/null || :
    wipe "$home"
    [ ! -e "$home" ] || end_step 1
    remove_data "$6"
    end_step 0
}

# A cache is never anybody's data. Where DynamicUser is used, the folders are in private/ and links point there.
remove_data() {
    if [ "$scope" = user ]; then
        wipe "${XDG_CACHE_HOME:-$HOME/.cache}/windlass/$service"
        [ "$1" = purge ] || return 0
        wipe "${XDG_STATE_HOME:-$HOME/.local/state}/windlass/$service" \
            "${XDG_CONFIG_HOME:-$HOME/.config}/windlass/$service"
    else
        wipe "/var/cache/windlass/$service" "/var/cache/private/windlass/$service"
        [ "$1" = purge ] || return 0
        wipe "/var/lib/windlass/$service" "/var/lib/private/windlass/$service"
    fi
}

# --- adopt ------------------------------------------------------------------------------------------------------

# adopt FROM TO: the host is TO's from now on, if it was FROM's. What is there stays as it is.
verb_adopt() {
    exec 9<>"$dir/cluster.lock"
    flock -w 10 9 || give_up $LOCKED 'somebody else adopts the host'
    # Nobody's: the first stamp claims it.
    [ -s "$dir/cluster" ] || return 0
    read -r owner <"$dir/cluster" || give_up 1 "$dir/cluster is not readable"
    [ "$owner" != "$2" ] || return 0
    if [ "$owner" != "$1" ]; then
        printf 'owner %s\n' "$owner"
        exit $OWNED
    fi
    printf '%s\n' "$2" >"$dir/cluster.new" || exit 1
    sync "$dir/cluster.new" 2>/dev/null || sync
    mv -f "$dir/cluster.new" "$dir/cluster" || exit 1
    sync "$dir" 2>/dev/null || sync
}

# --- sample, logs and manifest --------------------------------------------------------------------------------------------

# sample SERVICE PORT|- HEXADECIMAL-PORT|-
verb_sample() {
    name "$1"
    # Boot time rather than monotonic: they differ only by the time that a machine was suspended.
    tell_uptime
    printf 'uptime %s\n' "$up"
    tell_voided
    find_started || state=$(show -p ActiveState -p SubState -p MainPID -p ActiveEnterTimestampMonotonic -p NRestarts -p Result \
        -p ExecMainStatus -p NeedDaemonReload -p UnitFileState -p ControlGroup) || give_up 1 'systemctl show failed'
    printf '%s\n' "$state"
    if [ "$2" != - ]; then
        find_listener "$3"
        printf 'listener %s\n' "$listener"
    fi
}

# Whether the host has taken back its last switch by itself.
tell_voided() {
    [ -e "$fence/armed" ] || return 0
    last_switch
    [ "$state" != void ] || echo voided
}

# What systemd would say of what this shell has just started, where the kernel alone can tell: its main process, which
# is the only one in the unit's group that systemd itself has started, is there, and is as old as our start. So it has
# not ended since. Asking systemd costs as much as a tenth of the start of a program. Fails where systemd has to be asked.
find_started() {
    [ "$started" = "$service" ] && [ $((uptime - started_at)) -le $STILL_NEW ] && find_main "$started_at"
}

# The same for a look at what this shell has started, however long ago, where nothing is there of which systemd may
# have more to tell: it is enabled, its unit is none that came after it was confirmed, and there are no drop-ins, and no
# other unit of its name, in any folder where systemd looks for them.
find_running() {
    [ "$scope" = system ] || return 1
    case $begun in
    *" $service="*) at=${begun#*" $service="} ;;
    *) return 1 ;;
    esac
    [ "$wants/$unit" -ef "$unit_file" ] && ! [ "$unit_file" -nt "$fence/steps/confirm" ] || return 1
    set +f
    find_more
    set -f
    [ -z "$more" ] && find_main "${at%% *}" && state="$state
DropInPaths="
}

# Sets `more` to what there is beside the unit file that may say something of the unit; empty where there is nothing.
find_more() {
    more=
    for place in /etc/systemd/system* /run/systemd/system* /run/systemd/transient /run/systemd/generator* \
        /usr/local/lib/systemd/system /usr/lib/systemd/system /lib/systemd/system; do
        [ "$place" = "$unit_dir" ] || [ ! -e "$place/$unit" ] || more=$place/$unit
        for drop_in in "$place"/windlass-*.d "$place/service.d"; do
            [ ! -e "$drop_in" ] || more=$drop_in
        done
    done
}

# Sets `state` to what systemd would say of a unit whose main process was started at $1 and has not ended since.
find_main() {
    # This shell is a unit of the same manager, in the slice where units are by default.
    group='' main=''
    while read -r line; do
        case $line in
        0::* | *:name=systemd:*) group=${line##*:} ;;
        esac
    done </proc/self/cgroup
    group=${group%/*}/$unit
    find_group || return 1
    while read -r pid; do
        read -r status 2>/dev/null <"/proc/$pid/stat" || continue
        # A program's name may hold anything; what follows it are a letter and numbers.
        # shellcheck disable=SC2086
        set -- "$1" ${status##*) }
        [ "$3" = "$PPID" ] || continue
        [ -z "$main" ] || return 1
        case $2 in
        Z | X) return 1 ;;
        esac
        main=$pid since=${21}
    done <"$folder/cgroup.procs"
    [ -n "$main" ] && [ "$since" -le "$1" ] || return 1
    state="ActiveState=active
SubState=running
MainPID=$main
ActiveEnterTimestampMonotonic=${since}0000
NRestarts=0
Result=success
ExecMainStatus=0
NeedDaemonReload=no
UnitFileState=enabled
ControlGroup=$group"
}

# Sets `listener` to who listens on a port: the inodes of its sockets against the descriptors of the unit's processes.
# The descriptors come second, so that a socket that the unit opens meanwhile is never taken for somebody else's.
#
# The kernel lists who listens first, and takes milliseconds to find out whom else to list: so a line is read at a time,
# and none after that of a socket which is ours.
find_listener() {
    sockets='' held=''
    for table in /proc/net/tcp /proc/net/tcp6; do
        [ -r "$table" ] || continue
        while read -r _ local _ how _ _ _ _ _ inode _; do
            case $how,$local in
            0A,*":$1")
                sockets="$sockets socket:[$inode]"
                [ -n "$held" ] || descriptors
                ! is_held "socket:[$inode]" || return 0
                ;;
            # Others that listen, what kernels before 4.4 have among them, and the head.
            0A,* | 03,* | st,*) continue ;;
            *) break ;;
            esac
        done <"$table"
    done
    listener=nobody
    [ -n "$sockets" ] || return 0
    # Those that were found after the descriptors.
    descriptors
    for socket in $sockets; do
        ! is_held "$socket" || return 0
    done
    case $held in
    *'ermission denied'*) listener=hidden ;;
    *) listener=another ;;
    esac
}

# Whether one of the descriptors is a socket; sets `listener` then.
is_held() {
    case $held in
    *"$1"*) listener=ours ;;
    *) return 1 ;;
    esac
}

# Sets `folder` to where the kernel lists the processes of $group.
find_group() {
    for root in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
        folder=$root$group
        [ ! -r "$folder/cgroup.procs" ] || return 0
    done
    return 1
}

# What the unit's processes hold open, as ls tells it.
descriptors() {
    held=''
    group=${state##*ControlGroup=}
    group=${group%%
*}
    [ -n "$group" ] && find_group || return 0
    set --
    set +f
    for processes in "$folder/cgroup.procs" "$folder"/*/cgroup.procs; do
        [ -r "$processes" ] || continue
        while read -r pid; do
            set -- "$@" "/proc/$pid/fd"
        done <"$processes"
    done
    set -f
    [ $# -eq 0 ] || held=$(ls -n "$@" 2>&1)
}

# logs SERVICE LINES
verb_logs() {
    name "$1"
    if [ "$scope" = user ]; then which=--user-unit; else which=--unit; fi
    said=$(timeout 20 journalctl --no-pager --quiet --output=cat "$which" "$unit" -n "$2" </dev/null 2>/dev/null)
    if [ -n "$said" ]; then
        printf '%s\n' "$said" | sed 's/^/log /'
    elif [ "$scope" = user ]; then
        # Where the journal is not kept on disk, there is none of a user's own.
        echo "log (nothing that $(id -un) may read; as root: usermod -aG systemd-journal $(id -un), then log in anew)"
    fi
}

# manifest SERVICE RELEASE: what the release was when it came.
verb_manifest() {
    name "$1"
    [ -f "$home/releases/$2.manifest" ] && [ -d "$home/releases/$2" ] || return 0
    echo held
    sed 's/^/entry /' "$home/releases/$2.manifest"
}

# ping: nothing but an answer.
verb_ping() { :; }

# --- The loop ---------------------------------------------------------------------------------------------------

unsuitable() {
    printf 'unsuitable %s\n' "$*"
    exit 50
}

# What the host must have, each with what to do where it has not.
check_host() {
    [ -d /run/systemd/system ] || unsuitable 'systemd does not run here (no /run/systemd/system), and Windlass needs it'
    for tool in systemctl systemd-run flock timeout tar find stat sort uniq grep sed awk cut cmp xargs tr head; do
        command -v "$tool" >/dev/null || unsuitable "$tool is missing here; install it (flock: util-linux)"
    done
    if [ "$scope" != user ]; then
        bus=/run/dbus/system_bus_socket
        [ -S "$bus" ] || unsuitable "D-Bus does not run here (no $bus), and systemd-run needs it; install dbus, and start dbus.socket"
        return 0
    fi
    user=$(id -un)
    remedy="as root, run: loginctl enable-linger $user; or give the login sudo without a password"
    [ -e "/var/lib/systemd/linger/$user" ] ||
        unsuitable "lingering is off for $user, so its services would end at logout; $remedy"
    [ -S "$XDG_RUNTIME_DIR/systemd/private" ] ||
        unsuitable "the systemd of $user does not run ($XDG_RUNTIME_DIR/systemd); $remedy"
    bus=$XDG_RUNTIME_DIR/bus
    [ -S "$bus" ] || unsuitable "D-Bus does not run for $user (no $bus), and systemd-run needs it; install dbus-user-session, then, as $user: systemctl --user start dbus.socket"
}

hello() {
    read -r machine </etc/machine-id
    read -r boot </proc/sys/kernel/random/boot_id
    version=$(systemctl --version) || give_up 1 'systemctl does not run'
    version=${version#systemd }
    # Names what is made here: after a boot, its number alone may be another shell's.
    me=$$-$boot
    printf 'hello 1 %s %s %s %s %s %s\n' "$scope" "$(id -un)" "$machine" "$boot" "${version%% *}" "$dir"
    echo 'end 0 0'
}

serve() {
    # Errors go to a file that has no name any more, so that nothing is left of it and nothing is too much for a pipe.
    for place in "${XDG_RUNTIME_DIR:-/run}" /tmp "$dir"; do
        errors=$place/windlass.$$
        (set -C && : >"$errors") 2>/dev/null && break
    done
    exec 8<>"$errors" 2>/dev/null
    rm -f "$errors"
    staged='' staged_at=0 staged_under='' started='' started_at=0 begun=' '
    # What the clock that nobody sets has to be given to be the time of day.
    if [ "$mode" != once ]; then
        tell_uptime
        booted=$(($(date +%s) - uptime / 100)) booted_at=$uptime
    fi
    hello
    while IFS= read -r line; do
        # shellcheck disable=SC2086
        set -- $line
        [ $# -eq 3 ] || exit 1
        id=$1 verb=$2 count=$3
        set --
        while [ "$count" -gt 0 ]; do
            IFS= read -r argument || exit 0
            set -- "$@" "$argument"
            count=$((count - 1))
        done
        case $verb in
        observe | stamp | have | stage | activate | confirm | revert | stop | remove | adopt | sample | logs | manifest | ping) ;;
        *) exit 1 ;;
        esac
        # All of an answer at once: each line by itself would be a packet, and one back.
        if [ "$verb" = stage ]; then
            said=$("verb_$verb" "$@" 2>/proc/self/fd/8)
        else
            said=$("verb_$verb" "$@" 2>/proc/self/fd/8 </dev/null)
        fi
        code=$?
        remember "$@"
        if [ $code -ne 0 ] && [ -s /proc/self/fd/8 ]; then
            said="$said
$(head -c 2000 /proc/self/fd/8 | sed 's/^/err /')"
        fi
        printf '%send %s %s\n' "${said:+$said
}" "$id" "$code"
        # Nobody knows how much of the payload is still on the line.
        [ "$verb" != stage ] || [ $code -eq 0 ] || exit 0
    done
}

# What the steps that come next need not find out again: verb $verb has ended with $code.
remember() {
    case $verb,$code in
    stage,0)
        staged="$1 $3 $4" staged_under=
        case $said in
        # What was staged some time ago is not what was checked just now.
        *replayed*) staged='' ;;
        *same*) staged_under=same ;;
        esac
        tell_uptime
        staged_at=$uptime
        ;;
    activate,0 | revert,0)
        started=$1 staged=
        tell_uptime
        started_at=$uptime
        forget "$1"
        begun="$begun$1=$uptime "
        ;;
    sample,* | logs,* | ping,*) ;;
    *) started='' staged='' ;;
    esac
    case $verb,$code in
    stop,* | remove,* | activate,[!0]* | revert,[!0]*) forget "$1" ;;
    esac
}

# Takes a service out of those that this shell has started.
forget() {
    case $begun in
    *" $1="*)
        rest=${begun#*" $1="}
        begun="${begun%%" $1="*} ${rest#* }"
        ;;
    esac
}

# Goes on in a unit of its own: the end of our session, or KillUserProcesses, would cut a step in half. One for all
# that is asked here, since beginning one takes as long as many a step.
leave_session() {
    # shellcheck disable=SC2086
    exec systemd-run "$manager" --quiet --wait --collect --pipe --description="windlass $dir" \
        --setenv=HOME="$HOME" --setenv=PATH="$PATH" --setenv=find_prints="$find_prints" \
        --setenv=ln_renames="$ln_renames" \
        ${XDG_CONFIG_HOME+--setenv=XDG_CONFIG_HOME="$XDG_CONFIG_HOME"} \
        $shell "$script" loop "$scope" "$dir" "$shell"
}

script=$0
mode=$1
shift
begin "$@"
case $mode in
serve | once)
    PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    export PATH
    ;;
esac
case $mode in
serve)
    check_host
    leave_session
    ;;
loop | once) serve ;;
deadman)
    shift 3
    go_back_unconfirmed "$@"
    ;;
esac
