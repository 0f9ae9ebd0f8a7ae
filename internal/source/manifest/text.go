// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// mark is the byte order mark in UTF-8. It may precede every document: concatenated files have it
// in the middle.
var mark = []byte("\uFEFF")

// toUTF8 returns the text as UTF-8. As kubectl does, it reads UTF-16 with a byte order mark. The
// error names the first bytes that are not text, and their place.
func toUTF8(name string, data []byte) ([]byte, error) {
	switch {
	case bytes.HasPrefix(data, []byte{0xFF, 0xFE}):
		return fromUTF16(name, data, binary.LittleEndian)
	case bytes.HasPrefix(data, []byte{0xFE, 0xFF}):
		return fromUTF16(name, data, binary.BigEndian)
	}
	if at := bytes.IndexByte(data, 0); at >= 0 {
		return nil, notText(name, data[:at], "the text has a zero byte: it is UTF-16 without a byte order mark, or "+
			"no text")
	}
	if utf8.Valid(data) {
		return data, nil
	}
	at := 0
	for at < len(data) {
		r, n := utf8.DecodeRune(data[at:])
		if r == utf8.RuneError && n == 1 {
			break
		}
		at += n
	}
	return nil, notText(name, data[:at], fmt.Sprintf("the byte %#02x is no UTF-8", data[at]))
}

func notText(name string, before []byte, message string) error {
	return &SyntaxError{File: name, Line: 1 + countLines(before), Message: message, Cure: "save the file as UTF-8"}
}

func fromUTF16(name string, data []byte, order binary.ByteOrder) ([]byte, error) {
	data = data[2:]
	text := make([]byte, 0, len(data))
	for len(data) > 0 {
		r, n := decodeUTF16(data, order)
		if r == utf8.RuneError || r == 0 {
			return nil, notText(name, text, "the text is no UTF-16, but begins with the byte order mark of it")
		}
		text, data = utf8.AppendRune(text, r), data[n:]
	}
	return text, nil
}

// decodeUTF16 returns the first character and its size, or RuneError.
func decodeUTF16(data []byte, order binary.ByteOrder) (rune, int) {
	if len(data) < 2 {
		return utf8.RuneError, len(data)
	}
	r := rune(order.Uint16(data))
	if !utf16.IsSurrogate(r) {
		return r, 2
	}
	if len(data) < 4 {
		return utf8.RuneError, len(data)
	}
	return utf16.DecodeRune(r, rune(order.Uint16(data[2:]))), 4
}

// lineBreak returns the size of the line break at the start of the text, 0 if there is none. These
// are the line breaks of YAML 1.1: CR LF, CR, LF, NEL, LS and PS.
func lineBreak(text []byte) int {
	switch {
	case len(text) == 0:
		return 0
	case text[0] == '\r' && len(text) > 1 && text[1] == '\n':
		return 2
	case text[0] == '\r' || text[0] == '\n':
		return 1
	case text[0] < utf8.RuneSelf:
		return 0
	}
	switch r, n := utf8.DecodeRune(text); r {
	case '\u0085', '\u2028', '\u2029':
		return n
	}
	return 0
}

// firstLine returns the first line without its line break, and its size including the line break.
func firstLine(text []byte) (line []byte, size int) {
	for at := range text {
		if c := text[at]; c >= ' ' && c < utf8.RuneSelf || c >= utf8.RuneSelf && !utf8.RuneStart(c) {
			continue
		}
		if n := lineBreak(text[at:]); n > 0 {
			return text[:at], at + n
		}
	}
	return text, len(text)
}

// countLines returns the number of line breaks in the text.
func countLines(text []byte) (n int) {
	for len(text) > 0 {
		line, size := firstLine(text)
		if size > len(line) {
			n++
		}
		text = text[size:]
	}
	return n
}
