// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/source/manifest"
)

// source are the flags that say where objects are read: a cluster, or manifests.
type source struct {
	streams Streams
	cluster *genericclioptions.ConfigFlags
	from    manifest.From
	family  string
	// live is true for a command that takes no files.
	live bool
	// agents is the namespace in which agents are looked for.
	agents string
	// audit is what agents run with, of --policy-audit; empty to find it out.
	audit string
}

func newSource(s Streams) *source {
	return &source{streams: s, cluster: genericclioptions.NewConfigFlags(true), agents: agentsNamespace}
}

func (s *source) bind(cmd *cobra.Command) {
	s.bindFiles(cmd)
	s.bindCluster(cmd)
	f := cmd.Flags()
	f.StringVar(&s.family, "ip-family", "",
		"ask about one family only: `ipv4|ipv6`; by default about all that both ends have")
	f.StringVar(&s.audit, auditFlag, "", "what agents run with: forbid, allow or allow-namespaces (`MODE`); "+
		"by default what those in podwall-system do, or allow")
}

// bindFiles binds the flags that say which files.
func (s *source) bindFiles(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVarP(&s.from.Paths, "filename", "f", nil,
		"`PATH` of a file or directory with manifests instead of a cluster, - for the standard input; "+
			"may be given again")
	f.BoolVarP(&s.from.Recursive, "recursive", "R", false, "read the directories below -f too")
}

// bindCluster binds the flags that say which cluster.
func (s *source) bindCluster(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(s.cluster.KubeConfig, "kubeconfig", *s.cluster.KubeConfig, "`PATH` of the kubeconfig file")
	f.StringVar(s.cluster.Context, "context", *s.cluster.Context, "`NAME` of the context of the kubeconfig")
	f.StringVarP(s.cluster.Namespace, "namespace", "n", *s.cluster.Namespace,
		"`NAME` of the namespace of names that have none")
	f.StringVar(s.cluster.Timeout, "request-timeout", *s.cluster.Timeout, "`TIME` that one request may take, as in 30s")
}

// bindAgents binds the flag that says where agents are.
func (s *source) bindAgents(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.agents, "agents-namespace", s.agents,
		"`NAME` of the namespace in which podwall is installed: only pods of a DaemonSet there are asked")
}

// answerTime is how long an agent may take to answer.
func (s *source) answerTime() (time.Duration, error) {
	d, err := clientcmd.ParseTimeout(*s.cluster.Timeout)
	switch {
	case err != nil || d < 0:
		return 0, fmt.Errorf("--request-timeout %q: want a time, as in 30s", *s.cluster.Timeout)
	case d == 0: // not given
		return answerTime, nil
	}
	return d, nil
}

// namespace returns the namespace of names without one.
func (s *source) namespace() (string, error) {
	if s.files() {
		if *s.cluster.Namespace == "" {
			return "default", nil
		}
		return *s.cluster.Namespace, nil
	}
	name, _, err := s.cluster.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return "", fmt.Errorf("reading the kubeconfig: %w; %s", err, s.cure())
	}
	return name, nil
}

// cure says what to do where no cluster is found.
func (s *source) cure() string {
	if s.live {
		return "name a kubeconfig with --kubeconfig"
	}
	return "name a kubeconfig with --kubeconfig, or files with -f"
}

// unanswered adds the cure to the error of a request that the server did not answer: perhaps
// another one is meant.
func (s *source) unanswered(ctx context.Context, err error) error {
	if errors.As(err, new(*url.Error)) && ctx.Err() == nil {
		return fmt.Errorf("%w; %s", err, s.cure())
	}
	return err
}

func (s *source) files() bool { return len(s.from.Paths) > 0 }

// open reads all objects. Findings about them are printed to Err.
func (s *source) open(ctx context.Context) (*scene, error) {
	sc, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	s.sayAll(sc)
	return sc, nil
}

// sayAll prints the notes and the findings about what was read.
func (s *source) sayAll(sc *scene) {
	for _, text := range sc.notes {
		s.say(text)
	}
	for _, d := range sc.found {
		s.say(d.String())
	}
}

// read reads all objects.
func (s *source) read(ctx context.Context) (*scene, error) {
	families := map[string]inet.Family{"": 0, "ipv4": inet.IPv4, "ipv6": inet.IPv6}
	family, known := families[strings.ToLower(s.family)]
	if !known {
		return nil, fmt.Errorf("unknown --ip-family %q, want ipv4 or ipv6", s.family)
	}
	if err := s.checkAudit(); err != nil {
		return nil, err
	}
	namespace, err := s.namespace()
	if err != nil {
		return nil, err
	}
	var sc *scene
	if s.files() {
		if err = s.readStdin(); err == nil {
			sc, err = s.openFiles()
		}
	} else {
		sc, err = s.openCluster(ctx, namespace)
	}
	if err != nil {
		return nil, err
	}
	sc.namespace, sc.family = namespace, family
	return sc, nil
}

func (s *source) readStdin() error {
	err := s.from.ReadText(s.streams.In)
	if err == nil && slices.Contains(s.from.Paths, manifest.Stdin) && len(s.from.Text) == 0 {
		err = errors.New("reading the standard input: it is empty")
	}
	return err
}
