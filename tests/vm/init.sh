#!/bin/busybox sh
# The first program of the machine under test: this host's root, read-only below and a tmpfs above, with a real systemd.
# It is there a second time in /host, where /tmp and /var/tmp are the host's.  The machine runs /guest.service and ends.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
for module in $($b cat /modules/order); do
    $b insmod "/modules/$module"
done
$b mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=524288,cache=loose host /low
$b mount -t tmpfs -o size=90% tmpfs /above
$b mkdir /above/upper /above/work
$b mount -t overlay overlay -o lowerdir=/low,upperdir=/above/upper,workdir=/above/work /new

units=/new/etc/systemd/system
$b rm -f /new/.dockerenv # or systemd takes itself for one in a container
$b rm -rf $units/*.wants
$b mkdir -p $units /new/host
echo guest >/new/etc/hostname
: >/new/etc/fstab
for unit in systemd-modules-load.service systemd-hwdb-update.service systemd-journal-flush.service \
    systemd-udevd.service systemd-udev-trigger.service systemd-timesyncd.service systemd-random-seed.service \
    systemd-remount-fs.service systemd-binfmt.service kmod-static-nodes.service systemd-udevd-control.socket \
    systemd-udevd-kernel.socket dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
    sys-kernel-config.mount sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount \
    systemd-ask-password-console.path systemd-ask-password-wall.path; do
    $b ln -sf /dev/null "$units/$unit"
done
$b cp /guest.service /guest.target $units/
$b mount --bind /new /new/host
$b mount -t tmpfs tmpfs /new/tmp
$b mount -t tmpfs tmpfs /new/var/tmp
$b mount --move /dev /new/dev
exec $b switch_root /new /lib/systemd/systemd --unit=guest.target
