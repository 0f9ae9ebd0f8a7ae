#!/bin/sh
# Tries an installation of podwall: what a policy allows connects, what it does not allow does not, from
# the server's own node and from another one. See docs/install.md.
#
#   sh connectivity-check.sh
#
# It takes the first two nodes with a ready agent and the image that the agents run, which is on these
# nodes already. NODES="a b" and IMAGE=… name others, SYSTEM another namespace than podwall-system.
# It makes the namespace podwall-check and removes it again, whatever happens.
#
# Exit status: 0 everything as it should be, 1 a connection was not, 2 it could not be tried.
set -eu

ns=podwall-check
system=${SYSTEM:-podwall-system}
seconds=60 # for pods to start, and for a policy to be in force

fail() {
	echo "connectivity check: $*" >&2
	exit 2
}

ready_nodes() {
	kubectl -n "$system" get pods -l app.kubernetes.io/name=podwall -o \
		jsonpath='{range .items[*]}{.spec.nodeName}{" "}{range .status.conditions[?(@.type=="Ready")]}{.status}{end}{"\n"}{end}' |
		awk '$2 == "True" { print $1 }' | sort | head -n 2
}

nodes=${NODES:-$(ready_nodes)}
[ -n "$nodes" ] || fail "no agent in namespace $system is ready: kubectl -n $system get pods -o wide"
image=${IMAGE:-$(kubectl -n "$system" get daemonset podwall -o jsonpath='{.spec.template.spec.containers[0].image}')}
# shellcheck disable=SC2086
set -- $nodes
here=$1 there=${2:-}

pod() { # name, role, node
	cat <<EOF
---
apiVersion: v1
kind: Pod
metadata: {name: $1, namespace: $ns, labels: {role: $2}}
spec:
  nodeName: $3
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  tolerations: [{operator: Exists}]
  securityContext: {runAsNonRoot: true, runAsUser: 65534, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: main
      image: $image
      imagePullPolicy: IfNotPresent
      command: [/usr/bin/podwall-gate, serve, "--addr=:8080"]
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
EOF
}

connects() { # from: prints what the client says
	kubectl -n $ns exec "$1" -- /usr/bin/podwall-gate connect "--to=$to" --timeout=3s 2>&1
}

if kubectl get namespace $ns >/dev/null 2>&1; then
	fail "the namespace $ns is there already: kubectl delete namespace $ns"
fi
trap 'kubectl delete namespace $ns --wait=false >/dev/null 2>&1' EXIT
trap 'exit 2' INT TERM
kubectl create namespace $ns >/dev/null || fail "making the namespace $ns"
clients="friend-here foe-here"
[ -z "$there" ] || clients="$clients friend-there foe-there"
{
	pod server server "$here"
	for client in $clients; do
		case $client in *-here) node=$here ;; *) node=$there ;; esac
		pod "$client" "${client%-*}" "$node"
	done
} | kubectl apply -f - >/dev/null || fail "making the pods"
kubectl -n $ns wait --for=condition=Ready pods --all --timeout=${seconds}s >/dev/null ||
	fail "the pods did not start: $(kubectl -n $ns get pods -o wide)"
ip=$(kubectl -n $ns get pod server -o jsonpath='{.status.podIP}')
case $ip in *:*) to="[$ip]:8080" ;; *) to="$ip:8080" ;; esac

# Without a policy everybody connects; else what is denied below would prove nothing.
for client in $clients; do
	end=$(($(date +%s) + seconds))
	until said=$(connects "$client"); do
		[ "$(date +%s)" -lt $end ] || fail "without any policy $client does not reach the server: $said"
		sleep 1
	done
done

kubectl apply -f - >/dev/null <<EOF || fail "making the policy"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server, namespace: $ns}
spec:
  podSelector: {matchLabels: {role: server}}
  ingress: [{from: [{podSelector: {matchLabels: {role: friend}}}]}]
EOF
end=$(($(date +%s) + seconds))
while connects foe-here >/dev/null && [ "$(date +%s)" -lt $end ]; do sleep 1; done

wrong=0
for client in $clients; do
	case $client in *-here) where="the same node ($here)" ;; *) where="another node ($there)" ;; esac
	case $client in friend*) want=allowed ;; *) want=denied ;; esac
	if said=$(connects "$client"); then got=connected; else got="not connected"; fi
	mark=ok
	case $want/$got in
	allowed/connected) ;;
	denied/not*)
		# A refusal, or no client at all, is no denial by podwall.
		case $said in *timeout*) ;; *) mark=WRONG got="$said" ;; esac ;;
	*) mark=WRONG ;;
	esac
	[ $mark = ok ] || wrong=1
	echo "$mark: from $where, $want: $got"
done
[ -n "$there" ] || echo "not tried: from another node (one node has a ready agent)"
exit $wrong
