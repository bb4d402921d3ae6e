package verify

import "crypto/ed25519"

// EncodeProfile encodes a profile: FORMATS, "Profiles, commitments and openings".
func EncodeProfile(keys []ProfileKey) []byte {
	profile := appendHead(nil, majorArray, uint64(len(keys)))
	for _, key := range keys {
		profile = appendHead(profile, majorArray, 3)
		profile = appendBytes(appendText(appendText(profile, key.Name), key.Type), key.Data)
	}
	return profile
}

// FirstMutation makes the signed first entry at an index, for one Ed25519 key: FORMATS, "Entries and mutations".
func FirstMutation(origin string, index, commitment Hash, key ed25519.PrivateKey) []byte {
	public := PublicKey{algorithmEd25519, key.Public().(ed25519.PublicKey)}
	entry := appendBytes(appendHead(nil, majorArray, 5), index[:])
	entry = appendBytes(appendHead(entry, majorUint, 1), commitment[:])
	entry = append(appendHead(entry, majorArray, 1), public.encode()...)
	entry = append(entry, null)
	id := public.ID()
	mutation := appendBytes(appendHead(nil, majorArray, 2), entry)
	mutation = appendHead(appendHead(mutation, majorArray, 1), majorArray, 2)
	return appendBytes(appendBytes(mutation, id[:]), ed25519.Sign(key, signedMessage("entry", origin, entry)))
}
