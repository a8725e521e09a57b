# The programs: what is installed is used; what is not comes from Debian's packages, unpacked into a folder of its own. Nothing is
# installed and no service starts, so no root is needed, and removing the folder removes everything.

# name, and the package that has it.
declare -A PACKAGES=([nats-server]=nats-server [etcd]=etcd-server [nginx]=nginx [wrk]=wrk)
declare -A PROGRAMS=()
NCHAN=

find_programs() {
    local name missing=()
    for name in "${!PACKAGES[@]}"; do
        PROGRAMS[$name]=$(type -P "$name" || find "$DEBIAN/root" -path "*/*bin/$name" -type f 2>/dev/null | head -n 1)
        [[ -n ${PROGRAMS[$name]} ]] || missing+=("${PACKAGES[$name]}")
    done
    NCHAN=$(find /usr/lib/nginx "$DEBIAN/root/usr/lib/nginx" -name ngx_nchan_module.so 2>/dev/null | head -n 1)
    [[ -n $NCHAN ]] || missing+=(libnginx-mod-nchan)
    MISSING=("${missing[@]}")
}

get_programs() {
    find_programs
    if ((${#MISSING[@]})); then
        say "getting from Debian: ${MISSING[*]}"
        unpack "${MISSING[@]}"
        find_programs
        ((${#MISSING[@]} == 0)) || die "still missing: ${MISSING[*]}"
    fi
    local libraries
    libraries=$(find "$DEBIAN/root/usr/lib" -maxdepth 2 -name '*.so*' -printf '%h\n' 2>/dev/null | sort -u | paste -sd:)
    export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
}

# With all that they depend on and that this machine lacks, as apt works it out.
unpack() {
    local names
    mkdir -p "$DEBIAN/packages" "$DEBIAN/root"
    command -v apt-get >/dev/null || die "this is not Debian: put ${MISSING[*]} on the PATH"
    names=$(closure "$@")
    # A machine that never asked has no lists; only root may fetch them.
    [[ -n $names || $(id -u) != 0 ]] || { apt-get update -qq >/dev/null 2>&1; names=$(closure "$@"); }
    [[ -n $names ]] || { cat "$DEBIAN/apt.log" >&2; die "apt knows no such packages: try apt-get update"; }
    # shellcheck disable=SC2086
    (cd "$DEBIAN/packages" && apt-get download -q $names) >>"$DEBIAN/apt.log" 2>&1 || { cat "$DEBIAN/apt.log" >&2; die "apt-get download failed"; }
    local package
    for package in "$DEBIAN"/packages/*.deb; do dpkg-deb --extract "$package" "$DEBIAN/root"; done
}

closure() { apt-get --simulate install --no-install-recommends "$@" 2>"$DEBIAN/apt.log" | awk '/^Inst/ {print $2}'; }

# build: the load tool, and the server unless one is given.
build() {
    local what=()
    [[ -n ${COMPARE:-} ]] || what+=(--bin compare)
    [[ -n ${EVERMESH:-} ]] || what+=(--bin evermesh)
    if ((${#what[@]})); then
        say "building: ${what[*]}"
        "${CARGO:-cargo}" build --locked --release --workspace "${what[@]}" || die "the build failed"
    fi
    COMPARE=${COMPARE:-$TARGET/release/compare}
    BUILT=${EVERMESH:+" (a binary that was given)"}
    EVERMESH=${EVERMESH:-$TARGET/release/evermesh}
}

versions() {
    local name
    say "evermesh: $("$EVERMESH" --version 2>&1 | head -n 1)$BUILT, tree at $(git describe --always --dirty 2>/dev/null || echo 'no commit')"
    say "nats-server: $("${PROGRAMS[nats-server]}" --version)"
    say "etcd: $("${PROGRAMS[etcd]}" --version | head -n 1)"
    say "nginx: $("${PROGRAMS[nginx]}" -v 2>&1 | sed 's/.*version: //')"
    for name in libnginx-mod-nchan nats-server etcd-server wrk; do
        say "package $name: $(find "$DEBIAN/packages" -name "${name}_*.deb" -printf '%f\n' 2>/dev/null | sed 's/%3a/:/' | cut -d_ -f2 | grep . || dpkg-query -W -f '${Version}' "$name" 2>/dev/null)"
    done
}
