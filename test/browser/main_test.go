// SPDX-License-Identifier: Apache-2.0

//go:build linux

package browser

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/testkit/entry"
)

// inside in the environment says that this process is in the namespace.
const inside = "PODWALL_BROWSER_INSIDE"

// startTime is how long a browser may take to start on a busy machine.
const startTime = 2 * time.Minute

// browser has one tab for each test.
var browser context.Context

func TestMain(m *testing.M) {
	if os.Getenv(inside) != "" {
		os.Exit(withBrowser(m))
	}
	entry.Main(isolated{})
}

// isolated are the tests in a process whose network is the loopback alone.
type isolated struct{}

func (isolated) Run() int {
	status, err := runIsolated()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return status
}

func runIsolated() (int, error) {
	ns, err := netns.New()
	if err != nil {
		return 1, err
	}
	defer ns.Close()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := ns.Start(cmd); err != nil {
		return 1, fmt.Errorf("starting the tests in a network of their own: %w", err)
	}
	err = cmd.Wait()
	if ended := new(exec.ExitError); errors.As(err, &ended) {
		return ended.ExitCode(), nil
	}
	return 0, err
}

func withBrowser(m *testing.M) int {
	program, err := exec.LookPath("chromium")
	if err != nil {
		fmt.Fprintf(os.Stderr, "%v: make prepare installs Debian's chromium\n", err)
		return 1
	}
	// The browser leaves files where temporary ones are.
	dir, err := os.MkdirTemp("", "podwall-browser-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	status := withFiles(m, program, dir)
	if err := removed(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return status
}

// removed removes a directory. Processes of the browser end a moment after it, and may write until then.
func removed(dir string) (err error) {
	for end := time.Now().Add(startTime); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = os.RemoveAll(dir); err == nil {
			return nil
		}
	}
	return err
}

// withFiles runs the tests with a browser whose files are in a directory, and returns when it has ended.
func withFiles(m *testing.M, program, dir string) int {
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox,
		chromedp.DisableGPU, chromedp.WSURLReadTimeout(startTime), chromedp.WindowSize(1440, 900),
		chromedp.Env("TMPDIR="+dir, "HOME="+dir), chromedp.UserDataDir(filepath.Join(dir, "profile")),
		chromedp.Flag("dns-prefetch-disable", true), chromedp.Flag("disable-component-update", true))
	allocated, end := chromedp.NewExecAllocator(context.Background(), options...)
	defer end()
	ctx, stop := chromedp.NewContext(allocated)
	defer stop()
	if err := chromedp.Do(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "starting chromium: %v\n", err)
		return 1
	}
	browser = ctx
	status := m.Run()
	ending, ended := context.WithTimeout(ctx, startTime)
	defer ended()
	if err := chromedp.Cancel(ending); err != nil {
		fmt.Fprintf(os.Stderr, "ending chromium: %v\n", err)
		return 1
	}
	return status
}
