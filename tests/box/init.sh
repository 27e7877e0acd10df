#!/bin/bash
# Runs as the first process of the box: builds its root out of this machine's, in memory, and becomes systemd.
#   init.sh FOLDER [SOURCE TARGET]...      FOLDER is empty, each SOURCE is shown at TARGET, read-only
set -eu
umask 022
mount -t tmpfs -o mode=755 tmpfs "$1"
cd "$1"
shift
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
cd root

mount -t proc proc proc
mount --bind proc/sys proc/sys && mount -o remount,bind,ro proc/sys
if [ -e proc/sysrq-trigger ]; then mount --bind /dev/null proc/sysrq-trigger; fi
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm run/lock
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
for device in null zero full random urandom tty; do
    mknod -m 666 "dev/$device" c $(stat -c '0x%t 0x%T' "/dev/$device")
done
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
while [ $# -gt 0 ]; do
    mkdir -p ".$2"
    mount --bind "$1" ".$2" && mount -o remount,bind,ro ".$2"
    shift 2
done

hostname box
rm -f etc/machine-id && printf '%032x\n' $((RANDOM * RANDOM + 1)) >etc/machine-id
units=etc/systemd/system
rm -rf "${units:?}"/*.wants
cat >$units/box.target <<'UNIT'
[Unit]
Requires=systemd-journald.socket dbus.socket
After=systemd-journald.socket dbus.socket
AllowIsolate=yes
DefaultDependencies=no
UNIT
printf '[Unit]\nDefaultDependencies=no\n' >$units/sysinit.target
# Nothing that reaches out of the box (the kernel's settings and its log), and nothing slow.
for name in systemd-sysctl.service systemd-modules-load.service modprobe@.service systemd-update-utmp.service \
    systemd-random-seed.service systemd-hwdb-update.service systemd-machine-id-commit.service \
    systemd-journal-flush.service systemd-sysusers.service systemd-tmpfiles-setup-dev.service \
    systemd-udevd.service systemd-udev-trigger.service systemd-binfmt.service systemd-timesyncd.service \
    systemd-journald-audit.socket dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount \
    sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount \
    proc-sys-fs-binfmt_misc.automount systemd-ask-password-console.path; do
    ln -sf /dev/null "$units/$name"
done

mkdir -p old
pivot_root . old
umount -l /old
mount --make-rshared / # systemd leaves this to who starts it in a container; LoadCredential= needs it
exec setpriv \
    --bounding-set=-sys_time,-sys_module,-sys_rawio,-syslog,-audit_control,-mac_admin,-mac_override,-wake_alarm \
    env -i container=box PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_LOG_TARGET=console \
    /lib/systemd/systemd --unit=box.target --show-status=0 --log-level=notice
