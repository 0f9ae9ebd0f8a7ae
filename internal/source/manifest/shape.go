// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/intstr"
	kjson "sigs.k8s.io/json"
)

// mismatch is a value that does not have the type of its field.
type mismatch struct {
	path  string
	value any    // as JSON has it
	want  string // in words
}

// typeError explains why the object cannot be decoded: it finds the first value that does not have
// the type of its field. Errors of the decoder name the field, but neither the entry of a list nor
// the key of a map.
func (d *document) typeError(into any, err error) error {
	var value any
	if kjson.UnmarshalCaseSensitivePreserveInts(d.json, &value) == nil {
		if m := findMismatch(value, reflect.TypeOf(into).Elem(), ""); m != nil {
			return d.mismatchError(m)
		}
	}
	return d.errorAt(d.lineOf(""), err.Error(), "see kubectl explain for the types of the fields")
}

func (d *document) mismatchError(m *mismatch) error {
	line, text := d.find(m.path)
	if t := templateIn(m.value); t != "" {
		return d.errorAt(line, shown(m.path)+" is a template: "+quoted(t)+" was not filled in",
			"render it first, for example with helm template, and use the result")
	}
	_, isList := m.value.([]any)
	_, isText := m.value.(string)
	is := kindOf(m.value)
	if !isText && text != "" {
		is += " " + shown(text)
	}
	message := fmt.Sprintf("%s is %s, not %s", shown(m.path), is, m.want)
	cure := "see kubectl explain for the type of the field"
	switch {
	case m.want == aText && text != "":
		cure = "put it in quotes: " + quoted(text)
	case m.want == aList:
		cure = "begin each entry with a dash"
	case isList:
		cure = "remove the dash"
	case isText && m.want == aNumber:
		cure = "write the number without quotes"
	}
	return d.errorAt(line, message, cure)
}

// templateIn finds a template in a text; outside quotes it is not YAML.
func templateIn(value any) string {
	text, _ := value.(string)
	return template.FindString(text)
}

const (
	aText   = "a text"
	aNumber = "a number"
	aList   = "a list"
	aMap    = "a map"
)

// kindOf names the type of a value in words.
func kindOf(value any) string {
	switch value.(type) {
	case string:
		return aText
	case bool:
		return "the truth value"
	case []any:
		return aList
	case map[string]any:
		return aMap
	default:
		return "the number"
	}
}

// findMismatch compares a value with a Go type of the API, in the order of the fields' names. Null
// matches every type.
func findMismatch(value any, t reflect.Type, path string) *mismatch {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if value == nil {
		return nil
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) ||
		reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return decodes(value, t, path)
	}
	switch t.Kind() {
	case reflect.Struct:
		return fieldMismatch(value, t, path)
	case reflect.Map:
		return mapMismatch(value, t, path)
	case reflect.Slice:
		if t.Elem().Kind() != reflect.Uint8 {
			return listMismatch(value, t, path)
		}
	}
	return decodes(value, t, path)
}

// decodes tries to decode one value.
func decodes(value any, t reflect.Type, path string) *mismatch {
	text, err := json.Marshal(value)
	if err == nil && kjson.UnmarshalCaseSensitivePreserveInts(text, reflect.New(t).Interface()) == nil {
		return nil
	}
	want := "a " + strings.ToLower(t.Name())
	switch {
	case t == reflect.TypeFor[intstr.IntOrString]():
		want = "a whole number or a text"
	case t.Kind() == reflect.String:
		want = aText
	case t.Kind() == reflect.Bool:
		want = "true or false"
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Float64:
		want = aNumber
	case t.Kind() == reflect.Slice:
		want = "a text in base64"
	}
	return &mismatch{path, value, want}
}

func fieldMismatch(value any, t reflect.Type, path string) *mismatch {
	object, ok := value.(map[string]any)
	if !ok {
		return &mismatch{path, value, aMap}
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		var found *mismatch
		switch {
		case name == "-" || !f.IsExported():
		case name == "" && f.Anonymous:
			found = fieldMismatch(value, f.Type, path)
		default:
			found = findMismatch(object[name], f.Type, strings.TrimPrefix(path+"."+name, "."))
		}
		if found != nil {
			return found
		}
	}
	return nil
}

func mapMismatch(value any, t reflect.Type, path string) *mismatch {
	object, ok := value.(map[string]any)
	if !ok {
		return &mismatch{path, value, aMap}
	}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		if m := findMismatch(object[key], t.Elem(), path+"["+key+"]"); m != nil {
			return m
		}
	}
	return nil
}

func listMismatch(value any, t reflect.Type, path string) *mismatch {
	list, ok := value.([]any)
	if !ok {
		return &mismatch{path, value, aList}
	}
	for i, v := range list {
		if m := findMismatch(v, t.Elem(), path+"["+strconv.Itoa(i)+"]"); m != nil {
			return m
		}
	}
	return nil
}
