package verify

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

const (
	maxProfile     = 512 * 1024
	maxProfileKeys = 256
	maxErasure     = 1024
	maxRecord      = 17 * 1024
	kindErasure    = 5
	verdictErased  = 4
)

var (
	commitmentKey = []byte("\xd8\x21\xf8\x79\x0d\x97\x70\x97\x96\xb4\xd7\x90\x33\x57\xc3\xf5")
	profileTypes  = []string{"openpgp", "ssh", "age", "x25519", "pem", "raw"}
)

// ProfileKey is one key of a profile. Its bytes are what the type says; nothing has checked them.
type ProfileKey struct {
	Name, Type string
	Data       []byte
}

func decodeProfile(data []byte) (keys []ProfileKey, err error) {
	if len(data) > maxProfile {
		return nil, errTooLarge
	}
	r := &reader{rest: data}
	for range r.array(0, maxProfileKeys) {
		r.array(3, 3)
		key := ProfileKey{r.text(), r.text(), r.bytes()}
		if len(key.Name) > 255 || (r.err == nil && !slices.Contains(profileTypes, key.Type)) {
			r.fail("a key of the profile has a name that is too long or an unknown type")
		}
		keys = append(keys, key)
	}
	return keys, r.end()
}

// Commitment commits to a profile: FORMATS, "Profiles, commitments and openings".
func Commitment(opening []byte, label string, version uint64, profile []byte) Hash {
	mac := hmac.New(sha256.New, commitmentKey)
	mac.Write(opening)
	mac.Write([]byte{byte(len(label))})
	mac.Write([]byte(label))
	mac.Write(binary.BigEndian.AppendUint32(nil, uint32(version)))
	mac.Write(binary.BigEndian.AppendUint32(nil, uint32(len(profile))))
	mac.Write(profile)
	return Hash(mac.Sum(nil))
}

// entry is one of FORMATS, "Entries and mutations".
type entry struct {
	hash       Hash
	index      Hash
	version    uint64
	commitment Hash
	keys       []PublicKey
	previous   *Hash
}

func decodeEntry(data []byte) (entry, error) {
	r := &reader{rest: data}
	r.array(5, 5)
	e := entry{
		hash: hashOf(data), index: r.hash(), version: r.uint(), commitment: r.hash(), keys: r.publicKeys(32),
	}
	if r.err == nil && (e.version < 1 || e.version > math.MaxUint32) {
		r.fail("the version is out of bounds")
	}
	if !r.null() {
		previous := r.hash()
		e.previous = &previous
	}
	return e, r.end()
}

// open checks that the commitment is to profile, and decodes it.
func (e entry) open(opening []byte, label string, profile []byte) ([]ProfileKey, error) {
	if profile == nil {
		return nil, errors.New("the profile is missing")
	}
	if Commitment(opening, label, e.version, profile) != e.commitment {
		return nil, errors.New("the entry commits to another profile")
	}
	keys, err := decodeProfile(profile)
	if err != nil {
		return nil, fmt.Errorf("the profile is not a valid one: %w", err)
	}
	return keys, nil
}

type mutation struct {
	entry      entry
	bytes      []byte // of the entry
	signatures []signature
}

func decodeMutation(data []byte) (m mutation, err error) {
	if len(data) > maxItem {
		return mutation{}, errTooLarge
	}
	r := &reader{rest: data}
	r.array(2, 2)
	m.bytes, m.signatures = r.bytes(), r.signatures()
	if err := r.end(); err != nil {
		return mutation{}, err
	}
	m.entry, err = decodeEntry(m.bytes)
	return m, err
}

// checkSigners is step 9 of FORMATS for an entry that was not seen before.
func (m mutation) checkSigners(origin string) error {
	message := signedMessage("entry", origin, m.bytes)
	signed := 0
	for _, signature := range m.signatures {
		named, valid := false, false
		for _, key := range m.entry.keys {
			if key.ID() == signature.key {
				named = true
				valid = valid || key.verifies(message, signature.value)
			}
		}
		switch {
		case valid:
			signed++
		case named:
			return errors.New("a signature of the entry is wrong")
		case m.entry.version == 1:
			return errors.New("the first version has a signature by a key that it does not name")
		}
	}
	if signed == 0 {
		return errors.New("no key of the entry signed it")
	}
	return nil
}

// erasureProof is the eighth field of a lookup answer.
type erasureProof struct {
	record         []byte
	inclusion      []Hash
	smh            []byte // nil for the head of the answer
	headsInclusion []Hash
}

func (r *reader) erasureProof() *erasureProof {
	r.array(4, 4)
	proof := &erasureProof{record: r.bytes(), inclusion: r.hashes(maxLookupHashes)}
	if !r.null() {
		proof.smh = r.bytes()
	}
	proof.headsInclusion = r.hashes(maxLookupHashes)
	return proof
}

// verifyErasure checks that the log of mutations has the erasure of the entry's profile.
func (c *Chain) verifyErasure(p erasureProof, e entry, smh []byte, head Head, checkpoint Checkpoint) error {
	if p.smh != nil {
		if bytes.Equal(p.smh, smh) {
			return errors.New("the head of the answer is shown twice")
		}
		other, _, err := c.openHead(p.smh)
		if err != nil {
			return err
		}
		if err := checkIncluded(checkpoint, other.Epoch, p.smh, p.headsInclusion); err != nil {
			return err
		}
		head = other
	} else if len(p.headsInclusion) != 0 {
		return errProof
	}
	sequence, item, err := decodeErased(p.record)
	if err != nil {
		return err
	}
	root, err := rootFromInclusion(sequence, head.LogSize, leafHash(p.record), p.inclusion)
	if err != nil {
		return err
	}
	if root != head.LogRoot {
		return errors.New("the record of the erasure is not in the log of mutations")
	}
	return checkErasure(item, head.Origin, e)
}

// decodeErased returns the sequence and the item of a record, whose verdict must be "erased".
func decodeErased(record []byte) (uint64, []byte, error) {
	if len(record) > maxRecord {
		return 0, nil, errTooLarge
	}
	r := &reader{rest: record}
	r.array(6, 6)
	sequence := r.uint()
	r.uint() // queue revision
	r.uint() // position
	kind, verdict, item := r.uint(), r.uint(), r.bytes()
	if kind != kindErasure || verdict != verdictErased {
		r.fail("the record is no erasure that took place")
	}
	return sequence, item, r.end()
}

func checkErasure(item []byte, origin string, e entry) error {
	if len(item) > maxErasure {
		return errTooLarge
	}
	r := &reader{rest: item}
	r.array(3, 3)
	payload, key, signature := r.bytes(), r.publicKey(), r.fixed(64)
	if err := r.end(); err != nil {
		return err
	}
	inner := &reader{rest: payload}
	inner.array(3, 3)
	index, hash, reason := inner.hash(), inner.hash(), inner.uint()
	if reason > 3 {
		inner.fail("unknown reason %d", reason)
	}
	if err := inner.end(); err != nil {
		return err
	}
	if index != e.index || hash != e.hash {
		return errors.New("the erasure is of another entry")
	}
	if !key.verifies(signedMessage("erasure", origin, payload), signature) {
		return errors.New("the signature of the erasure is wrong")
	}
	return nil
}
