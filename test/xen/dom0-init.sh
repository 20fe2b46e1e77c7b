#!/bin/busybox sh
# The first process of dom0: brings Xen's toolstack up, then obeys the shell commands, a line each, that come in by the second
# serial port. The first one is the console of Xen and of the kernel.
/bin/busybox mkdir -p /bin /sbin /proc /sys /dev /tmp /run/lock /run/xenstored /run/xen /var/lib/xen /var/log/xen/console /etc/xen
/bin/busybox --install -s /bin
export PATH=/usr/lib/xen-4.17/bin:/bin:/sbin HOME=/
ln -s /run /var/run
ln -s /run/lock /var/lock
touch /etc/xen/xl.conf
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir /dev/pts
mount -t devpts pts /dev/pts

# Whatever becomes of those who started this machine, it does not outlive its time: a reboot ends QEMU.
(sleep 300; reboot -f) &

for module in xen-evtchn xen-privcmd xenfs xen-gntdev xen-gntalloc; do
  insmod /modules/$module.ko
done
mount -t xenfs xenfs /proc/xen
xenstored --pid-file /run/xenstored.pid
for _ in 1 2 3 4 5 6 7 8 9 10; do
  [ -S /run/xenstored/socket ] && break
  sleep 0.2
done
xen-init-dom0
xenconsoled --log=guest --log-dir=/var/log/xen/console --pid-file=/run/xenconsoled.pid

# Open all the time: a serial port that nobody has open loses what comes in.
exec 3<>/dev/ttyS1
stty raw -echo <&3
echo DOM0-READY >&3
while IFS= read -r command <&3; do
  sh -c "$command" </dev/null >&3 2>&1
  echo "DOM0-STATUS $?" >&3
done
