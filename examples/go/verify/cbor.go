package verify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

// The major types of CBOR that FORMATS, "Encoding" allows.
const (
	majorUint  = 0
	majorBytes = 2
	majorText  = 3
	majorArray = 4
	null       = 0xf6
)

// reader reads values of FORMATS, "Encoding". It accepts the one encoding of each value and nothing else, so
// encoding what it has read gives the same bytes.
//
// The first error stays, and every later read returns a zero value. So a decoder reads all fields and then
// asks end for the error.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) fail(format string, arguments ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, arguments...)
		r.rest = nil
	}
}

// end returns the first error. Bytes that are left over are one.
func (r *reader) end() error {
	if r.err == nil && len(r.rest) != 0 {
		r.fail("%d bytes follow the value", len(r.rest))
	}
	return r.err
}

// head reads the head of a value of the given major type: an integer or a length, in its shortest form.
func (r *reader) head(major byte) uint64 {
	if r.err != nil {
		return 0
	}
	if len(r.rest) == 0 {
		r.fail("the value ends too early")
		return 0
	}
	first := r.rest[0]
	if first>>5 != major {
		r.fail("major type %d where %d belongs", first>>5, major)
		return 0
	}
	short := first & 0x1f
	if short < 24 {
		r.rest = r.rest[1:]
		return uint64(short)
	}
	if short > 27 {
		r.fail("indefinite or reserved length")
		return 0
	}
	size := 1 << (short - 24)
	if len(r.rest) < 1+size {
		r.fail("the value ends too early")
		return 0
	}
	var wide [8]byte
	copy(wide[8-size:], r.rest[1:1+size])
	value := binary.BigEndian.Uint64(wide[:])
	least := uint64(24)
	if size > 1 {
		least = 1 << (4 * size)
	}
	if value < least {
		r.fail("a number is not in its shortest form")
		return 0
	}
	r.rest = r.rest[1+size:]
	return value
}

func (r *reader) uint() uint64 { return r.head(majorUint) }

func (r *reader) take(size uint64) []byte {
	if r.err != nil {
		return nil
	}
	if size > uint64(len(r.rest)) {
		r.fail("the value ends too early")
		return nil
	}
	taken := r.rest[:size:size]
	r.rest = r.rest[size:]
	return taken
}

func (r *reader) bytes() []byte { return r.take(r.head(majorBytes)) }

// fixed reads a byte string of size bytes.
func (r *reader) fixed(size int) []byte {
	taken := r.bytes()
	if r.err == nil && len(taken) != size {
		r.fail("%d bytes where %d belong", len(taken), size)
		return nil
	}
	return taken
}

func (r *reader) hash() (hash Hash) {
	copy(hash[:], r.fixed(len(hash)))
	return hash
}

func (r *reader) text() string {
	taken := r.take(r.head(majorText))
	if !utf8.Valid(taken) {
		r.fail("a text is no UTF-8")
		return ""
	}
	return string(taken)
}

// array reads the head of an array and returns its number of items, least to most.
func (r *reader) array(least, most uint64) int {
	count := r.head(majorArray)
	if r.err == nil && (count < least || count > most) {
		r.fail("an array of %d where %d to %d belong", count, least, most)
		return 0
	}
	return int(count)
}

// null reads a null if there is one, and returns whether there was.
func (r *reader) null() bool {
	if r.err == nil && len(r.rest) > 0 && r.rest[0] == null {
		r.rest = r.rest[1:]
		return true
	}
	return false
}

// appendHead appends the head of a value.
func appendHead(to []byte, major byte, value uint64) []byte {
	major <<= 5
	switch {
	case value < 24:
		return append(to, major|byte(value))
	case value < 1<<8:
		return append(to, major|24, byte(value))
	case value < 1<<16:
		return binary.BigEndian.AppendUint16(append(to, major|25), uint16(value))
	case value < 1<<32:
		return binary.BigEndian.AppendUint32(append(to, major|26), uint32(value))
	}
	return binary.BigEndian.AppendUint64(append(to, major|27), value)
}

func appendBytes(to, value []byte) []byte {
	return append(appendHead(to, majorBytes, uint64(len(value))), value...)
}

func appendText(to []byte, value string) []byte {
	return append(appendHead(to, majorText, uint64(len(value))), value...)
}

var errTooLarge = errors.New("too many bytes")
