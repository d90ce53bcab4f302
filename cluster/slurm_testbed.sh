#!/usr/bin/env bash
# A SLURM cluster of two nodes on this machine, for tests: a controller, two slurmd, a munge of their own.
#
#   cluster/slurm_testbed.sh start FOLDER    start it; everything it writes is in FOLDER (a new or empty one)
#   cluster/slurm_testbed.sh env FOLDER      print the settings that srun, sbatch, ... need:  eval "$(... env FOLDER)"
#   cluster/slurm_testbed.sh stop FOLDER     end its daemons
#
# Needs scripts/debian-packages-slurm.txt; no systemd, no cgroups, no root (jobs then run as the caller). The nodes n1 and
# n2 share this machine, so they stand for two machines to SLURM, but MPI sees one. Partitions: low (default, may be
# preempted and requeued) and high. A machine that is lost, or a job that asks for more time, shows within seconds.
set -euo pipefail

fail() { echo "slurm_testbed.sh: $*" >&2; exit 1; }

free_port() {  # AFTER
  local port
  for ((port = $1 + 1; port < $1 + 200; port++)); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
  fail "no free port above $1"
}

write_configuration() {
  local host user port=$((16000 + RANDOM % 8000)) ports=() _
  host=$(hostname -s) user=$(id -un)
  for _ in 1 2 3; do
    port=$(free_port "$port")
    ports+=("$port")
  done
  cat >"$folder/slurm.conf" <<END
ClusterName=testbed
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$folder/munge.sock,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool.%n
SlurmdPidFile=$folder/%n.pid
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdLogFile=$folder/%n.log
SlurmctldLogFile=$folder/slurmctld.log
TmpFS=$folder/tmp.%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=10
KillWait=8
MpiDefault=none
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[1]} CPUs=4 RealMemory=1000
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[2]} CPUs=4 RealMemory=1000
PartitionName=low Nodes=n1,n2 Default=YES PriorityTier=1 GraceTime=10 State=UP
PartitionName=high Nodes=n1,n2 PriorityTier=10 PreemptMode=OFF State=UP
END
}

start() {
  local program
  for program in slurmctld slurmd munged srun sinfo; do
    command -v "$program" >/dev/null || fail "$program is missing: install scripts/debian-packages-slurm.txt"
  done
  [[ ! -e $folder/slurm.conf ]] || fail "$folder already holds a test bed; choose another folder"
  mkdir -p "$folder"/{state,spool.n1,spool.n2,tmp.n1,tmp.n2}
  write_configuration
  (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
  trap 'stop; fail "the test bed did not start; see the logs in $folder"' ERR
  # --force: munged dislikes running as root and sockets in folders that others may read.
  munged --force --key-file="$folder/munge.key" --socket="$folder/munge.sock" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munge.seed" 2>>"$folder/munged.log"
  eval "$(environment)"
  slurmctld -c -f "$SLURM_CONF" 2>>"$folder/slurmctld.log"
  slurmd -N n1 -f "$SLURM_CONF" 2>>"$folder/n1.log"
  slurmd -N n2 -f "$SLURM_CONF" 2>>"$folder/n2.log"
  local try
  for ((try = 0; try < 100; try++)); do
    if [[ $(sinfo -h -N -p low -o %T 2>/dev/null | grep -c '^idle$') == 2 ]]; then
      trap - ERR
      return
    fi
    sleep 0.2
  done
  sinfo >&2 || true
  false
}

environment() { printf 'export SLURM_CONF=%q\n' "$folder/slurm.conf"; }

stop() {
  trap - ERR
  local name pid try
  [[ -e $folder/slurm.conf ]] || fail "$folder holds no test bed"
  eval "$(environment)"
  timeout 5 scancel --full --signal=KILL --state=RUNNING 2>/dev/null || true
  for name in n1 n2 slurmctld munged; do
    pid=$(cat "$folder/$name.pid" 2>/dev/null) || continue
    # The number may belong to another process by now.
    case $(cat "/proc/$pid/comm" 2>/dev/null) in slurmd | slurmctld | munged) kill "$pid" ;; *) continue ;; esac
    for ((try = 0; try < 50; try++)); do
      [[ -e /proc/$pid ]] || break
      sleep 0.1
    done
    [[ ! -e /proc/$pid ]] || kill -KILL "$pid" 2>/dev/null || true
  done
}

case ${1:-} in
  start | stop | env)
    [[ $# == 2 ]] || fail "usage: slurm_testbed.sh $1 FOLDER"
    mkdir -p "$2"
    folder=$(cd "$2" && pwd)
    if [[ $1 == env ]]; then environment; else "$1"; fi
    ;;
  -h | --help) sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" ;;
  *) fail "usage: slurm_testbed.sh start|env|stop FOLDER (see --help)" ;;
esac
