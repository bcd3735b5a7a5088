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

# Install a wheel, and nothing else: `install VENV WHEEL`.
install() { "$1/bin/pip" install --quiet --disable-pip-version-check --force-reinstall --no-deps "$2"; }

# Jobs run beside each other, $most at a time, and each has a log. A hang is killed.
logs=$work/logs
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
    timeout -s KILL 280 "$@" >"$logs/$name" 2>&1 &
    jobs[$name]=$!
}
finish() {
    local failed=0 name
    for name in "${!jobs[@]}"; do
        if wait "${jobs[$name]}"; then
            echo "$name: passed"
        else
            failed=1
            echo "$name: FAILED"
            tail -n 80 "$logs/$name"
        fi
    done
    jobs=()
    return $failed
}
