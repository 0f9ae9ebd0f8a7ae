// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/source/feed"
)

const referenceFile = "../../docs/metrics.md"

func TestTheReferencePageIsCurrent(t *testing.T) {
	var got bytes.Buffer
	if err := Reference(&got); err != nil {
		t.Fatal(err)
	}
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(referenceFile, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("docs/metrics.md is old; run go test ./internal/observe -update (-file +now):\n%s", diff)
	}
}

func TestEveryMetricIsOnTheReferencePageAndNoOther(t *testing.T) {
	o := enforcing()
	o.SetDrops(Drops{DropPolicyIngress: 1})
	o.SetFeeds([]feed.Feed{{Kind: "pods"}})
	o.AddDeniedBy("shop", "web", "ingress", "denied", 1)
	families, err := o.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var page bytes.Buffer
	if err := Reference(&page); err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		row := "| `" + f.GetName() + "` | " + strings.ToLower(f.GetType().String()) + " |"
		if !strings.Contains(page.String(), row) || !strings.Contains(page.String(), f.GetHelp()) {
			t.Errorf("the page has no row %q with the help %q", row, f.GetHelp())
		}
	}
	b := newBuilder(NewRegistry())
	newMetrics(b, "", computedValues{})
	if len(b.definitions) != len(families) {
		t.Errorf("%d metrics are documented and %d exist", len(b.definitions), len(families))
	}
}

func TestMetricsFollowThePasses(t *testing.T) {
	o := newObserver(time.Second)
	o.SetMissing(nil)
	p := goodPass()
	p.Diagnostics = []cluster.Diagnostic{{Severity: cluster.Error}, {Severity: cluster.Warning}, {Severity: cluster.Warning}}
	o.Record(p)
	o.Record(Pass{Revision: 9, Err: errors.New("no"), Diagnostics: p.Diagnostics[:2]})
	o.SetProblem(Problem{Subject: "a", Blocking: true})
	want := `
# TYPE podwall_apply_total counter
podwall_apply_total{result="error"} 1
podwall_apply_total{result="ok"} 1
# TYPE podwall_snapshot_revision gauge
podwall_snapshot_revision 9
# TYPE podwall_applied_revision gauge
podwall_applied_revision 7
# TYPE podwall_workloads gauge
podwall_workloads 5
# TYPE podwall_isolated_workloads gauge
podwall_isolated_workloads 3
# TYPE podwall_policies gauge
podwall_policies 2
# TYPE podwall_policy_diagnostics gauge
podwall_policy_diagnostics{severity="error"} 1
podwall_policy_diagnostics{severity="warning"} 1
# TYPE podwall_set_elements gauge
podwall_set_elements 40
# TYPE podwall_kernel_objects gauge
podwall_kernel_objects{type="chain"} 6
podwall_kernel_objects{type="rule"} 9
podwall_kernel_objects{type="set"} 4
# TYPE podwall_drift_repairs_total counter
podwall_drift_repairs_total 1
# TYPE podwall_problems gauge
podwall_problems{blocking="false"} 0
podwall_problems{blocking="true"} 1
# TYPE podwall_ready gauge
podwall_ready 0
`
	var names []string
	for line := range strings.Lines(want) {
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			names = append(names, strings.Fields(name)[0])
		}
	}
	if err := testutil.GatherAndCompare(o.reg, withHelp(t, want), names...); err != nil {
		t.Error(err)
	}
	if got := testutil.CollectAndCount(o.metrics.applyDuration); got != 2 {
		t.Errorf("apply durations have %d series, want delta and full", got)
	}
	if got := testutil.ToFloat64(o.metrics.lastApply); time.Since(time.UnixMilli(int64(got*1000))) > time.Hour {
		t.Errorf("last apply = %f, want about now", got)
	}
}

// withHelp adds the HELP lines from the definitions, so that a test row need
// not repeat them.
func withHelp(t *testing.T, want string) *strings.Reader {
	t.Helper()
	b := newBuilder(NewRegistry())
	newMetrics(b, "", computedValues{})
	for _, d := range b.definitions {
		want = strings.ReplaceAll(want, "# TYPE "+d.name+" ", "# HELP "+d.name+" "+d.help+"\n# TYPE "+d.name+" ")
	}
	return strings.NewReader(want)
}

func TestDropsAreAbsentUntilTheyWereRead(t *testing.T) {
	if _, body := ask(t, enforcing(), "/metrics"); strings.Contains(body, "podwall_dropped_packets_total{") {
		t.Error("dropped packets are reported as 0 although nobody counted")
	}
}
