#!/bin/busybox sh
# The first and only process of the machine: mounts what the tests expect, runs each of them, and switches off.
# /suite names the tests, one path a line; /filter holds what goes on to each of them, one word a line.

busybox=/bin/busybox
$busybox mkdir -p /proc /sys /dev /run /tmp
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sysfs /sys
$busybox mount -t devtmpfs devtmpfs /dev
$busybox mount -t tmpfs tmpfs /run
$busybox mount -t bpf bpf /sys/fs/bpf
$busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
# Behind the image's own programs, so that `ip` and `tc` are the real ones. The kernel loads modules by /sbin/modprobe.
$busybox --install -s /applets
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:/applets
export HOME=/ TERM=dumb RUST_BACKTRACE=0 PUSH_REQUIRE_KERNEL=1
ip link set lo up

set --
while read -r word; do
    set -- "$@" "$word"
done </filter
read -r PUSH_BPF_OBJECT </object
export PUSH_BPF_OBJECT
read -r directory </directory
cd "$directory" || poweroff -f

echo "vm: Linux $(uname -r), $(nproc) CPUs"
while read -r test; do
    echo "vm: running ${test##*/}"
    "$test" --test-threads="$(nproc)" --show-output "$@" </dev/null
    echo "vm: exit code $? from ${test##*/}"
done </suite
echo "vm: done"
poweroff -f
