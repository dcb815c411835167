#!/usr/bin/env bash
# The first process of a machine: sets up its mounts, waits for its network and becomes supervisord. machine.py starts it
# in new namespaces.
set -euo pipefail
name=$1 folder=$2 state=$3 python=$4

hostname "$name"
# Before /run is mounted over: they may be links into it.
hosts=$(readlink -f /etc/hosts) names=$(readlink -f /etc/resolv.conf)
# Folders that the programs of a node expect at fixed paths; each machine has its own.
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns
own() {
    mkdir -p "$folder/disk$1" "$1"
    mount --bind "$folder/disk$1" "$1"
}
own /var/log
own /etc/cni
for each in cni containerd kubelet; do own "/var/lib/$each"; done
mkdir -p "$(dirname "$names")"
[[ -e $names ]] || touch "$names"
mount --bind "$folder/hosts" "$hosts"
mount --bind "$folder/resolv.conf" "$names"
# The kubelet sets these for the whole host, and they would stay: it finds its values in place.
mkdir /run/sysctl
while read -r key value; do
    echo "$value" >"/run/sysctl/${key//\//.}"
    mount --bind "/run/sysctl/${key//\//.}" "/proc/sys/$key"
done <<'END'
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
END
# Mounts of the kubelet propagate into containers.
mount --make-rshared /

until [[ -e $folder/connected ]]; do sleep 0.02; done
echo 1 >/proc/sys/net/ipv4/ip_forward
cd "$state"
exec env -i PATH="$PATH" HOME=/root LANG=C.UTF-8 "$python" -m supervisor.supervisord -c "$folder/supervisord.conf"
