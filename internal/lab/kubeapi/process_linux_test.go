// SPDX-License-Identifier: Apache-2.0

package kubeapi_test

import (
	"bufio"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/kubeapi"
	"github.com/podwall/podwall/internal/lab/testkit/kubeapitest"
)

// helperEnv makes the test binary play a test program that starts a server
// and never stops it. It holds the directory for the server.
const helperEnv = "KUBEAPI_TEST_HELPER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperEnv); dir != "" {
		helper(dir)
	}
	os.Exit(m.Run())
}

// helper starts a server, prints its process number and waits to be killed.
func helper(dir string) {
	server, err := kubeapi.Launch(context.Background(), dir, kubeapi.Options{})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(server.Pid())
	// Reading blocks until the test is gone too, so nothing can stay.
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
	os.Exit(1)
}

func TestServerEndsWhenTheTestProgramIsKilled(t *testing.T) {
	kubeapitest.Start(t) // skips where there is no program
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), helperEnv+"="+t.TempDir())
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("reading the server's process number: %v", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}

	gone := watchEnd(t, pid)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	gone()
}

// watchEnd holds on to a process, so that its number cannot come to mean
// another one, and returns a function that fails the test unless the process
// ends within ten seconds.
func watchEnd(t *testing.T, pid int) func() {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("opening process %d: %v", pid, err)
	}
	return func() {
		t.Helper()
		defer unix.Close(fd)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
		for range 100 { // the runtime's own signals interrupt the call
			if err != unix.EINTR {
				break
			}
			n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
		}
		if err != nil || n == 0 {
			t.Errorf("process %d still runs (%v), killing it", pid, err)
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
	}
}

func portOf(t *testing.T, s *kubeapi.Server) int {
	t.Helper()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func dirOf(s *kubeapi.Server) string { return filepath.Dir(s.Kubeconfig) }
