// SPDX-License-Identifier: Apache-2.0

// Command kubeapi is a real kube-apiserver and a real etcd in one process, for
// integration tests. Both are the upstream code without changes: etcd through
// its embed package, the API server through the command of the released
// binary. It is a module of its own, so that the weight of Kubernetes stays
// out of the module of the agent, and it is never linked into a test: tests
// start it as a process (see internal/lab/kubeapi).
//
//	kubeapi --dir DIR [--bind ADDR] [--port N] [--profile min|full|cluster]
//		[--san ADDR]... [--user FILE=NAME/GROUP]... [--lifeline] [-- kube-apiserver flags]
//
// What it puts into DIR: etcd/ (the state), the certificates of an authority
// of its own, admin.kubeconfig, etcd.log, and, once /readyz answers, the file
// "ready" that holds the URL. A second start in the same DIR goes on with the
// same state and the same authority. There are no controllers in it: nothing
// schedules a pod, makes EndpointSlices or ends the deletion of a namespace.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // as in the released binary
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // as in the released binary
	_ "k8s.io/component-base/metrics/prometheus/version"  // as in the released binary
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stderr)) }

// config is the parsed command line.
type config struct {
	dir      string
	bind     netip.Addr
	port     int
	profile  string
	lifeline bool
	names    []net.IP // further ones of the certificate
	users    []user
	extra    []string // further kube-apiserver flags; the last one of a name wins
}

func parse(args []string, stderr io.Writer) (config, error) {
	var c config
	f := flag.NewFlagSet("kubeapi", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&c.dir, "dir", "", "directory of the state and of everything that is written (required)")
	f.TextVar(&c.bind, "bind", netip.AddrFrom4([4]byte{127, 0, 0, 1}),
		"address to serve on; it is in the certificate and in the kubeconfig")
	f.IntVar(&c.port, "port", 0, "port to serve on; 0 picks a free one")
	f.StringVar(&c.profile, "profile", "min", "min: only what an agent needs, ready soonest; full: every API "+
		"group, RBAC, all admission but ServiceAccount; cluster: for use beside controllers and kubelets")
	f.Func("san", "further address of the server's certificate, as that of the service kubernetes; may be repeated",
		c.addName)
	f.Func("user", "FILE=NAME or FILE=NAME/GROUP: write FILE.kubeconfig, FILE.crt and FILE.key for that user; may "+
		"be repeated", c.addUser)
	f.BoolVar(&c.lifeline, "lifeline", false, "end at once when standard input ends, that is, when whoever holds "+
		"the other end of the pipe is gone")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	c.extra = f.Args()
	return c, c.check()
}

func (c *config) addName(text string) error {
	addr, err := netip.ParseAddr(text)
	c.names = append(c.names, addr.AsSlice())
	return err
}

func (c *config) addUser(text string) error {
	u, err := parseUser(text)
	c.users = append(c.users, u)
	return err
}

func (c *config) check() error {
	var errs []error
	if c.dir == "" {
		errs = append(errs, errors.New("--dir is required"))
	}
	if c.bind.IsUnspecified() {
		errs = append(errs, errors.New("--bind must be an address that clients can reach, not the unspecified one"))
	}
	if profileFlags(*c) == nil {
		errs = append(errs, fmt.Errorf("--profile %q is none of min, full and cluster", c.profile))
	}
	abs, err := filepath.Abs(c.dir)
	c.dir = abs
	return errors.Join(append(errs, err)...)
}

func run(args []string, stdin io.Reader, stderr io.Writer) int {
	start := time.Now()
	fail := func(err error) int {
		fmt.Fprintln(stderr, "kubeapi:", err)
		return 1
	}
	c, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return fail(err)
	}
	if c.lifeline {
		go func() {
			// Whatever arrives has no meaning; only the end counts. The state
			// needs no clean stop: etcd can always read what it wrote.
			_, _ = io.Copy(io.Discard, stdin)
			os.Exit(0)
		}()
	}
	code, err := serve(c, start, stderr)
	if err != nil {
		return fail(err)
	}
	return code
}

// serve runs etcd and the API server until the API server ends, and returns
// its exit code.
func serve(c config, start time.Time, stderr io.Writer) (int, error) {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return 0, fmt.Errorf("making the directory: %w", err)
	}
	if err := os.Remove(filepath.Join(c.dir, "ready")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("removing the ready file of an earlier start: %w", err)
	}
	etcd, err := startEtcd(c.dir)
	if err != nil {
		return 0, err
	}
	defer etcd.Close()
	addr, err := pickPort(c.bind, c.port)
	if err != nil {
		return 0, err
	}
	identity, err := writeCertificates(c.dir, addr, c)
	if err != nil {
		return 0, err
	}
	go func() {
		if err := announce(c.dir, addr, identity); err != nil {
			fmt.Fprintln(stderr, "kubeapi:", err)
			os.Exit(1)
		}
		fmt.Fprintf(stderr, "kubeapi: ready on %s after %d ms\n", serverURL(addr), time.Since(start).Milliseconds())
	}()
	cmd := app.NewAPIServerCommand()
	cmd.SetArgs(apiserverFlags(c, addr, etcd.Config().AdvertiseClientUrls[0].String()))
	return cli.Run(cmd), nil
}
