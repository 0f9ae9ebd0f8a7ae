// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"github.com/podwall/podwall/internal/cluster"
)

// head holds the fields of an object that are needed before it is decoded. A value that is not a
// text is treated as absent: objects that are not used may have any shape.
type head struct {
	metav1.TypeMeta
	key   cluster.Key // as written
	use   use
	items json.RawMessage
}

// maxDepth bounds the nesting of lists: each is read once per list around it.
const maxDepth = 20

// visit reads the text of a file and calls each for every object in it, with lists split up. It
// returns the number of documents that are not empty.
func visit(name string, data []byte, each func(*document, *head) error) (documents int, err error) {
	text, err := toUTF8(name, data)
	if err != nil {
		return 0, err
	}
	for s := newScanner(name, text); ; {
		d := s.next()
		if d == nil {
			return documents, nil
		}
		some, err := d.toJSON()
		if err != nil {
			return documents, err
		}
		if !some {
			continue
		}
		documents++
		if err := d.visit(metav1.TypeMeta{}, each); err != nil {
			return documents, err
		}
	}
}

// visit calls each for the object, or for the objects of the list. The objects of a typed list need
// not repeat their type: they inherit it.
func (d *document) visit(inherited metav1.TypeMeta, each func(*document, *head) error) error {
	h, err := d.head(inherited)
	if err != nil {
		return err
	}
	items, isList, err := d.list(h)
	if err != nil {
		return err
	}
	if !isList {
		return each(d, h)
	}
	if strings.Count(d.base, "items[") >= maxDepth {
		return d.errorAt(d.lineOf(""), "the lists are nested too deeply", "write one List of all objects")
	}
	inherited = metav1.TypeMeta{APIVersion: h.APIVersion, Kind: strings.TrimSuffix(h.Kind, "List")}
	for i, raw := range items {
		item := *d
		item.json, item.object = raw, ""
		item.base = strings.TrimPrefix(fmt.Sprintf("%s.items[%d]", d.base, i), ".")
		if err := item.visit(inherited, each); err != nil {
			return err
		}
	}
	return nil
}

// head reads type and name, and the other fields that decide how the object is used.
func (d *document) head(inherited metav1.TypeMeta) (*head, error) {
	var raw struct {
		APIVersion any             `json:"apiVersion"`
		Kind       any             `json:"kind"`
		Metadata   json.RawMessage `json:"metadata"`
		Spec       json.RawMessage `json:"spec"`
		Items      json.RawMessage `json:"items"`
	}
	strict, err := kjson.UnmarshalStrict(d.json, &raw, kjson.DisallowDuplicateFields)
	if err != nil {
		return nil, d.errorAt(d.lineOf(""), "the entry is no object", "write apiVersion, kind, metadata and spec")
	}
	for _, e := range strict {
		if err := d.twice(e); err != nil {
			return nil, err
		}
	}
	h := &head{TypeMeta: inherited, items: raw.Items}
	if raw.APIVersion != nil || raw.Kind != nil {
		h.APIVersion, _ = raw.APIVersion.(string)
		h.Kind, _ = raw.Kind.(string)
	}
	if h.APIVersion == "" || h.Kind == "" {
		return nil, d.errorAt(d.lineOf(""), "the object has no apiVersion or no kind",
			"write both, as texts, at the start of the object")
	}
	h.key = keyIn(raw.Metadata)
	h.use = useOf(h.TypeMeta, func() bool { return hasField(raw.Spec, "podSelector") })
	switch {
	case h.key.Name != "":
		d.object = shown(h.Kind + " " + h.key.String())
	case d.index > 1:
		d.object = fmt.Sprintf("%s of document %d", shown(h.Kind), d.index)
	default:
		d.object = shown(h.Kind)
	}
	return h, nil
}

// list returns the objects of a list. A kind that only ends like a list's may be anything, as long
// as no object that is used can be in it.
func (d *document) list(h *head) (items []json.RawMessage, isList bool, err error) {
	small, almost := strings.CutSuffix(folded(h.Kind), "list")
	if !almost {
		return nil, false, nil
	}
	isList = strings.HasSuffix(h.Kind, "List")
	matters := small == "" || resemblesPolicy(small) || coreOrUnused("v1", small) != useNothing
	switch {
	case !isList && matters:
		return nil, false, d.errorAt(d.lineOf("kind"),
			fmt.Sprintf("the kind %s is unknown, and almost that of a list", quoted(h.Kind)), "write List at its end")
	case !isList || !matters && !objectsOnly(h.items):
		return nil, false, nil
	case isNull(h.items):
		return nil, false, d.errorAt(d.lineOf(""), "the list has no items",
			"write items: [] if it is meant to be empty, or remove it")
	case kjson.UnmarshalCaseSensitivePreserveInts(h.items, &items) != nil:
		return nil, false, d.errorAt(d.lineOf("items"), "items is no list", "begin each object in it with a dash")
	}
	return items, true, d.onlyItems()
}

// onlyItems makes sure that a list has no other field that can hold objects.
func (d *document) onlyItems() error {
	for _, name := range slices.Sorted(maps.Keys(fields(d.json))) {
		if !slices.Contains([]string{"apiVersion", "kind", "metadata", "items"}, name) {
			return d.errorAt(d.lineOf(name), shown(name)+" is no field of a list",
				"write objects below items, and remove the field")
		}
	}
	return nil
}

// isNull reports whether a field is missing or null.
func isNull(value json.RawMessage) bool { return len(value) == 0 || string(value) == "null" }

// objectsOnly reports whether the value is a list of objects.
func objectsOnly(list json.RawMessage) bool {
	var items []json.RawMessage
	return !isNull(list) && kjson.UnmarshalCaseSensitivePreserveInts(list, &items) == nil &&
		!slices.ContainsFunc(items, func(i json.RawMessage) bool { return i[0] != '{' })
}

func fields(object json.RawMessage) map[string]json.RawMessage {
	var m map[string]json.RawMessage
	if len(object) == 0 || kjson.UnmarshalCaseSensitivePreserveInts(object, &m) != nil {
		return nil
	}
	return m
}

func hasField(object json.RawMessage, name string) bool {
	_, ok := fields(object)[name]
	return ok
}

// keyIn reads namespace and name from metadata of any shape.
func keyIn(metadata json.RawMessage) (key cluster.Key) {
	var m struct {
		Namespace any `json:"namespace"`
		Name      any `json:"name"`
	}
	if len(metadata) > 0 && kjson.UnmarshalCaseSensitivePreserveInts(metadata, &m) == nil {
		key.Namespace, _ = m.Namespace.(string)
		key.Name, _ = m.Name.(string)
	}
	return key
}
