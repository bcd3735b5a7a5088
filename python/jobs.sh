# The common parts of `check` and `check-others`: environments, and jobs beside each other. Both source
# it. Their work is kept in the target folder.

say() { printf '\n-- %s (%d s)\n' "$*" "$SECONDS"; }

python=${PYTHON:-python3}
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }
version=$(version_of "$python")
case $version in
2.* | 3.[0-9])
    echo "skipped: $python is Python $version, older than 3.10"
    exit 0
    ;;
esac
target=${CARGO_TARGET_DIR:-$PWD/../target}
work=$target/python/$version
mkdir -p "$work"
logs=$work/logs outcomes=$work/outcomes

# Make an environment: `environment FOLDER PYTHON REQUIREMENTS`. It is kept as long as the requirements
# are the same.
environment() {
    local venv=$1 python=$2 requirements=$3
    if cmp -s "$requirements" "$venv/requirements.txt"; then return; fi
    rm -rf "$venv"
    if ! "$python" -m venv "$venv"; then
        # Debian has the module in a package of its own.
        as_root=$([ "$(id -u)" = 0 ] || echo sudo)
        $as_root apt-get install -qy python3-venv
        "$python" -m venv "$venv"
    fi
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
    cp "$requirements" "$venv/requirements.txt"
}

# End the script if PyPI cannot be reached. Otherwise $newest is the newest version of Twisted.
need_pypi() {
    # Not every Python has pip outside of an environment.
    environment "$work/venv-empty" "$python" /dev/null
    newest=$("$work/venv-empty/bin/pip" index versions twisted 2>/dev/null | sed -n 's/^twisted (\(.*\))$/\1/p' || true)
    if [ -z "$newest" ]; then
        echo "skipped: PyPI cannot be reached"
        exit 0
    fi
}

# Install a wheel or a folder of sources, and nothing else: `install VENV PATH`.
install() { "$1/bin/pip" install --quiet --disable-pip-version-check --force-reinstall --no-deps "$2"; }

# Jobs run beside each other, $most at a time, and each has a log. A hang is killed.
most=$(($(nproc) + 2))
declare -A jobs
begin() {
    local name=$1
    shift
    if [ -n "${jobs[$name]:-}" ]; then
        echo "two jobs have the name $name"
        exit 1
    fi
    while [ "$(jobs -rp | wc -l)" -ge "$most" ]; do wait -n || true; done
    mkdir -p "$logs"
    (
        SECONDS=0 code=0
        timeout -s KILL 600 "$@" >"$logs/$name" 2>&1 || code=$?
        echo "$SECONDS" >"$logs/$name.seconds"
        exit "$code"
    ) &
    jobs[$name]=$!
}

# Wait for all jobs, and print the end of the log of each that has failed.
finish() {
    local failed=0 name
    for name in "${!jobs[@]}"; do
        if wait "${jobs[$name]}"; then
            echo "$name: passed ($(cat "$logs/$name.seconds") s)"
        else
            failed=1
            echo "$name: FAILED"
            tail -n 80 "$logs/$name"
        fi
    done
    jobs=()
    return $failed
}

# Twisted's tests of reactors: `reactor_tests VENV SET KIND [OPTION ..]`. The outcomes stand in
# $outcomes/SET/KIND[OPTION].json.
reactor_tests() {
    local venv=$1 set=$2 kind=$3 backend=mio reactor=ropewalk.reactor.RopewalkReactor
    shift 3
    case $kind in
    epoll) reactor=conformance.PlainEpollReactor ;;
    asyncio) reactor=ropewalk.asyncioreactor.AsyncioRopewalkReactor ;;
    *) backend=$kind ;;
    esac
    mkdir -p "$outcomes/$set"
    begin "$set-$kind$*" env ROPEWALK_BACKEND="$backend" "$venv/bin/python" conformance.py "$reactor" \
        "$outcomes/$set/$kind$*.json" --work "$work/trial-$set-$kind$*" "$@"
}

# Suites with a global reactor: `suite VENV SET KIND NAME SUITE ..`. The outcomes stand in
# $outcomes/SET/KIND/NAME.json.
suite() {
    local venv=$1 set=$2 kind=$3 name=$4
    shift 4
    on_reactor "$venv" "$kind" "$name-$kind" "$outcomes/$set/$kind/$name.json" "$@"
}

# The tests of a set that did not pass, again on Twisted's epoll reactor: `left_over VENV SET KIND ..`.
# The tests that pass there have to pass on ours. Their outcomes stand in $outcomes/SET/epoll.json.
left_over() {
    local venv=$1 set=$2
    shift 2
    on_reactor "$venv" epoll "$set-epoll" "$outcomes/$set/epoll.json" --again "${@/#/$outcomes/$set/}"
}

on_reactor() {
    local venv=$1 kind=$2 job=$3 file=$4 backend=mio reactor=$2
    shift 4
    case $kind in
    mio | io_uring) backend=$kind reactor=ropewalk ;;
    asyncio) reactor=ropewalk-asyncio ;;
    esac
    mkdir -p "$(dirname "$file")"
    # autobahn's tests ask for the variable.
    begin "$job" env ROPEWALK_BACKEND="$backend" USE_TWISTED=1 "$venv/bin/python" suites.py "$reactor" "$file" \
        --work "$work/trial-$job" "$@"
}

# Print io_uring if the system has it: `ring VENV`.
ring() {
    local ask='from ropewalk._native import Engine; print(Engine(None, "io_uring").backend)'
    "$1/bin/python" -c "$ask" | grep -x io_uring || true
}
