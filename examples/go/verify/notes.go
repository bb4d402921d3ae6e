package verify

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	maxNote      = 256 * 1024
	maxNoteLines = 64
	noteEd25519  = 1
)

// Checkpoint is what a signed note says of a log: FORMATS, "Checkpoints".
type Checkpoint struct {
	Size uint64
	Root Hash
}

func unbase64(text string) ([]byte, error) {
	data, err := base64.StdEncoding.Strict().DecodeString(text)
	// The decoder skips line breaks, which no canonical encoding has.
	if err != nil || base64.StdEncoding.EncodeToString(data) != text {
		return nil, fmt.Errorf("%q is no canonical base64", text)
	}
	return data, nil
}

// noteKeyHash is the key hash of an Ed25519 key in the notes of name.
func noteKeyHash(name string, key []byte) []byte {
	hash := hashOf([]byte(name), []byte{'\n', noteEd25519}, key)
	return hash[:4]
}

// Pinned is what a client has to know of a directory before it can verify anything.
type Pinned struct {
	Origin string
	key    []byte
}

// ParseVerifierKey reads a verifier key: `<origin>/heads+<key hash>+<key>`.
func ParseVerifierKey(text string) (Pinned, error) {
	name, rest, _ := strings.Cut(text, "+")
	keyHash, encoded, _ := strings.Cut(rest, "+")
	key, err := unbase64(encoded)
	origin, isHeads := strings.CutSuffix(name, "/heads")
	if err != nil || !isHeads || len(key) != 33 || key[0] != noteEd25519 || validPoint(key[1:]) == nil ||
		keyHash != hex.EncodeToString(noteKeyHash(name, key[1:])) {
		return Pinned{}, fmt.Errorf("%q is no Ed25519 verifier key of a log of heads", text)
	}
	return Pinned{origin, key[1:]}, nil
}

// openCheckpoint verifies a signed note of the log called name under the given keys, and returns what it says.
// A line with the name and key hash of one of the keys must verify, and there must be one.
func openCheckpoint(note, name string, keys [][]byte) (Checkpoint, error) {
	if len(note) > maxNote || !utf8.ValidString(note) {
		return Checkpoint{}, errors.New("the note is too long or no UTF-8")
	}
	// The last empty line divides, since signature lines are not empty.
	at := strings.LastIndex(note, "\n\n")
	if at < 0 || !strings.HasSuffix(note, "\n") {
		return Checkpoint{}, errors.New("the note has no signatures")
	}
	text, lines := note[:at+1], strings.Split(strings.TrimSuffix(note[at+2:], "\n"), "\n")
	if len(lines) > maxNoteLines {
		return Checkpoint{}, errors.New("the note has too many signatures")
	}
	isSigned := false
	for _, line := range lines {
		parts := strings.Split(line, " ")
		if len(parts) != 3 || parts[0] != "—" || parts[1] == "" {
			return Checkpoint{}, errors.New("the note has a line that is no signature")
		}
		data, err := unbase64(parts[2])
		if err != nil || len(data) < 5 {
			return Checkpoint{}, errors.New("the note has a malformed signature")
		}
		for _, key := range keys {
			if parts[1] == name && bytes.Equal(data[:4], noteKeyHash(name, key)) {
				if !verifiesEd25519(key, []byte(text), data[4:]) {
					return Checkpoint{}, errors.New("a signature of the note is wrong")
				}
				isSigned = true
			}
		}
	}
	if !isSigned {
		return Checkpoint{}, errors.New("no key of the directory signed the note")
	}
	body := strings.Split(text, "\n")
	if len(body) != 4 || body[0] != name {
		return Checkpoint{}, errors.New("the note is no checkpoint of " + name)
	}
	size, err := strconv.ParseUint(body[1], 10, 64)
	if err != nil || strconv.FormatUint(size, 10) != body[1] {
		return Checkpoint{}, errors.New("the size of the checkpoint is no number")
	}
	root, err := unbase64(body[2])
	if err != nil || len(root) != len(Hash{}) {
		return Checkpoint{}, errors.New("the root of the checkpoint is no hash")
	}
	return Checkpoint{size, Hash(root)}, nil
}
