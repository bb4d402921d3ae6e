package verify

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
)

const (
	suite       = "KTES_1"
	maxConfigs  = 1024
	maxItem     = 16 * 1024
	maxTime     = 253402300799999 // ms: the end of the year 9999
	maxInterval = 2592000000      // ms: 30 days
)

var originSyntax = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*$`)

// Config is one of a directory: FORMATS, "Config".
type Config struct {
	Origin      string
	Policy      string // of labels: "text" or "email"
	Signer      PublicKey
	VRFKey      []byte
	MaxInterval uint64 // ms between two heads
	hash        Hash
	previous    *Hash
}

// Chain is the chain of all configs, the oldest first, from the pinned one on.
type Chain struct {
	configs []Config
	pinned  int // position of the first config whose signer key is the pinned one
}

func (c *Chain) last() Config { return c.configs[len(c.configs)-1] }

// Policy is how the labels of the directory are normalized. It never changes.
func (c *Chain) Policy() string { return c.last().Policy }

// position returns where in the chain the config with this hash stands.
func (c *Chain) position(hash Hash) (int, error) {
	for position, config := range c.configs {
		if config.hash == hash {
			return position, nil
		}
	}
	return 0, errors.New("the head names a config that the directory does not show")
}

// keysFrom returns the signer keys of the config at a position and of all later ones.
func (c *Chain) keysFrom(position int) (keys [][]byte) {
	for _, config := range c.configs[position:] {
		keys = append(keys, config.Signer.Raw)
	}
	return keys
}

// VerifyChain verifies the configs that a directory shows, against the pinned key.
func VerifyChain(pinned Pinned, configs []byte) (*Chain, error) {
	chain, err := verifyChain(pinned, configs)
	if err != nil {
		return nil, &Error{"config", err}
	}
	return chain, nil
}

func verifyChain(pinned Pinned, configs []byte) (*Chain, error) {
	chain := &Chain{pinned: -1}
	r := &reader{rest: configs}
	for number := range r.array(1, maxConfigs) {
		encoded := r.bytes()
		if r.err != nil {
			return nil, r.err
		}
		config, signatures, payload, err := signedConfig(encoded)
		if err != nil {
			return nil, fmt.Errorf("config %d: %w", number, err)
		}
		message := signedMessage("config", pinned.Origin, payload)
		if config.Origin != pinned.Origin || !isSignedBy(signatures, config.Signer, message) {
			return nil, fmt.Errorf("config %d is not signed by its own key for %s", number, pinned.Origin)
		}
		if number == 0 {
			if config.previous != nil {
				return nil, errors.New("the first config is not shown")
			}
		} else if err := follows(config, chain.last(), signatures, message); err != nil {
			return nil, fmt.Errorf("config %d: %w", number, err)
		}
		if chain.pinned < 0 && bytes.Equal(config.Signer.Raw, pinned.key) {
			chain.pinned = number
		}
		chain.configs = append(chain.configs, config)
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	if chain.pinned < 0 {
		return nil, errors.New("no config has the key that is known of this directory")
	}
	return chain, nil
}

// follows checks a change of the config. Its own signature is checked already.
func follows(config, before Config, signatures []signature, message []byte) error {
	if config.previous == nil || *config.previous != before.hash {
		return errors.New("it does not follow the one before")
	}
	if config.Policy != before.Policy || !bytes.Equal(config.VRFKey, before.VRFKey) {
		return errors.New("it changes the VRF key or the policy of labels")
	}
	if !isSignedBy(signatures, before.Signer, message) {
		return errors.New("it is not signed by the key before")
	}
	return nil
}

func signedConfig(encoded []byte) (config Config, signatures []signature, payload []byte, err error) {
	if len(encoded) > maxItem {
		return Config{}, nil, nil, errTooLarge
	}
	r := &reader{rest: encoded}
	r.array(2, 2)
	payload = r.bytes()
	signatures = r.signatures()
	if err := r.end(); err != nil {
		return Config{}, nil, nil, err
	}
	named := map[[8]byte]bool{}
	for _, signature := range signatures {
		if named[signature.key] {
			return Config{}, nil, nil, errors.New("two signatures name one key")
		}
		named[signature.key] = true
	}
	config, err = decodeConfig(payload)
	return config, signatures, payload, err
}

func decodeConfig(payload []byte) (Config, error) {
	r := &reader{rest: payload}
	config := Config{hash: hashOf(payload)}
	r.array(9, 9)
	config.Origin = r.text()
	if r.text() != suite {
		r.fail("not the suite %s", suite)
	}
	keys := r.publicKeys(8)
	config.VRFKey = r.fixed(32)
	config.Policy = r.text()
	minInterval := r.uint()
	config.MaxInterval = r.uint()
	maxMergeDelay := r.uint()
	if !r.null() {
		previous := r.hash()
		config.previous = &previous
	}
	if err := r.end(); err != nil {
		return Config{}, err
	}
	config.Signer = keys[0]
	ids := map[[8]byte]bool{}
	for _, key := range keys {
		if key.Algorithm != algorithmEd25519 || validPoint(key.Raw) == nil || ids[key.ID()] {
			return Config{}, errors.New("a signer key is no valid point, or its id is taken")
		}
		ids[key.ID()] = true
	}
	if validPoint(config.VRFKey) == nil {
		return Config{}, errors.New("the VRF key is no valid point")
	}
	if len(config.Origin) > 255 || !originSyntax.MatchString(config.Origin) {
		return Config{}, errors.New("the origin is malformed")
	}
	if config.Policy != "text" && config.Policy != "email" {
		return Config{}, errors.New("the policy of labels is unknown")
	}
	if minInterval > config.MaxInterval || config.MaxInterval < 1 || config.MaxInterval > maxInterval ||
		maxMergeDelay < 1 || maxMergeDelay > maxInterval {
		return Config{}, errors.New("an interval is out of bounds")
	}
	return config, nil
}
