// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/logging"
	"github.com/podwall/podwall/internal/netpol/denied"
)

// The times of what is live.
const (
	// pollTime is how long a question about flows waits for news.
	pollTime = 10 * time.Second
	// idleTime is how long agents are followed when nobody asks any more.
	idleTime = 30 * time.Second
	// retryTime is the pause before agents are followed again after that failed.
	retryTime = 5 * time.Second
	// listTime is how often agents are listed while they are followed: some start, some start again.
	listTime = 30 * time.Second
	// statusTime is how long an answer of all agents is good for.
	statusTime = 5 * time.Second
	// followSince is how old the first flows are.
	followSince = 5 * time.Minute
)

// maxLive is how many flows are kept for the page, maxSaid how many messages about nodes, and maxLiveText
// how long their texts may be, in bytes.
const (
	maxLive     = 500
	maxSaid     = 20
	maxLiveText = 1 << 10
)

// noAgents says what is missing where files are shown.
const noAgents = "files have no agents: start kubectl podwall ui without -f to see what a cluster denies and enforces"

// uiLive asks the agents: what they deny, for as long as the page asks, and what they enforce.
type uiLive struct {
	ctx     context.Context // of the page
	command *uiCommand
	state   *uiState
	listing time.Duration // listTime; shorter in tests
	running sync.WaitGroup

	mu     sync.Mutex // guards what follows
	list   []flowValue
	said   []string
	number int           // of the newest flow
	news   chan struct{} // closed when there is news
	failed string        // why nothing is followed
	asked  time.Time     // when somebody asked last
	stop   func()        // ends following; nil while nothing is followed
	again  time.Time     // not before that

	asking      chan struct{} // who asks for the status has it
	statusValue statusValue   // guarded by asking, as what follows
	statusAt    time.Time
	statusOf    int // the number of the scene
}

// flowValue is a denied flow.
type flowValue struct {
	Number int `json:"number"`
	// Key is the same for all records of one flow.
	Key     string `json:"key"`
	Time    string `json:"time"`
	Text    string `json:"text"`
	Reason  string `json:"reason"`
	Verdict string `json:"verdict"`
	Count   uint64 `json:"count"`
	// Source, Destination and Port are the question to ask explain.
	Source      string `json:"source"`
	Destination string `json:"destination"`
}

func newUILive(ctx context.Context, c *uiCommand, s *uiState) *uiLive {
	return &uiLive{ctx: ctx, command: c, state: s, listing: listTime, news: make(chan struct{}),
		asking: make(chan struct{}, 1)}
}

// wait returns when nothing runs any more; the page's context has ended.
func (l *uiLive) wait() { l.running.Wait() }

// flowsValue is what is new.
type flowsValue struct {
	Flows []flowValue `json:"flows"`
	// Last is the number to ask after the next time.
	Last    int      `json:"last"`
	Said    []string `json:"said"`
	Problem string   `json:"problem,omitempty"`
}

// flows answers with the flows after a number. If there is none it waits for one for a while.
func (l *uiLive) flows(ctx context.Context, q url.Values) (any, error) {
	if l.command.source.files() {
		return nil, errors.New(noAgents)
	}
	after, err := number(q, "after")
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(pollTime)
	defer timer.Stop()
	for {
		v, news := l.since(after)
		if len(v.Flows) > 0 || v.Problem != "" {
			return v, nil
		}
		select {
		case <-news:
		case <-timer.C:
			return v, nil
		case <-ctx.Done():
			return v, nil
		case <-l.ctx.Done():
			return v, nil
		}
	}
}

// since returns what is new, and a channel that is closed when there is more. It has agents followed.
func (l *uiLive) since(after int) (v flowsValue, news <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = time.Now()
	if l.stop == nil && l.ctx.Err() == nil && !time.Now().Before(l.again) {
		ctx, stop := context.WithCancel(l.ctx)
		l.stop, l.said, l.failed = stop, nil, ""
		l.running.Go(func() { l.follow(ctx) })
		l.running.Go(func() { l.endWhenIdle(ctx, stop) })
	}
	v = flowsValue{Flows: []flowValue{}, Last: l.number, Said: append([]string{}, l.said...), Problem: l.failed}
	for _, f := range l.list {
		if f.Number > after {
			v.Flows = append(v.Flows, f)
		}
	}
	return v, l.news
}

// tell wakes those who wait. The caller holds mu.
func (l *uiLive) tell() {
	close(l.news)
	l.news = make(chan struct{})
}

// endWhenIdle ends following when nobody has asked for a while.
func (l *uiLive) endWhenIdle(ctx context.Context, stop func()) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		l.mu.Lock()
		idle := time.Since(l.asked) > idleTime
		l.mu.Unlock()
		if idle {
			stop()
			return
		}
	}
}

// follow shows what all agents deny, until ctx ends or no agent answers.
func (l *uiLive) follow(ctx context.Context) {
	s := *l.command.source
	s.live = true
	c := &flowsCommand{source: &s, agents: l.command.agents, follow: true, since: followSince,
		filter: flowFilter{all: true}, output: output{form: "text"}, each: l.add, told: l.say}
	asked, err := c.find(ctx)
	if err == nil {
		err = l.followAll(ctx, c, asked)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if ctx.Err() == nil { // else nobody asks any more
		l.failed = logging.Plain(err.Error())
	}
	l.stop()
	l.stop, l.again = nil, time.Now().Add(retryTime)
	l.tell()
}

// followAll follows these agents and those that run later, each again when its stream has ended, until
// ctx ends or none is followed. The error says why, and is never nil.
func (l *uiLive) followAll(ctx context.Context, c *flowsCommand, list []agentPod) error {
	var running sync.WaitGroup
	defer running.Wait()
	bounded, end := context.WithCancel(ctx)
	defer end() // before running.Wait
	ended := make(chan cluster.Key)
	followed := map[cluster.Key]bool{}
	tick := time.NewTicker(l.listing)
	defer tick.Stop()
	for {
		for _, a := range list {
			if followed[a.Key] {
				continue
			}
			followed[a.Key] = true
			running.Go(func() {
				c.one(bounded, a)
				select {
				case ended <- a.Key:
				case <-bounded.Done():
				}
			})
		}
		list = nil
		select {
		case <-ctx.Done():
			return ctx.Err()
		case key := <-ended:
			if delete(followed, key); len(followed) == 0 {
				return errors.New("no agent answers any more")
			}
		case <-tick.C:
			var err error
			if _, list, err = c.source.findAgents(ctx, c.agents, ""); err != nil {
				l.say("error: finding agents that are new: " + err.Error())
			}
		}
	}
}

// add keeps a flow.
func (l *uiLive) add(r *denied.Record) error {
	flow := r.Source.String() + " to " + r.Destination.String() + " " + r.Service() + " on " + r.Node
	if by := r.By(); by != "" {
		flow += " " + by
	}
	sum := sha256.Sum256([]byte(flow + " " + r.Direction + " " + string(r.Verdict)))
	key := base64.RawURLEncoding.EncodeToString(sum[:])
	v := flowValue{Key: key, Time: timeOf(r.Last), Count: r.Count, Verdict: string(r.Verdict),
		Text: logging.Plain(flow), Reason: logging.Plain(r.Reason()),
		Source: reference(r.Source), Destination: reference(r.Destination)}
	switch {
	case r.Port == 0:
		v.Destination = ""
	case r.Destination.Pod == nil && r.Destination.Address.Is6():
		v.Destination = "[" + v.Destination + "]"
		fallthrough
	default:
		v.Destination += ":" + strconv.Itoa(int(r.Port)) + "/" + r.Protocol
	}
	for _, text := range []*string{&v.Verdict, &v.Text, &v.Reason, &v.Source, &v.Destination} {
		*text = short(*text)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.number++
	v.Number = l.number
	l.list = slices.DeleteFunc(l.list, func(f flowValue) bool { return f.Key == key })
	l.list = append(l.list, v)
	l.list = l.list[max(0, len(l.list)-maxLive):]
	l.tell()
	return nil
}

// short cuts a text, which may come from a node that was taken over.
func short(text string) string {
	if len(text) <= maxLiveText {
		return text
	}
	return strings.Clone(strings.ToValidUTF8(text[:maxLiveText], "")) + "…" // the long one is not kept
}

// reference names an end for explain.
func reference(e denied.End) string {
	if e.Pod != nil {
		return "pod/" + e.Pod.String()
	}
	return e.Address.String()
}

// say keeps a message about a node.
func (l *uiLive) say(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text = short(logging.Plain(text))
	if !slices.Contains(l.said, text) {
		l.said = append(l.said, text)
		l.said = l.said[max(0, len(l.said)-maxSaid):]
		l.tell()
	}
}
