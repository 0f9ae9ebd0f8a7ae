// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"encoding/json"

	"github.com/podwall/podwall/internal/cluster"
)

// Object is one object as written, for commands that copy it elsewhere.
type Object struct {
	APIVersion, Kind string
	// Key has no namespace if the text has none.
	Key cluster.Key
	// JSON is the whole object, including its type if only the list gave that.
	JSON []byte
	// Policy is true if it is read as a NetworkPolicy, even with a misspelt type.
	Policy bool
}

// Objects returns the objects of files and directories in the order of the text, with lists split
// up. As in Load, a file that cannot be understood is not used.
func Objects(from From) ([]Object, error) {
	files, err := from.read()
	if err != nil {
		return nil, err
	}
	var list []Object
	for _, raw := range files {
		if _, bad := raw.parse(); bad != nil {
			continue
		}
		add := func(d *document, h *head) error {
			o, err := objectOf(d, h)
			list = append(list, o)
			return err
		}
		if _, err := visit(raw.name, raw.data, add); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func objectOf(d *document, h *head) (Object, error) {
	all := fields(d.json)
	for name, value := range map[string]string{"apiVersion": h.APIVersion, "kind": h.Kind} {
		all[name], _ = json.Marshal(value) // texts cannot fail
	}
	whole, err := json.Marshal(all)
	isPolicy := h.use == usePolicy || h.use == useOldPolicy || h.use == useTypoPolicy
	return Object{APIVersion: h.APIVersion, Kind: h.Kind, Key: h.key, JSON: whole, Policy: isPolicy}, err
}
