// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"encoding/json"

	"github.com/podwall/podwall/internal/cluster"
)

// Object is one object as it is written, for who writes it somewhere else.
type Object struct {
	APIVersion, Kind string
	// Key has no namespace where the text has none.
	Key cluster.Key
	// JSON is the whole object, with its type also where a list gave that.
	JSON []byte
	// Policy says that it is read as a NetworkPolicy, also with a type that is
	// misspelt.
	Policy bool
}

// Objects returns the objects of files and directories in the order of the text,
// lists taken apart. As in Load, a file that cannot be understood counts for
// nothing.
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
		all[name], _ = json.Marshal(value) // texts have no error
	}
	whole, err := json.Marshal(all)
	isPolicy := h.use == usePolicy || h.use == useOldPolicy || h.use == useTypoPolicy
	return Object{APIVersion: h.APIVersion, Kind: h.Kind, Key: h.key, JSON: whole, Policy: isPolicy}, err
}
