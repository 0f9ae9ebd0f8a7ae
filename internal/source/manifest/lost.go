// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"github.com/podwall/podwall/internal/spelling"
)

// lost returns the path of the first policy or pod in the lists of an object that is not used, for
// instance in a misspelt List or a template. It is empty if there is none.
func (d *document) lost() string {
	var value any
	if !slices.ContainsFunc(slices.Collect(maps.Keys(fields(d.json))), holdsObjects) ||
		kjson.UnmarshalCaseSensitivePreserveInts(d.json, &value) != nil {
		return ""
	}
	return lostIn(value, "")
}

// holdsObjects reports whether a field of this name can be a list of objects.
func holdsObjects(name string) bool {
	name = folded(name)
	return spelling.Distance(name, "items") <= 2 || spelling.Distance(name, "objects") <= 2
}

func lostIn(value any, path string) string {
	object, _ := value.(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(object)) {
		list, _ := object[name].([]any)
		if !holdsObjects(name) {
			continue
		}
		for i, entry := range list {
			at := strings.TrimPrefix(fmt.Sprintf("%s.%s[%d]", path, name, i), ".")
			if isPolicyOrPod(entry) {
				return at
			}
			if deeper := lostIn(entry, at); deeper != "" {
				return deeper
			}
		}
	}
	return ""
}

// isPolicyOrPod decides by the type that the entry declares.
func isPolicyOrPod(entry any) bool {
	object, _ := entry.(map[string]any)
	version, _ := object["apiVersion"].(string)
	kind, _ := object["kind"].(string)
	spec, _ := object["spec"].(map[string]any)
	_, selects := spec["podSelector"]
	switch useOf(metav1.TypeMeta{APIVersion: version, Kind: kind}, func() bool { return selects }) {
	case usePolicy, useOldPolicy, useTypoPolicy:
		return true
	case useCore, useTypoCore:
		return folded(kind) == "pod"
	}
	return false
}
