// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"strings"
)

// digestLength is the number of base32 characters of a digest: 60 bits, so that among 100,000 names
// two collide in fewer than one of 10^8 clusters.
const digestLength = 12

// digest returns a short name for a list of strings. Each is hashed with its length, so that
// different lists never give the same bytes.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	return strings.ToLower(base32.StdEncoding.EncodeToString(h.Sum(nil)))[:digestLength]
}
