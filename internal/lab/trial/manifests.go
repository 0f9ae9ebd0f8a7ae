// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/podwall/podwall/internal/lab"
)

// publisher writes a directory of manifests as a ConfigMap volume does: the
// files are links into a hidden directory, and one rename exchanges that. A
// reader sees the content before or the content after.
type publisher struct {
	dir     string
	version int
	base    map[string][]byte // in every version
	files   map[string][]byte
}

// current is the hidden link to the present version.
const current = "..data"

func newPublisher(dir string) (*publisher, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making a directory for manifests: %w", err)
	}
	return &publisher{dir: dir}, nil
}

func (p *publisher) path(name string) string { return filepath.Join(p.dir, name) }

// publish makes the files the only ones, beside the base.
func (p *publisher) publish(files map[string][]byte) error {
	files = maps.Clone(files)
	if files == nil {
		files = map[string][]byte{}
	}
	maps.Copy(files, p.base)
	old := fmt.Sprintf("..%d", p.version)
	p.version++
	if err := p.write(fmt.Sprintf("..%d", p.version), files); err != nil {
		return fmt.Errorf("publishing manifests: %w", err)
	}
	for name := range p.files {
		if _, stays := files[name]; !stays {
			if err := os.Remove(p.path(name)); err != nil {
				return fmt.Errorf("publishing manifests: %w", err)
			}
		}
	}
	p.files = files
	if err := os.RemoveAll(p.path(old)); err != nil {
		return fmt.Errorf("publishing manifests: %w", err)
	}
	return nil
}

func (p *publisher) write(version string, files map[string][]byte) error {
	if err := os.Mkdir(p.path(version), 0o700); err != nil {
		return err
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(p.path(version), name), data, 0o600); err != nil {
			return err
		}
		if _, linked := p.files[name]; linked {
			continue
		}
		// A link whose target does not exist yet is no file for the reader.
		if err := os.Symlink(filepath.Join(current, name), p.path(name)); err != nil {
			return err
		}
	}
	next := p.path("..next")
	if err := os.Symlink(version, next); err != nil {
		return err
	}
	return os.Rename(next, p.path(current))
}

// nodeObjects returns the manifest of the bed's nodes. The agents take from it
// which of their interfaces lead to other nodes.
func nodeObjects(bed *lab.Bed, names []string) []byte {
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "apiVersion: v1\nkind: Node\nmetadata:\n  name: %s\nstatus:\n  addresses:\n", name)
		for _, a := range bed.Node(name).Addrs {
			fmt.Fprintf(&b, "  - type: InternalIP\n    address: %q\n", a)
		}
		b.WriteString("---\n")
	}
	return []byte(b.String())
}

// serviceObjects returns the manifest of Services with these fronts, and of their slices. Endpoints that are
// pods have their node.
func serviceObjects(services []lab.Service, pods []lab.PodSpec) []byte {
	node := map[netip.Addr]string{}
	for _, p := range pods {
		for _, a := range p.IPs {
			node[a] = p.Node
		}
	}
	var b strings.Builder
	for i, s := range services {
		name, proto := fmt.Sprintf("front-%d", i), strings.ToUpper(s.Proto.String())
		fmt.Fprintf(&b, "apiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: trial-services}\n"+
			"spec: {clusterIPs: [%q], ports: [{name: p, port: %d, protocol: %s}]}\n---\n",
			name, s.Front.Addr(), s.Front.Port(), proto)
		for k, e := range s.Backends {
			fmt.Fprintf(&b, "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: %s-%d, "+
				"namespace: trial-services, labels: {kubernetes.io/service-name: %s}}\naddressType: IPv%d\n"+
				"ports: [{name: p, port: %d, protocol: %s}]\nendpoints: [{addresses: [%q]%s}]\n---\n",
				name, k, name, version(e.Addr()), e.Port(), proto, e.Addr(), nodeName(node[e.Addr()]))
		}
	}
	return []byte(b.String())
}

func version(a netip.Addr) int {
	if a.Is4() {
		return 4
	}
	return 6
}

func nodeName(name string) string {
	if name == "" {
		return ""
	}
	return ", nodeName: " + name
}
