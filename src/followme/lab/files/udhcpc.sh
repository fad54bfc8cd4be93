#!/bin/sh
# What busybox udhcpc calls: $1 is the event, the lease is in the environment. FM_LEASE names the file to report to.
set -eu
case "$1" in
  bound|renew)
    old=$(ip -4 -o address show dev "$interface" scope global | awk '{print $4}')
    new="$ip/$mask"
    changed=no
    case " $old " in *" $new "*) ;; *) ip address add "$new" brd + dev "$interface"; changed=yes ;; esac
    for address in $old; do
      [ "$address" = "$new" ] || { ip address del "$address" dev "$interface"; changed=yes; }
    done
    gateway=${router:-}
    gateway=${gateway%% *}
    if [ -n "$gateway" ]; then
      has=$(ip -4 route show default dev "$interface" | awk '{print $3}')
      [ "$has" = "$gateway" ] || ip route replace default via "$gateway" dev "$interface"
    fi
    printf 'address=%s\ngateway=%s\nserver=%s\nseconds=%s\nchanged=%s\n' \
      "$new" "$gateway" "${serverid:-}" "${lease:-0}" "$changed" > "$FM_LEASE"
    ;;
  deconfig)
    # The old address stays until another one comes: sessions go on while the client asks.
    ip link set dev "$interface" up
    ;;
esac
