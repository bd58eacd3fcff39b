package newcomer

// systemctl stands in for systemd, which does not run in a namespace. It starts what the
// installed unit names, with the unit's rights, groups and priority, and waits for the
// socket as systemd waits for READY=1.
const systemctl = `#!/bin/sh
set -e
[ "$1 $2" = "enable --now" ] || { echo "systemctl $*: nothing stands in for that" >&2; exit 1; }
unit=/usr/lib/systemd/system/${3%.service}.service
says() { cat $unit $unit.d/*.conf 2>/dev/null | sed -n "s/^$1=//p"; }
run=/run/$(says RuntimeDirectory) state=$(says StateDirectory)
mkdir -p $run
[ -z "$state" ] || mkdir -p -m 700 /var/lib/$state
how=
[ "$(says NoNewPrivileges)" != yes ] || how="$how --no-new-privs"
caps=$(says CapabilityBoundingSet | tr 'A-Z ' 'a-z,' | sed 's/cap_/+/g')
[ -z "$caps" ] || how="$how --bounding-set -all,$caps"
group=$(says SupplementaryGroups)
[ -z "$group" ] || how="$how --groups $group"
[ -z "$how" ] || how="setpriv $how"
# A root without CAP_SYS_RESOURCE may not raise it; then doctor says so.
limit=--memlock=unlimited:unlimited
[ "$(says LimitMEMLOCK)" != infinity ] || ! prlimit $limit true 2>/dev/null || how="prlimit $limit $how"
priority=$(says CPUSchedulingPriority)
[ -z "$priority" ] || how="chrt -r $priority $how"
mask=$(says UMask)
umask ${mask:-022}
setsid $how $(says ExecStart) </dev/null >/var/log/${3%.service}.log 2>&1 &
n=0
until ls $run/*.sock >/dev/null 2>&1; do n=$((n+1)); [ $n -lt 200 ] || { cat /var/log/${3%.service}.log >&2; exit 1; }; sleep 0.05; done
`

// ssh runs a command on a node whose file system and network are under /run/nodes.
const ssh = `#!/bin/sh
host=/run/nodes/${1#root@}
shift
exec nsenter --net=$host.net --root=$host --wd=$host/root env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root sh -c "$*"
`

// scp copies files to such a node. The last argument is the destination.
const scp = `#!/bin/sh
for to; do :; done
n=$# files=
for a; do
	n=$((n-1))
	[ $n -eq 0 ] || files="$files $a"
done
host=${to%%:*}
exec cp $files /run/nodes/${host#root@}${to#*:}
`
