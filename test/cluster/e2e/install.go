// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/test/cluster"
)

// world is a cluster on which podwall is installed.
type world struct {
	*cluster.Cluster
	plan     plan
	settings *settings
	say      func(string, ...any)
	before   map[string]map[string]string // what each node was before podwall came
}

const (
	system    = "podwall-system" // the namespace of the manifest
	daemonSet = "podwall"
	patience  = 2 * time.Minute
)

func (s *settings) image() string {
	return filepath.Join(s.bin(), "image", "podwall-"+runtime.GOARCH+".tar")
}

// start starts a cluster and installs podwall on it.
func (s *settings) start(ctx context.Context, p plan, run *Run, say func(string, ...any)) (_ *world, err error) {
	o := p.options
	o.Bin, o.Say = s.bin(), say
	if !s.process {
		o.Images = []string{s.image()}
	}
	began := time.Now()
	c, err := cluster.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	w := &world{Cluster: c, plan: p, settings: s, say: say, before: map[string]map[string]string{}}
	for _, n := range w.Nodes() {
		var one error
		w.before[n.Name], one = footprint(n)
		err = errors.Join(err, one)
	}
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	run.ClusterSeconds = time.Since(began).Seconds()
	began = time.Now()
	if err := w.install(ctx); err != nil {
		return nil, errors.Join(err, w.close())
	}
	run.InstallSeconds = time.Since(began).Seconds()
	say("podwall is ready")
	return w, nil
}

// close keeps the logs, for who wants to know why something failed.
func (w *world) close() error {
	return errors.Join(w.keepLogs(), w.Close())
}

func (w *world) keepLogs() error {
	to := w.settings.work(w.plan.file())
	err := os.MkdirAll(to, 0o755)
	logs, _ := filepath.Glob(filepath.Join(w.Dir(), "*.log")) // the pattern is good
	for _, log := range logs {
		text, read := os.ReadFile(log)
		err = errors.Join(err, read, os.WriteFile(filepath.Join(to, filepath.Base(log)), text, 0o644))
	}
	if w.settings.process {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	// what there is
	text, _ := w.agentLogs(ctx, -1)
	return errors.Join(err, os.WriteFile(filepath.Join(to, "podwall.log"), []byte(text), 0o644))
}

// install does what an operator does, and returns when all agents are ready.
func (w *world) install(ctx context.Context) error {
	if w.settings.process {
		return w.startProcesses(ctx)
	}
	manifest, err := w.manifest(ctx)
	if err != nil {
		return err
	}
	if err := w.apply(ctx, manifest); err != nil {
		return err
	}
	return w.awaitAgents(ctx)
}

// manifest is deploy/podwall.yaml as it is, or the chart with the gate or Services.
func (w *world) manifest(ctx context.Context) (string, error) {
	if !w.plan.gate && !w.plan.services() {
		text, err := os.ReadFile(filepath.Join(w.settings.root, "deploy", "podwall.yaml"))
		return string(text), err
	}
	return w.manifestOf(ctx, w.settings.root, w.serving()...)
}

// serving are the chart's values with which podwall serves Services, where the plan has it. Further ones go
// below serviceProxy.
func (w *world) serving(more ...string) []string {
	if !w.plan.services() {
		return nil
	}
	at := w.APIServer()
	list := append([]string{"enabled: true", fmt.Sprintf("clusterIPRange: [%s]", joined(w.ServiceRanges()))}, more...)
	if w.plan.bare { // the address of the specs is not served unless its range is given
		list = append(list, "externalIPRange: [203.0.113.0/24]")
	}
	return []string{fmt.Sprintf("api: {host: %q, port: %d}", at.Addr(), at.Port()),
		"serviceProxy:\n  " + strings.Join(list, "\n  ")}
}

// joined is a list as YAML has it.
func joined(ranges []netip.Prefix) string {
	var list []string
	for _, r := range ranges {
		list = append(list, fmt.Sprintf("%q", r))
	}
	return strings.Join(list, ", ")
}

// manifestOf renders the chart of a source with further values, and with the
// gate where the plan has it.
func (w *world) manifestOf(ctx context.Context, root string, values ...string) (string, error) {
	if w.plan.gate {
		values = append(values, "gate: {enabled: true}")
	}
	usual, err := os.ReadFile(filepath.Join(root, "deploy", "values.yaml"))
	if err != nil {
		return "", err
	}
	file := filepath.Join(w.Dir(), "values.yaml")
	if err := os.WriteFile(file, []byte(string(usual)+strings.Join(values, "\n")), 0o600); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "run", "-C", "tools", "./chart", "render", "../deploy/chart/podwall",
		"-f", file)
	cmd.Dir = root
	text, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("rendering the chart: %w", errors.Join(err, stderrOf(err)))
	}
	return string(text), nil
}

func stderrOf(err error) error {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return errors.New(strings.TrimSpace(string(exit.Stderr)))
	}
	return nil
}

func (w *world) apply(ctx context.Context, manifest string) error {
	_, err := w.Kubectl(ctx, manifest, "apply", "-f", "-")
	return err
}

// awaitAgents waits until every node has an agent of the newest manifest that
// is ready.
func (w *world) awaitAgents(ctx context.Context) error {
	err := cluster.Await(ctx, "ready agents", patience, func(ctx context.Context) error {
		ds, err := w.Client().AppsV1().DaemonSets(system).Get(ctx, daemonSet, metav1.GetOptions{})
		if err != nil {
			return err
		}
		s := ds.Status
		if s.ObservedGeneration < ds.Generation || int(s.UpdatedNumberScheduled) < len(w.Nodes()) ||
			int(s.NumberAvailable) < len(w.Nodes()) {
			return fmt.Errorf("%d of %d agents are of the newest manifest, %d are ready", s.UpdatedNumberScheduled,
				len(w.Nodes()), s.NumberAvailable)
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w; they say last:\n%s", err, w.lastWords(ctx))
	}
	return err
}

// lastWords are the last lines of all agents' logs. An agent of another source than the manifest does not know
// its flags, and its log is all that says so.
func (w *world) lastWords(ctx context.Context) string {
	text, err := w.agentLogs(ctx, 2)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(text)
}

// agentLogs returns so many lines of each agent's log; -1 for all.
func (w *world) agentLogs(ctx context.Context, lines int) (string, error) {
	return w.Kubectl(ctx, "", "logs", "-n", system, "-l", "app.kubernetes.io/name=podwall", "--all-containers",
		"--prefix", "--tail="+strconv.Itoa(lines), "--max-log-requests=9")
}

// startProcesses runs agents without an image, to try the rest alone.
func (w *world) startProcesses(ctx context.Context) error {
	args := []string{"--kubeconfig=" + w.Kubeconfig(), "--log-format=text"}
	if w.plan.services() {
		var ranges []string
		for _, r := range w.ServiceRanges() {
			ranges = append(ranges, r.String())
		}
		args = append(args, "--run-service-proxy=true", "--service-cluster-ip-range="+strings.Join(ranges, ","))
	}
	for _, n := range w.Nodes() {
		p, err := n.Start("podwall-agent", filepath.Join(w.settings.bin(), "podwall-agent"),
			append(args, "--hostname-override="+n.Name)...)
		if err != nil {
			return err
		}
		err = cluster.Await(ctx, "the agent of "+n.Name, patience, func(context.Context) error {
			text, err := p.Log()
			if err == nil && !bytes.Contains(text, []byte("policies are enforced")) {
				err = fmt.Errorf("it does not enforce yet:\n%s", text)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
