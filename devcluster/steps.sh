# Shows long work as it runs: sourced by the scripts beside it.
#   step TITLE COMMAND...    runs it, one line with the time it took; its output goes to a log
#   start TITLE COMMAND...   the same in the background
#   wait_for_started         waits for all that were started, with a sign of life each 30 s
# A command that fails has the end of its log shown, and ends the script. However the script ends,
# by Ctrl-C too, what it started ends with it.

STEP_LOGS=.devcluster/log/steps
mkdir -p "$STEP_LOGS"
# What runs, by the process that leads the group of all that it starts: its title, and since when.
declare -A TITLES=() BEGINS=()
PATIENCE=5 # Seconds for what is interrupted to clear up after itself.

trap end_started EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

log_of() { echo "$STEP_LOGS/$(tr -cs 'a-zA-Z0-9' '-' <<<"$1").log"; }

step() {
  printf '%-52s' "$1 ..."
  launch "$@"
  finish "$!" || return 1
  printf '%4d s\n' "$TOOK"
}

start() {
  printf '%-52s in the background\n' "$1 ..."
  launch "$@"
}

wait_for_started() {
  local id title begin=$SECONDS
  while ((${#TITLES[@]} > 0)); do
    sleep 1
    for id in "${!TITLES[@]}"; do
      if kill -0 "$id" 2>/dev/null; then continue; fi
      title=${TITLES[$id]}
      finish "$id" || return 1
      printf '%-52s%4d s\n' "$title: done" "$TOOK"
    done
    if (((SECONDS - begin) % 30 == 29)); then printf '  ... %d s\n' $((SECONDS - begin + 1)); fi
  done
}

launch() { # title, command
  # A session, so a group, of its own. What runs in the background would ignore SIGINT: undone.
  env --default-signal=INT,QUIT setsid "${@:2}" >"$(log_of "$1")" 2>&1 </dev/null &
  TITLES[$!]=$1
  BEGINS[$!]=$SECONDS
}

finish() { # process; says in TOOK how many seconds it took
  local log
  if ! wait "$1"; then
    log=$(log_of "${TITLES[$1]}")
    printf '\nFailed: %s. The end of %s:\n' "${TITLES[$1]}" "$log" >&2
    tail -n 30 "$log" >&2
    return 1
  fi
  TOOK=$((SECONDS - BEGINS[$1]))
  unset "TITLES[$1]" "BEGINS[$1]"
}

end_started() {
  local id tries
  trap '' HUP INT TERM
  # First as Ctrl-C does, then by force.
  for id in "${!TITLES[@]}"; do kill -INT -- "-$id" 2>/dev/null || true; done
  for id in "${!TITLES[@]}"; do
    for ((tries = 0; tries < PATIENCE * 10; tries++)); do
      if ! kill -0 -- "-$id" 2>/dev/null; then break; fi
      sleep 0.1
    done
    kill -KILL -- "-$id" 2>/dev/null || true
  done
}
