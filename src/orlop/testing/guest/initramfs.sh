#!/bin/busybox sh
# The guest's first process: loads what reaches the host's folders, lays them over each other, and goes on in there.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
for module in /modules/*; do $b insmod "$module"; done
$b mount -t virtiofs -o ro host /host
$b mount -t tmpfs -o size=90% memory /memory
$b mkdir /memory/upper /memory/work
$b mount -t overlay -o lowerdir=/host/layer:/host/root,upperdir=/memory/upper,workdir=/memory/work root /root
for folder in proc sys dev; do $b mount --move /$folder /root/$folder; done
for word in $($b cat /root/proc/cmdline); do
  case $word in orlop.run=*) run=${word#orlop.run=};; esac
done
exec $b switch_root /root /bin/bash "$run/init.sh" "$run"
