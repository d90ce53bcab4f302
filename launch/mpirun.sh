#!/usr/bin/env bash
# Starts lorascale on this machine, or on those of a hostfile, with Open MPI 4:
#
#   launch/mpirun.sh -n N [OPTIONS] [--] VERB CONFIG [--set key=value ...]
#
#   -n N               ranks: one per GPU, or one per machine without GPUs (default: the slots of the hostfile)
#   --hostfile F       machines, a line each: NAME slots=RANKS (see cluster/hostfile.example)
#   --profile F        settings of NCCL and MPI for this kind of machine (see cluster/*.env)
#   --threads T        CPU threads per rank (default: cores / ranks of a machine)
#   --bind cores       pin every rank to its own T cores; default: none, the kernel places them
#   --retries K        after a crash, hang or lost machine start again from the newest checkpoint, at most K times in
#                      a row without a new checkpoint (default: 0); never after an error of the user
#   --retry-wait S     seconds between restarts (default: 5)
#   --run-dir D        the run folder, where it cannot be read from CONFIG or --set run.output_dir=D
#   --dry-run          print the command and end
#
# SIGTERM, SIGINT, SIGHUP or SIGUSR1: finish the update, save, exit 75; run again to go on. A second SIGTERM or SIGINT
# ends at once (143, 130). Otherwise the exit code is that of lorascale. The program is LORASCALE_PROGRAM, or the one
# this script came with.
set -euo pipefail
# shellcheck disable=SC2034 # common.sh signs messages with it
launcher_name=mpirun.sh
here=$(cd "$(dirname "$(realpath "${BASH_SOURCE[0]}")")" && pwd)
# shellcheck source=launch/common.sh
source "$here/common.sh"

ranks='' hostfile='' profile='' threads='' binding=none retries=0 retry_wait=5 folder='' dry_run=false

parse_arguments() {
  while (($#)); do
    case $1 in
      -h | --help) sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
      --dry-run) dry_run=true; shift; continue ;;
      --) shift; break ;;
      -n | --hostfile | --profile | --threads | --bind | --retries | --retry-wait | --run-dir)
        (($# >= 2)) || fail 64 "$1 needs a value (see --help)" ;;
      -*) fail 64 "unknown option '$1' before the verb (see --help)" ;;
      *) break ;;
    esac
    case $1 in
      -n) ranks=$2 ;;
      --hostfile) hostfile=$2 ;;
      --profile) profile=$2 ;;
      --threads) threads=$2 ;;
      --bind) binding=$2 ;;
      --retries) retries=$2 ;;
      --retry-wait) retry_wait=$2 ;;
      --run-dir) folder=$2 ;;
    esac
    shift 2
  done
  (($#)) || fail 64 "a verb and its configuration are missing, as in: mpirun.sh -n 2 train run.yaml"
  job=("$@")
  check_number -n "$ranks" 1 65536
  check_number --threads "$threads" 1 4096
  check_number --retries "$retries" 0 1000
  check_number --retry-wait "$retry_wait" 0 86400
  [[ $binding == none || $binding == cores ]] || fail 64 "--bind is '$binding'; it takes none or cores"
}

check_number() {  # NAME VALUE LOWEST HIGHEST; an empty value was not given
  [[ -n $2 ]] || return 0
  if [[ ! $2 =~ ^[0-9]{1,6}$ ]] || ((10#$2 < $3 || 10#$2 > $4)); then
    fail 64 "$1 is '$2'; it takes a whole number from $3 to $4"
  fi
}

# Sets local_ranks (of the first machine) and, where -n was not given, ranks.
read_hostfile() {
  [[ -f $hostfile && -r $hostfile ]] || fail 65 "$hostfile: no such hostfile (see cluster/hostfile.example)"
  local line total=0 first='' slots number=0
  while IFS= read -r line || [[ -n $line ]]; do
    number=$((number + 1))
    line=${line%%#*}
    [[ $line =~ ^[[:space:]]*$ ]] && continue
    [[ $line =~ ^[[:space:]]*[A-Za-z0-9._:@-]+([[:space:]]+(slots=([0-9]{1,5})|max[-_]slots=[0-9]+))*[[:space:]]*$ ]] ||
      fail 65 "$hostfile:$number: not NAME slots=RANKS"
    slots=1
    [[ $line =~ [[:space:]]slots=([0-9]+) ]] && slots=$((10#${BASH_REMATCH[1]}))
    first=${first:-$slots}
    total=$((total + slots))
  done <"$hostfile"
  ((total)) || fail 65 "$hostfile: names no machine"
  ranks=${ranks:-$total}
  ((ranks <= total)) || fail 64 "-n is $ranks, but $hostfile has $total slots; add machines or slots"
  local_ranks=$((ranks < first ? ranks : first))
}

# A SLURM job this shell is in, where no hostfile says otherwise; sets slurm to:
#   here      its only machine is this one: the ranks start here, however many tasks the job has (a shell of
#             `srun --gres=gpu:2 --pty bash` has one)
#   machines  Open MPI starts its daemons there with srun, and fills the slots that the job has
# and, for machines, local_ranks.
read_slurm_job() {
  slurm=''
  [[ -n ${SLURM_JOB_ID:-} && -z $hostfile ]] || return 0
  local nodes=${SLURM_JOB_NODELIST:-${SLURM_NODELIST:-}} part machines=0 slots=0 first='' of parts
  if [[ $nodes =~ ^[A-Za-z0-9._-]*$ ]]; then
    case $nodes in '' | "$(hostname)" | "$(hostname -s)" | "${SLURMD_NODENAME:-}") slurm=here; return 0 ;; esac
  fi
  slurm=machines
  IFS=, read -ra parts <<<"${SLURM_TASKS_PER_NODE:-1}"  # as 4(x2),3
  for part in "${parts[@]}"; do
    [[ $part =~ ^([0-9]{1,6})(\(x([0-9]{1,6})\))?$ ]] || fail 64 "SLURM_TASKS_PER_NODE is '$SLURM_TASKS_PER_NODE'; unset it"
    of=${BASH_REMATCH[3]:-1}
    first=${first:-$((10#${BASH_REMATCH[1]}))}
    machines=$((machines + 10#$of))
    slots=$((slots + 10#${BASH_REMATCH[1]} * 10#$of))
  done
  ((ranks <= slots)) ||
    fail 64 "-n is $ranks, but SLURM job $SLURM_JOB_ID has $slots task(s) on $nodes: ask SLURM for" \
      "--ntasks-per-node=$(((ranks + machines - 1) / machines)), or use launch/slurm.sbatch"
  command -v srun >/dev/null ||
    fail 64 "SLURM job $SLURM_JOB_ID is on $nodes, and srun, the way there, is not in PATH; load SLURM, or go to that machine"
  local_ranks=$((ranks < first ? ranks : first))
}

build_command() {
  local cores name
  local mpirun=mpirun
  [[ ! -x $here/../bin/mpirun ]] || mpirun=$here/../bin/mpirun  # a bundle with an Open MPI of its own
  command -v "$mpirun" >/dev/null || fail 64 "mpirun is not in PATH; install Open MPI 4 (openmpi-bin), or load its module"
  command=("$mpirun" -n "$ranks")
  ((EUID == 0)) && command+=(--allow-run-as-root)
  cores=$(usable_cores)
  threads=${threads:-${OMP_NUM_THREADS:-$((cores / local_ranks))}}
  ((threads > 0)) || threads=1
  export OMP_NUM_THREADS=$threads
  let_threads_sleep
  if [[ $binding == cores ]]; then
    ((local_ranks * threads <= cores)) ||
      fail 64 "--bind cores: $local_ranks ranks of $threads threads need more than the $cores cores of this machine"
    command+=(--map-by "ppr:$local_ranks:node:PE=$threads" --bind-to core)
    # A bound rank sees its own cores only, and would divide them among the ranks once more.
    [[ ${job[0]} != train || " ${job[*]} " == *run.threads=* ]] || job+=(--set "run.threads=$threads")
  else
    command+=(--bind-to none)
    # Open MPI counts a core as a slot; more ranks than cores is what a shared test machine wants.
    [[ -n $hostfile || $slurm == machines ]] || { [[ $slurm != here ]] && ((ranks <= cores)); } || command+=(--oversubscribe)
  fi
  [[ $slurm != here ]] || command+=(--mca ras ^slurm --mca plm isolated)  # neither its slots nor its way to start ranks
  # Open MPI wants ssh even where it starts nothing elsewhere, and ends with a riddle where there is none.
  [[ -n $hostfile || -n $slurm ]] || command -v ssh >/dev/null || command -v rsh >/dev/null ||
    command+=(--mca plm isolated)
  if [[ -n $hostfile ]]; then
    command+=(--hostfile "$hostfile")
    # A cut link is noticed after 5 + 3 * 1 seconds instead of 480.
    command+=(--mca oob_tcp_keepalive_time 5 --mca oob_tcp_keepalive_intvl 1 --mca oob_tcp_keepalive_probes 3)
  fi
  if [[ -n $hostfile || $slurm == machines ]]; then
    for name in $(forwarded_variables); do command+=(-x "$name"); done
  fi
  command+=("$program" "${job[@]}")
}

stops=0 asked_to_end=false hard_stop='' child='' nap=''

on_stop() {  # SIGNAL
  local asks_to_end=false
  [[ $1 != TERM && $1 != INT ]] || asks_to_end=true
  if $asks_to_end && $asked_to_end; then
    hard_stop=$1
    say "second SIG$1: ending now; what follows the newest checkpoint is lost"
    [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || true
    return 0  # without the 0, a handler returns the status of the `wait` it interrupted, and set -e ends the script
  fi
  ! $asks_to_end || asked_to_end=true
  stops=$((stops + 1))
  ((stops == 1)) || return 0
  [[ -z $nap ]] || kill "$nap" 2>/dev/null || true
  say "SIG$1: finishing the update, then saving; a second SIGTERM or SIGINT ends at once"
  [[ -z $child ]] || keep_asking "$child"
}

# Prints the processes of a session that still run.
session_members() {  # SESSION
  local file text fields
  for file in /proc/[0-9]*/stat; do
    text=''  # of a process that has just ended
    { IFS= read -r -d '' text <"$file" || true; } 2>/dev/null
    read -ra fields <<<"${text##*) }"  # after the name: state, parent, process group, session
    [[ ${fields[3]:-} != "$1" || ${fields[0]} == Z ]] || { file=${file%/stat}; echo "${file#/proc/}"; }
  done
}

# mpirun may end before its ranks: killed itself, or asked to end while it already was ending. A rank it left behind
# would write into the run folder beside the next start's. Ranks notice the loss themselves; one that does not in 3
# seconds is killed. What hangs in a driver or a network file system cannot even be killed: there is no restart then.
end_left_ranks() {  # SESSION; fails where something is left
  local left begin=$SECONDS
  while left=$(session_members "$1") && [[ -n $left ]]; do
    if ((SECONDS >= begin + 30)); then
      say "process ${left//$'\n'/, } of the run does not end, a driver or a file system may hang; no restart beside it"
      retries=0
      return 1
    fi
    # shellcheck disable=SC2086 # one word per process
    ((SECONDS < begin + 3)) || kill -KILL $left 2>/dev/null || true
    sleep 0.1 || true  # Ctrl-C ends it, too
  done
}

# Passes the messages of mpirun and its ranks on, but not what mpirun says about the end of a rank, which has said it
# itself: banners of several lines, between two rules of 74 dashes, around the program's own one. Everything else
# passes, for `mpirun -q` hides its own errors, too. Lines of ranks may come in between.
pass_messages() {
  trap '' TERM INT HUP USR1 PIPE  # it ends with mpirun
  local rule line='' rest held='' banner=0 more=true patience status
  printf -v rule '%74s' ''
  rule=${rule// /-}
  while $more; do
    patience=() status=0
    [[ -z $held ]] || patience=(-t 1)
    IFS= read -r ${patience[@]+"${patience[@]}"} rest || status=$?
    line+=$rest
    if ((status > 1)); then  # nothing follows the rule: it was a rank's
      put "$held"
      held=''
      continue
    fi
    ((status == 0)) || more=false
    $more || [[ -n $line ]] || break
    if [[ $line == ?*"$rule" ]]; then  # after a rank's line without an end
      pass_line "${line%"$rule"}"
      line=$rule
    fi
    pass_line "$line"
    line=''
  done
  [[ -z $held ]] || put "$held"
}

put() { printf '%s\n' "$1" 2>/dev/null || true; }

# `held`: a rule, of which the next line tells whether it begins a banner; `banner`: lines that one may still have.
pass_line() {  # LINE
  local begins=false
  case $1 in
    "Primary job "*" terminated normally, but "* | *" detected that one or more processes exited with"* | \
      *" noticed that process rank "*" exited on signal "*) begins=true ;;
  esac
  if $begins; then
    held='' banner=8
    # The one thing that no rank can say of itself. Signal 10 is our own request, to a rank that was still starting.
    [[ ! $1 =~ process\ rank\ ([0-9]+)\ .*on\ node\ ([^ ]+)\ exited\ on\ signal\ ([^.]+) || $1 == *" on signal 10 "* ]] ||
      put "mpirun.sh: rank ${BASH_REMATCH[1]} on ${BASH_REMATCH[2]} was ended by signal ${BASH_REMATCH[3]}"
    return
  fi
  if ((banner > 0)); then
    banner=$((banner - 1))
    case $1 in
      "$rule") banner=0; return ;;
      '' | "a non-zero exit code"* | "the job to be terminated."* | "  Process name: "* | "  Exit code: "*) return ;;
    esac
  fi
  [[ -z $held ]] || put "$held"
  held=''
  if [[ $1 == "$rule" ]]; then
    held=$1
  elif [[ $1 != *": Forwarding signal "*" to job" ]]; then
    put "$1"
  fi
}

# Runs the job once; sets code. mpirun gets a session of its own (Ctrl-C must reach it as a request to save, not as an
# interrupt) and ends with this script, however that ends. It starts with SIGUSR1 ignored: before it listens and after it
# has stopped listening, when its ranks have saved and are gone, a request to them would end it (138).
run_once() {
  local interrupted_before session messages passing
  exec {messages}> >(pass_messages >&2)
  passing=$!
  (trap '' USR1 && exec setsid ${parent_death[@]+"${parent_death[@]}"} "${command[@]}" </dev/null 2>&"$messages" {messages}>&-) &
  child=$! session=$!
  exec {messages}>&-
  # A request that came before there was a child to hand it to.
  ((stops == 0)) || [[ -n ${asker:-} ]] || keep_asking "$child"
  while :; do
    interrupted_before=$stops$hard_stop
    code=0
    wait "$child" || code=$?
    # A trapped signal ends `wait` early: wait again. bash keeps the status of a child that ended meanwhile.
    [[ $interrupted_before == "$stops$hard_stop" ]] && ! kill -0 "$child" 2>/dev/null && break
  done
  child=''
  stop_asking
  # The last messages before ours.
  ! end_left_ranks "$session" || wait "$passing" 2>/dev/null || true
  if [[ -n $hard_stop && $code != 0 && $code != 75 ]]; then
    if [[ $hard_stop == INT ]]; then code=130; else code=143; fi
  fi
}

parse_arguments "$@"
program=$(find_program "$here")
[[ -z $profile ]] || read_profile "$profile"
local_ranks=$ranks
[[ -z $hostfile ]] || read_hostfile
[[ -n $ranks ]] || fail 64 "-n, the number of ranks, is missing (see --help)"
read_slurm_job
build_command
if $dry_run; then
  printf '%q ' "${command[@]}"
  echo
  exit 0
fi
folder=${folder:-$(run_folder "${job[@]}")}
parent_death=()
if command -v setpriv >/dev/null && setpriv --pdeathsig TERM true 2>/dev/null; then
  parent_death=(setpriv --pdeathsig TERM --)
fi
for name in TERM INT HUP USR1; do
  # shellcheck disable=SC2064 # the name of this very signal
  trap "on_stop $name" "$name"
done

failures=0
while :; do
  checkpoint=$(newest_checkpoint "$folder")
  stamp=$(status_stamp "$folder")
  run_once
  if ((stops > 0)) && stopped_while_starting "$folder" "$stamp" "$code"; then
    say "stopped before the first update; run again to go on"
    code=75
  fi
  if [[ -n $hard_stop || $code == 0 || $code == 75 ]]; then
    end_code=$code end_has_status=false
  else
    judge_end "$folder" "$stamp" "$code"
  fi
  ((end_code == 0)) && exit 0
  if ((stops > 0)) || ((retries == 0)) || ! is_retryable "$end_code" "$end_has_status"; then
    say "exit $end_code: $(explain_end "$end_code" "$folder" "${job[0]}")"
    exit "$end_code"
  fi
  [[ $(newest_checkpoint "$folder") == "$checkpoint" ]] || failures=0
  failures=$((failures + 1))
  if ((failures > retries)); then
    say "exit $end_code: $(explain "$end_code"); gave up after $retries restarts without a new checkpoint in $folder"
    exit "$end_code"
  fi
  say "exit $end_code: $(explain "$end_code"); restart $failures of $retries from the newest checkpoint"
  sleep "$retry_wait" &
  nap=$!
  ((stops == 0)) || kill "$nap"
  wait "$nap" || true
  if ((stops > 0)); then
    kill "$nap" 2>/dev/null || true
    say "exit 75: stopped between restarts; run again to go on"
    exit 75
  fi
  nap=''
done
