// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"errors"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/complete"
	"github.com/podwall/podwall/internal/source/manifest"
)

// openFiles reads manifests and completes them.
func (s *source) openFiles() (*scene, error) {
	from := s.from
	loaded, err := manifest.Load(from)
	if err != nil {
		return nil, err
	}
	in, err := complete.Read(from)
	if err != nil {
		return nil, errors.Join(firstError(loaded.Diagnostics), err)
	}
	audit, note := s.auditMode(nil, loaded)
	w, err := complete.Build(in, loaded, complete.Options{NodeAddresses: true, Allow: allowance(audit)})
	if err != nil {
		return nil, err
	}
	sc := newScene(w.Snapshot, w.Nodes)
	sc.workload, sc.named = maps.Clone(in.Made), in.Namespaces
	for _, p := range in.Pods {
		if name := workloadOf(&p.ObjectMeta); name != "" {
			sc.workload[cluster.Key{Namespace: p.Namespace, Name: p.Name}] = name
		}
		sc.declared[cluster.Key{Namespace: p.Namespace, Name: p.Name}] = declaredPorts(p)
	}
	sc.fronts = complete.Fronts(w.Manifests.Services, w.Snapshot.Pods, func(a netip.Addr) bool {
		return w.Used[a] || w.Network.Contains(a)
	})
	sc.noteServices(w.Manifests.Services)
	sc.served, _ = w.Manifests.Served() // what is wrong with a Service is said about that Service
	written, _ := loaded.Served()
	sc.served.Nodes = withRanges(w.Nodes, written.Nodes)
	addressed := *w.Manifests
	addressed.Services = withAddresses(addressed.Services, sc.fronts)
	sc.called, _ = addressed.Served()
	sc.called.Nodes = sc.served.Nodes
	sc.notes, sc.allowed = slices.Concat(in.Invented, w.Notes), allowance(audit)
	sc.note(note)
	sc.found = slices.Concat(w.Found, slices.DeleteFunc(loaded.Diagnostics, func(d cluster.Diagnostic) bool {
		return complete.IsUnused(d) || complete.IsWorkload(d)
	}))
	sc.answers.Report(sc.found)
	sc.asWritten = loaded.AsWritten() && !slices.ContainsFunc(w.Found, isError)
	return sc, nil
}

// withAddresses returns Services with the addresses that were made up for those without.
func withAddresses(services []*corev1.Service, fronts []complete.Front) (list []*corev1.Service) {
	at := map[string][]string{}
	for _, f := range fronts {
		if a := f.Front.Addr().String(); !slices.Contains(at[f.Name], a) {
			at[f.Name] = append(at[f.Name], a)
		}
	}
	for _, s := range services {
		if made := at[s.Namespace+"/"+s.Name]; s.Spec.ClusterIP == "" && len(s.Spec.ClusterIPs) == 0 && len(made) > 0 {
			s = s.DeepCopy()
			s.Spec.ClusterIP, s.Spec.ClusterIPs = made[0], made
		}
		list = append(list, s)
	}
	return list
}

// noteServices keeps which addresses Services have, and why some lead to no pods.
func (sc *scene) noteServices(services []*corev1.Service) {
	sc.others, sc.addresses = map[string]string{}, map[netip.Addr]string{}
	for _, s := range services {
		name := s.Namespace + "/" + s.Name
		switch {
		case s.Spec.Type == corev1.ServiceTypeExternalName:
			sc.others[name] = "is only a name for " + s.Spec.ExternalName
		case s.Spec.ClusterIP == corev1.ClusterIPNone:
			sc.others[name] = "is headless: it has no address, name its pods"
		case len(s.Spec.Selector) == 0:
			sc.others[name] = "has no selector: its endpoints are not known here, name their addresses"
		}
		for _, text := range append(slices.Clone(s.Spec.ClusterIPs), s.Spec.ClusterIP) {
			if a, err := netip.ParseAddr(text); err == nil {
				sc.addresses[a.Unmap()] = name
			}
		}
	}
}

func isError(d cluster.Diagnostic) bool { return d.Severity == cluster.Error }

// firstError is why there may be no pods: a file that could not be read.
func firstError(list []cluster.Diagnostic) error {
	if i := slices.IndexFunc(list, isError); i >= 0 {
		return errors.New(list[i].String())
	}
	return nil
}
