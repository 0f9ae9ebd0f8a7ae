// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// suite is the tests of a package that are run: those that match Part, or all.
type suite struct{ Name, Package, Part string }

// What is run of suites that would take hours in emulation, unless -run says otherwise:
// what loads rules of every form; the recipes, and what link-local addresses mean; who
// has an address, guessed connections, link-local addresses and ICMP errors; all scenarios of Services, by both
// back ends.
const (
	usualRules = "TestGoldenRulesetsLoad|TestTablesMeanWhat|TestOurExpressions|TestTheRulesForCutConn|" +
		"TestTheBridgesTable|TestWhatIsCommittedReadsBack|TestPortTablesReadBack|TestEveryVariantCanBecome"
	usualCases   = "TestVerdicts|TestKernelAgrees.*/(routed|bridge)/(nat|filter)/(recipes|linklocal)"
	usualAttacks = "LinkLocal|NoAddressIs|PodThatTakes|TwoPods|LaterAddress|Announcement|HardwareAddress|NoPodIs|" +
		"NobodyClaims|NobodySpeaks|Errors|AForgedSource|ThatWorks"
	usualServices = "TestScenariosInTheKernel"
)

// limit is how long a suite may take in a machine, which is ten times slower than
// this one, and more when this one is busy. It ends what hangs, nothing else.
const limit = 90 * time.Minute

func suites() []suite {
	return []suite{
		{Name: "nft", Package: "internal/kernel/nft"},
		{Name: "ipvs", Package: "internal/kernel/ipvs"},
		{Name: "ipvs-host", Package: "internal/proxy/ipvs/host"},
		{Name: "ipvs-packets", Package: "internal/proxy/ruleset", Part: "IPVS"},
		{Name: "services", Package: "test/services", Part: usualServices},
		{Name: "ruleset", Package: "internal/netpol/ruleset", Part: usualRules},
		{Name: "datapath", Package: "internal/datapath"},
		{Name: "lab", Package: "internal/lab"},
		{Name: "cases", Package: "internal/lab/trial", Part: usualCases},
		{Name: "attack", Package: "test/attack", Part: usualAttacks},
	}
}

// allReleases are Debian's with a kernel that podwall is for, oldest first.
func allReleases() []string { return []string{"bullseye", "bookworm", "trixie", "trixie-backports"} }

// choose returns the named suites, or all, with the part of them that is wanted; "." is
// all tests.
func choose(only, part string) ([]suite, error) {
	list := suites()
	if only != "" {
		list = nil
		for _, name := range strings.Split(only, ",") {
			i := slices.IndexFunc(suites(), func(s suite) bool { return s.Name == name })
			if i < 0 {
				return nil, fmt.Errorf("there is no suite %q", name)
			}
			list = append(list, suites()[i])
		}
	}
	for i := range list {
		switch part {
		case "":
		case ".":
			list[i].Part = ""
		default:
			list[i].Part = part
		}
	}
	return list, nil
}

// command is what the machine's shell is told. The tests find themselves in a
// tree like that of the repository.
func (s suite) command(left []skip) string {
	// In older kernels the limit of ICMP errors is the machine's. The lab must not
	// depend on it, and a slow machine would not come near the usual one.
	few := "sysctl -q -w net.ipv4.icmp_msgs_per_sec=1 net.ipv4.icmp_msgs_burst=1"
	args := fmt.Sprintf("-test.v -test.timeout=%s", limit)
	if s.Part != "" {
		args += " -test.run='" + s.Part + "'"
	}
	if len(left) > 0 {
		args += " -test.skip='" + pattern(left) + "'"
	}
	// 5.10 does not load IPVS for who asks for it. With PODWALL_IPVS no test is skipped for want of it.
	return fmt.Sprintf("%s; modprobe ip_vs; top=/t/* && cd $top/%s && "+
		"export CI=true PODWALL_IPVS=true PODWALL_AGENT=$(echo $top)/bin/podwall-agent "+
		"PODWALL_CNI_BIN=%s PODWALL_SETTLE=300ms && exec ./suite.test %s", few, s.Package, s.plugins(), args)
}

// plugins is where the tests of a suite find the CNI plugins. Attackers are tried on
// pods that the lab wires, by the same objects of the kernel: two programs for each pod,
// started in emulation, would take more than half of the time.
func (s suite) plugins() string {
	if s.Name == "attack" {
		return "none"
	}
	return "$(echo $top)/bin/cni"
}

// build makes the tree: the test programs where their packages are, what they
// read, and the programs that they start.
func build(ctx context.Context, tree string, list []suite) error {
	for _, s := range list {
		at := filepath.Join(tree, s.Package)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return fmt.Errorf("making a directory: %w", err)
		}
		cmd := exec.CommandContext(ctx, "go", "test", "-c", "-trimpath", "-ldflags=-s -w",
			"-o", filepath.Join(at, "suite.test"), "./"+s.Package)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building the tests of %s: %w\n%s", s.Package, err, out)
		}
		if err := copyInto(ctx, tree, s.Package+"/testdata"); err != nil {
			return err
		}
	}
	for _, name := range []string{"testdata", "examples", "bin/podwall-agent", "bin/cni"} {
		if err := copyInto(ctx, tree, name); err != nil {
			return err
		}
	}
	return nil
}

// copyInto copies a file or directory of the repository, if there is one.
func copyInto(ctx context.Context, tree, name string) error {
	if _, err := os.Stat(name); os.IsNotExist(err) {
		return nil
	}
	to := filepath.Join(tree, filepath.Dir(name))
	if err := os.MkdirAll(to, 0o755); err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	if out, err := exec.CommandContext(ctx, "cp", "-rL", name, to).CombinedOutput(); err != nil {
		return fmt.Errorf("copying %s: %w\n%s", name, err, out)
	}
	return nil
}
