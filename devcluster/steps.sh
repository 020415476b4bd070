# Shows long work as it runs: sourced by the scripts beside it.
#   step TITLE COMMAND...    runs it, one line with the time it took; its output goes to a log
#   start TITLE COMMAND...   the same in the background
#   wait_for_started         waits for all that were started, with a sign of life each 30 s
# A command that fails has the end of its log shown, and ends the script.

STEP_LOGS=.devcluster/log/steps
mkdir -p "$STEP_LOGS"
STARTED=()

log_of() { echo "$STEP_LOGS/$(tr -cs 'a-zA-Z0-9' '-' <<<"$1").log"; }

failed() { # title, log
  printf '\nFailed: %s. The end of %s:\n' "$1" "$2" >&2
  tail -n 30 "$2" >&2
}

step() {
  local title=$1 begin=$SECONDS log
  shift
  log=$(log_of "$title")
  printf '%-52s' "$title ..."
  if "$@" >"$log" 2>&1 </dev/null; then
    printf '%4d s\n' $((SECONDS - begin))
  else
    failed "$title" "$log"
    return 1
  fi
}

start() {
  local title=$1 log
  shift
  log=$(log_of "$title")
  printf '%-52s in the background\n' "$title ..."
  (
    begin=$SECONDS
    if "$@" >"$log" 2>&1 </dev/null; then
      printf '%-52s%4d s\n' "$title: done" $((SECONDS - begin))
    else
      failed "$title" "$log"
      exit 1
    fi
  ) &
  STARTED+=($!)
}

wait_for_started() {
  local id begin=$SECONDS
  while [ -n "$(jobs -rp)" ]; do
    sleep 1
    if (((SECONDS - begin) % 30 == 29)); then printf '  ... %d s\n' $((SECONDS - begin + 1)); fi
  done
  for id in "${STARTED[@]}"; do wait "$id" || return 1; done
  STARTED=()
}
