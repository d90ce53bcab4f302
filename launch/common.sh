# What the launchers share: finding the program, reading cluster profiles, judging how a run ended.
# Sourced by mpirun.sh and slurm.sbatch; defines functions only. Messages go to stderr, one line each.
# shellcheck shell=bash
# shellcheck disable=SC2034 # end_code, end_has_status are for the sourcing script

# A terminal that is gone takes no messages; that must not end what still has to save.
say() { echo "${launcher_name:-launch}: $*" >&2 || true; }

fail() {  # CODE MESSAGE
  local code=$1
  shift
  say "$*"
  exit "$code"
}

# The lorascale program: LORASCALE_PROGRAM, a bundle (bin/ beside launch/), an installed tree
# (PREFIX/share/lorascale/launch, PREFIX/bin), a source tree (build/release), or PATH.
find_program() {  # LAUNCH_FOLDER
  local candidate
  if [[ -n ${LORASCALE_PROGRAM:-} ]]; then
    [[ -x $LORASCALE_PROGRAM && ! -d $LORASCALE_PROGRAM ]] ||
      fail 64 "LORASCALE_PROGRAM is '$LORASCALE_PROGRAM', which is no executable file"
    realpath "$LORASCALE_PROGRAM"
    return
  fi
  for candidate in "$1/../bin/lorascale" "$1/../../../bin/lorascale" "$1/../build/release/lorascale"; do
    if [[ -x $candidate ]]; then
      realpath "$candidate"
      return
    fi
  done
  command -v lorascale ||
    fail 64 "the lorascale program was not found; run scripts/build.sh, or set LORASCALE_PROGRAM"
}

# Exports the settings of a profile. A line is blank, a comment, or KEY=value with an optional comment after it;
# nothing in the file is ever executed or expanded. What the environment sets already wins.
# Keys that would load or start other programs are refused: a profile may come from anybody.
read_profile() {  # FILE
  local file=$1 line key value number=0 seen=' '
  [[ -f $file && -r $file ]] || fail 65 "$file: no such profile (see cluster/*.env)"
  (($(wc -c <"$file") <= 65536)) || fail 65 "$file: larger than 64 KiB; a profile is a few lines of KEY=value"
  (($(LC_ALL=C tr -d '\11\12\40-\176' <"$file" | wc -c) == 0)) ||
    fail 65 "$file: holds bytes that are no plain ASCII text (Windows line ends?)"
  while IFS= read -r line || [[ -n $line ]]; do
    number=$((number + 1))
    line=${line%%[[:space:]]#*}
    [[ $line =~ ^[[:space:]]*(#.*)?$ ]] && continue
    line=${line%"${line##*[![:space:]]}"}
    [[ $line =~ ^([A-Za-z_][A-Za-z0-9_]*)=([A-Za-z0-9_.,:/^+=@%-]*)$ ]] ||
      fail 65 "$file:$number: not KEY=value (no spaces, quotes or \$ around or in it)"
    key=${BASH_REMATCH[1]} value=${BASH_REMATCH[2]}
    case $key in
      NCCL_*PLUGIN* | NCCL_CONF_FILE | OMPI_MCA_*agent* | OMPI_MCA_*path*)
        fail 65 "$file:$number: $key names code to load or run, which a profile may not;" \
          "export it in the environment if you trust it" ;;
      NCCL_* | OMP_* | KMP_* | MKL_NUM_THREADS | UCX_* | CUDA_DEVICE_MAX_CONNECTIONS | LORASCALE_SHARE_GPUS) ;;
      OMPI_MCA_btl | OMPI_MCA_btl_* | OMPI_MCA_pml | OMPI_MCA_oob_tcp_* | OMPI_MCA_mpi_* | OMPI_MCA_coll_*) ;;
      *) fail 65 "$file:$number: $key is no setting of a profile (NCCL_*, OMP_*, OMPI_MCA_btl*, UCX_*, ...)" ;;
    esac
    [[ $seen != *" $key "* ]] || fail 65 "$file:$number: $key is set twice"
    seen+="$key "
    if [[ -z ${!key+set} ]]; then
      export "$key=$value"
    fi
  done <"$file"
}

# Names of set variables that ranks on other machines need too.
forwarded_variables() {
  compgen -e | grep -E '^(NCCL_|OMP_|KMP_|MKL_NUM_THREADS$|UCX_|CUDA_DEVICE_MAX_CONNECTIONS$|LORASCALE_)|^(LD_LIBRARY_PATH|PATH)$' || true
}

# Threads that wait for work sleep instead of spinning: on cores that other programs use too, spinning threads keep them
# from the one that has the work, and an update takes 3 to 10 times as long. On idle cores waking up costs microseconds.
let_threads_sleep() {
  export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
}

# Physical cores this process may use: its affinity, divided by hardware threads per core.
usable_cores() {
  local threads_per_core
  threads_per_core=$(lscpu 2>/dev/null | sed -n 's/^Thread(s) per core:[^0-9]*\([0-9][0-9]*\).*/\1/p')
  local cores=$(($(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc) / ${threads_per_core:-1}))
  echo $((cores > 0 ? cores : 1))
}

# The run folder of `VERB CONFIG [--set ...]`. Only used to see checkpoints and status.json; where the guess is wrong
# (a YAML form this does not know), no progress is seen and fewer restarts are made. --run-dir overrides it.
run_folder() {  # VERB CONFIG [--set run.output_dir=...]
  local folder='' previous='' word config=${2:-}
  for word in "${@:3}"; do
    [[ $previous == --set ]] && word=--set=$word
    [[ $word == --set=run.output_dir=* ]] && folder=${word#--set=run.output_dir=}
    previous=$word
  done
  if [[ -z $folder && -r $config ]]; then
    folder=$(sed -n -E '/^[[:space:]]*#/d
      s/^(.*[{,[:space:]])?"?output_dir"?[[:space:]]*:[[:space:]]*("([^"]*)"|'"'([^']*)'"'|([^],}#]*[^],}#[:space:]])).*$/\3\4\5/p' \
      "$config" | sed 1q || true)
  fi
  echo "${folder:-runs/default}"
}

# Changes whenever a new checkpoint has been committed: folders get their final name only after verification.
newest_checkpoint() {  # RUN_FOLDER
  # The folder may not be there yet, and retention may take a checkpoint away under find.
  { find "$1/checkpoints" -mindepth 2 -maxdepth 2 -path '*/step-*/MANIFEST.json' -printf '%T@ %p\n' 2>/dev/null ||
    true; } | sort -n | tail -n 1
}

# Changes whenever status.json has been replaced.
status_stamp() {  # RUN_FOLDER
  stat -c '%i %.Y %s' "$1/status.json" 2>/dev/null || echo none
}

status_field() {  # RUN_FOLDER FIELD: the value of a top-level string or number
  sed -n -E "s/^[[:space:]{]*\"$2\"[[:space:]]*:[[:space:]]*\"?([^\",}]*)\"?.*/\\1/p" "$1/status.json" 2>/dev/null |
    sed 1q || true
}

# The cause of an end: what the run itself wrote into status.json, else the launcher's exit code. mpirun names the
# lowest failing rank and srun the highest code, which may be a victim of the rank that failed first.
judge_end() {  # RUN_FOLDER STAMP_BEFORE LAUNCHER_CODE -> sets end_code, end_has_status
  local outcome told
  end_code=$3 end_has_status=false
  [[ $(status_stamp "$1") != "$2" ]] || return 0
  outcome=$(status_field "$1" outcome)
  told=$(status_field "$1" exit_code)
  if [[ $outcome != "running" && $outcome != "done" && $told =~ ^[1-9][0-9]{0,2}$ ]]; then
    end_code=$told end_has_status=true
  fi
}

# Asks a launcher to pass SIGUSR1 on to its ranks, once a second until it ends: mpirun loses signals that come before
# its ranks are up. Ranks take note once; asking again changes nothing.
keep_asking() {  # PID OF A CHILD -> sets asker
  kill -USR1 "$1" 2>/dev/null || true
  while sleep 1 && kill -USR1 "$1"; do :; done >/dev/null 2>&1 &
  asker=$!
}

stop_asking() {
  [[ -z ${asker:-} ]] || kill "$asker" 2>/dev/null || true
  asker=''
}

# Worth starting again: stopped after saving, hangs, lost peers and nodes, crashes. Not the user's errors (64, 65, 78),
# divergence (71) or a full disk (73), which would only happen again.
is_retryable() {  # CODE HAS_STATUS
  case $1 in
    75 | 86 | 87 | 13[4-9] | 143 | 205 | 244) return 0 ;;
    1) [[ $2 == false ]] ;;
    *) return 1 ;;
  esac
}

explain() {  # CODE
  case $1 in
    0) echo "done" ;;
    64) echo "wrong command line" ;;
    65) echo "bad input file" ;;
    70) echo "internal error" ;;
    71) echo "training diverged" ;;
    73) echo "a result could not be written" ;;
    75) echo "stopped on request after saving; run again to go on" ;;
    78) echo "bad configuration" ;;
    86) echo "hang seen by the watchdog" ;;
    87) echo "another rank was lost" ;;
    132) echo "the program could not be started on every machine" ;;
    134) echo "a rank aborted" ;;
    137) echo "a rank was killed (out of memory? see dmesg); the newest checkpoint is kept, and the next start goes on from it" ;;
    139) echo "a rank crashed" ;;
    143) echo "ended by a second stop request, or a rank was terminated" ;;
    205) echo "a machine was lost" ;;
    244) echo "stopped while machines were being started" ;;
    *) echo "see the messages above" ;;
  esac
}
