# The guest's init: makes what a booted Debian has, runs the job, reports its status and switches the guest off.
run=$1
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/lock /dev/pts /dev/shm /dev/mqueue /scratch
mount -t devpts -o ptmxmode=666 pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t mqueue mqueue /dev/mqueue
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ln -sfn /proc/self/fd /dev/fd
for name in 0:stdin 1:stdout 2:stderr; do ln -sf "/proc/self/fd/${name%%:*}" "/dev/${name#*:}"; done
ln -sf /proc/self/mounts /etc/mtab
# Elsewhere udev makes their devices, and opening those loads them.
modprobe -a loop fuse
hostname guest
ip link set lo up
ulimit -n 65536

for port in /sys/class/virtio-ports/*; do
  read -r name <"$port/name"
  ln -s "/dev/${port##*/}" "/run/port.$name"
done
# Through pipes, because a port can be opened once only, and programs reopen /dev/stdout.
mkfifo /run/stdout /run/stderr
cat /run/stdout >/run/port.stdout & out=$!
cat /run/stderr >/run/port.stderr & err=$!
exec 7>/run/port.status 8>/run/stdout 9>/run/stderr
echo up >&7

if mount /dev/vda /scratch 2>&9; then
  bash "$run/job.sh" </dev/null >&8 2>&9 7>&- 8>&- 9>&-
  status=$?
  result=$(cat "$run/result")
  if [ -n "$result" ] && [ -e "$result" ]; then cat "$result" >/run/port.result; fi
else
  status=125
fi
exec 8>&- 9>&-
# A daemon that was left behind may hold them open.
for _ in $(seq 20); do
  kill -0 $out 2>/dev/null || kill -0 $err 2>/dev/null || break
  sleep 0.1
done
# A test that failed may have left a mount whose server is gone: that would never end.
timeout -s KILL 20 sync
echo "status $status" >&7
echo o >/proc/sysrq-trigger
sleep 60
