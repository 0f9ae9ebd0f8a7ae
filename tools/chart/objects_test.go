// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// kinds are the types that manifests may hold.
func kinds() map[string]func() any {
	return map[string]func() any{
		"v1/Namespace":      func() any { return &corev1.Namespace{} },
		"v1/ServiceAccount": func() any { return &corev1.ServiceAccount{} },
		"v1/Service":        func() any { return &corev1.Service{} },
		"v1/ConfigMap":      func() any { return &corev1.ConfigMap{} },
		"apps/v1/DaemonSet": func() any { return &appsv1.DaemonSet{} },
		"batch/v1/Job":      func() any { return &batchv1.Job{} },

		"rbac.authorization.k8s.io/v1/ClusterRole":        func() any { return &rbacv1.ClusterRole{} },
		"rbac.authorization.k8s.io/v1/ClusterRoleBinding": func() any { return &rbacv1.ClusterRoleBinding{} },
		"rbac.authorization.k8s.io/v1/Role":               func() any { return &rbacv1.Role{} },
		"rbac.authorization.k8s.io/v1/RoleBinding":        func() any { return &rbacv1.RoleBinding{} },

		"monitoring.coreos.com/v1/ServiceMonitor":             func() any { return &monitoringv1.ServiceMonitor{} },
		"monitoring.coreos.com/v1/PrometheusRule":             func() any { return &monitoringv1.PrometheusRule{} },
		"security.openshift.io/v1/SecurityContextConstraints": func() any { return &constraints{} },
	}
}

// decode reads manifests strictly: an unknown or repeated field is an error.
func decode(text string) (map[string]any, error) {
	list := map[string]any{}
	for _, doc := range strings.Split("\n"+text, "\n---\n") {
		var head metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(doc), &head); err != nil {
			return nil, err
		}
		if head.Kind == "" && onlyComments(doc) {
			continue
		}
		object, ok := kinds()[head.APIVersion+"/"+head.Kind]
		if !ok {
			return nil, fmt.Errorf("unknown kind %s/%s", head.APIVersion, head.Kind)
		}
		o := object()
		if err := strictly([]byte(doc), o); err != nil {
			return nil, fmt.Errorf("%s: %w", head.Kind, err)
		}
		name := head.Kind + "/" + o.(metav1.Object).GetName()
		if list[name] != nil {
			return nil, fmt.Errorf("%s is there twice", name)
		}
		list[name] = o
	}
	return list, nil
}

// strictly decodes as the API server does with strict field validation: names of
// fields are compared letter by letter.
func strictly(doc []byte, o any) error {
	data, err := yaml.YAMLToJSONStrict(doc)
	if err != nil {
		return err
	}
	strict, err := json.UnmarshalStrict(data, o)
	return errors.Join(append(strict, err)...)
}

func onlyComments(doc string) bool {
	for line := range strings.Lines(doc) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			return false
		}
	}
	return true
}

func mustDecode(t *testing.T, text string) map[string]any {
	t.Helper()
	list, err := decode(text)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// agents returns the DaemonSet that values make.
func agents(t *testing.T, values map[string]any) *appsv1.DaemonSet {
	t.Helper()
	ds, ok := mustDecode(t, mustRender(t, values).Objects)["DaemonSet/podwall"].(*appsv1.DaemonSet)
	if !ok {
		t.Fatal("no DaemonSet is rendered")
	}
	return ds
}

func TestTheDecoderRefusesAnUnknownField(t *testing.T) {
	if _, err := decode("apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {clusterIp: None}\n"); err == nil {
		t.Error("a misspelt field is accepted")
	}
}

// Each value alone, and all together, make objects of the API.
func TestEveryOptionMakesValidObjects(t *testing.T) {
	all := mustRead(t, allFile)
	mustDecode(t, mustRender(t, all).Objects)
	mustDecode(t, mustRender(t, all).Hooks)
	list, err := documented(chartDir + "/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range list {
		values := map[string]any{"metrics": map[string]any{"enabled": true}, "brNetfilter": map[string]any{"image": "kmod"},
			"api": map[string]any{"host": "192.0.2.1"}}
		if other, ok := switches()[v.path]; ok {
			values = merge(values, at(v.path, other))
		} else {
			set, _ := lookup(all, v.path)
			values = merge(values, at(v.path, set))
		}
		r, err := render(chartDir, values)
		if err != nil {
			t.Errorf("%s: %v", v.path, err)
		} else if _, err := decode(r.Objects + r.Hooks); err != nil {
			t.Errorf("%s: %v", v.path, err)
		}
	}
}

func TestTheFilesOfDeployAreValidObjects(t *testing.T) {
	files, err := filepath.Glob("../../deploy/*.yaml")
	more, err2 := filepath.Glob("../../deploy/tke/*.yaml")
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	count := 0
	for _, file := range append(files, more...) {
		if filepath.Base(file) == "values.yaml" {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode(string(bytes.TrimSpace(data))); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		count++
	}
	if count < 3 {
		t.Errorf("%d files found", count)
	}
}

// The kubelet must not kill an agent that still may wait for its first lists.
func TestTheStartUpProbeCoversTheFirstSync(t *testing.T) {
	for _, text := range []string{"1s", "1m", "90s", "5m", "1m30s", "1h2m3s", "2h"} {
		limit, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		p := agents(t, at("agent.cacheSyncTimeout", text)).Spec.Template.Spec.Containers[0].StartupProbe
		covers := time.Duration(p.FailureThreshold*p.PeriodSeconds+p.InitialDelaySeconds) * time.Second
		if covers < limit+30*time.Second || covers > limit+35*time.Second {
			t.Errorf("cacheSyncTimeout %s: the start-up probe waits %s", text, covers)
		}
	}
}

func TestProbesAskWhereTheAgentAnswers(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "", "::1"} {
		values := map[string]any{"health": map[string]any{"address": address, "port": 20300}}
		c := agents(t, values).Spec.Template.Spec.Containers[0]
		for path, p := range map[string]*corev1.Probe{"/healthz": c.StartupProbe, "/healthz ": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
			if p.HTTPGet.Host != address || p.HTTPGet.Path != strings.TrimSpace(path) || p.HTTPGet.Port.StrVal != "health" {
				t.Errorf("address %q: a probe asks %q %q at %v", address, p.HTTPGet.Host, p.HTTPGet.Path, p.HTTPGet.Port)
			}
		}
		if c.Ports[0].Name != "health" || c.Ports[0].ContainerPort != 20300 || !slices.Contains(c.Args, "--health-port=20300") {
			t.Errorf("the port is %v, the arguments are %q", c.Ports, c.Args)
		}
	}
}

func TestProbesCanBeProcesses(t *testing.T) {
	c := agents(t, map[string]any{"health": map[string]any{"probe": "exec", "address": "::1", "port": 20300}}).Spec.Template.Spec.Containers[0]
	for what, p := range map[string]*corev1.Probe{"live": c.StartupProbe, "live ": c.LivenessProbe, "ready": c.ReadinessProbe} {
		want := []string{"/usr/bin/podwall-agent", "--probe=" + strings.TrimSpace(what), "--health-addr=::1", "--health-port=20300"}
		if p.HTTPGet != nil || p.Exec == nil || !slices.Equal(p.Exec.Command, want) {
			t.Errorf("the probe is %+v, want %q", p.ProbeHandler, want)
		}
	}
}

func TestTheDefaultsAreSafe(t *testing.T) {
	objects := mustDecode(t, mustRender(t, map[string]any{}).Objects)
	for name := range objects {
		if !slices.Contains([]string{"ServiceAccount/podwall", "ClusterRole/podwall", "ClusterRoleBinding/podwall", "DaemonSet/podwall"}, name) {
			t.Errorf("%s is made without being asked for", name)
		}
	}
	spec := agents(t, map[string]any{}).Spec.Template.Spec
	if spec.HostPID || spec.HostIPC || len(spec.InitContainers) > 0 || len(spec.Containers) != 1 || *spec.AutomountServiceAccountToken {
		t.Errorf("the pod has more than it needs: %+v", spec)
	}
	if s := spec.SecurityContext.SeccompProfile; s == nil || s.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("seccomp is %v", s)
	}
	confined(t, spec.Containers[0], "NET_ADMIN")
	if a := spec.Containers[0].Args; !slices.Contains(a, "--unknown-pods=closed") || !slices.Contains(a, "--health-addr=127.0.0.1") || slices.ContainsFunc(a, isMetrics) {
		t.Errorf("arguments %q", a)
	}
}

func isMetrics(arg string) bool { return strings.HasPrefix(arg, "--metrics") }

// confined checks what a container may do.
func confined(t *testing.T, c corev1.Container, add ...corev1.Capability) {
	t.Helper()
	s := c.SecurityContext
	switch {
	case *s.Privileged, *s.AllowPrivilegeEscalation, !*s.ReadOnlyRootFilesystem, *s.RunAsUser != 0:
		t.Errorf("%s: %+v", c.Name, s)
	case !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}), !slices.Equal(s.Capabilities.Add, add):
		t.Errorf("%s: capabilities %+v", c.Name, s.Capabilities)
	}
}

// Only the agent talks to the API, so only it has the token.
func TestOtherContainersHaveNoTokenAndFewerRights(t *testing.T) {
	values := map[string]any{"gate": map[string]any{"enabled": true}, "brNetfilter": map[string]any{"load": true, "image": "kmod"}}
	spec := agents(t, values).Spec.Template.Spec
	confined(t, spec.Containers[1])
	confined(t, spec.InitContainers[0], "SYS_MODULE")
	for _, c := range append(spec.InitContainers, spec.Containers[1]) {
		for _, m := range c.VolumeMounts {
			if m.Name == "token" || m.Name == "sysctl-net" || m.Name == "run-podwall" {
				t.Errorf("%s mounts %s", c.Name, m.Name)
			}
		}
	}
}

// A constraint that grants less than the pods ask for keeps them from starting.
func TestTheConstraintsOfOpenShiftGrantWhatThePodsNeed(t *testing.T) {
	for _, more := range []bool{false, true} {
		values := merge(uninstalling(), map[string]any{"openshift": map[string]any{"scc": true}})
		if more {
			values = merge(mustRead(t, allFile), nil)
		}
		scc := mustDecode(t, mustRender(t, values).Objects)["SecurityContextConstraints/podwall"].(*constraints)
		spec := agents(t, values).Spec.Template.Spec
		clean := mustDecode(t, mustRender(t, values).Cleaner)["DaemonSet/podwall-uninstall"].(*appsv1.DaemonSet).Spec.Template.Spec
		var need []corev1.Capability
		for _, c := range slices.Concat(spec.Containers, spec.InitContainers, clean.InitContainers, clean.Containers) {
			need = append(need, c.SecurityContext.Capabilities.Add...)
		}
		slices.Sort(need)
		need = slices.Compact(need)
		granted := slices.Sorted(slices.Values(scc.AllowedCapabilities))
		if !slices.Equal(need, granted) {
			t.Errorf("pods need %v, granted are %v", need, granted)
		}
		if clean.ServiceAccountName != spec.ServiceAccountName {
			t.Errorf("what cleans runs as %q, want %q", clean.ServiceAccountName, spec.ServiceAccountName)
		}
		account := "system:serviceaccount:" + namespace + ":"
		if want := []string{account + spec.ServiceAccountName, account + "podwall-uninstall"}; !slices.Equal(scc.Users, want) {
			t.Errorf("granted to %v, the pods run as %v", scc.Users, want)
		}
	}
}

func TestTheNotesSayWhatToDo(t *testing.T) {
	notes := mustRender(t, mustRead(t, allFile)).Notes
	for _, want := range []string{"rollout status daemonset/podwall", "20300/statusz", "unknownPods is open", "/var/lib/rancher", "docs/uninstall.md"} {
		if !strings.Contains(notes, want) {
			t.Errorf("the notes do not say %q:\n%s", want, notes)
		}
	}
}
