package verify

import (
	"bytes"
	"errors"
	"fmt"
	"time"
)

const (
	maxSMH = 1024
	slack  = 60_000 // ms by which clocks may differ
)

// Head is a map head: FORMATS, "Map heads".
type Head struct {
	Origin     string
	Epoch      uint64
	MapRoot    Hash
	MapSize    uint64
	LogSize    uint64
	LogRoot    Hash
	QueueNext  uint64
	Timestamp  uint64 // ms
	ConfigHash Hash
}

// Time is when the epoch ended.
func (h Head) Time() time.Time { return time.UnixMilli(int64(h.Timestamp)) }

func decodeHead(payload []byte) (head Head, err error) {
	r := &reader{rest: payload}
	r.array(9, 9)
	head = Head{
		Origin: r.text(), Epoch: r.uint(), MapRoot: r.hash(), MapSize: r.uint(), LogSize: r.uint(),
		LogRoot: r.hash(), QueueNext: r.uint(), Timestamp: r.uint(), ConfigHash: r.hash(),
	}
	if head.Epoch < 1 || head.Timestamp > maxTime {
		r.fail("the epoch or the time is out of bounds")
	}
	return head, r.end()
}

// openHead verifies a signed map head. It returns the position of the config in the chain that it names, too.
func (c *Chain) openHead(smh []byte) (Head, int, error) {
	head, position, err := c.headOf(smh)
	if err != nil {
		return Head{}, 0, &Error{"map head", err}
	}
	return head, position, nil
}

func (c *Chain) headOf(smh []byte) (Head, int, error) {
	if len(smh) > maxSMH {
		return Head{}, 0, errTooLarge
	}
	r := &reader{rest: smh}
	r.array(2, 2)
	payload, signature := r.bytes(), r.fixed(64)
	if err := r.end(); err != nil {
		return Head{}, 0, err
	}
	head, err := decodeHead(payload)
	if err != nil {
		return Head{}, 0, err
	}
	position, err := c.position(head.ConfigHash)
	if err != nil {
		return Head{}, 0, err
	}
	config := c.configs[position]
	if head.Origin != config.Origin {
		return Head{}, 0, errors.New("the head is of another directory")
	}
	if !config.Signer.verifies(signedMessage("map-head", head.Origin, payload), signature) {
		return Head{}, 0, errors.New("the signature of the head is wrong")
	}
	return head, position, nil
}

// Trusted is what a client keeps of a directory, from its last verified answer. The zero value is nothing.
type Trusted struct {
	// Checkpoint of the log of map heads.
	Checkpoint
	// Config is the position in the chain of the config that the last head named. It never goes back.
	Config int
	// SMH is the last head, signed.
	SMH []byte
}

// checkFresh checks the time of a last head. An old one proves no lie, but says nothing about now (in ms).
func (c *Chain) checkFresh(head Head, position int, now int64) error {
	if int64(head.Timestamp) < now-int64(c.configs[position].MaxInterval)-slack {
		return &Error{"freshness", errors.New("the latest head is too old: it cannot be told what stands now")}
	}
	if int64(head.Timestamp) > now+slack {
		return &Error{"freshness", errors.New("the latest head is in the future: check the clock")}
	}
	return nil
}

// checkOrder checks that a last head comes after the one that is trusted.
func (c *Chain) checkOrder(trusted Trusted, smh []byte, head Head, position int) error {
	if position < max(trusted.Config, c.pinned) {
		return &Error{"config", errors.New("the latest head names a config that was replaced")}
	}
	if trusted.SMH == nil || bytes.Equal(trusted.SMH, smh) {
		return nil
	}
	before, _, err := c.openHead(trusted.SMH)
	if err != nil {
		return fmt.Errorf("the trusted head: %w", err)
	}
	if head.Epoch <= before.Epoch || head.Timestamp <= before.Timestamp || head.LogSize <= before.LogSize ||
		head.QueueNext <= before.QueueNext || head.MapSize < before.MapSize {
		return &Error{"map head", errors.New("the head and the one before contradict each other")}
	}
	return nil
}

// log opens a checkpoint of the log of map heads, and checks that the log continues the trusted one. It
// returns the subtrees that hold new leaves only, too.
//
// The signer of the checkpoint is that of the config at position, or a later one, and none that was replaced.
func (c *Chain) log(trusted Trusted, position int, note string, proof []Hash) (Checkpoint, []Hash, error) {
	checkpoint, err := c.open("/heads", position, trusted, note)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	if checkpoint.Size < trusted.Size {
		return Checkpoint{}, nil, &Error{"rollback", errors.New("the log is smaller than the trusted one")}
	}
	added, err := checkConsistency(trusted.Size, checkpoint.Size, trusted.Root, checkpoint.Root, proof)
	if err != nil {
		return Checkpoint{}, nil, &Error{"consistency", err}
	}
	return checkpoint, added, nil
}

func (c *Chain) open(log string, position int, trusted Trusted, note string) (Checkpoint, error) {
	keys := c.keysFrom(max(position, trusted.Config, c.pinned))
	checkpoint, err := openCheckpoint(note, c.last().Origin+log, keys)
	if err != nil {
		return Checkpoint{}, &Error{"checkpoint", err}
	}
	return checkpoint, nil
}

// checkIncluded checks that the head of an epoch stands at its place in the log of map heads.
func checkIncluded(checkpoint Checkpoint, epoch uint64, smh []byte, inclusion []Hash) error {
	root, err := rootFromInclusion(epoch-1, checkpoint.Size, leafHash(smh), inclusion)
	if err == nil && root != checkpoint.Root {
		err = errors.New("the head is not the one in the log of map heads")
	}
	if err != nil {
		return &Error{"map head", err}
	}
	return nil
}
