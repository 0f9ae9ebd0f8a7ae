// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"strings"
)

// digestLength is the number of base32 characters of a digest: 60 bits, so
// that even 100,000 names meet by chance less than once in 10^8 clusters.
const digestLength = 12

// digest returns a short name for a list of strings. Each is written with its
// length, so that no two lists run together into the same text.
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
