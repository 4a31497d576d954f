#!/bin/sh
# What a node's agent wants of its host and a container has not: bpffs and cgroup v2, its own.
set -e
if ! grep -q '^0::/$' /proc/self/cgroup; then
  echo "this container shares the machine's cgroups, and programs of its node would reach all of" \
       "them: run it with --cgroupns=private" >&2
  exit 1
fi
mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf
if ! grep -q ' cgroup2 ' /proc/mounts; then
  mkdir -p /run/cgroup2
  mount -t cgroup2 none /run/cgroup2
fi
exec "$@"
