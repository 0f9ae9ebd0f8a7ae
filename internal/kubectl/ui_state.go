// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/explain/matrix"
	"github.com/podwall/podwall/internal/explain/reach"
	"github.com/podwall/podwall/internal/kubectl/page"
	"github.com/podwall/podwall/internal/logging"
)

// uiFlows is the question that waits for denied flows.
const uiFlows = "flows"

// uiAnswers has the answer to each question of the page.
func uiAnswers(s *uiState, live *uiLive) map[string]page.Answer {
	with := func(f func(*uiScene, context.Context, url.Values) (any, error)) page.Answer {
		return func(ctx context.Context, q url.Values) (any, error) {
			sc, done, err := s.take(ctx)
			if err != nil {
				return nil, err
			}
			defer done()
			return f(sc, ctx, q)
		}
	}
	return map[string]page.Answer{
		"about": with(s.about), "graph": with((*uiScene).graphOf), "pairs": with((*uiScene).pairsOf),
		"explain": with((*uiScene).explainOf), "end": with((*uiScene).endOf), "search": with((*uiScene).searchOf),
		"policies": with((*uiScene).policiesOf),
		"read": func(ctx context.Context, q url.Values) (any, error) {
			if err := s.read(ctx); err != nil {
				return nil, err
			}
			return with(s.about)(ctx, q)
		},
		"status": live.status, uiFlows: live.flows,
	}
}

// uiState is what the page shows, as it was when it was read last.
type uiState struct {
	source  *source       // its own; from.Text is guarded by reading
	reading chan struct{} // who reads has it
	asking  chan struct{} // who asks the scene has it: one at a time
	scene   *uiScene      // guarded by asking, as shown
	shown   int           // how often another scene was shown
}

func newUIState(s *source) *uiState {
	own := *s
	return &uiState{source: &own, reading: make(chan struct{}, 1), asking: make(chan struct{}, 1)}
}

// acquire waits for its turn.
func acquire(ctx context.Context, turn chan struct{}) error {
	select {
	case turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for other questions: %w", ctx.Err())
	}
}

// take returns the scene; it is the caller's until it calls done.
func (s *uiState) take(ctx context.Context) (sc *uiScene, done func(), err error) {
	if err := acquire(ctx, s.asking); err != nil {
		return nil, nil, err
	}
	return s.scene, func() { <-s.asking }, nil
}

// read reads all objects. Meanwhile questions are answered from those that were read before.
func (s *uiState) read(ctx context.Context) error {
	if err := acquire(ctx, s.reading); err != nil {
		return err
	}
	defer func() { <-s.reading }()
	from := *s.source
	read, err := from.read(ctx)
	if err != nil {
		return err
	}
	s.source.from.Text = from.from.Text // the standard input is read once
	sc := newUIScene(read, time.Now())
	if err := acquire(ctx, s.asking); err != nil {
		return err
	}
	s.show(sc)
	<-s.asking
	return nil
}

// show changes the scene. The caller has asking.
func (s *uiState) show(sc *uiScene) {
	s.shown++
	sc.number = s.shown
	s.scene = sc
}

// uiScene is a scene with what the page needs of it.
type uiScene struct {
	*scene
	read     time.Time
	number   int // of scenes that were shown
	reach    *reach.Map
	ports    []matrix.Port
	more     int                      // ports that are not among them
	general  []string                 // notes, and findings about other objects than policies
	findings map[cluster.Key][]string // those about policies; nil until they are asked for
}

func newUIScene(sc *scene, at time.Time) *uiScene {
	o := reach.Options{Workload: sc.workload, Hosts: usualHosts(sc),
		Skip: func(a netip.Addr) bool { return !sc.asks(a.Is6()) }}
	u := &uiScene{scene: sc, read: at, reach: reach.New(sc.snap, sc.answers, o)}
	u.ports, u.more = sc.usualPorts()
	u.general = slices.Clone(sc.notes)
	for _, d := range sc.found {
		if d.Kind != "NetworkPolicy" {
			u.general = append(u.general, d.String())
		}
	}
	return u
}

// aboutValue says what the page shows.
type aboutValue struct {
	Source string   `json:"source"`
	Files  bool     `json:"files"`
	Read   string   `json:"read"`
	Now    string   `json:"now"` // the time of the answer
	Pods   int      `json:"pods"`
	Left   int      `json:"leftOut"`
	Spaces int      `json:"namespaces"`
	Rules  int      `json:"policies"`
	Ports  []string `json:"ports"`
	More   int      `json:"morePorts"`
	Notes  []string `json:"notes"`
}

func (s *uiState) about(sc *uiScene, _ context.Context, _ url.Values) (any, error) {
	v := aboutValue{Source: s.name(), Files: s.source.files(), Read: sc.readAt(), Now: timeOf(time.Now()),
		Pods: len(sc.snap.Pods), Left: sc.reach.LeftOut(), Rules: len(sc.snap.Policies), More: sc.more,
		Ports: []string{}, Notes: []string{}}
	seen := map[string]bool{}
	for _, p := range sc.snap.Pods {
		seen[p.Key.Namespace] = true
	}
	v.Spaces = len(seen)
	for _, p := range sc.ports {
		v.Ports = append(v.Ports, p.String())
	}
	for _, text := range sc.general[:min(len(sc.general), maxNotes)] {
		v.Notes = append(v.Notes, logging.Plain(text))
	}
	if more := len(sc.general) - maxNotes; more > 0 {
		v.Notes = append(v.Notes, fmt.Sprintf("and %d more: see kubectl podwall lint", more))
	}
	return v, nil
}

func (sc *uiScene) readAt() string { return timeOf(sc.read) }

// maxNotes is how many notes the page shows.
const maxNotes = 50

// name says where the objects come from.
func (s *uiState) name() string {
	if s.source.files() {
		return logging.Plain("files " + strings.Join(s.source.from.Paths, ", "))
	}
	if config, err := s.source.cluster.ToRawKubeConfigLoader().RawConfig(); err == nil {
		name := config.CurrentContext
		if *s.source.cluster.Context != "" {
			name = *s.source.cluster.Context
		}
		return logging.Plain("cluster " + name)
	}
	return "cluster"
}

// lintOnce sorts all findings about policies. It takes a moment in a large cluster, so it waits until
// they are shown.
func (sc *uiScene) lintOnce() {
	if sc.findings != nil {
		return
	}
	sc.findings = map[cluster.Key][]string{}
	for _, f := range sc.lint(false).Findings {
		if f.Kind == "NetworkPolicy" {
			sc.findings[f.Object] = append(sc.findings[f.Object], fmt.Sprintf("%s [%s]", f.Diagnostic, f.Check))
		}
	}
}

// number reads a number of a question that is not below 0; 0 without one.
func number(q url.Values, name string) (int, error) {
	text := q.Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s %q: want a number", name, logging.Plain(text))
	}
	return n, nil
}
