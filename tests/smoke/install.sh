# Installs what ./test lacks, and says what. Debian packages need root; the Python tools go into .venv, each checked by its hash; npm packages
# go beside their lock files.

install_missing() {
    command -v "$CARGO" >/dev/null || die "cargo is missing: install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or newer, with rustfmt and clippy"
    local packages=()
    command -v cc >/dev/null || packages+=(gcc libc6-dev)
    command -v curl >/dev/null || packages+=(curl)
    command -v node >/dev/null || packages+=(nodejs)
    command -v npm >/dev/null || packages+=(npm)
    command -v chromium >/dev/null || packages+=(chromium)
    # The fault harness gives each node a network of its own; without it, it does with less.
    command -v bridge >/dev/null || packages+=(iproute2)
    # It says whether the unit in deploy/ is right.
    command -v systemd-analyze >/dev/null || packages+=(systemd)
    python3 -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3 python3-venv)
    install_packages "${packages[@]}"
    (($(node -p 'process.versions.node.split(".")[0]') >= 20)) || die "node $(node --version) is too old: the browser tests need 20 or newer"
    install_python_tools
    install_npm_packages tests/browser tests/lint web/client examples/clients/javascript
}

install_packages() {
    (($#)) || return 0
    if [[ $(id -u) != 0 ]]; then
        die "missing: $*. As root: apt-get install $*"
    fi
    say "installing Debian packages: $*"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@"; } >"$SMOKE/apt.log" 2>&1 ||
        { tail -n 20 "$SMOKE/apt.log"; die "apt-get could not install $*"; }
}

# The stamp holds the sums of the requirements, so that a changed pin installs again and an unchanged one costs nothing.
install_python_tools() {
    local files=(load-tests/requirements.txt tests/requirements.txt examples/clients/python/requirements.txt) sum file
    sum=$(cat "${files[@]}" | sha256sum)
    [[ -f $VENV/.installed && $(<"$VENV/.installed") == "$sum" ]] && return
    say "installing into .venv: k6 (load tests), schemathesis (the OpenAPI document against a running node) and what the Python examples need"
    rm -rf "$VENV"
    python3 -m venv "$VENV" || die "python3 could not make a virtual environment in .venv"
    for file in "${files[@]}"; do
        "$VENV/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$file" || die "pip could not install $file"
    done
    printf '%s\n' "$sum" >"$VENV/.installed"
}

# install_npm_packages FOLDER...: what the folder's lock file says, again only when that has changed.
install_npm_packages() {
    local folder sum
    for folder in "$@"; do
        sum=$(sha256sum <"$folder/package-lock.json")
        [[ -f $folder/node_modules/.installed && $(<"$folder/node_modules/.installed") == "$sum" ]] && continue
        say "installing the npm packages of $folder"
        npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund --loglevel=error >"$SMOKE/npm.log" 2>&1 ||
            { tail -n 20 "$SMOKE/npm.log"; die "npm could not install the packages of $folder"; }
        printf '%s\n' "$sum" >"$folder/node_modules/.installed"
    done
}
