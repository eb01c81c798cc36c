#!/bin/sh
# Run a command as the pods of infra/ do: user 1000 without capabilities, a read-only root file system, a writable /tmp.
# Needs root and util-linux. Nothing outside of this process tree notices the mounts.
#   read_only_root.sh ENVIRONMENT DATA COMMAND...
# ENVIRONMENT: a Python environment, whose bin/ is on the PATH. DATA: a folder that stays writable, and is the working
# folder; in a pod the output is in object storage instead.
set -eu
if [ "${INSIDE:-}" != yes ]; then
    INSIDE=yes exec unshare --mount --ipc --pid --fork --kill-child --mount-proc --propagation private "$0" "$@"
fi
environment=$(realpath "$1"); data=$(realpath "$2"); shift 2
python=$("$environment/bin/python" -c 'import sys; print(sys.base_prefix)')

# Bind what is needed to places that stay visible; then hide the homes of others, where user 1000 has no access.
keep() { # keep FOLDER: visible at its own path for everyone, although its parents may be closed
    mkdir -p "/mnt/keep$1"
    mount --bind "$1" "/mnt/keep$1"
}
mount -t tmpfs -o mode=755 keep /mnt
for folder in "$environment" "$python" "$data"; do keep "$folder"; done
for hidden in /root /tmp /home /work; do
    [ ! -d "$hidden" ] || mount -t tmpfs -o mode=755 hidden "$hidden"
done
for folder in "$environment" "$python" "$data"; do
    mkdir -p "$folder"
    mount --bind "/mnt/keep$folder" "$folder"
done
mkdir -p /home/ray
mount -t tmpfs -o mode=1777,size=4g shm /dev/shm

# Everything read-only, but the data; /tmp is mounted anew.
for target in $(findmnt --raw --noheadings --output TARGET); do
    case "$target" in
        /proc* | /dev/shm | "$data") ;;
        *) mount -o remount,bind,ro "$target" 2>/dev/null || true ;;
    esac
done
case "$data" in /tmp/*) echo "DATA must not lie below /tmp" >&2; exit 2 ;; esac
mount -t tmpfs -o mode=1777,size=4g tmp /tmp
chown 1000:1000 "$data"
cd "$data"

for place in / /usr /opt /etc /home/ray "$environment"; do
    ! touch "$place/written" 2>/dev/null || { echo "$place is writable" >&2; exit 2; }
done
exec setpriv --reuid 1000 --regid 1000 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs \
    env -i PATH="$environment/bin:/usr/bin:/bin" HOME=/home/ray POSEBATCH_CACHE=/tmp/posebatch MPLCONFIGDIR=/tmp/matplotlib \
    XDG_CACHE_HOME=/tmp/cache PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 LANG=C.UTF-8 "$@"
