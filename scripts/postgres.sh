# shellcheck shell=bash
# The private Postgres of `make up` and `make demo`: where its data lies, start, stop.
# Sourced by scripts/stack, which sets `state` (the state folder) and `pg_port`.

data=
database=headwater

# Where the data lies: below the state folder if the server's user can reach it, else where it can.
locate_data() {
    if [ -n "$data" ]; then return; fi
    if [ -L "$state/pgdata" ] || [ -d "$state/pgdata" ]; then
        data=$(readlink -m "$state/pgdata")
    elif as_server test -x "$state"; then
        data=$state/pgdata
    else
        data=$server_cache/data/$(echo "$state" | sha256sum | cut -c1-16)
        ln -sfn "$data" "$state/pgdata"
        say "user $server_user cannot reach $state (a folder above it is closed to others):"
        say "the data lies in $data"
    fi
}

# The pid of the running server on our data, or nothing. A pid file may be stale and its pid another's:
# a postmaster's working directory is its data folder.
postgres_pid() {
    local pid
    pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null) || return 0
    if [ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "$data" ]; then echo "$pid"; fi
}

# The port that the running server listens on.
postgres_port() { sed -n 4p "$data/postmaster.pid"; }

postgres_url() { echo "postgres://$1:$(cat "$state/$1.password")@127.0.0.1:$(postgres_port)/$2"; }

# psql as the superuser, without the person's own settings.
run_psql() {
    local target=$1
    shift
    PGPASSWORD=$(cat "$state/postgres.password") PGOPTIONS='-c client_min_messages=warning' \
        psql -XAtq -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$(postgres_port)" -U postgres -d "$target" "$@"
}

new_password() { (umask 077 && head -c 18 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$state/$1.password"); }

init_data() {
    [ ! -e "$data/PG_VERSION" ] || return 0
    step "making a private Postgres 15 in ${data#"$root"/}"
    rm -rf "$data" "$data.new"
    mkdir -p "${data%/*}"
    mkdir -m 0700 "$data.new"
    if [ "$(id -u)" = 0 ]; then chown "$server_user:" "$data.new"; fi
    (cd / && as_server "$pg15_bin/initdb" -D "$data.new" -U postgres -E UTF8 --locale=C.UTF-8 --auth=trust >/dev/null)
    printf '%s\n' '# Written by scripts/postgres.sh: passwords only, loopback only.' \
        'host all all 127.0.0.1/32 scram-sha-256' 'host replication all 127.0.0.1/32 scram-sha-256' \
        | as_server tee "$data.new/pg_hba.conf" >/dev/null
    echo "include = 'headwater.conf'" | as_server tee -a "$data.new/postgresql.conf" >/dev/null
    rm -f "$state/postgres.password"
    mv "$data.new" "$data"
}

write_settings() {
    as_server tee "$data/headwater.conf" >/dev/null <<-'CONF'
		# Written anew at every start by scripts/postgres.sh.
		listen_addresses = '127.0.0.1'
		unix_socket_directories = ''
		password_encryption = 'scram-sha-256'
		wal_level = logical
		max_wal_senders = 16
		max_replication_slots = 16
		# A streamer that stays away must not fill the disk: its slot is given up at this distance.
		max_slot_wal_keep_size = '8GB'
		max_wal_size = '2GB'
		log_line_prefix = '%m [%p] %a '
	CONF
}

# The superuser's password is set without a server, so that a lost password file is no lost database.
set_superuser_password() {
    [ ! -s "$state/postgres.password" ] || return 0
    new_password postgres
    (cd / && as_server "$pg15_bin/postgres" --single -D "$data" postgres >>"$state/postgres.log" 2>&1) \
        <<<"alter role postgres password '$(cat "$state/postgres.password")'" \
        || fail "the superuser's password could not be set" "Look into $state/postgres.log"
}

# Backends of a killed server may outlive it for a moment, and hold its shared memory.
end_orphans() {
    local tries process
    for tries in {1..50}; do
        local orphans=()
        for process in /proc/[0-9]*; do
            [ "$(readlink "$process/cwd" 2>/dev/null)" != "$data" ] || orphans+=("${process#/proc/}")
        done
        [ ${#orphans[@]} -gt 0 ] || return 0
        [ "$tries" != 20 ] || kill -QUIT "${orphans[@]}" 2>/dev/null || true
        [ "$tries" != 40 ] || kill -KILL "${orphans[@]}" 2>/dev/null || true
        sleep 0.1
    done
    fail "processes of a killed Postgres do not end: ${orphans[*]}" "End them by hand (kill -9), then try again."
}

# A killed server leaves its lock file. Postgres refuses to start while a process has the pid in it: the killed
# one for as long as nobody has waited for it, or a stranger that got the number.
forget_stale_lock() {
    local pid
    pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null) || return 0
    if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = postgres ]; then await_end "$pid" 5 || true; fi
    rm -f "$data/postmaster.pid"
}

start_postgres() {
    locate_data
    local pid
    pid=$(postgres_pid)
    if [ -n "$pid" ] && [ -n "${HEADWATER_PG_PORT:-}" ] && [ "$(postgres_port)" != "$HEADWATER_PG_PORT" ]; then
        step "moving Postgres from port $(postgres_port) to $HEADWATER_PG_PORT"
        stop_postgres
        pid=
    fi
    if [ -n "$pid" ]; then
        echo "$pid" >"$state/postgres.pid"
        return 0
    fi
    require_free_port "$pg_port" Postgres HEADWATER_PG_PORT
    end_orphans
    forget_stale_lock
    init_data
    write_settings
    set_superuser_password
    local log=$state/postgres.log log_start
    touch "$log"
    log_start=$(stat -c %s "$log")
    (
        cd /
        if [ "$(id -u)" = 0 ]; then
            exec setsid setpriv --reuid="$server_user" --regid="$server_user" --init-groups -- \
                "$pg15_bin/postgres" -D "$data" -p "$pg_port"
        fi
        exec setsid "$pg15_bin/postgres" -D "$data" -p "$pg_port"
    ) </dev/null >>"$log" 2>&1 9>&- &
    pid=$!
    # Recovery after a crash may take a while; the deadline is for a server that hangs.
    local deadline=$((SECONDS + 300))
    until [ "$(postgres_pid)" = "$pid" ] && [ "$(sed -n '8s/ *$//p' "$data/postmaster.pid" 2>/dev/null)" = ready ]; do
        if ! kill -0 "$pid" 2>/dev/null || [ $SECONDS -gt $deadline ]; then
            tail -c "+$((log_start + 1))" "$log" | tail -n 15 >&2
            fail "Postgres did not start" "The lines above are the end of $log"
        fi
        sleep 0.05
    done
    echo "$pid" >"$state/postgres.pid"
}

stop_postgres() {
    if [ ! -e "$state/pgdata" ]; then return 0; fi
    locate_data
    local pid
    pid=$(postgres_pid)
    if [ -n "$pid" ]; then
        kill -INT "$pid"
        if ! await_end "$pid" 60; then
            say "Postgres does not stop; stopping it at once (it recovers at the next start)"
            kill -QUIT "$pid" 2>/dev/null || true
            await_end "$pid" 20 || true
        fi
    fi
    rm -f "$state/postgres.pid"
}
