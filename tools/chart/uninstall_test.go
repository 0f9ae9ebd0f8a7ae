// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Whoever applies the output of helm template applies hooks too, and these uninstall
// podwall. So there are none unless somebody asks for them.
func TestNothingUninstallsByDefault(t *testing.T) {
	if r := mustRender(t, map[string]any{}); r.Hooks != "" || r.Cleaner != "" {
		t.Errorf("hooks without being asked for:\n%s", r.Hooks)
	}
}

func uninstalling() map[string]any { return at("uninstall.enabled", true) }

// What cleans the nodes runs where the agents run, is of their release, comes from
// their registry, and has no more rights.
func TestTheCleanerRunsWhatIsInstalled(t *testing.T) {
	for name, values := range map[string]map[string]any{"defaults": uninstalling(), "all": mustRead(t, allFile)} {
		r := mustRender(t, values)
		agent := mustDecode(t, r.Objects)["DaemonSet/podwall"].(*appsv1.DaemonSet).Spec.Template.Spec
		clean := mustDecode(t, r.Cleaner)["DaemonSet/podwall-uninstall"].(*appsv1.DaemonSet).Spec.Template.Spec
		for what, diff := range map[string]string{
			"pull secrets":  cmp.Diff(agent.ImagePullSecrets, clean.ImagePullSecrets),
			"security":      cmp.Diff(agent.SecurityContext, clean.SecurityContext),
			"tolerations":   cmp.Diff(agent.Tolerations, clean.Tolerations),
			"node selector": cmp.Diff(agent.NodeSelector, clean.NodeSelector),
			"affinity":      cmp.Diff(agent.Affinity, clean.Affinity),
			"priority":      cmp.Diff(agent.PriorityClassName, clean.PriorityClassName),
		} {
			if diff != "" {
				t.Errorf("%s: %s (-agent +cleaner):\n%s", name, what, diff)
			}
		}
		containers := append(clean.InitContainers, clean.Containers...)
		if len(containers) != 3 || *clean.AutomountServiceAccountToken {
			t.Fatalf("%s: %d containers clean, want 3, without a token", name, len(containers))
		}
		for _, c := range containers {
			if c.Image != agent.Containers[0].Image || c.ImagePullPolicy != agent.Containers[0].ImagePullPolicy {
				t.Errorf("%s: container %s runs %s, the agent %s", name, c.Name, c.Image, agent.Containers[0].Image)
			}
			if c.Name != "gate" {
				confined(t, c, "NET_ADMIN")
			}
		}
		for _, v := range clean.Volumes { // what the agent mounts is the same place of the node
			for _, a := range agent.Volumes {
				if a.Name == v.Name && cmp.Diff(a, v) != "" {
					t.Errorf("%s: volume %s (-agent +cleaner):\n%s", name, v.Name, cmp.Diff(a, v))
				}
			}
		}
	}
}

// helm makes hooks by weight and deletes them in the opposite order. Agents go
// before nodes are cleaned, nodes before anybody waits for them; the rights go last,
// and what cleans stays where a node is left.
func TestTheHooksComeAndGoInOrder(t *testing.T) {
	objects := mustDecode(t, mustRender(t, uninstalling()).Hooks)
	weight := func(name string) int {
		o, ok := objects[name].(metav1.Object)
		if !ok {
			t.Fatalf("no hook %s", name)
		}
		a := o.GetAnnotations()
		n, err := strconv.Atoi(a["helm.sh/hook-weight"])
		if err != nil || a["helm.sh/hook"] != "pre-delete" {
			t.Errorf("%s: annotations %v", name, a)
		}
		succeeded := strings.Contains(a["helm.sh/hook-delete-policy"], "hook-succeeded")
		keeps := name == "DaemonSet/podwall-uninstall"
		if succeeded == keeps || strings.Contains(a["helm.sh/hook-delete-policy"], "hook-failed") {
			t.Errorf("%s: policy %s", name, a["helm.sh/hook-delete-policy"])
		}
		delete(objects, name)
		return n
	}
	order := []int{weight("ServiceAccount/podwall-uninstall"), weight("Job/podwall-stop-agents"),
		weight("DaemonSet/podwall-uninstall"), weight("Job/podwall-await-nodes")}
	if !slices.IsSorted(order) || len(slices.Compact(order)) != 4 {
		t.Errorf("weights %v", order)
	}
	for _, kind := range []string{"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"} {
		if w := weight(kind + "/podwall-uninstall"); w != order[0] {
			t.Errorf("%s has weight %d", kind, w)
		}
	}
	if len(objects) > 0 {
		t.Errorf("hooks beside those: %v", objects)
	}
}

// A Job has a token and no right on its node; a dead node is no place for it, and it
// does not begin anew when it has said what is left.
func TestTheJobsOfUninstallingHaveFewRights(t *testing.T) {
	objects := mustDecode(t, mustRender(t, mustRead(t, allFile)).Hooks)
	for _, name := range []string{"stop-agents", "await-nodes"} {
		job := objects["Job/podwall-"+name].(*batchv1.Job)
		pod := job.Spec.Template.Spec
		c := pod.Containers[0]
		s := c.SecurityContext
		if len(pod.Volumes) > 0 || *s.Privileged || *s.AllowPrivilegeEscalation || !*s.RunAsNonRoot ||
			*s.RunAsUser == 0 || len(s.Capabilities.Add) > 0 {
			t.Errorf("%s: %+v", name, s)
		}
		if !slices.Equal(c.Args, []string{"--uninstall=" + name, "--uninstall-timeout=2m"}) || *job.Spec.BackoffLimit != 0 {
			t.Errorf("%s: arguments %q, tries %d", name, c.Args, *job.Spec.BackoffLimit)
		}
		if c.Env[0].Value != "fd00::1" || len(pod.ImagePullSecrets) != 1 || pod.Tolerations[0].Key != "pool" {
			t.Errorf("%s: %+v", name, pod)
		}
		if job.Annotations["helm.sh/hook-output-log-policy"] != "hook-failed" {
			t.Errorf("%s: helm does not show what is left", name)
		}
	}
}

// A Job on a dead node would never end. Such nodes have taints, so no Job may tolerate these.
func TestNoJobOfUninstallingIsPutOnADeadNode(t *testing.T) {
	const unreachable, notReady = "node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"
	for name, values := range map[string]map[string]any{"defaults": uninstalling(), "all": mustRead(t, allFile)} {
		objects := mustDecode(t, mustRender(t, values).Hooks)
		for _, job := range []string{"stop-agents", "await-nodes"} {
			list := objects["Job/podwall-"+job].(*batchv1.Job).Spec.Template.Spec.Tolerations
			for _, o := range list {
				if o.Key == "" || o.Key == unreachable || o.Key == notReady {
					t.Errorf("%s: %s tolerates dead nodes: %+v", name, job, o)
				}
			}
			if len(list) == 0 {
				t.Errorf("%s: %s tolerates nothing", name, job)
			}
		}
	}
	for _, bad := range []map[string]any{{"operator": "Exists"}, {"key": "", "operator": "Exists"}, {"key": unreachable}, {"key": notReady}} {
		_, err := render(chartDir, at("uninstall.tolerations", []any{bad}))
		if err == nil || !strings.Contains(err.Error(), "tolerations") {
			t.Errorf("%v: got %v, want an error that names tolerations", bad, err)
		}
	}
}
