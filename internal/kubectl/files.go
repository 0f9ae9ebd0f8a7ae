// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/complete"
	"github.com/podwall/podwall/internal/source/manifest"
)

// openFiles reads manifests and completes them.
func openFiles(from manifest.From) (*scene, error) {
	loaded, err := manifest.Load(from)
	if err != nil {
		return nil, err
	}
	in, err := complete.Read(from)
	if err != nil {
		return nil, errors.Join(err, firstError(loaded.Diagnostics))
	}
	w, err := complete.Build(in, loaded, complete.Options{NodeAddresses: true})
	if err != nil {
		return nil, err
	}
	sc := newScene(w.Snapshot, w.Nodes)
	sc.workload, sc.named = in.Made, in.Namespaces
	for _, p := range in.Pods {
		sc.declared[cluster.Key{Namespace: p.Namespace, Name: p.Name}] = declaredPorts(p)
	}
	sc.fronts = complete.Fronts(w.Manifests.Services, w.Snapshot.Pods, func(a netip.Addr) bool {
		return w.Used[a] || w.Network.Contains(a)
	})
	sc.notes = in.Invented
	sc.found = slices.Concat(w.Found, slices.DeleteFunc(loaded.Diagnostics, func(d cluster.Diagnostic) bool {
		return complete.IsUnused(d) || complete.IsWorkload(d)
	}))
	sc.asWritten = loaded.AsWritten() && !slices.ContainsFunc(w.Found, isError)
	return sc, nil
}

func isError(d cluster.Diagnostic) bool { return d.Severity == cluster.Error }

// firstError is why there may be no pods: a file that could not be read.
func firstError(list []cluster.Diagnostic) error {
	if i := slices.IndexFunc(list, isError); i >= 0 {
		return errors.New(list[i].String())
	}
	return nil
}
