// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"reflect"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/podwall/podwall/internal/spelling"
)

// meantField returns the field of a NetworkPolicy that an unknown one is probably meant to be, or
// "". It stands in the same place and is spelt alike.
func meantField(path string) string {
	segments := strings.Split(path, ".")
	place := reflect.TypeFor[networkingv1.NetworkPolicy]()
	for _, s := range segments[:len(segments)-1] {
		name, _, _ := strings.Cut(s, "[")
		if place = fieldType(place, name); place == nil {
			return ""
		}
	}
	if place.Kind() != reflect.Struct {
		return "" // a map takes every key
	}
	name, best := segments[len(segments)-1], ""
	for distance, i := 3, 0; i < place.NumField(); i++ {
		field := jsonName(place.Field(i))
		d := spelling.Distance(name, field)
		if strings.EqualFold(name, field) {
			d = 0
		}
		if d < distance && d < len(name)-1 {
			best, distance = field, d
		}
	}
	return best
}

// fieldType returns the type of a field's value, or of its entries; nil if there is no such field.
func fieldType(t reflect.Type, name string) reflect.Type {
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		if jsonName(t.Field(i)) != name {
			continue
		}
		t = t.Field(i).Type
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		return t
	}
	return nil
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}
