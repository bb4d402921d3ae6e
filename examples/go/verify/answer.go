// Package verify verifies what a directory of kt-es answers, from docs/FORMATS.md alone.
//
// It has no network, no clock and no memory: they are passed in. An answer that is verified comes from the
// signer whose key is known, and from nobody else, whatever the front end, the network or the log did.
package verify

import (
	"bytes"
	"errors"
	"fmt"
)

const maxLookupHashes = 64

// Error is a check that failed. Use nothing of the answer then.
//
// Step is one of "answer", "config", "checkpoint", "rollback", "consistency", "map head", "vrf", "map",
// "entry", "opening", "commitment", "signatures" and "freshness". All others mean that the answer proves
// nothing, or that somebody lies; "freshness" means that it cannot be told what stands now.
type Error struct {
	Step  string
	Cause error
}

func (e *Error) Error() string { return e.Step + ": " + e.Cause.Error() }

func (e *Error) Unwrap() error { return e.Cause }

// Answer is the answer to a lookup as it came.
type Answer struct {
	Epoch       uint64
	Answer      []byte
	Profile     []byte // nil if there is none
	Consistency [][]byte
}

// Question is what the answer must be about.
type Question struct {
	Label string // normalized
	Epoch uint64 // 0 for the latest one, which must be fresh
	Now   int64  // ms since 1970
}

// Lookup is what an answer proves.
type Lookup struct {
	Head    Head
	Index   Hash
	Version uint64 // 0 if nobody has published keys for the label
	Keys    []PublicKey
	Profile []ProfileKey
	Erased  bool
}

// lookupAnswer is the decoded answer of FORMATS, "Lookup answer".
type lookupAnswer struct {
	checkpoint string
	smh        []byte
	inclusion  []Hash
	vrfProof   []byte
	mapProof   mapProof
	mutation   []byte // nil if the label is absent
	opening    []byte // nil if there is no profile to open
	erasure    *erasureProof
}

func (r *reader) hashes(most uint64) (hashes []Hash) {
	for range r.array(0, most) {
		hashes = append(hashes, r.hash())
	}
	return hashes
}

func decodeAnswer(data []byte) (lookupAnswer, error) {
	r := &reader{rest: data}
	fields := r.array(7, 8)
	answer := lookupAnswer{
		checkpoint: r.text(), smh: r.bytes(), inclusion: r.hashes(maxLookupHashes),
		vrfProof: r.fixed(vrfProofSize), mapProof: r.mapProof(),
	}
	if !r.null() {
		answer.mutation = r.bytes()
	}
	if !r.null() {
		answer.opening = r.fixed(16)
	}
	if fields == 8 {
		answer.erasure = r.erasureProof()
	}
	if answer.mutation == nil && (answer.opening != nil || answer.erasure != nil) {
		r.fail("an opening or an erasure of nothing")
	}
	if answer.opening != nil && answer.erasure != nil {
		r.fail("an opening of what was erased")
	}
	if answer.mutation != nil && answer.mapProof.other != nil {
		r.fail("a mutation and another leaf")
	}
	return answer, r.end()
}

// Verify verifies an answer to a question. It returns what is to be trusted from now on, which has to be stored
// before the lookup is used.
func (c *Chain) Verify(trusted Trusted, asked Question, came Answer) (Trusted, Lookup, error) {
	answer, err := decodeAnswer(came.Answer)
	if err != nil {
		return trusted, Lookup{}, &Error{"answer", err}
	}
	after, head, position, err := c.verifyHead(trusted, asked, came, answer)
	if err != nil {
		return trusted, Lookup{}, err
	}
	index, err := labelIndex(c.configs[position].VRFKey, asked.Label, answer.vrfProof)
	if err != nil {
		return trusted, Lookup{}, &Error{"vrf", err}
	}
	found := Lookup{Head: head, Index: index}
	if err := c.verifyEntry(&found, asked.Label, came.Profile, answer, after.Checkpoint); err != nil {
		return trusted, Lookup{}, err
	}
	if asked.Epoch == 0 {
		if err := c.checkFresh(head, position, asked.Now); err != nil {
			return trusted, Lookup{}, err
		}
	}
	return after, found, nil
}

// verifyHead is about the log of map heads: steps 2 to 5 of FORMATS, but for the freshness.
func (c *Chain) verifyHead(
	trusted Trusted, asked Question, came Answer, answer lookupAnswer,
) (Trusted, Head, int, error) {
	refused := func(step, why string) (Trusted, Head, int, error) {
		return trusted, Head{}, 0, &Error{step, errors.New(why)}
	}
	head, position, err := c.openHead(answer.smh)
	if err != nil {
		return trusted, Head{}, 0, err
	}
	proof, err := hashesOf(came.Consistency)
	if err != nil {
		return refused("consistency", err.Error())
	}
	checkpoint, _, err := c.log(trusted, position, answer.checkpoint, proof)
	if err != nil {
		return trusted, Head{}, 0, err
	}
	wanted := asked.Epoch
	if wanted == 0 {
		wanted = checkpoint.Size
	}
	if head.Epoch != wanted || came.Epoch != wanted {
		return refused("map head", fmt.Sprintf("the answer is about epoch %d, not %d", head.Epoch, wanted))
	}
	if err := checkIncluded(checkpoint, head.Epoch, answer.smh, answer.inclusion); err != nil {
		return trusted, Head{}, 0, err
	}
	after := Trusted{checkpoint, trusted.Config, trusted.SMH}
	if head.Epoch == checkpoint.Size {
		if err := c.checkOrder(trusted, answer.smh, head, position); err != nil {
			return trusted, Head{}, 0, err
		}
		after.Config, after.SMH = max(position, trusted.Config), bytes.Clone(answer.smh)
	}
	return after, head, position, nil
}

// verifyEntry is about what stands at the index: steps 7 to 9 of FORMATS.
func (c *Chain) verifyEntry(
	found *Lookup, label string, profile []byte, answer lookupAnswer, checkpoint Checkpoint,
) error {
	var entryHash *Hash
	var mutation mutation
	var err error
	if answer.mutation != nil {
		if mutation, err = decodeMutation(answer.mutation); err != nil {
			return &Error{"answer", err}
		}
		if mutation.entry.index != found.Index {
			return &Error{"entry", errors.New("the entry is of another label")}
		}
		if (mutation.entry.version == 1) != (mutation.entry.previous == nil) {
			return &Error{"entry", errors.New("only the first version has no previous one")}
		}
		if (mutation.entry.version == 1) != (mutation.entry.previous == nil) {
			return &Error{"entry", errors.New("only the first version has no previous one")}
		}
		entryHash = &mutation.entry.hash
	}
	root, err := answer.mapProof.root(found.Index, entryHash)
	if err == nil && root != found.Head.MapRoot {
		err = errors.New("the map proof does not lead to the map of the head")
	}
	if err != nil {
		return &Error{"map", err}
	}
	if answer.mutation == nil {
		if profile != nil {
			return &Error{"commitment", errors.New("a profile of an absent label")}
		}
		return nil
	}
	found.Version, found.Keys = mutation.entry.version, mutation.entry.keys
	switch {
	case answer.opening != nil:
		if found.Profile, err = mutation.entry.open(answer.opening, label, profile); err != nil {
			return &Error{"commitment", err}
		}
	case answer.erasure != nil:
		if profile != nil {
			return &Error{"commitment", errors.New("a profile that was erased")}
		}
		err := c.verifyErasure(*answer.erasure, mutation.entry, answer.smh, found.Head, checkpoint)
		if err != nil {
			return &Error{"opening", err}
		}
		found.Erased = true
	default:
		return &Error{"opening", errors.New("the profile is withheld, and no erasure is proven")}
	}
	if err := mutation.checkSigners(found.Head.Origin); err != nil {
		return &Error{"signatures", err}
	}
	return nil
}

func hashesOf(parts [][]byte) ([]Hash, error) {
	hashes := make([]Hash, len(parts))
	for position, part := range parts {
		if len(part) != len(Hash{}) {
			return nil, errors.New("a hash does not have 32 bytes")
		}
		hashes[position] = Hash(part)
	}
	return hashes, nil
}
