// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/cluster"
)

// fill sets every field to something else than its zero value.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1_000_000, 0).UTC()))
			return
		}
		for _, f := range v.Fields() {
			fill(f)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(0.5)
	case reflect.Uint8:
		v.SetUint(uint64(cluster.Error))
	case reflect.Uint, reflect.Uint32, reflect.Uint64:
		v.SetUint(7)
	default:
		v.SetInt(7)
	}
}

// The status can be read back by programs that use its types, and its keys have one
// style.
func TestTheStatusIsReadAsItWasWritten(t *testing.T) {
	var want, got Status
	fill(reflect.ValueOf(&want).Elem())
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-written +read):\n%s", diff)
	}
	var tree any
	if err := json.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	keys(tree, func(key string) {
		if !unicode.IsLower(rune(key[0])) || strings.ContainsAny(key, "_- ") {
			t.Errorf("the key %q is not in camel case", key)
		}
	})
}

// A name from a file cannot make a terminal do anything, nor write lines of its own.
func TestNamesReachATerminalPlainly(t *testing.T) {
	bad := "a\x1b[31m\nready  yes\u202e\u009b2J"
	s := Status{Node: bad, NotReady: []string{bad},
		Datapath: Datapath{WithoutPod: []string{bad}}, Held: []Held{{Pod: bad}},
		Problems:    []Problem{{Subject: bad, Text: bad, Cure: bad}},
		Diagnostics: []cluster.Diagnostic{{Kind: "Pod", Object: cluster.Key{Name: bad}, Field: bad, Message: bad, Cure: bad}}}
	var out strings.Builder
	if err := s.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "ready  yes") || strings.ContainsFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("line %q", line)
		}
	}
}

// keys calls f for each key of an object and of those in it.
func keys(tree any, f func(string)) {
	switch v := tree.(type) {
	case map[string]any:
		for key, value := range v {
			f(key)
			keys(value, f)
		}
	case []any:
		for _, value := range v {
			keys(value, f)
		}
	}
}
