// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/kernel/sysctl"
)

// Problem is something that does not work as it should, and does not keep Services from being served.
type Problem struct{ Subject, Text, Cure string }

// Apply sets connection tracking, and returns what it changed. It is called after the first tables are in
// the kernel, which loads connection tracking with them, and again from time to time: other programs may
// set it, too. Repeated it writes nothing.
func Apply(dir sysctl.Dir, t Tracking, cores int) (changed []Write, problems []Problem) {
	found := map[string]int{}
	for _, name := range t.names() {
		value, err := read(dir, name)
		if err != nil {
			problems = append(problems, problem(name, err.Error(), "see whether the module nf_conntrack is loaded"))
			continue
		}
		found[name] = value
	}
	for _, w := range t.Decide(cores, found) {
		if err := dir.Write(w.Name, strconv.Itoa(w.Value)); err != nil {
			problems = append(problems, problem(w.Name, fmt.Sprintf("%s: %v", w.Otherwise, err), cure(w, err)))
			continue
		}
		changed = append(changed, w)
	}
	return changed, problems
}

func problem(name, text, cure string) Problem {
	return Problem{"sysctl " + dotted(name), text, cure}
}

// cure says how to make a setting that could not be written.
func cure(w Write, err error) string {
	byHand := fmt.Sprintf("sysctl %s=%d on the node", dotted(w.Name), w.Value)
	switch {
	case errors.Is(err, unix.EROFS):
		return byHand + ", or let the agent do it: mount the node's /proc/sys/net into its container at DIR/net, " +
			"writable, and run it with --sysctl-root=DIR"
	case errors.Is(err, fs.ErrPermission) && (w.Name == settingMax || w.Name == settingBuckets):
		return byHand + "; if the node is a container itself (kind), on the machine: there is one value for all " +
			"network namespaces"
	case errors.Is(err, fs.ErrPermission):
		return byHand + ", or give the agent CAP_NET_ADMIN in the host's network namespace"
	}
	return byHand
}

// dotted returns the name as sysctl writes it.
func dotted(name string) string { return strings.ReplaceAll(name, "/", ".") }

func read(dir sysctl.Dir, name string) (int, error) {
	text, err := dir.Read(name)
	if err != nil {
		return 0, err
	}
	value, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("reading a sysctl: %s is %q", dir.Path(name), text)
	}
	return value, nil
}

// Cores returns how many processors the node has: a container may be allowed fewer.
func Cores() int {
	text, err := os.ReadFile("/sys/devices/system/cpu/online")
	if n := count(strings.TrimSpace(string(text))); err == nil && n > 0 {
		return n
	}
	return runtime.NumCPU()
}

// count counts the members of a list like 0-3,8; 0 if it is none.
func count(list string) (n int) {
	for part := range strings.SplitSeq(list, ",") {
		from, to, several := strings.Cut(part, "-")
		if !several {
			to = from
		}
		first, err1 := strconv.Atoi(from)
		last, err2 := strconv.Atoi(to)
		if err1 != nil || err2 != nil || last < first {
			return 0
		}
		n += last - first + 1
	}
	return n
}
