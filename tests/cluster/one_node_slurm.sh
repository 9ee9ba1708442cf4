#!/bin/bash
# A SLURM of one node for tests, with its own configuration, key, ports and logs, all in one folder. For root.
#
#   one_node_slurm.sh start DIR    prints nothing; afterwards SLURM_CONF=DIR/slurm.conf reaches it
#   one_node_slurm.sh stop DIR
#
# Needs Debian's slurm-wlm and munge: apt-get install slurm-wlm munge
set -eu
action=$1
dir=$(realpath -m "$2")
export SLURM_CONF="$dir/slurm.conf"

stop() {
    for name in slurmd slurmctld munged; do
        if [ -s "$dir/$name.pid" ]; then kill "$(cat "$dir/$name.pid")" 2>/dev/null || true; fi
    done
}

free_ports() {
    python3 - <<'PYTHON'
import socket
sockets = [socket.socket() for _ in range(2)]
for each in sockets:
    each.bind(("127.0.0.1", 0))
print(*(each.getsockname()[1] for each in sockets))
PYTHON
}

start() {
    mkdir -p "$dir/state" "$dir/spool"
    chmod 755 "$dir"
    read -r controller daemon <<<"$(free_ports)"
    dd if=/dev/urandom of="$dir/munge.key" bs=1024 count=1 status=none
    chmod 600 "$dir/munge.key"
    munged --force --socket="$dir/munge.socket" --key-file="$dir/munge.key" --pid-file="$dir/munged.pid" \
        --seed-file="$dir/munge.seed" --log-file="$dir/munged.log" --num-threads=2
    host=$(hostname -s)
    cat >"$dir/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$controller
SlurmdPort=$daemon
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0
JobRequeue=1
KillWait=20
MinJobAge=3600
ReturnToService=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
PriorityType=priority/basic
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 Boards=1 SocketsPerBoard=1 CoresPerSocket=2 ThreadsPerCore=1 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
CONF
    slurmctld -c
    slurmd -c
    for _ in $(seq 100); do
        if [ "$(sinfo --noheader --format=%t 2>/dev/null)" = idle ]; then return; fi
        sleep 0.2
    done
    echo "the node did not become idle:" >&2
    tail -n 5 "$dir/slurmctld.log" "$dir/slurmd.log" >&2
    stop
    return 1
}

"$action"
