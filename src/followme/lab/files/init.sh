#!/bin/busybox sh
# The lab guest's first program: brings up eth0 as the kernel command line says, then becomes the service.
#   fm.ip=10.1.0.5/24  fm.gw=10.1.0.1  [fm.dirty_kib_s=N fm.dirty_set_kib=N]
bb=/bin/busybox
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
while read -r module; do $bb insmod "/modules/$module.ko"; done < /modules/order

ip= gw= dirty_kib_s=0 dirty_set_kib=0
for word in $($bb cat /proc/cmdline); do
  case "$word" in
    fm.ip=*) ip=${word#*=} ;;
    fm.gw=*) gw=${word#*=} ;;
    fm.dirty_kib_s=*) dirty_kib_s=${word#*=} ;;
    fm.dirty_set_kib=*) dirty_set_kib=${word#*=} ;;
  esac
done

$bb ip link set lo up
$bb ip link set eth0 mtu 1500 up
[ -z "$ip" ] || $bb ip address add "$ip" brd + dev eth0
[ -z "$gw" ] || $bb ip route add default via "$gw"
exec /bin/guest "$ip" "$dirty_kib_s" "$dirty_set_kib"
