// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"flag"
	"io"
	"testing"
	"time"
)

func TestTheEpochIsTheTimeOfTheCommit(t *testing.T) {
	var root, version, revision, tag string
	var created time.Time
	f := flag.NewFlagSet("x", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	Source{&root, &version, &revision, &tag, &created}.Flags(f)
	if created.Unix() != 0 || tag != "development" {
		t.Errorf("defaults: %s, tag %q", created, tag)
	}
	if err := f.Parse([]string{"-epoch=1700000000", "-tag=1.2.3"}); err != nil || created.Unix() != 1700000000 || tag != "1.2.3" {
		t.Errorf("error %v, created %s, tag %q", err, created, tag)
	}
	if err := f.Parse([]string{"-epoch=now"}); err == nil {
		t.Error("a time in words is accepted")
	}
}
