# shellcheck shell=bash
# The streamer of `make up` and `make demo`: start, await health, stop.
# Sourced by scripts/stack, which sets `state` (the state folder) and `port`.

binary=$state/bin/headwater

# The pid of our running streamer, or nothing: the pid in the file may be another process's by now.
streamer_pid() {
    local pid
    pid=$(cat "$state/streamer.pid" 2>/dev/null) || return 0
    case $(readlink "/proc/${pid:-none}/exe" 2>/dev/null) in
        "$binary" | "$binary (deleted)") echo "$pid" ;;
    esac
}

# A copy, so that other builds do not disturb the one that runs.
copy_binary() {
    mkdir -p "$state/bin"
    if ! cmp -s "$CARGO_TARGET_DIR/debug/headwater" "$binary"; then
        cp "$CARGO_TARGET_DIR/debug/headwater" "$binary.new"
        mv "$binary.new" "$binary"
    fi
}

# Every HEADWATER_ variable reaches the streamer; these are what development mode sets.
export_settings() {
    export DATABASE_URL HEADWATER_PORT=$port
    DATABASE_URL=$(postgres_url headwater_streamer "$database")
    export HEADWATER_INSECURE=${HEADWATER_INSECURE:-true} HEADWATER_STATIC_DIR=${HEADWATER_STATIC_DIR:-$state/pages}
    # Opens the console; made with the database, beside its passwords.
    export HEADWATER_ADMIN_SECRET=${HEADWATER_ADMIN_SECRET:-$(cat "$state/console.password")} HEADWATER_CONSOLE_WRITES=${HEADWATER_CONSOLE_WRITES:-true}
    unset HEADWATER_DATABASE_URL HEADWATER_STATE_DIR HEADWATER_PG_PORT HEADWATER_CACHE_DIR HEADWATER_SERVER_CACHE_DIR
}

# What a running streamer was started with: when it changes, the streamer is started anew.
settings_fingerprint() {
    (
        export_settings
        sha256sum <"$binary"
        echo "$DATABASE_URL"
        env -0 | grep -z ^HEADWATER_ | sort -z
    ) | sha256sum | cut -d' ' -f1
}

start_streamer() {
    local pid
    copy_binary
    pid=$(streamer_pid)
    if [ -n "$pid" ]; then
        if [ "$(settings_fingerprint)" = "$(cat "$state/streamer.settings" 2>/dev/null)" ]; then
            await_health "$pid" 0
            return
        fi
        step "restarting the streamer: its build or its settings have changed"
        stop_streamer
    fi
    require_free_port "$port" "the streamer" HEADWATER_PORT
    local log=$state/streamer.log log_start
    touch "$log"
    log_start=$(stat -c %s "$log")
    (
        export_settings
        exec setsid "$binary" serve
    ) </dev/null >>"$log" 2>&1 9>&- &
    pid=$!
    echo "$pid" >"$state/streamer.pid"
    settings_fingerprint >"$state/streamer.settings"
    await_health "$pid" "$log_start"
}

await_health() {
    local pid=$1 log_start=$2 deadline=$((SECONDS + 60)) health
    until health=$(curl -sS --max-time 5 -w '\n%{http_code}' "http://127.0.0.1:$port/health" 2>&1) \
        && [ "${health##*$'\n'}" = 200 ]; do
        if ! kill -0 "$pid" 2>/dev/null; then
            rm -f "$state/streamer.pid"
            tail -c "+$((log_start + 1))" "$state/streamer.log" | tail -n 20 >&2
            fail "the streamer did not start" "The lines above are the end of $state/streamer.log"
        elif [ $SECONDS -gt $deadline ]; then
            tail -n 20 "$state/streamer.log" >&2
            fail "the streamer runs but is not healthy after 60 s; /health says: $health" \
                "The lines above are the end of $state/streamer.log"
        fi
        sleep 0.05
    done
}

stop_streamer() {
    local pid
    pid=$(streamer_pid)
    if [ -n "$pid" ]; then
        kill -TERM "$pid"
        if ! await_end "$pid" 20; then
            say "the streamer does not stop; killing it (it keeps nothing that could be lost)"
            kill -KILL "$pid" 2>/dev/null || true
            await_end "$pid" 5 || true
        fi
    fi
    rm -f "$state/streamer.pid" "$state/streamer.settings"
}
