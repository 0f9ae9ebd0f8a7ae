// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"context"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	corev1 "k8s.io/api/core/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
	"github.com/podwall/podwall/internal/source/feed"
)

const (
	// settle is how long changes are collected before the directory is read: a
	// writer changes several files, or one file in several steps.
	settle = 50 * time.Millisecond
	// poll finds changes that are not notified: of files behind symbolic links, and a replacement
	// of the directory itself.
	poll = 10 * time.Second
)

// Source keeps a store equal to a directory of manifests.
type Source struct {
	dir string
	log *slog.Logger

	services bool // Services are read for a proxy

	read    bool              // the directory was read once
	synced  bool              // every file was understood once
	waits   bool              // a file is held until it stays the same
	last    string            // digest of the content read last
	others  int               // policies of other projects that were logged
	files   map[string]*known // by file name; owned by Run
	origins map[string]bool   // files that have diagnostics in the store
	clock   func() time.Time

	mu   sync.Mutex // guards feed, which other goroutines read
	feed feed.Feed
}

// New returns a source for the directory. It does no I/O.
func New(dir string, log *slog.Logger) *Source {
	return &Source{dir: dir, log: log, files: map[string]*known{}, origins: map[string]bool{}, clock: time.Now,
		feed: feed.Feed{Kind: "manifests", Since: time.Now()}}
}

// WithServices returns the source, which then puts Services and EndpointSlices into the store too, for a
// store that keeps them. It is to be called before Run.
func (s *Source) WithServices() *Source {
	s.services = true
	return s
}

// Feeds returns whether the directory can be read.
func (s *Source) Feeds() []feed.Feed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return []feed.Feed{s.feed}
}

// note records the outcome of reading the directory. As long as a file was never understood, that
// is the reason why there is no complete list.
func (s *Source) note(err error) {
	name, bad := s.neverRead()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if connected := err == nil; connected != s.feed.Connected {
		s.feed.Connected, s.feed.Since = connected, now
	}
	s.feed.Err, s.feed.Cure = "", ""
	if err != nil {
		s.feed.Err, s.feed.Cure = err.Error(), "make the directory readable again"
		return
	}
	if bad != nil {
		s.feed.Err, s.feed.Cure = filepath.Join(s.dir, name)+": "+bad.Error(), bad.Cure
	}
	s.feed.Heard = now
}

// Run reads the directory into the store and again after each change, each time as one transaction,
// until ctx ends; then it returns nil. It returns an error only if the directory cannot be read at
// the start. If the directory is deleted later nothing changes.
func (s *Source) Run(ctx context.Context, store *cluster.Store) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		s.log.Warn("no file notifications, polling instead", "err", err)
		watcher = nil
	} else {
		defer watcher.Close()
	}
	// Watch before reading: a change in between is then read twice instead of never.
	s.watch(watcher)
	if err := s.sync(store); err != nil {
		return err
	}
	s.follow(ctx, store, watcher)
	return nil
}

// watch requests notifications, again if the directory was replaced: for the kernel it is then
// another one.
func (s *Source) watch(watcher *fsnotify.Watcher) {
	if watcher == nil {
		return
	}
	if err := watcher.Add(s.dir); err != nil {
		s.log.Debug("directory cannot be watched", "path", s.dir, "err", err)
	}
}

func (s *Source) follow(ctx context.Context, store *cluster.Store, watcher *fsnotify.Watcher) {
	var events <-chan fsnotify.Event
	var failures <-chan error
	if watcher != nil {
		events, failures = watcher.Events, watcher.Errors
	}
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	var due, again <-chan time.Time
	away := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-events:
			if due == nil {
				due = time.After(settle)
			}
			continue
		case err := <-failures:
			// An overflow: events were lost, so read the directory at once.
			s.log.Warn("file notification failed", "err", err)
		case <-due:
		case <-again:
		case <-ticker.C:
			s.watch(watcher)
		}
		due, again = nil, nil
		err := s.sync(store)
		if err != nil && !away {
			s.log.Error("manifests cannot be read, the last content stays in force", "err", err)
		}
		away = err != nil
		if s.waits {
			again = time.After(steady)
		}
	}
}

// sync reads the directory and puts it into the store if it changed.
func (s *Source) sync(store *cluster.Store) error {
	raw, err := readDir(s.dir)
	defer func() { s.note(err) }()
	if err != nil {
		return err
	}
	sum := digest(raw)
	if s.read && sum == s.last && !s.waits {
		return nil
	}
	s.read, s.last = true, sum
	result, perFile := s.update(raw)
	s.apply(store, sum, result, perFile)
	s.sayOthers(result)
	s.log.Info("manifests read", "path", s.dir, "files", len(raw), "pods", len(result.Pods),
		"policies", len(result.Policies), "digest", sum)
	return nil
}

// update updates the state of the files and returns the content in force and the diagnostics by
// file.
func (s *Source) update(raw []rawFile) (*Result, map[string][]cluster.Diagnostic) {
	files := make(map[string]*known, len(raw))
	var good []*file
	broken := map[string][]cluster.Diagnostic{}
	s.waits = false
	now := s.clock()
	for _, r := range raw {
		k := s.files[r.name].next(r, now)
		s.say(r.name, s.files[r.name], k)
		files[r.name] = k
		s.waits = s.waits || !k.held.IsZero()
		if k.broken != nil {
			broken[r.name] = append(broken[r.name], k.finding())
		}
		if k.good != nil {
			good = append(good, k.good)
		}
	}
	s.files = files
	return merge(good), broken
}

// say logs, once, why the text of a file is not used.
func (s *Source) say(name string, before, now *known) {
	bad := now.broken
	if bad == nil || before != nil && before.broken != nil && *before.broken == *bad {
		return
	}
	s.log.Warn("manifest is not in force", "path", filepath.Join(s.dir, name), "line", bad.Line, "err", bad,
		"cure", bad.Cure)
}

// sayOthers logs, if their number changed, that there are policies which podwall does not enforce,
// because their author may expect it.
func (s *Source) sayOthers(r *Result) {
	if r.others != s.others && r.others > 0 {
		s.log.Warn("policies of other projects are not enforced", "path", s.dir, "policies", r.others,
			"cure", "write them as NetworkPolicies of networking.k8s.io/v1; /statusz names each")
	}
	s.others = r.others
}

// neverRead returns the first file that was never understood, as long as the first read is not
// complete.
func (s *Source) neverRead() (name string, why *SyntaxError) {
	if s.synced {
		return "", nil
	}
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		if k := s.files[name]; k.good == nil {
			return name, k.broken
		}
	}
	return "", nil
}

// complete returns the kinds whose first list is known. That is none as long as a file was never
// understood, or is empty: it may have held a policy that the kernel enforces since an earlier run,
// and removing that policy would open pods.
func (s *Source) complete() []cluster.Kind {
	if name, why := s.neverRead(); why != nil {
		s.log.Error("the first read is not complete, the kernel stays as it is until every file is understood",
			"path", filepath.Join(s.dir, name), "err", why, "cure", why.Cure)
		return nil
	}
	s.synced = true
	if s.services {
		return append(cluster.Kinds(), cluster.Services, cluster.EndpointSlices)
	}
	return cluster.Kinds()
}

func nodes(list []*corev1.Node) []*cluster.Node {
	converted := make([]*cluster.Node, len(list))
	for i, n := range list {
		converted[i] = convert.Node(n)
	}
	return converted
}

// apply puts everything into the store as one transaction. The digest means that the content is in
// force, so it waits for a file that is held. Diagnostics of objects have the directory as their
// origin, those of broken files the file.
func (s *Source) apply(store *cluster.Store, sum string, r *Result, broken map[string][]cluster.Diagnostic) {
	found := r.Diagnostics
	var served *cluster.ServiceSnapshot
	var aboutServices []cluster.Diagnostic
	if s.services {
		found = slices.DeleteFunc(slices.Clone(found), ofServices)
		served, aboutServices = r.Served()
	}
	store.Update(func(tx *cluster.Tx) {
		if served != nil {
			tx.ReplaceServices(served.Services)
			tx.ReplaceEndpointSlices(served.Slices)
			tx.SetServiceDiagnostics(s.dir, aboutServices)
		}
		tx.ReplaceNamespaces(r.Namespaces)
		tx.ReplacePods(r.Pods)
		tx.ReplacePolicies(r.Policies)
		tx.ReplaceNodes(nodes(r.Nodes))
		tx.SetDiagnostics(s.dir, found)
		for name := range s.origins {
			if broken[name] == nil {
				tx.SetDiagnostics(filepath.Join(s.dir, name), nil)
			}
		}
		for name, list := range broken {
			tx.SetDiagnostics(filepath.Join(s.dir, name), list)
		}
		if !s.waits {
			tx.SetSource(sum)
		}
		for _, k := range s.complete() {
			tx.SetSynced(k)
		}
	})
	s.origins = map[string]bool{}
	for name := range broken {
		s.origins[name] = true
	}
}
