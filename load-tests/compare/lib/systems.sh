# The systems: three nodes each where it has them, all on this machine, all data below one folder.
#
# Each has `X_up` and `X_down`, its addresses in X_AT, and the names of its processes in X_NODES.

EVERMESH_NODES=(evermesh1 evermesh2 evermesh3)
NATS_NODES=(nats1 nats2 nats3)
ETCD_NODES=(etcd1 etcd2 etcd3)
NCHAN_NODES=(nchan)
AXUM_NODES=(axum)

addresses() {
    EVERMESH_AT=$(at 0 3) EVERMESH_PEERS=$(at 10 3)
    NATS_AT=$(at 20 3) NATS_PEERS=$(at 30 3)
    ETCD_AT=$(at 50 3) ETCD_PEERS=$(at 60 3)
    NCHAN_AT=$(at 70 1) AXUM_AT=$(at 80 1)
}

ready() { curl --silent --fail --output /dev/null "http://$1"; }

# evermesh_node NUMBER: 0, 1 or 2; the first founds the cluster, and a folder with data in it goes on.
evermesh_node() {
    local number=$1 data=$WORK/data/evermesh$(($1 + 1)) how=()
    if [[ ! -d $data ]]; then
        if ((number == 0)); then how=(--bootstrap); else how=(--join "$(without "$EVERMESH_PEERS" "$number")"); fi
    fi
    EVERMESH_SECRET=compare-compare-compare start "evermesh$((number + 1))" "$EVERMESH" serve --name "n$((number + 1))" --data "$data" \
        --listen "$(nth "$EVERMESH_AT" "$number")" --peer-listen "$(nth "$EVERMESH_PEERS" "$number")" "${how[@]}"
    wait_for "evermesh" 30 ready "$(nth "$EVERMESH_AT" "$number")/readyz"
}

# That all three are members is seen by a stream of three replicas.
evermesh_up() {
    local number
    for number in 0 1 2; do evermesh_node "$number"; done
    wait_for "evermesh with three nodes" 30 "$COMPARE" ask create --system evermesh --at "$EVERMESH_AT" --stream ready
}

nats_node() {
    local number=$1 name=nats$(($1 + 1)) routes
    routes=$(without "$NATS_PEERS" "$number" | sed 's|[^,]*|"nats://&"|g')
    cat >"$WORK/$name.conf" <<END
server_name: "n$((number + 1))"
listen: "$(nth "$NATS_AT" "$number")"
jetstream { store_dir: "$WORK/data/$name", max_memory_store: 1GB, max_file_store: 50GB }
cluster { name: "compare", listen: "$(nth "$NATS_PEERS" "$number")", routes: [$routes] }
END
    start "$name" "${PROGRAMS[nats-server]}" --config "$WORK/$name.conf"
}

nats_up() {
    local number
    for number in 0 1 2; do nats_node "$number"; done
    wait_for "NATS JetStream" 60 "$COMPARE" ask create --system nats --at "$NATS_AT" --stream ready
}

etcd_node() {
    local number=$1 name=etcd$(($1 + 1)) all=() other
    for other in 0 1 2; do all+=("etcd$((other + 1))=http://$(nth "$ETCD_PEERS" "$other")"); done
    start "$name" "${PROGRAMS[etcd]}" --name "$name" --data-dir "$WORK/data/$name" --log-level error \
        --listen-client-urls "http://$(nth "$ETCD_AT" "$number")" --advertise-client-urls "http://$(nth "$ETCD_AT" "$number")" \
        --listen-peer-urls "http://$(nth "$ETCD_PEERS" "$number")" --initial-advertise-peer-urls "http://$(nth "$ETCD_PEERS" "$number")" \
        --initial-cluster "$(IFS=,; printf '%s' "${all[*]}")" --quota-backend-bytes 8589934592
}

etcd_up() {
    local number
    for number in 0 1 2; do etcd_node "$number"; done
    for number in 0 1 2; do wait_for "etcd" 30 ready "$(nth "$ETCD_AT" "$number")/health"; done
}

# The module wants nginx' own folder whatever the configuration says; where nginx is not installed, it is there while nginx runs.
NGINX_FOLDER=/var/lib/nginx

nchan_up() {
    mkdir -p "$WORK/data/nchan"
    if [[ ! -d $NGINX_FOLDER ]]; then
        mkdir "$NGINX_FOLDER" || die "nchan needs $NGINX_FOLDER: make it, or install nginx"
        MADE_FOLDER=$NGINX_FOLDER
    fi
    cat >"$WORK/nchan.conf" <<END
load_module $NCHAN;
daemon off;
worker_processes $(nproc);
worker_rlimit_nofile 20000;
pid $WORK/data/nchan/pid;
error_log stderr warn;
events { worker_connections 8192; }
http {
    access_log off;
    tcp_nodelay on;
    client_body_temp_path $WORK/data/nchan/body;
    proxy_temp_path $WORK/data/nchan/proxy;
    fastcgi_temp_path $WORK/data/nchan/fastcgi;
    uwsgi_temp_path $WORK/data/nchan/uwsgi;
    scgi_temp_path $WORK/data/nchan/scgi;
    nchan_shared_memory_size 512M;
    server {
        listen $NCHAN_AT;
        location ~ ^/pub/(.+)\$ {
            nchan_publisher websocket http;
            nchan_channel_id \$1;
            nchan_message_buffer_length 20000;
            nchan_message_timeout 5m;
        }
        location ~ ^/sub/(.+)\$ {
            nchan_subscriber websocket;
            nchan_channel_id \$1;
            nchan_subscriber_first_message newest;
        }
    }
}
END
    start nchan "${PROGRAMS[nginx]}" -c "$WORK/nchan.conf" -p "$WORK/data/nchan" -e stderr
    wait_for "nchan" 10 listening "${NCHAN_AT#*:}"
}

axum_up() {
    start axum "$COMPARE" axum --listen "$AXUM_AT"
    wait_for "axum" 10 listening "${AXUM_AT#*:}"
}

# up SYSTEM…, down: only what a case needs runs while it is measured.
up() {
    local system
    for system in "$@"; do "${system}_up"; done
}

tidy() {
    [[ -z ${MADE_FOLDER:-} ]] || rm -rf "$MADE_FOLDER"
    MADE_FOLDER=
}

down() {
    stop_all
    tidy
    rm -rf "${WORK:?}/data"
    mkdir -p "$WORK/data"
}
