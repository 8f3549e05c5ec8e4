# shellcheck shell=bash
# The pages of the orders example: a typed client made from what the database declares, bundled, and served by the streamer
# under /app/. Sourced by scripts/stack, which sets `state`, `database` and `binary`.

app=examples/orders/app

# What the pages are made of; the generator is part of the streamer.
pages_sum() { find $app client/src generate -type f -not -path '*/node_modules/*' -not -path '*/generated/*' -not -path '*/dist/*' -print0 \
    | sort -z | xargs -0 sha256sum | cat - "$1" | sha256sum; }

# make_pages GENERATOR OPENAPI FOLDER: builds them into the folder.
make_pages() {
    node_modules $app \
        && "$1" generate "$2" --output $app/src/generated \
        && (cd $app && npx vite build --logLevel warn --emptyOutDir --outDir "$3")
}

# Anew only when something has changed. The stack is whole without them: a failure is told, and no more.
build_pages() {
    local document=$state/openapi.json log=$state/pages.log
    if ! command -v npm >/dev/null; then
        say "note: there is no npm, so the pages of the orders example are not built; with Node 20: make up"
        return 0
    fi
    run_psql "$database" -c 'select headwater.openapi()' >"$document"
    if [ -e "$state/pages/index.html" ] && [ "$(pages_sum "$document")" = "$(cat "$state/pages.sha256" 2>/dev/null)" ]; then return 0; fi
    step "building the pages of the orders example"
    if (make_pages "$binary" "$document" "$state/pages") >"$log" 2>&1; then
        pages_sum "$document" >"$state/pages.sha256"
    else
        say "note: the pages of the orders example could not be built; why: $log"
    fi
}
