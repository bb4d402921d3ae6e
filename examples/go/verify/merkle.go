package verify

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"math/bits"
)

// Hash is a SHA-256 hash, of a leaf, a node or anything else.
type Hash [sha256.Size]byte

func hashOf(parts ...[]byte) Hash { return sha256.Sum256(bytes.Join(parts, nil)) }

func leafHash(leaf []byte) Hash { return hashOf([]byte{0}, leaf) }

func nodeHash(left, right Hash) Hash { return hashOf([]byte{1}, left[:], right[:]) }

var errProof = errors.New("the proof has too many or too few hashes")

// rootFromInclusion computes the root of a log of size leaves from the leaf at a position: RFC 9162, 2.1.3.2.
func rootFromInclusion(position, size uint64, leaf Hash, path []Hash) (Hash, error) {
	if position >= size {
		return Hash{}, errors.New("the leaf is beyond the end of the log")
	}
	fn, sn, root := position, size-1, leaf
	for _, sibling := range path {
		if sn == 0 {
			return Hash{}, errProof
		}
		if fn&1 == 1 || fn == sn {
			root = nodeHash(sibling, root)
			for fn&1 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		} else {
			root = nodeHash(root, sibling)
		}
		fn, sn = fn>>1, sn>>1
	}
	if sn != 0 {
		return Hash{}, errProof
	}
	return root, nil
}

// checkConsistency checks that the log of the second size continues that of the first: RFC 9162, 2.1.4.2. It
// returns the subtrees of new leaves alone, from the left to the right: they are what was appended.
//
// Every log continues the empty one, without a proof.
func checkConsistency(first, second uint64, firstRoot, secondRoot Hash, proof []Hash) ([]Hash, error) {
	switch {
	case first > second:
		return nil, errors.New("the log is smaller than before")
	case first == second:
		if len(proof) != 0 {
			return nil, errProof
		}
		if firstRoot != secondRoot {
			return nil, errors.New("two logs of one size")
		}
		return nil, nil
	case first == 0:
		if len(proof) != 0 {
			return nil, errProof
		}
		return nil, nil
	}
	path := proof
	if bits.OnesCount64(first) == 1 {
		path = append([]Hash{firstRoot}, proof...)
	}
	if len(path) == 0 {
		return nil, errProof
	}
	fn, sn := first-1, second-1
	for fn&1 == 1 {
		fn, sn = fn>>1, sn>>1
	}
	fr, sr := path[0], path[0]
	var added []Hash
	for _, hash := range path[1:] {
		if sn == 0 {
			return nil, errProof
		}
		if fn&1 == 1 || fn == sn {
			fr, sr = nodeHash(hash, fr), nodeHash(hash, sr)
			for fn&1 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		} else {
			sr = nodeHash(sr, hash)
			added = append(added, hash)
		}
		fn, sn = fn>>1, sn>>1
	}
	if sn != 0 || fr != firstRoot || sr != secondRoot {
		return nil, errors.New("the log does not continue the one before")
	}
	return added, nil
}

// mapProof is a proof of FORMATS, "The map".
type mapProof struct {
	siblings []Hash // the zero hash for an empty subtree
	other    *mapLeaf
}

type mapLeaf struct{ index, entry Hash }

func (l mapLeaf) hash() Hash { return hashOf([]byte{0}, l.index[:], l.entry[:]) }

func (r *reader) mapProof() (proof mapProof) {
	r.array(2, 2)
	for range r.array(0, 256) {
		if r.null() {
			proof.siblings = append(proof.siblings, Hash{})
			continue
		}
		sibling := r.hash()
		if sibling == (Hash{}) {
			r.fail("a sibling of zeros")
		}
		proof.siblings = append(proof.siblings, sibling)
	}
	if !r.null() {
		r.array(2, 2)
		proof.other = &mapLeaf{r.hash(), r.hash()}
	}
	return proof
}

func bit(index Hash, position int) byte { return index[position/8] >> (7 - position%8) & 1 }

// root computes the root of the map. entry is the hash of the entry at index, nil if the proof is of absence.
func (p mapProof) root(index Hash, entry *Hash) (Hash, error) {
	depth := len(p.siblings)
	var root Hash
	switch {
	case entry != nil && p.other != nil:
		return Hash{}, errors.New("a proof of absence for an entry")
	case entry != nil:
		root = mapLeaf{index, *entry}.hash()
	case p.other != nil:
		if p.other.index == index {
			return Hash{}, errors.New("the other leaf is the index's own")
		}
		for position := range depth {
			if bit(p.other.index, position) != bit(index, position) {
				return Hash{}, errors.New("the other leaf is not on the path")
			}
		}
		root = p.other.hash()
	}
	if depth > 0 && p.siblings[0] == (Hash{}) {
		return Hash{}, errors.New("the path could be shorter")
	}
	for i, sibling := range p.siblings {
		if bit(index, depth-1-i) == 0 {
			root = nodeHash(root, sibling)
		} else {
			root = nodeHash(sibling, root)
		}
	}
	return root, nil
}
