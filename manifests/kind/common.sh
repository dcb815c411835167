# shellcheck shell=bash
# Shared by up, test and down. Every command has an explicit context, independent of the current one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

CLUSTER=nereid
CONTEXT=kind-$CLUSTER
export CERT_MANAGER=v1.17.0 ENVOY_GATEWAY=v1.8.0 KSERVE=v0.20.0

k() {
    kubectl --context "$CONTEXT" "$@"
}

h() {
    helm --kube-context "$CONTEXT" "$@"
}

fail() {
    echo "error: $*" >&2
    exit 1
}

# need <program> <where to install it from>
need() {
    command -v "$1" >/dev/null || fail "$1 is missing; next: $2"
}

need_all() {
    need docker "https://docs.docker.com/engine/install"
    need kind "https://kind.sigs.k8s.io/docs/user/quick-start (0.30 or later)"
    need kubectl "https://kubernetes.io/docs/tasks/install-tools"
    need helm "https://helm.sh/docs/intro/install"
    docker info >/dev/null 2>&1 || fail "docker does not respond; next: start it, or join its group"
}

has_cluster() {
    kind get clusters 2>/dev/null | grep -qx "$CLUSTER"
}

# until_true <seconds> <what for> <command...>
until_true() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        ((SECONDS < deadline)) || fail "not in time: $what"
        sleep 1
    done
}
