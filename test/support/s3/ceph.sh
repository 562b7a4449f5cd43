#!/usr/bin/env bash
# A real S3 server for tests: a Ceph cluster of one node, in memory, behind its RADOS Gateway.
#   ceph.sh DIR GATEWAY_PORT MONITOR_PORT ACCESS_KEY SECRET_KEY
# Prints "ready" when the gateway answers and its users exist, then runs until standard input closes, which it does
# however the parent ends; then stops the cluster and removes DIR. Should this script itself be killed, the kernel ends
# the daemons (--pdeathsig). Needs Debian's radosgw, ceph-mon, ceph-osd, ceph-common. No manager daemon: nothing here
# asks for statistics.
set -Eeuo pipefail
dir=$1 port=$2 mon=$3 access=$4 secret=$5
exec 3>&1 4>&2 >"$dir/start.log" 2>&1

daemons=()
stop() {
  trap - EXIT
  kill -KILL "${daemons[@]}" 2>/dev/null || true # in memory: there is nothing to shut down in order
  wait
  rm -rf "$dir"
}
trap stop EXIT
trap 'exit 1' INT TERM HUP
daemon() {
  setpriv --pdeathsig KILL "$@" >"$dir/$1.out" 2>&1 </dev/null 3>&- 4>&- &
  daemons+=($!)
}
trap 'echo "ceph.sh: \`$BASH_COMMAND\` failed after: $(tail -n 5 "$dir/start.log")" >&4' ERR
wait_for() {
  for _ in $(seq 600); do
    "$@" && return
    sleep 0.05
  done
  return 1
}
listening() { (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

cd "$dir"
mkdir mon osd rgw run
fsid=$(cat /proc/sys/kernel/random/uuid)
cat >ceph.conf <<CONF
[global]
fsid = $fsid
mon_initial_members = a
mon_host = v2:127.0.0.1:$mon
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_ipv6 = false
ms_bind_msgr1 = false
osd_objectstore = memstore
memstore_device_bytes = 4294967296
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_data_avail_crit = 1
mon_tick_interval = 1
paxos_propose_interval = 0.02
paxos_min_wait = 0.01
keyring = $dir/keyring
run_dir = $dir/run
admin_socket = $dir/run/\$name.asok
log_file = $dir/run/\$name.log
pid_file = $dir/run/\$name.pid
[mon.a]
mon_data = $dir/mon
[osd.0]
osd_data = $dir/osd
[client.rgw]
rgw_data = $dir/rgw
rgw_frontends = beast endpoint=127.0.0.1:$port tcp_nodelay=1
CONF
ceph-authtool --create-keyring keyring --gen-key -n mon. --cap mon 'allow *'
ceph-authtool keyring --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *'
ceph-authtool keyring --gen-key -n osd.0 --cap mon 'allow profile osd' --cap osd 'allow *'
ceph-authtool keyring --gen-key -n client.rgw --cap mon 'allow rw' --cap osd 'allow rwx'
monmaptool --create --clobber --fsid "$fsid" --addv a "[v2:127.0.0.1:$mon]" monmap
ceph-mon -c ceph.conf --mkfs -i a --monmap monmap --keyring keyring
daemon ceph-mon -c ceph.conf -i a -f
timeout 30 ceph -c ceph.conf osd create
ceph-osd -c ceph.conf -i 0 --mkfs
daemon ceph-osd -c ceph.conf -i 0 -f
wait_for grep -q 'booting -> active' run/osd.0.log # a gateway that is there first hangs for 5 s
daemon radosgw -c ceph.conf -n client.rgw -f
wait_for listening
user() {
  radosgw-admin -c ceph.conf -n client.rgw user create --uid="$1" --display-name="$1" --access-key="$2" --secret-key="$3"
}
user test "$access" "$secret"
for name in other third; do user $name "$name-$access" "$name-$secret"; done # who own nothing
echo ready >&3
cat >/dev/null
