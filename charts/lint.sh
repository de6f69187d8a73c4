#!/usr/bin/env bash
# Lints the chart and checks what it renders, without a cluster, and tries its alerts. HELM and PROMTOOL name others than those on the
# PATH or in the cache.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${VOLTTRON_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/volttron-operator}
helm=${HELM:-$(command -v helm || ls -t "$cache"/helm/*/helm 2>/dev/null | head -n 1)}
[ -n "$helm" ] || { echo "helm is missing: put it on the PATH, set HELM, or run \`cargo run -p local-cluster -- build\`" >&2; exit 1; }

# The schemas of the Kubernetes that the tests run on, from its Go module.
kubernetes=$(cd tests/cluster/kubernetes && go mod download k8s.io/kubernetes && go list -m -f '{{.Dir}}' k8s.io/kubernetes)
cargo build --quiet --package volttron-tests --bin chart-schema-check
target=${CARGO_TARGET_DIR:-target}

chart=charts/volttron-operator
check() { "$target/debug/chart-schema-check" --openapi "$kubernetes/api/openapi-spec/v3" "$@"; }
render() { "$helm" template volttron-operator "$chart" --namespace volttron-system "$@"; }

"$helm" lint --strict "$chart"
render | check --crds crds/yaml
for values in "$chart"/ci/*.yaml; do
  "$helm" lint --strict --quiet "$chart" --values "$values"
  render --values "$values" | check --crds crds/yaml --skip ServiceMonitor --skip PrometheusRule
done

# Prometheus' own tool, out of Debian's package, which is not installed: it would start a server.
promtool=${PROMTOOL:-$(command -v promtool || echo "$cache/prometheus/usr/bin/promtool")}
if [ ! -x "$promtool" ]; then
  command -v apt-get >/dev/null || { echo "promtool is missing: put it on the PATH, or set PROMTOOL" >&2; exit 1; }
  package=$(mktemp -d)
  trap 'rm -rf "$package"' EXIT
  (cd "$package" && { apt-get -qq -o APT::Sandbox::User=root download prometheus || { apt-get -qq update && apt-get -qq -o APT::Sandbox::User=root download prometheus; }; })
  dpkg-deb -x "$package"/prometheus_*.deb "$package/files"
  mkdir -p "$cache/prometheus/usr/bin"
  # Renamed as a whole, so that no other run finds half of it.
  mv "$package/files/usr/bin/promtool" "$cache/prometheus/usr/bin/promtool.$$"
  mv "$cache/prometheus/usr/bin/promtool.$$" "$cache/prometheus/usr/bin/promtool"
fi
"$promtool" check rules "$chart/files/alerts.yaml"
"$promtool" test rules charts/alerts-test.yaml

# A check that cannot fail is none.
if render | sed 's/runAsNonRoot:/runAsNotRoot:/' | check 2>/dev/null; then
  echo "the schema check let a misspelt field pass" >&2; exit 1
fi
if render --set replica=2 >/dev/null 2>&1; then
  echo "values.schema.json let an unknown value pass" >&2; exit 1
fi
