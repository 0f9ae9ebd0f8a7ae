// SPDX-License-Identifier: Apache-2.0

package pack

import (
	"bytes"
	"slices"
	"testing"
)

func TestTheSameFilesGiveTheSameBytes(t *testing.T) {
	files := []File{{"dir/b", 0o755, []byte("program")}, {"a", 0o644, []byte("text")}, {"dir/a", 0o644, nil}}
	other := slices.Clone(files)
	slices.Reverse(other)
	for name, write := range map[string]func([]File) ([]byte, error){"tar": Tar, "tar.gz": TarGzip, "zip": Zip} {
		first, err := write(files)
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("TZ", "Asia/Tokyo")
		second, err := write(other)
		if err != nil {
			t.Fatal(err)
		}
		if len(first) == 0 || !bytes.Equal(first, second) {
			t.Errorf("%s: the same files in another order give other bytes", name)
		}
	}
}
